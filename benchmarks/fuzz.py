"""Hostile input, many of each kind: all that people and services hand over is read or refused.

What may come of an input is a value or one of smoothapi's own errors; of a command line, an exit
code other than 70. Anything else is a traceback that a user would see, and is counted:

    python benchmarks/fuzz.py [KIND ...] [--inputs 10000] [--seed 0]

    images        files of every format that is read, with odd metadata, cut, flipped and spliced
    answers       of every provider's wire: status, headers and body
    certificates  JSON of every target
    settings      smoothapi.toml and SMOOTHAPI_* variables
    recordings    read, replayed and imported
    commands      command lines, most of them nearly right
    labels        truth (CSV), classes (TOML, JSON) and tables
    weights       safetensors and adapted denoisers
    studies       result.json and distributions
    calls         of a gateway: every route of every protocol, and its own; none may be a 5xx

An input is decided by its kind, the seed and its number: what fails is printed with its number,
and `--only NUMBER` runs that one again, with its traceback. Exits with 1 if anything failed.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import copy
import io
import json
import logging
import os
import random
import struct
import sys
import tempfile
import threading
import time
import traceback
import warnings
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, redirect_stderr, redirect_stdout, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from smoothapi import Certificate, Label, Smoother, verify
from smoothapi.answer import Answer
from smoothapi.errors import ProviderError, SmoothAPIError

SLOW = 5.0  # seconds of the processor in which every input is read or refused
INTERNAL = 70


class Mutator:
    """Makes text and bytes nearly right."""

    def __init__(self, rng):
        self.rng = rng

    def data(self, data):
        """Return bytes that were changed in a few places."""
        data = bytearray(data)
        for _ in range(self.rng.choice((0, 1, 1, 1, 2, 4, 16))):
            at = self.rng.randrange(len(data) + 1)
            match self.rng.randrange(7):
                case 0 if data:
                    data[at % len(data)] ^= 1 << self.rng.randrange(8)
                case 1:
                    del data[at : at + self.rng.choice((1, 4, 64, 10**6))]
                case 2:
                    data[at:at] = self.rng.choice(BYTES)
                case 3:
                    data[at : at + 4] = struct.pack(">I", self.rng.choice(NUMBERS32))
                case 4:
                    data[at : at + 8] = struct.pack("<Q", self.rng.choice(NUMBERS32))
                case 5:
                    other = self.rng.randrange(len(data) + 1)
                    data[at:at] = data[other : other + self.rng.randrange(64)]
                case _ if data:
                    data[at % len(data)] = self.rng.randrange(256)
        return bytes(data)

    def tree(self, value):
        """Return JSON-like data with a few nodes changed."""
        value = copy.deepcopy(value)
        for _ in range(self.rng.choice((0, 1, 1, 2, 3))):
            places = list(_places(value))
            if not places:
                break
            holder, key = self.rng.choice(places)
            match self.rng.randrange(8):
                case 0:
                    del holder[key]
                case 1 if isinstance(holder, dict):
                    holder[self.rng.choice(("surplus", "schema", "", "\ud800", "a\x00b"))] = 1
                case 2 if isinstance(holder, list):
                    holder.append(copy.deepcopy(holder[key]))
                case 3:
                    other, place = self.rng.choice(places)
                    with suppress(KeyError, IndexError):  # it may hold what was just deleted
                        holder[key] = copy.deepcopy(other[place])
                case _:
                    holder[key] = self.value()
        return value

    def value(self):
        """Return something that JSON can hold, and mostly should not."""
        return copy.deepcopy(self.rng.choice(VALUES))

    def text(self, value):
        """Return JSON of a tree, now and then with a slip that only text can have."""
        text = json.dumps(value, ensure_ascii=self.rng.random() < 0.5)
        text = text.replace('"<number>"', self.rng.choice(LITERALS))
        data = text.encode("utf-8", "surrogatepass")
        match self.rng.randrange(12):
            case 0:
                return b"\xef\xbb\xbf" + data
            case 1:
                return text.encode(self.rng.choice(("utf-16", "utf-32", "latin-1")), "replace")
            case 2:
                return self.data(data)
            case 3:
                return data.replace(b"{", b'{"schema": 1, ', 1)
            case 4:
                return data.replace(b":", b":" + b"[" * self.rng.choice((50, 990, 200_000)), 1)
            case _:
                return data


def _places(value):
    items = value.items() if isinstance(value, dict) else ()
    items = enumerate(value) if isinstance(value, list) else items
    for key, item in list(items):
        yield value, key
        yield from _places(item)


def nested(depth, kind=list):
    value = [] if kind is list else {}
    for _ in range(depth):
        value = [value] if kind is list else {"a": value}
    return value


BYTES = (
    b"\x00",
    b"\xff\xff",
    b"\xff\xfe",
    b"\n",
    b"\r",
    b'"',
    b"{",
    b"]",
    b"\x80",
    b"Exif\x00\x00",
    b"\x1b[2J",
)
NUMBERS32 = (0, 1, 7, 8, 255, 65_535, 2**31 - 1, 2**31, 2**32 - 1)
LITERALS = (
    "NaN",
    "Infinity",
    "-Infinity",
    "1e999",
    "-1e999",
    "1" * 400,
    "-" + "9" * 5000,
    "1e-999",
    "0.1e",
    "01",
)
VALUES = (
    None, True, False, 0, 1, -1, 2**31, 2**63, 10**18, 0.5, -0.0, 1e-320, 1e308, 10**400, "<number>",
    "<number>", "", "a", "\x00", "\ud800", "\x1b[31m", "\u202e", "x" * 10_000, "1", "nan", "0x10",
    [], {}, [[]], [None], {"a": None}, ["a", "a"], [1, 2, 3], {"": ""}, "../../etc/passwd",
    nested(60), nested(60, dict),
)  # fmt: skip


# images


def images(_):
    seeds = list(photos())

    def one(rng):
        change = Mutator(rng)
        data = change.data(rng.choice(seeds))
        from smoothapi.image import load_image

        return load_image(data, size=rng.choice((16, 224, (8, 8)))).digest

    return one


def photos():
    """Yield small photos in every format, with all the metadata that Pillow can write."""
    import numpy as np
    from PIL import Image, ImageCms, PngImagePlugin

    pixels = np.random.default_rng(0).integers(0, 256, (24, 20, 3), dtype=np.uint8)
    photo = Image.fromarray(pixels)
    exif = Image.Exif()
    exif[0x0112] = 6
    exif[0x010E] = "a photo"
    exif.get_ifd(0x8825)[1] = "N"
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    texts = PngImagePlugin.PngInfo()
    texts.add_text("Comment", "text", zip=True)
    texts.add_itxt("Title", "text", "en", "text")
    facts = {"exif": exif.tobytes(), "icc_profile": profile}
    forms = [
        ("JPEG", photo, facts | {"dpi": (72, 72), "comment": b"text"}),
        ("JPEG", photo, facts | {"progressive": True}),
        ("JPEG", photo.convert("CMYK"), {}),
        ("PNG", photo, facts | {"pnginfo": texts}),
        ("PNG", photo.convert("RGBA"), {}),
        ("PNG", photo.convert("P"), {"transparency": 3}),
        ("PNG", Image.fromarray(pixels[..., 0].astype(np.uint16) * 257), {}),
        ("WEBP", photo, facts | {"xmp": b"<x/>"}),
        ("WEBP", photo.convert("RGBA"), {"lossless": True}),
        ("TIFF", photo, {"exif": exif, "icc_profile": profile, "compression": "tiff_lzw"}),
        ("TIFF", photo.convert("L"), {}),
        ("BMP", photo, {}),
        ("GIF", photo, {"comment": b"text"}),
        ("PPM", photo, {}),
        ("JPEG2000", photo, {}),
        ("AVIF", photo, facts),
    ]
    for form, image, options in forms:
        stream = io.BytesIO()
        with suppress(KeyError, OSError):  # this Pillow cannot write it
            image.save(stream, form, **options)
            yield stream.getvalue()
    with suppress(ImportError):
        import pillow_heif

        stream = io.BytesIO()
        pillow_heif.from_pillow(photo).save(stream, exif=exif.tobytes())
        yield stream.getvalue()


# answers

ANSWERS = {
    "aws": {
        "Labels": [
            {
                "Name": "Bus",
                "Confidence": 97.5,
                "Parents": [{"Name": "Vehicle"}],
                "Categories": [{"Name": "Transport"}],
                "Instances": [],
                "Aliases": [],
            }
        ],
        "LabelModelVersion": "3.0",
    },
    "azure": {
        "tags": [{"name": "bus", "confidence": 0.97, "hint": "x"}],
        "requestId": "1",
        "metadata": {"height": 80, "width": 80, "format": "Png"},
        "modelVersion": "2021-05-01",
    },
    "azure4": {
        "modelVersion": "2023-10-01",
        "metadata": {"width": 80, "height": 80},
        "tagsResult": {"values": [{"name": "bus", "confidence": 0.97}]},
    },
    "clarifai": {
        "status": {"code": 10000, "description": "Ok", "req_id": "1"},
        "outputs": [
            {
                "id": "1",
                "status": {"code": 10000, "description": "Ok"},
                "model": {"id": "general", "model_version": {"id": "v1"}},
                "data": {"concepts": [{"id": "ai_1", "name": "bus", "value": 0.97}]},
            }
        ],
    },
    "google": {
        "responses": [
            {
                "labelAnnotations": [
                    {"mid": "/m/1", "description": "Bus", "score": 0.97, "topicality": 0.9}
                ]
            }
        ]
    },
    "http": {"labels": [{"name": "bus", "score": 0.97}], "model": "v1"},
}
REFUSALS = {
    "aws": {"__type": "InvalidImageFormatException", "message": "no"},
    "azure": {"error": {"code": "InvalidRequest", "message": "no", "innererror": {"code": "InvalidImageSize", "message": "no"}}},
    "azure4": {"error": {"code": "InvalidRequest", "message": "no", "innererror": {"code": "InvalidImageSize", "message": "no"}}},
    "clarifai": {"status": {"code": 11102, "description": "Invalid request", "details": "no", "req_id": "1"}},
    "google": {"error": {"code": 400, "message": "no", "status": "INVALID_ARGUMENT", "details": [{"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": "1s"}]}},
    "http": {"error": {"message": "no"}},
}  # fmt: skip
GRPC = "google over gRPC"
TEXTS = ("", "no", "\x1b[2J\u202e", "quota exceeded per month", "x" * 5000, "\x00", "99999999999 s")
STATUSES = (
    200,
    200,
    200,
    200,
    200,
    201,
    206,
    400,
    401,
    403,
    404,
    409,
    413,
    418,
    422,
    429,
    500,
    501,
    503,
    599,
)
HEADERS = {
    "Content-Type": ("application/json", "application/x-amz-json-1.1", "text/html", "application/json; charset=utf-16", "application/json; charset=\xff", "", "x" * 3000, "application/json; charset=punycode"),
    "Retry-After": ("1", "-1", "inf", "nan", "1e999", "9" * 400, "Wed, 21 Oct 2099 07:28:00 GMT", "Wed, 99 Foo 99999 99:99:99", "\xff", ""),
    "x-amzn-RequestId": ("1", "\x1b[2J", "x" * 4000),
    "x-amzn-ErrorType": ("ThrottlingException:http://x", "\xff", ""),
    "apim-request-id": ("1", "\xff\xfe"),
    "Content-Encoding": ("gzip", "identity", "br", "x"),
    "Set-Cookie": ("a=b; expires=never", "\xff"),
    "Location": ("http://[", "file:///etc/passwd"),
}  # fmt: skip


def answers(_):
    server, calls = _serve(), _Calls()
    adapters = {}
    payload = next(photos_of_side(80))

    def one(rng):
        change = Mutator(rng)
        name = rng.choice((*sorted(ANSWERS), GRPC))
        if name == GRPC:
            return ask(name, calls, _call(change))
        seed = ANSWERS[name] if rng.random() < 0.8 else REFUSALS[name]
        status = rng.choice(STATUSES) if seed is ANSWERS[name] else rng.choice(STATUSES[4:])
        headers = {"Content-Type": "application/json"}
        for header in rng.sample(sorted(HEADERS), rng.choice((0, 0, 1, 2))):
            headers[header] = rng.choice(HEADERS[header])
        return ask(name, server, (status, headers, change.text(change.tree(seed))))

    def ask(name, asked, reply):
        asked.reply = reply
        if name not in adapters:
            adapters[name] = _adapter(name, asked.server_port)
        try:
            got = adapters[name].ask([payload])
        except ProviderError as error:
            str(error)
            raise
        (answer,) = got
        assert isinstance(answer, (Answer, ProviderError)), answer
        if isinstance(answer, Answer):
            assert all(0.0 <= label.score <= 1.0 for label in answer.labels)
            Answer.from_dict(json.loads(json.dumps(answer.to_dict())))

    def close():
        for adapter in adapters.values():
            getattr(adapter, "close", lambda: None)()
        server.shutdown()
        server.server_close()
        calls.close()

    one.close = close
    return one


def photos_of_side(side):
    from PIL import Image

    stream = io.BytesIO()
    Image.new("RGB", (side, side), "orange").save(stream, "PNG")
    yield stream.getvalue()


def _serve():
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self):
            self.rfile.read(int(self.headers.get("Content-Length") or 0))
            status, headers, body = self.server.reply
            lines = [f"HTTP/1.1 {status} X", f"Content-Length: {len(body)}"]
            lines += [f"{name}: {value}" for name, value in headers.items()]
            self.wfile.write("\r\n".join([*lines, "", ""]).encode("latin-1") + body)

        def log_message(self, *_):
            pass

    class Server(ThreadingHTTPServer):
        daemon_threads = True

        def handle_error(self, *_):
            pass  # the client hung up

    server = Server(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return server


class _Calls:
    """A service of gRPC that answers every call with `reply`: bytes, or what ends it."""

    def __init__(self):
        import grpc

        self.reply = b""
        self._server = grpc.server(ThreadPoolExecutor(2), handlers=[_AnyMethod(self)])
        self.server_port = self._server.add_insecure_port("127.0.0.1:0")
        self._server.start()

    def close(self):
        self._server.stop(0).wait()


class _AnyMethod:
    def __init__(self, calls):
        self._calls = calls

    def service(self, _):
        import grpc

        def answer(_, context):
            reply = self._calls.reply
            if not isinstance(reply, bytes):
                code, details, trailing = reply
                context.set_trailing_metadata(trailing)
                context.abort(code, details)
            return reply

        return grpc.unary_unary_rpc_method_handler(answer)


def _call(change):
    """Return an answer of Google's over gRPC, or a code, a text and metadata in its place."""
    import grpc
    from google.protobuf import json_format
    from google.rpc import error_details_pb2, status_pb2

    rng = change.rng
    if rng.random() < 0.6:
        from google.cloud import vision

        kind = vision.BatchAnnotateImagesResponse
        answered = json_format.ParseDict(ANSWERS["google"], kind.pb(kind()))
        if rng.random() < 0.3:
            picture = answered.responses.add()
            picture.error.code = rng.choice((0, 1, 3, 8, 14, 16, 17, -1, 2**31 - 1))
            picture.error.message = rng.choice(TEXTS)
            del answered.responses[0]
        if rng.random() < 0.3 and answered.responses[0].label_annotations:
            label = answered.responses[0].label_annotations[0]
            label.description = rng.choice(TEXTS)
            label.score = rng.choice((float("nan"), float("inf"), -1.0, 1e38, 1.0))
        return change.data(answered.SerializeToString())
    info = error_details_pb2.RetryInfo()
    info.retry_delay.seconds = rng.choice((0, 1, -1, 2**62))
    info.retry_delay.nanos = rng.choice((0, -1, 2**31 - 1))
    status = status_pb2.Status(code=rng.choice((0, 3, 8, 14, 99)), message=rng.choice(TEXTS))
    status.details.add().Pack(info)
    trailing = [("grpc-status-details-bin", change.data(status.SerializeToString()))]
    code = rng.choice([code for code in grpc.StatusCode if code is not grpc.StatusCode.OK])
    return code, rng.choice(TEXTS), trailing if rng.random() < 0.7 else []


