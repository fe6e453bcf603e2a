"""What a gateway costs beside what it passes on: writes, waits and memory."""

from __future__ import annotations

import asyncio
import json
import socket
import threading
import tracemalloc
from collections import Counter

import pytest
import requests

from smoothapi.gateway import read_config
from smoothapi.gateway.line import Line
from smoothapi.gateway.room import Room
from smoothapi.services import serve
from smoothapi_adapters._common.bounds import _pieces
from tests.unit.gateway.conftest import OTHER, PHOTO, RAW, post, tables
from tests.unit.wrapping.conftest import labeller

pytestmark = pytest.mark.timeout(60)

MEGABYTE = 2**20


@pytest.fixture
def writes(monkeypatch):
    """Count what is written to sockets, by the name of the thread that does."""
    counted = Counter()

    def counting(name):
        plain = getattr(socket.socket, name)

        def write(self, data, *flags):
            if self.family != socket.AF_UNIX:  # by which a loop wakes itself
                counted[threading.current_thread().name.rpartition("_")[0] or "loop"] += 1
            return plain(self, data, *flags)

        monkeypatch.setattr(socket.socket, name, write)

    for name in ("send", "sendall"):
        counting(name)
    return counted


def test_a_request_and_a_reply_are_one_write_each(writes, start):
    with serve("aws", labeller) as service:
        gateway = start("aws", service, provider={"passthrough": True})
        assert post(gateway.url, "aws", OTHER).status_code < 500
        writes.clear()
        found = post(gateway.url, "aws", OTHER)
        assert found.headers["x-smoothapi-outcome"] == "passed"
        # The caller is requests itself, whose head and body are two.
        assert writes == {"smoothapi-gateway": 1, "loop": 2 + 1 + 1}


def test_no_write_of_a_server_waits_for_an_acknowledgement(start):
    with serve("aws", labeller) as service, requests.Session() as kept:
        gateway = start("aws", service)
        for url, server in (
            (gateway.url, gateway._server),
            (service.url, service._transport._server),
        ):
            kept.get(f"{url}/healthz", timeout=20)
            (one,) = server.server_state.connections
            taken = one.transport.get_extra_info("socket")
            assert taken.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)


class Draining:
    """A provider that answers each request the same, and keeps nothing of what it is sent."""

    def __init__(self, answer):
        self._head = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n"
        self._answer = answer
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        self.read = 0
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self):
        while True:
            try:
                taken, _ = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._talk, args=(taken,), daemon=True).start()

    def _talk(self, taken):
        room = memoryview(bytearray(65_536))
        with taken, taken.makefile("rb") as stream:
            while line := stream.readline():
                length = 0
                while (line := stream.readline()).strip():
                    name, _, value = line.partition(b":")
                    length = int(value) if name.lower() == b"content-length" else length
                self.read += length
                while length:
                    length -= stream.readinto(room[: min(length, len(room))])
                size = f"content-length: {len(self._answer)}\r\n\r\n".encode()
                taken.sendall(self._head + size + self._answer)

    def close(self):
        self._listener.shutdown(socket.SHUT_RDWR)  # else its thread would wait for ever
        self._listener.close()


@pytest.mark.parametrize(("what", "outcome"), [(OTHER, "passed"), (RAW, "certified")])
def test_a_large_picture_is_held_once_on_its_whole_way(what, outcome, start):
    tags = {"values": [{"name": "bus", "confidence": 0.97}]}
    answer = {"modelVersion": "2023-10-01", "metadata": {}, "tagsResult": tags}
    upstream = Draining(json.dumps(answer).encode())
    long = PHOTO + bytes(8 * MEGABYTE)  # behind its end no decoder reads on
    try:
        gateway = start("azure4", upstream, provider={"passthrough": True})
        post(gateway.url, "azure4", what)  # all is loaded
        tracemalloc.start()
        try:
            found = post(gateway.url, "azure4", what, body=long)
            peak = tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()
    finally:
        upstream.close()
    assert found.headers["x-smoothapi-outcome"] == outcome
    assert upstream.read > len(long)
    assert len(long) < peak < 1.5 * len(long)


def pieces_of(body, most=65_536):
    return (body[at : at + most] for at in range(0, len(body), most))


@pytest.mark.parametrize("chunk", [1_000, 65_536, 5 * MEGABYTE])
def test_a_body_is_held_once(chunk, tmp_path):
    body = bytes(4 * MEGABYTE)
    parts = list(pieces_of(body, chunk))
    asked = {"type": "http", "method": "POST", "path": "/", "headers": []}

    async def receive():
        return {"type": "http.request", "body": parts.pop(0), "more_body": bool(parts)}

    read = []

    async def reading():
        read.append(await Line(asked, receive, None).body(len(body), room))

    room = Room(read_config(tables("aws", "http://127.0.0.1:9", tmp_path)))
    tracemalloc.start()
    try:
        asyncio.run(reading())
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert read == [body]
    assert peak < 1.25 * len(body)


@pytest.mark.parametrize("head", [b"", b"POST / HTTP/1.1\r\n\r\n", b"x" * 20_000])
@pytest.mark.parametrize("length", [0, 1, 16_383, 16_384, 100_000])
@pytest.mark.parametrize("kind", [bytes, bytearray])
def test_what_is_written_piece_by_piece_is_what_was_given(head, length, kind):
    data = kind(range(256)) * (length // 256 + 1)
    data = data[:length]
    pieces = [bytes(piece) for piece in _pieces(head, data, 16_384)]
    assert b"".join(pieces) == head + data
    assert all(pieces)
    assert all(len(piece) <= max(16_384, len(head)) for piece in pieces)


def test_of_a_large_body_only_what_goes_with_the_head_is_copied():
    data = bytes(8 * MEGABYTE)
    tracemalloc.start()
    try:
        list(_pieces(b"POST / HTTP/1.1\r\n\r\n", data, 65_536))
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < MEGABYTE
