"""A service that repeats what signed the request, wherever a response has room for it."""

from __future__ import annotations

import base64
import html
import http.server
import json
import threading
from urllib.parse import quote

import pytest

SECRET = "k7Qm-x2Lp_9vRtZ4wYb6Nc1sHd8fGj3e"

ENCODINGS = {
    "raw": lambda s: s,
    "upper case": str.upper,
    "cut short": lambda s: s[:20],
    "in quotes": lambda s: f"'{s}'",
    "percent": lambda s: quote(s, safe=""),
    "all percent": lambda s: "".join(f"%{b:02X}" for b in s.encode()),
    "base64": lambda s: base64.b64encode(s.encode()).decode(),
    "base64 of more": lambda s: base64.b64encode(f"Bearer {s}".encode()).decode(),
    "base64 for URLs": lambda s: base64.urlsafe_b64encode(f"x{s}?".encode()).decode(),
    "hex": lambda s: s.encode().hex(),
    "JSON escapes": lambda s: "".join(f"\\u{ord(c):04x}" for c in s),
    "bytes": lambda s: repr(s.encode()),
    "HTML": lambda s: "".join(f"&#{ord(c)};" for c in s),
    "HTML text": lambda s: html.escape(f'<i title="{s}">'),
    "spaced": lambda s: " ".join(s[i : i + 4] for i in range(0, len(s), 4)),
}


def tells(text):
    """Whether a text tells the secret to a reader who knows the usual encodings."""
    low = "".join(text.lower().split())
    pieces = [SECRET[i : i + 12].lower() for i in range(len(SECRET) - 11)]
    if any(piece in low for piece in pieces):
        return True
    return any(
        "".join(encode(SECRET).lower().split())[4:24] in low
        for name, encode in ENCODINGS.items()
        if name not in ("HTML text", "cut short")
    )


@pytest.fixture(scope="package")
def server():
    """A service that answers with the bytes in `reply`; `seen` says if the secret had come."""

    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        wbufsize = -1  # an answer in one piece

        def do_POST(self):
            if length := self.headers["content-length"]:
                body = self.rfile.read(int(length))
            else:
                body = b""
                while size := int(self.rfile.readline(), 16):
                    body += self.rfile.read(size + 2)
                self.rfile.readline()
            sent = "\n".join([self.path, *self.headers.values(), body[:2000].decode("latin-1")])
            self.server.seen.append(SECRET in sent)
            self.wfile.write(self.server.reply)
            self.close_connection = True

        def log_message(self, *_):
            pass

    class Server(http.server.ThreadingHTTPServer):
        request_queue_size = 128  # or a caller of many at once waits a second to be let in
        daemon_threads = True

    server = Server(("127.0.0.1", 0), Handler)
    server.seen, server.reply = [], b""
    server.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, args=(0.02,))
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def response(status, body, *, reason="No", **headers):
    """Return a response of HTTP as bytes."""
    lines = [f"HTTP/1.1 {status} {reason}"]
    lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
    lines += [f"content-length: {len(body)}", "connection: close", "", ""]
    return "\r\n".join(lines).encode("latin-1") + body


def everywhere(said):
    """Return responses that hold what is said, each in another place."""
    of_error = {
        "message": said,
        "__type": "InvalidSignatureException",
        "error": {"code": said, "message": said, "innererror": {"code": said, "message": said}},
        "status": {"code": 11009, "description": said, "details": said, "req_id": said},
    }
    # Labels as each of the services has them; and model, version and id.
    labels = {
        "Labels": [{"Name": said, "Confidence": 90.0, "Parents": [{"Name": said}]}],
        "LabelModelVersion": said,
        "tags": [{"name": said, "confidence": 0.9}],
        "modelVersion": said,
        "requestId": said,
        "tagsResult": {"values": [{"name": said, "confidence": 0.9}]},
        "responses": [{"labelAnnotations": [{"description": said, "score": 0.9}]}],
        "outputs": [
            {
                "status": {"code": 10000},
                "data": {"concepts": [{"name": said, "value": 0.9}]},
                "model": {"model_version": {"id": said}},
            }
        ],
        "status": {"code": 10000, "req_id": said},
    }
    error, answer = json.dumps(of_error).encode(), json.dumps(labels).encode()
    kind = {"content_type": "application/json"}
    ids = {"x_request_id": said, "apim_request_id": said, "x_amzn_requestid": said}
    return {
        "body of 401": response(401, error, **kind),
        "body of 400": response(400, error, **kind),
        "body of 429": response(429, error, **kind, retry_after=said),
        "body of 500": response(500, error, **kind),
        "no JSON": response(403, f"<html>{said}</html>".encode(), content_type="text/html"),
        "malformed": response(200, f"{said} {{".encode(), **kind),
        "media type": response(403, error, content_type=f"text/{said}"),
        "status text": response(403, b"{}", reason=said, **kind),
        "status line": f"{said} 403 Forbidden\r\n\r\n".encode("latin-1"),
        "header": response(403, error, **kind, **ids, set_cookie=f"a={said}"),
        "header line": f"HTTP/1.1 403 No\r\n{said}\r\n: {said}\r\n\r\n".encode("latin-1"),
        "redirect": response(302, error, location=f"http://{said[:40]}.example/{said}"),
        "length": f"HTTP/1.1 200 OK\r\ncontent-length: {said}\r\n\r\n".encode("latin-1"),
        "chunk": (
            f"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n{said}\r\n".encode("latin-1")
        ),
        "content encoding": response(200, error, **kind, content_encoding="gzip", x_of=said),
        "labels": response(200, answer, reason="OK", **kind, **ids),
        "error in an answer": response(
            200,
            json.dumps(
                {
                    "responses": [{"error": {"code": 3, "message": said}}],
                    "outputs": [{"status": {"code": 30002, "description": said}}],
                    "status": {"code": 10020},
                    "error": {"message": said},
                }
            ).encode(),
            reason="OK",
            **kind,
        ),
    }


PLACES = list(everywhere(""))


@pytest.fixture(params=PLACES)
def place(request):
    return request.param