def _adapter(name, port):
    from smoothapi.provider import make_adapter

    url = f"http://127.0.0.1:{port}"
    if name == "aws":
        import boto3

        keys = {"aws_access_key_id": "AKIA" + "X" * 16, "aws_secret_access_key": "x" * 40}
        return make_adapter(
            name, client=boto3.client("rekognition", "eu-west-1", endpoint_url=url, **keys)
        )
    if name == "google":
        from google.auth.credentials import AnonymousCredentials

        return make_adapter(
            name, transport="rest", endpoint=url, credentials=AnonymousCredentials()
        )
    if name == GRPC:
        return make_adapter("google", endpoint=url, api_key="x" * 32)
    if name == "http":
        return make_adapter(name, url=url, labels="labels[].[name, score]", model_version="model")
    if name == "clarifai":
        return make_adapter(name, pat="x" * 32, endpoint=url)
    return make_adapter(name, endpoint=url, key="x" * 32)


# certificates


def certificates(folder):
    seeds = [json.loads(c.to_json()) for c in _certificates(folder)]
    texts = {json.dumps(seed, sort_keys=True) for seed in seeds}

    def one(rng):
        change = Mutator(rng)
        certificate = Certificate.from_json(change.text(change.tree(rng.choice(seeds))))
        verify(certificate)
        str(certificate), repr(certificate), certificate._repr_html_(), hash(certificate)
        assert Certificate.from_json(certificate.to_json()) == certificate
        return json.dumps(certificate.to_dict(), sort_keys=True) in texts

    return one


