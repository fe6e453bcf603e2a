"""A small Acme Vision for the tests: it labels colours, and fails as it is told."""

import io
import json
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
from PIL import Image

from smoothapi.services import by_colour

KEY = "a-key-that-nobody-may-see"


class Acme(BaseHTTPRequestHandler):
    wbufsize = -1  # an answer in one piece

    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.server.requests += 1
        if self.server.fails_with is not None:
            self.answer(self.server.fails_with, {})
        elif self.headers["X-Key"] != KEY:
            self.answer(401, {})
        else:
            try:
                picture = np.asarray(Image.open(io.BytesIO(body)).convert("RGB"))
            except OSError:
                self.answer(422, {})
            else:
                labels = [{"name": name, "score": score} for name, score in by_colour(picture)]
                self.answer(200, {"version": "7", "labels": labels})

    def answer(self, status, data):
        body = json.dumps(data).encode()
        self.send_response(status)
        self.send_header("Retry-After", "3")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


class Server(ThreadingHTTPServer):
    request_queue_size = 64


@contextmanager
def acme():
    server = Server(("127.0.0.1", 0), Acme)
    server.requests, server.fails_with = 0, None
    server.url = f"http://127.0.0.1:{server.server_address[1]}/label"
    thread = threading.Thread(target=server.serve_forever, args=(0.02,))
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
