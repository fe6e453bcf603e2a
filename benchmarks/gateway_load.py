"""What a gateway adds to its callers' calls, and whether it holds under load.

A local Rekognition with 20 ms of latency, `smoothapi serve` in a process of its own, and callers
in threads that ask about photos of their own for a while. Printed are

- the votes a second through the gateway, and those that one wrapped client gets here with as many
  requests in flight: the share is the gateway's own (bar: 85%);
- queueing as the metrics tell it, and memory of the process in the middle and at the end;
- attempts against the budget, which is set below what the callers would send (bar: never passed);
- what of the paid answers is on disk after kill -9 in the middle (bar: all but 2 x concurrency);
- what a call that passes through takes, and what it takes directly (bar: 2 ms).

    python benchmarks/gateway_load.py [--seconds 60] [--callers 64]
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import boto3
import numpy as np
import requests
from botocore.config import Config

from smoothapi import Budget, wrap
from smoothapi.encode import Codec
from smoothapi.services import serve
from smoothapi.store import Home

CONCURRENCY = 32
KEYS = {"AWS_ACCESS_KEY_ID": "AKIAIOSFODNN7EXAMPLE", "AWS_SECRET_ACCESS_KEY": "s" * 40}
CERTIFY = {
    "denoiser": "none",
    "max_votes": 100,
    "radius": 0.05,
    "concurrency": CONCURRENCY,
    "size": 64,
}


def labeller(_: Any) -> Any:
    return [("Bus", 0.97), ("Vehicle", 0.96)]


def photo(seed: int) -> bytes:
    pixels = np.random.default_rng(seed).integers(60, 190, (80, 80, 3), dtype=np.uint8)
    return Codec().encode(pixels)


def client(url: str) -> Any:
    return boto3.client(
        "rekognition",
        endpoint_url=url,
        region_name="us-east-1",
        aws_access_key_id=KEYS["AWS_ACCESS_KEY_ID"],
        aws_secret_access_key=KEYS["AWS_SECRET_ACCESS_KEY"],
        config=Config(retries={"total_max_attempts": 1}, max_pool_connections=128),
    )


def written(folder: Path, url: str, budget: str) -> Path:
    """Write a configuration, and return its file."""
    rows = [f"{name} = {json.dumps(value)}" for name, value in CERTIFY.items()]
    file = folder / "gateway.toml"
    file.write_text(
        "\n".join(
            [
                "[gateway]", "port = 0", 'callers = "anyone"', "workers = 64", "queue = 64", "",
                "[certify]", *rows, f'home = "{folder}/home"', "",
                "[providers.aws]", f'budget = "{budget}"', "passthrough = true", "",
                "[providers.aws.options]", f'endpoint = "{url}"', 'region = "us-east-1"',
                "per_second = 100000",
            ]
        )
    )  # fmt: skip
    return file


class Gateway:
    """`smoothapi serve` in a process of its own."""

    def __init__(self, file: Path) -> None:
        command = [
            sys.executable,
            "-m",
            "smoothapi",
            "serve",
            "aws",
            "--config",
            str(file),
            "--json",
        ]
        self.process = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env={**os.environ, **KEYS}
        )
        assert self.process.stdout is not None
        self.url: str = json.loads(self.process.stdout.readline())["url"]

    def memory(self) -> float:
        """Return MiB of resident memory."""
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        return int(status.partition("VmRSS:")[2].split()[0]) / 1024

    def stop(self, number: int = signal.SIGTERM) -> None:
        self.process.send_signal(number)
        self.process.wait(60)


def load(url: str, callers: int, seconds: float) -> tuple[int, list[float]]:
    """Have callers ask for a while; return how many calls were certified, and what each took."""
    ends = time.monotonic() + seconds
    took: list[float] = []

    def ask(number: int) -> None:
        own, seed = client(url), 1_000_000 * (number + 1)
        while time.monotonic() < ends:
            began = time.monotonic()
            try:
                own.detect_labels(Image={"Bytes": photo(seed)})
            except Exception:  # noqa: BLE001  what it was does not matter here
                time.sleep(0.05)
            else:
                took.append(time.monotonic() - began)
            seed += 1

    threads = [threading.Thread(target=ask, args=(i,)) for i in range(callers)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return len(took), took


def percentile(values: list[float], share: float) -> float:
    return sorted(values)[min(len(values) - 1, int(share * len(values)))] if values else 0.0


def of_wrap(url: str, seconds: float, home: Path) -> None:
    """Certify photos by one wrapped client, from as many threads as keep it busy."""
    ends = time.monotonic() + seconds
    with wrap(client(url), budget=Budget(), home=home, **CERTIFY) as wrapped:

        def ask(number: int) -> None:
            seed = 10**9 + 10**6 * number
            while time.monotonic() < ends:
                wrapped.detect_labels(Image={"Bytes": photo(seed)})
                seed += 1

        threads = [threading.Thread(target=ask, args=(i,)) for i in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--callers", type=int, default=64)
    options = parser.parse_args()
    seconds = options.seconds

    with (
        tempfile.TemporaryDirectory() as folder,
        serve("aws", labeller, latency=0.02, keep=0) as service,
    ):
        place = Path(folder)
        os.environ["SMOOTHAPI_HOME"] = str(place / "wrap")
        of_wrap(service.url, seconds / 4, place / "wrap")
        possible = service.requests / (seconds / 4)
        gateway = Gateway(written(place, service.url, "unlimited"))
        before = service.requests
        half: list[float] = []
        timer = threading.Timer(seconds / 2, lambda: half.append(gateway.memory()))
        timer.start()
        calls, took = load(gateway.url, options.callers, seconds)
        timer.join()
        votes = (service.requests - before) / seconds
        print(f"{votes:,.0f} requests a second through the gateway, {possible:,.0f} through wrap: "
              f"{100 * votes / possible:.0f}%; {calls:,} calls, p50 {percentile(took, 0.5):.2f} s, "
              f"p99 {percentile(took, 0.99):.2f} s")  # fmt: skip
        print(f"memory: {half[0]:.0f} MiB in the middle, {gateway.memory():.0f} MiB at the end")
        for line in requests.get(f"{gateway.url}/metrics", timeout=20).text.splitlines():
            if line.startswith(
                ("smoothapi_gateway_queued_seconds_sum", "smoothapi_gateway_queued_seconds_count")
            ):
                print(line)

        direct, through = [], []
        body = json.dumps({"Image": {"Bytes": ""}})
        headers = {
            "X-Amz-Target": "RekognitionService.DetectText",
            "content-type": "application/x-amz-json-1.1",
        }
        with requests.Session() as session:
            for _ in range(300):
                for url, times in ((service.url, direct), (gateway.url, through)):
                    began = time.monotonic()
                    session.post(url, data=body, headers=headers, timeout=20)
                    times.append(1000 * (time.monotonic() - began))
        print(
            f"passing through: {statistics.median(through):.2f} ms, directly {statistics.median(direct):.2f} ms"
        )
        gateway.stop()

    with (
        tempfile.TemporaryDirectory() as folder,
        serve("aws", labeller, latency=0.02, keep=0) as service,
    ):
        gateway = Gateway(written(Path(folder), service.url, "500/day"))
        load(gateway.url, options.callers, seconds / 6)
        gateway.stop()
        print(f"budget of 500 attempts: {service.requests} were made")

    with (
        tempfile.TemporaryDirectory() as folder,
        serve("aws", labeller, latency=0.02, keep=0) as service,
    ):
        place = Path(folder)
        gateway = Gateway(written(place, service.url, "unlimited"))
        timer = threading.Timer(seconds / 6, lambda: gateway.stop(signal.SIGKILL))
        timer.start()
        load(gateway.url, options.callers, seconds / 6)
        timer.join()
        billed = service.billed
        with Home(place / "home") as home:
            kept = (
                sum(1 for _ in home.answers.rows())
                if hasattr(home.answers, "rows")
                else len(home.answers)
            )
        print(
            f"kill -9: {billed:,} answers were paid for, {kept:,} are on disk, {billed - kept:,} lost"
        )


if __name__ == "__main__":
    main()