def _certificates(folder):
    from smoothapi import MostSpecific, Presence, TopK
    from smoothapi.certify import Scores
    from smoothapi_adapters.mock import MockAdapter

    def labels(_):
        return Answer((Label("Bus", 0.9, ("Vehicle",)), Label("Road", 0.6)))

    photo = next(photos_of_side(40))
    options = {"denoiser": "none", "home": folder / "home", "size": 16}
    with Smoother(MockAdapter(labels), max_votes=40, **options) as smoother:
        yield smoother.predict(photo)
        yield smoother.certify(photo, radius=0.1)
        yield smoother.certify(photo, radius="largest")
        for target in (Presence("Bus", 0.5), MostSpecific(0.5), TopK(2), Scores(("Bus", "Road"))):
            yield smoother.certify(photo, target=target, radius=0.1)
    with Smoother(MockAdapter(labels), classes={"bus": ["Bus"]}, **options) as smoother:
        yield smoother.certify(photo, radius=0.1)


# settings

SETTINGS = {
    "provider": "mock", "sigma": 0.25, "radius": 0.25, "alpha": 0.001, "max_votes": 100,
    "budget": "500,$2", "size": 224, "classes": "classes.toml", "plain": True, "codec": "png",
    "denoiser": "none", "device": "cpu", "concurrency": 8, "attempts": 5, "deadline": 300.0,
    "max_failed": 0.1, "partial": False, "record": "answers.jsonl", "home": "home",
    "prices": {"aws": {"per_thousand": 1.0, "steps": [[1_000_000, 0.8]], "as_of": "2026-01-01"}},
    "providers": {"aws": {"region": "eu-west-1"}, "mock": {"labeller": "colours"}},
}  # fmt: skip


