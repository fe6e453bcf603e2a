"""Acme Vision as a provider: POST a picture, get {"version": ..., "labels": [{name, score}]}."""

import os
from decimal import Decimal

import requests

from smoothapi import Answer, Label, Limits, Price
from smoothapi.errors import FatalError, PermanentError, ThrottledError, TransientError
from smoothapi.provider import retry_after_seconds


class AcmeAdapter:
    name, limits = "acme", Limits(max_bytes=2_000_000, per_second=50)
    price = Price(Decimal("0.80"), as_of="2026-11-22")

    def __init__(self, url="https://vision.acme.example/label", timeout=10):
        self.identity = {"operation": "label", "url": url}  # what decides an answer; no secret
        self._request = {"url": url, "timeout": float(timeout), "allow_redirects": False}
        self._session = requests.Session()  # sends once; with a connection for each that asks:
        self.close = self._session.close
        self._session.mount(url, requests.adapters.HTTPAdapter(pool_maxsize=256))

    def ask(self, payloads):
        key = {"X-Key": os.environ.get("ACME_KEY", "")}
        try:
            reply = self._session.post(data=payloads[0], headers=key, **self._request)
            if reply.status_code == 200:
                data = reply.json()
                labels = [Label(item["name"], item["score"]) for item in data["labels"]]
                return [Answer(labels, data["version"])]
        except (requests.RequestException, LookupError, TypeError, ValueError) as error:
            raise TransientError(f"Acme gave no answer ({type(error).__name__}).") from error
        code, wait = reply.status_code, retry_after_seconds(reply.headers.get("Retry-After"))
        if code == 429:
            raise ThrottledError("Acme asks to slow down.", retry_after=wait)
        kind = TransientError if code >= 500 else PermanentError if code == 422 else FatalError
        raise kind(f"Acme refuses with status {code}.")
