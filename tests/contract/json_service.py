"""A labelling service of our own over plain HTTP; it can misbehave in every way that TCP allows."""

from __future__ import annotations

import base64
import email
import email.policy
import io
import json
import socket
import struct
import threading
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
from PIL import Image

from smoothapi.services import Fault, by_colour


@dataclass
class Received:
    method: str
    path: str
    headers: dict
    body: bytes
    pictures: list = field(default_factory=list)


class Service:
    """What is received, and what it is answered with.

    `behave(handler, received)` answers instead of the labeller if it is set; `fault` befalls all
    requests.
    """

    def __init__(self, labeller=by_colour):
        self.labeller = labeller
        self.received: list[Received] = []
        self.behave = None
        self.fault = None
        self.connections = 0
        self.leaving = threading.Event()

    @property
    def requests(self):
        return len(self.received)

    def answer(self, received):
        """Return (status, JSON) of the labels of each picture."""
        found = [self._labelled(picture) for picture in received.pictures]
        if b"instances" in received.body[:200] or b"many" in received.body[:400]:
            return 200, {"predictions": found, "model": {"version": 7}}
        if "error" in found[0]:
            return 422, found[0]
        return 200, {**found[0], "model": {"version": 7}}

    def _labelled(self, picture):
        try:
            with Image.open(io.BytesIO(picture)) as image:
                pixels = np.asarray(image.convert("RGB"))
        except OSError:
            return {"error": {"message": "the picture cannot be decoded"}}
        return {"labels": [{"label": n, "confidence": s} for n, s in self.labeller(pixels)]}


@contextmanager
def serve(service=None, tls=None):
    """Yield (service, url) of a service that listens."""
    service = service or Service()

    class Handler(_Handler):
        pass

    Handler.service = service
    server = _Server(("127.0.0.1", 0), Handler)
    if tls is not None:
        server.socket = tls.wrap_socket(server.socket, True, do_handshake_on_connect=False)
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    try:
        yield service, f"http{'s' if tls else ''}://127.0.0.1:{server.server_address[1]}/label"
    finally:
        service.leaving.set()
        server.shutdown()
        server.hang_up()
        thread.join()
        server.server_close()


class _Server(ThreadingHTTPServer):
    daemon_threads = False
    request_queue_size = 128

    def __init__(self, *arguments):
        self.open = set()
        super().__init__(*arguments)

    def handle_error(self, request, client_address):
        """Clients that gave up are what is tested."""

    def process_request(self, request, client_address):
        self.RequestHandlerClass.service.connections += 1
        self.open.add(request)
        super().process_request(request, client_address)

    def shutdown_request(self, request):
        self.open.discard(request)
        super().shutdown_request(request)

    def hang_up(self):
        """End the connections that clients keep."""
        for request in list(self.open):
            with suppress(OSError):
                request.shutdown(socket.SHUT_RDWR)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    service: Service
    timeout = 60
    disable_nagle_algorithm = True  # or each answer waits 40 ms for an acknowledgement

    def do_POST(self):
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        received = Received(self.command, self.path, dict(self.headers), body)
        received.pictures = pictures_in(self.headers.get("Content-Type", ""), body)
        self.service.received.append(received)
        if self.service.behave is not None:
            self.service.behave(self, received)
        elif self.service.fault is not None:
            self.fail(self.service.fault, received)
        else:
            self.reply(*self.service.answer(received))

    do_PUT = do_PATCH = do_POST  # noqa: N815  names that http.server looks for

    def reply(self, status, data, **headers):
        raw = data if isinstance(data, bytes) else json.dumps(data).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("X-Request-Id", f"id-{self.service.requests}")
        self.send_header("Content-Length", str(len(raw)))
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        self.wfile.write(raw)

    def fail(self, fault, received):
        status, data = self.service.answer(received)
        raw = json.dumps(data).encode()
        later = format_datetime(datetime.now(UTC) + timedelta(seconds=9), usegmt=True)

        def wait():
            self.service.leaving.wait()  # longer than any caller
            self.reply(status, raw)

        {
            Fault.throttled: lambda: self.reply(429, {"message": "too fast"}),
            Fault.throttled_wait: lambda: self.reply(429, {}, Retry_After="2"),
            Fault.throttled_date: lambda: self.reply(429, {}, Retry_After=later),
            Fault.error: lambda: self.reply(500, {"message": "oops"}),
            Fault.unavailable: lambda: self.reply(503, b"<html>busy</html>"),
            Fault.reset: self.reset,
            Fault.timeout: wait,
            Fault.late: wait,
            Fault.half: lambda: self.half(raw),
            Fault.garbage: lambda: self.reply(200, b"<html>this is a proxy</html>"),
            Fault.inside: lambda: self.reply(200, {"error": {"message": "the model is loading"}}),
            Fault.slow: lambda: self.drip(raw),
            Fault.denied: lambda: self.reply(403, {"message": f"no: {dict(self.headers)}"}),
            Fault.quota: lambda: self.reply(402, {"message": "nothing is left of this month"}),
        }[fault]()

    def half(self, raw):
        self.send_response(200)
        self.send_header("Content-Length", str(len(raw)))
        self.end_headers()
        self.wfile.write(raw[: len(raw) // 2])
        self.close_connection = True

    def reset(self):
        linger = struct.pack("ii", 1, 0)
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        self.rfile.close()
        self.wfile.close()
        self.connection.close()
        self.close_connection = True

    def drip(self, raw, seconds=1.5):
        self.send_response(200)
        self.send_header("Content-Length", str(len(raw)))
        self.end_headers()
        with suppress(OSError):
            for i in range(len(raw)):
                if self.service.leaving.wait(seconds / len(raw)):
                    return
                self.wfile.write(raw[i : i + 1])

    def log_message(self, *_):
        pass

    def finish(self):
        with suppress(OSError, ValueError):
            super().finish()


def pictures_in(content_type, body):
    """Return the pictures of a request, whatever its kind."""
    if content_type.startswith("image/") or content_type == "application/octet-stream":
        return [body]
    if content_type.startswith("multipart/"):
        head = f"Content-Type: {content_type}\r\n\r\n".encode()
        parts = email.message_from_bytes(head + body, policy=email.policy.HTTP).iter_parts()
        return [part.get_payload(decode=True) for part in parts if part.get_filename()]
    data = json.loads(body)
    if "instances" in data:
        texts = [item["b64"] for item in data["instances"]]
    else:
        texts = [data["image"]] if "image" in data else []
    return [base64.b64decode(text.rpartition(",")[2], validate=True) for text in texts]