def settings(folder):
    from smoothapi.config import resolve
    from smoothapi.parts import choose_budgets, choose_label_space
    from smoothapi.provider import Price

    def one(rng):
        change = Mutator(rng)
        names = rng.sample(sorted(SETTINGS), rng.randrange(1, 6))
        tree = change.tree({name: SETTINGS[name] for name in names})
        variables = {}
        if rng.random() < 0.3:
            name = rng.choice(names)
            name += rng.choice(("", "", "__AWS", "__AWS__REGION", "__", "S"))
            value = rng.choice(
                (
                    str(change.value())[:5000],
                    json.dumps(change.value()),
                    "[" * 200_000,
                    "\udcff",
                    "~nobody/x",
                    "1" * 5000,
                )
            )
            if value != "\udcff":
                value = value.replace("\x00", "").encode("utf-8", "replace").decode()
            variables[f"SMOOTHAPI_{name.upper()}"] = value
        with _working_in(folder / "settings", variables) as place:
            file = rng.choice(("smoothapi.toml", "pyproject.toml"))
            text = _toml(tree, rng)
            if file == "pyproject.toml":
                text = f"[tool.smoothapi]\n{text}"
            data = text.encode("utf-8", "surrogatepass")
            if rng.random() < 0.2:
                data = change.data(data)
            elif rng.random() < 0.1:
                data = rng.choice(
                    (
                        b"\xef\xbb\xbf" + data,
                        text.encode("utf-16", "replace"),
                        b"a = " + b"[" * 200_000,
                    )
                )
            (place / file).write_bytes(data)
            resolved = resolve()
            resolved.rows()
            json.dumps(resolved.to_dict(), allow_nan=False)
            choose_budgets(resolved.settings.budget)
            choose_label_space(None, resolved.settings.classes)
            if given := resolved.settings.prices.get("aws"):
                Price.parse(given, "aws")

    return one


def _toml(value, rng, prefix=""):
    lines = [
        f"{_key(k)} = {_toml_value(v, rng)}" for k, v in value.items() if not isinstance(v, dict)
    ]
    for key, item in value.items():
        if isinstance(item, dict):
            path = f"{prefix}{_key(key)}"
            lines += [f"[{path}]", _toml(item, rng, f"{path}.")]
    return "\n".join(lines)


def _key(name):
    return json.dumps(name)


def _toml_value(value, rng):
    if value is None or value == "<number>":
        return rng.choice(
            (
                "nan",
                "inf",
                "1" * 400,
                "0x" + "f" * 6000,
                "1979-05-27T07:32:00Z",
                "07:32:00",
                "1e999",
                "-inf",
            )
        )
    if isinstance(value, dict):
        return f"{{{', '.join(f'{_key(k)} = {_toml_value(v, rng)}' for k, v in value.items())}}}"
    if isinstance(value, list):
        return f"[{', '.join(_toml_value(v, rng) for v in value)}]"
    return json.dumps(value)


@contextmanager
def _working_in(folder, variables=()):
    folder.mkdir(exist_ok=True)
    before, here = dict(os.environ), Path.cwd()
    os.environ.update(variables)
    os.chdir(folder)
    try:
        yield folder
    finally:
        os.chdir(here)
        os.environ.clear()
        os.environ.update(before)
        for file in folder.glob("*.toml"):
            file.unlink()


# recordings


def recordings(folder):
    from smoothapi.cli import run
    from smoothapi.store import read_recording
    from smoothapi_adapters.mock import MockAdapter

    photo = next(photos_of_side(40))
    file = folder / "seed.jsonl"
    options = {"denoiser": "none", "home": folder / "home", "size": 16, "radius": 0.2}
    with Smoother(MockAdapter({"bus": 1.0}), record=file, **options) as smoother:
        smoother.certify(photo)
    rows = [json.loads(line) for line in file.read_bytes().splitlines()]

    def one(rng):
        change = Mutator(rng)
        kept = rows if rng.random() < 0.7 else rng.sample(rows, rng.randrange(1, len(rows)))
        lines = [json.dumps(row).encode() for row in kept]
        for _ in range(rng.choice((1, 1, 2, 5))):
            at = rng.randrange(len(lines))
            row = change.tree(kept[at])
            if isinstance(row, dict) and rng.random() < 0.8:
                row.pop("check", None)
            lines[at] = change.text(row)
        given = folder / "given.jsonl"
        given.write_bytes(b"\n".join(lines) + rng.choice((b"\n", b"", b"\xff", b"\n\n\n")))
        if rng.random() < 0.05:
            return _command(
                run, ["--home", str(folder / "imported"), "cache", "import", str(given)]
            )
        if rng.random() < 0.2:
            return len(list(read_recording(given)))
        with Smoother(f"replay:{given}", **options) as smoother:
            return str(smoother.certify(photo))

    return one


# command lines


def commands(folder):
    from smoothapi.cli import run

    place = folder / "commands"
    place.mkdir()
    (place / "photos").mkdir()
    photo = next(photos_of_side(40))
    for name in (b"photo.png", b"photos/one.png", b"photos/caf\xe9.png", b"caf\xe9.png"):
        Path(os.fsdecode(os.fsencode(place) + b"/" + name)).write_bytes(photo)
    (place / "classes.toml").write_text('bus = ["Bus"]\n')
    (place / "truth.csv").write_text("file,label\none.png,orange\n")
    (place / "empty").touch()
    (place / "binary").write_bytes(bytes(range(256)) * 4)
    (place / "certificate.json").write_text(next(iter(_certificates(folder))).to_json())

    variables = {
        "SMOOTHAPI_HOME": str(folder / "home"), "SMOOTHAPI_DENOISER": "none", "SMOOTHAPI_SIZE": "16",
        "SMOOTHAPI_MAX_VOTES": "20", "SMOOTHAPI_RADIUS": "0.05",
    }  # fmt: skip

    def one(rng):
        start = rng.choice(COMMANDS)
        arguments = [*start]
        if rng.random() < 0.3 and arguments:
            arguments[0] = rng.choice((*WORDS, *VALUES_OF_OPTIONS))
        for _ in range(rng.choice((0, 1, 1, 2, 3, 5))):
            option = rng.choice(OPTIONS)
            extra = [option] if option in FLAGS else [option, rng.choice(VALUES_OF_OPTIONS)]
            at = rng.choice((0, len(start), len(arguments)))
            arguments[at:at] = extra
        if rng.random() < 0.2 and arguments:
            del arguments[rng.randrange(len(arguments))]
        if rng.random() < 0.2:
            arguments.insert(rng.randrange(len(arguments) + 1), rng.choice(VALUES_OF_OPTIONS))
        if arguments and arguments[0] in ("emulate", "denoiser"):
            arguments.append("--no-such-option")  # one serves for ever, the other trains for hours
        with _working_in(place, variables):
            return _command(run, arguments)

    with _working_in(place, variables):
        _command(run, ["certify", "photo.png"])  # imports what is slow to import
    return one


COMMANDS = (
    ["certify", "photo.png"], ["certify", "photos/one.png", "--json"], ["predict", "photo.png"],
    ["certify", "\udcff.png"], ["certify", "caf\udce9.png"], ["verify", "certificate.json"],
    ["verify", "binary"], ["verify", "certificate.json", "--photo", "photo.png"],
    ["plan"], ["plan", "--json"], ["study", "photos", "--dry-run"], ["study", "photos", "--json", "--sigma", "0.25", "--max-votes", "20", "--radius", "0.05"],
    ["study", "report", "empty", "--out", "out"], ["providers"], ["providers", "check", "mock"],
    ["budget"], ["budget", "reset", "x"], ["budget", "release"], ["cache", "info"],
    ["cache", "verify"], ["cache", "export", "out.jsonl"], ["cache", "import", "binary"], ["config"],
    ["config", "--json"], ["emulate"], ["denoiser", "eval"], [], ["--help"], ["--version"],
)  # fmt: skip
WORDS = (
    "certfy",
    "predict",
    "cache",
    "study",
    "report",
    "--",
    "-",
    "",
    "\udcff",
    "help",
    "\x1b[2J",
)
FLAGS = (
    "--json",
    "--dry-run",
    "--no-plain",
    "--plain",
    "--partial",
    "--refresh",
    "--help",
    "--yes",
)
OPTIONS = (
    *FLAGS, "--home", "--sigma", "--radius", "--alpha", "--max-votes", "--budget", "--size",
    "--classes", "--truth", "--target", "--provider", "--denoiser", "--device", "--codec",
    "--concurrency", "--record", "--photo", "--distribution", "--p", "--photos", "--pilot", "--out",
    "--complete", "--selection", "--nonsense", "-x",
)  # fmt: skip
VALUES_OF_OPTIONS = (
    "0.25", "0", "-1", "nan", "inf", "1e999", "1" * 400, "9" * 5000, "0x10", "", " ", "largest", "top1",
    "top3", "top99999999999999999999", "present:bus:0.5", "absent:bus:nan", "scores:bus:1e999", "scores:",
    "most-specific:0.5", "most-specific:\udcff", "500", "$2", "500,$2", "$1e999", "$nan", "5/day",
    "$5/month", "photo.png", "photos", "empty", "binary", "classes.toml", "truth.csv", "certificate.json",
    "missing/\udcff", "caf\udce9.png", "x" * 5000, "/dev/null", "/proc/none", ".", "mock", "replay:binary",
    "replay:certificate.json#a=b", "nobody", "none", "default", "cpu", "cuda:99", "png", "0.1,0.2", "1,x",
    "out", "~nobody/x", "-", "--json",
)  # fmt: skip


def _command(run, arguments):
    out = io.TextIOWrapper(io.BytesIO(), "utf-8", errors="replace")
    err = io.TextIOWrapper(io.BytesIO(), "utf-8", errors="replace")
    stdin, sys.stdin = sys.stdin, io.TextIOWrapper(io.BytesIO(b"\xff\x00"), "utf-8")
    try:
        with redirect_stdout(out), redirect_stderr(err):
            code = run(arguments)
    finally:
        sys.stdin = stdin
    err.flush()
    if code == INTERNAL:
        raise AssertionError(f"exit 70: {arguments!r}: {err.buffer.getvalue().decode()[-500:]}")
    return code


# labels


def labels(folder):
    from smoothapi.label_file import read_label_space
    from smoothapi.services import Table
    from smoothapi.study.certified import read_truth as read_numbers
    from smoothapi.study.folder import read_truth

    (folder / "photo.png").write_bytes(next(photos_of_side(8)))
    classes = {
        "classes": {"bus": ["Bus", "Coach"], "car": ["Car"]},
        "plurals": True,
        "parents": False,
    }

    def one(rng):
        change = Mutator(rng)
        kind = rng.choice(("truth", "numbers", "classes.json", "classes.toml", "table.json"))
        given = folder / kind.replace("truth", "truth.csv").replace("numbers", "truth.csv")
        if kind in ("truth", "numbers"):
            rows = [["file", "label"], ["a.png", "bus|coach"], ["b.png", "1"], ["c/\u00e9.png", ""]]
            for _ in range(rng.choice((0, 1, 3))):
                row = rng.choice(rows)
                row[rng.randrange(len(row))] = str(change.value())[:6000]
            text = "\n".join(rng.choice((",", ";", ",", "\t")).join(row) for row in rows)
            data = text.encode(rng.choice(("utf-8", "utf-8-sig", "utf-16", "latin-1")), "replace")
            given.write_bytes(change.data(data) if rng.random() < 0.5 else data)
            return (read_truth if kind == "truth" else read_numbers)(given)
        if kind == "table.json":
            given.write_bytes(
                change.text(change.tree({"photo.png": [["bus", 0.9]], "0" * 64: "car"}))
            )
            return Table.read(given)
        tree = change.tree(classes)
        data = (
            change.text(tree)
            if kind.endswith("json")
            else _toml(tree, rng).encode("utf-8", "replace")
        )
        given.write_bytes(change.data(data) if rng.random() < 0.1 else data)
        return read_label_space(given).digest

    return one


# weights


def weights(folder):
    import torch

    from smoothapi.denoise.adaptation import Adaptation
    from smoothapi.denoise.networks import DnCNN, describe
    from smoothapi.denoise.storage import load_network, read_header, read_tensors, write_weights

    torch.manual_seed(0)
    network = DnCNN(3, 2)
    seed = folder / "seed.safetensors"
    architecture, config = describe(network)
    write_weights(seed, network.state_dict(), architecture=architecture, config=config)
    content = seed.read_bytes()
    (length,) = struct.unpack("<Q", content[:8])
    head, body = json.loads(content[8 : 8 + length]), content[8 + length :]
    adaptation = {
        "schema": "smoothapi.denoiser-adaptation/1", "weights": {"file": "default", "sha256": "0" * 64},
        "knobs": {"blend": 0.5, "sharpen": 0.0}, "provider": "aws", "sigma": 0.25,
        "photos": ["0" * 64], "about": {},
    }  # fmt: skip

    def one(rng):
        change = Mutator(rng)
        if rng.random() < 0.2:
            given = folder / "given.json"
            given.write_bytes(change.text(change.tree(adaptation)))
            return Adaptation.read(given).identity
        tree = change.tree(head)
        if rng.random() < 0.4 and isinstance(tree.get("__metadata__"), dict):
            tree["__metadata__"]["config"] = change.text(change.tree(config)).decode(
                "utf-8", "replace"
            )
        text = change.text(tree)
        size = len(text) if rng.random() < 0.9 else rng.choice(NUMBERS32)
        data = struct.pack("<Q", size) + text + body
        given = folder / "given.safetensors"
        given.write_bytes(change.data(data) if rng.random() < 0.3 else data)
        header = read_header(given)
        load_network(header)
        return read_tensors(given)[1]

    return one


# studies


def studies(folder):
    from smoothapi.study import Shares, Study, StudyResult, figures
    from smoothapi_adapters.mock import MockAdapter

    photo = next(photos_of_side(40))
    found = Study(
        {"one": photo}, provider=MockAdapter({"bus": 0.9, "car": 0.1}), sigmas=0.25, radii=(0.05, 0.1),
        max_votes=(20, 40), denoisers="none", home=folder / "home", size=16, truth={"one": "bus"},
    ).run()  # fmt: skip
    seed = json.loads(found.to_json())
    shares = {"schema": "smoothapi.shares/1", "source": "x", "counts": {"0.25": [[9, 10], [5, 10]]}}

    def one(rng):
        change = Mutator(rng)
        if rng.random() < 0.2:
            given = folder / "shares.json"
            given.write_bytes(change.text(change.tree(shares)))
            return Shares.load(given).at(0.25)
        result = StudyResult.from_json(change.text(change.tree(seed)))
        figures(result)
        result.records()
        if rng.random() < 0.02:
            result.report(folder / "report")
        return result

    return one


# calls

AMZ, JSON, OCTETS = "application/x-amz-json-1.1", "application/json", "application/octet-stream"
FORM = "multipart/form-data; boundary=x"


def routes(picture):
    """Return (method, path, query, headers, body) of every request that a gateway knows."""
    content = base64.b64encode(picture).decode()
    rekognition = {"Image": {"Bytes": content}, "MinConfidence": 55, "MaxLabels": 3}
    custom = {
        **rekognition,
        "ProjectVersionArn": "arn:aws:rekognition:us-east-1:1:project/p/version/v/1",
    }
    row = {
        "image": {"content": content},
        "features": [{"type": "LABEL_DETECTION", "maxResults": 3}],
    }
    vision = {"requests": [row, {**row, "image": {"source": {"imageUri": "https://x/1.png"}}}]}
    inputs = {"inputs": [{"data": {"image": {"base64": content}}}, {"data": {"image": {"url": "https://x"}}}],
              "model": {"output_info": {"output_config": {"min_value": 0.5, "max_concepts": 3}}}}  # fmt: skip
    form = b'--x\r\nContent-Disposition: form-data; name="f"\r\n\r\n' + picture + b"\r\n--x--\r\n"
    found = [
        ("POST", "/", {}, {"content-type": AMZ, "x-amz-target": f"RekognitionService.{name}"}, body)
        for name, body in (
            ("DetectLabels", {**rekognition, "Features": ["GENERAL_LABELS"], "Settings": {}}),
            ("DetectLabels", {"Image": {"S3Object": {"Bucket": "b", "Name": "n", "Version": "1"}}}),
            ("DetectModerationLabels", rekognition), ("DetectCustomLabels", custom),
            ("DetectFaces", rekognition),
        )
    ]  # fmt: skip
    found += [
        ("POST", path, {"key": "k", "alt": "json"}, {"content-type": JSON}, vision)
        for path in ("/v1/images:annotate", "/v1/projects/p/images:annotate", "/v1/files:annotate",
                     "/v1/projects/p/locations/eu/images:annotate", "/v1p4beta1/images:annotate")
    ]  # fmt: skip
    words = {"language": "en", "model-version": "latest"}
    four = {"api-version": "2023-10-01", "gender-neutral-caption": "true"}
    analyze = "/computervision/imageanalysis:analyze"
    for kind, body in ((OCTETS, picture), (JSON, {"url": "https://x/1.png"}), (FORM, form)):
        shown = {"content-type": kind, "ocp-apim-subscription-key": "k"}
        found += [
            ("POST", "/vision/v3.2/tag", words, shown, body),
            ("POST", "/vision/v3.2/analyze", {**words, "visualFeatures": "Tags"}, shown, body),
            ("POST", "/vision/v3.2/describe", {"maxCandidates": "2"}, shown, body),
            ("POST", analyze, {**words, **four, "features": "tags"}, shown, body),
            ("POST", analyze, {**four, "features": "read"}, shown, body),
            ("POST", "/computervision/imageanalysis:segment", {"mode": "x"}, shown, body),
        ]  # fmt: skip
    found += [
        ("POST", f"/v2/users/u/apps/a/models/m{tail}", {}, {"content-type": JSON, "authorization": "Key k"}, inputs)
        for tail in ("/outputs", "/versions/v/outputs", "/versions")
    ]  # fmt: skip
    certificate = f"/smoothapi/certificates/{'0' * 32}"
    own = ("/healthz", "/readyz", "/metrics", "/smoothapi/", certificate, "/nothing")
    return found + [("GET", path, {}, {"authorization": "Basic azp5"}, b"") for path in own]


METHODS = ("POST", "POST", "POST", "GET", "HEAD", "PUT", "DELETE", "OPTIONS", "BREW", "post")
ODD = (
    "\x00",
    "%00",
    "../",
    "%2e%2e/",
    "\xff",
    " ",
    "\r\nx: y",
    "9" * 400,
    "",
    "\u00e9",
    ";",
    "*",
    "\ud800",
    "{",
    "a,b",
)
PARTS = ("content-type", "authorization", "x-amz-target", "content-encoding", "expect", "x-smoothapi-token",
         "x-smoothapi-outcome", "ocp-apim-subscription-key", "host", "origin", "connection", "x")  # fmt: skip


def calls(folder):
    from smoothapi.gateway import app
    from smoothapi.services import serve

    names = ("aws", "google", "azure", "azure4", "clarifai")
    open_ones, keys = (
        ExitStack(),
        {"AWS_ACCESS_KEY_ID": "A" * 20, "AWS_SECRET_ACCESS_KEY": "s" * 40},
    )
    open_ones.enter_context(_working_in(folder, keys.items()))
    tables = {
        "gateway": {"callers": "anyone"},
        "certify": {"denoiser": "none", "max_votes": 20, "alpha": 0.1, "radius": 0.01, "size": 16, "home": str(folder / "home")},
        "providers": {},
    }  # fmt: skip
    for name in names:
        service = open_ones.enter_context(serve(name, lambda _: [("Bus", 0.97), ("Car", 0.6)]))
        signed = {"region": "us-east-1"} if name == "aws" else {"key": "k"}
        signed = {"google": {"api_key": "k"}, "clarifai": {"pat": "k"}}.get(name, signed)
        options = {"endpoint": service.url, "timeout": 5.0, **signed}
        tables["providers"][name] = {"budget": "unlimited", "options": options}
    gateway = app(tables)
    open_ones.callback(gateway.close)
    seeds = routes(next(photos_of_side(80)))

    def one(rng):
        method, path, query, headers, body = _odd(rng, rng.choice(seeds))
        status, told = asyncio.run(_replied(gateway, method, path, query, headers, body))
        if status >= 500:
            raise AssertionError(
                f"{status} {told[:500]!r} to {method} {path!r} {query!r} {headers!r}"
            )
        if status >= 400 and told:
            json.loads(told)  # in the provider's words
        return status

    one.close = open_ones.close
    return one


def _odd(rng, seed):
    """Return a request that is nearly the one given."""
    change = Mutator(rng)
    method, path, query, headers, body = seed
    if rng.random() < 0.3:
        method = rng.choice(METHODS)
    if rng.random() < 0.3:
        at = rng.randrange(len(path) + 1)
        path = path[:at] + rng.choice(ODD) + path[at + rng.choice((0, 0, 1, 5)) :]
    if query and rng.random() < 0.5:
        query = {**query, rng.choice((*query, "x")): rng.choice((*ODD, *query.values()))}
    if rng.random() < 0.3:
        headers = {
            **headers,
            rng.choice(PARTS): rng.choice((*ODD, *headers.values(), "gzip", "100-continue")),
        }
    if not isinstance(body, bytes):
        body = change.text(change.tree(body)) if rng.random() < 0.7 else json.dumps(body).encode()
    elif rng.random() < 0.5:
        body = change.data(body)
    return method, path, query, headers, body


async def _replied(gateway, method, path, query, headers, body):
    """Return the status and the body of an ASGI application's reply; within half a minute."""
    half = len(body) // 2
    parts, told = [body[:half], body[half:]], []

    async def receive():
        if not parts:
            await asyncio.Event().wait()
        return {"type": "http.request", "body": parts.pop(0), "more_body": bool(parts)}

    async def send(message):
        told.append(message)

    text = "&".join(f"{name}={value}" for name, value in query.items())
    scope = {
        "type": "http", "method": method, "path": path.encode("utf-8", "replace").decode(),
        "raw_path": path.encode("utf-8", "replace"), "query_string": text.encode("utf-8", "replace"),
        "headers": [(name.encode(), value.encode("latin-1", "replace")) for name, value in
                    {"host": "localhost", **headers}.items()],
    }  # fmt: skip
    await asyncio.wait_for(gateway(scope, receive, send), 30)
    return told[0]["status"], b"".join(one.get("body", b"") for one in told[1:])


KINDS = (
    images, answers, certificates, settings, recordings, commands, labels, weights, studies, calls,
)  # fmt: skip


@contextmanager
def _quiet():
    log = logging.getLogger("smoothapi")
    level = log.level
    log.setLevel(logging.CRITICAL)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        log.setLevel(level)


def fuzz(kind, inputs, seed, *, only=None):
    """Return (how often which outcome, failures as (number, text), the slowest in seconds)."""
    outcomes, failures, slowest = Counter(), [], 0.0
    with tempfile.TemporaryDirectory() as folder, _quiet():
        one = kind(Path(folder))
        for number in range(inputs) if only is None else [only]:
            rng = random.Random(f"{kind.__name__} {seed} {number}")
            began = time.process_time()
            try:
                one(rng)
                outcomes["taken"] += 1
            except SmoothAPIError as error:
                outcomes[type(error).__name__] += 1
                str(error).encode("utf-8", "surrogatepass")
            except BaseException as error:
                if isinstance(error, KeyboardInterrupt):
                    raise
                outcomes["TRACEBACK"] += 1
                failures.append((number, "".join(traceback.format_exception(error))))
            took = time.process_time() - began
            slowest = max(slowest, took)
            if took > SLOW:
                failures.append((number, f"took {took:.1f} s"))
        getattr(one, "close", lambda: None)()
    return outcomes, failures, slowest


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("kinds", nargs="*", metavar="KIND")
    parser.add_argument("--inputs", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", type=int)
    given = parser.parse_args()
    by_name = {kind.__name__: kind for kind in KINDS}
    failed = 0
    for name in given.kinds or by_name:
        began = time.perf_counter()
        outcomes, failures, slowest = fuzz(by_name[name], given.inputs, given.seed, only=given.only)
        took = time.perf_counter() - began
        print(f"{name}: {sum(outcomes.values()):,} inputs in {took:.0f} s, slowest {slowest:.2f} s")
        print("  " + ", ".join(f"{count:,} {what}" for what, count in outcomes.most_common()))
        print(f"  {outcomes['TRACEBACK']} tracebacks and exits of 70", flush=True)
        failed += len(failures)
        seen = Counter()
        for number, text in failures:
            last = text.strip().rpartition("\n")[2][:200]
            seen[last] += 1
            if seen[last] <= 2:
                print(f"  input {number}: {text if given.only is not None else last}", flush=True)
    sys.exit(bool(failed))


if __name__ == "__main__":
    main()
