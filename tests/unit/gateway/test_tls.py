"""Callers over TLS who take their time, and a gateway that closes their connections."""

from __future__ import annotations

import socket
import ssl
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress

import pytest
import requests

from smoothapi import http_protocol
from smoothapi.services import serve
from tests.contract.tls import authority
from tests.unit.gateway.conftest import OTHER, RAW
from tests.unit.gateway.test_callers import Held

LAST = b"connection: close\r\n\r\n"

pytestmark = pytest.mark.timeout(60)


@pytest.fixture
def tls(tmp_path):
    """Yield (the options of a gateway that speaks TLS, the file by which callers know it)."""
    with authority(tmp_path, "127.0.0.1") as (pem, _):
        yield {"tls_certificate": pem, "tls_key": str(tmp_path / "127.0.0.1.key")}, pem


@contextmanager
def connected(gateway, pem, *, window=None):
    host, _, port = gateway.address.rpartition(":")
    with socket.socket() as sock:
        if window is not None:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, window)
        sock.settimeout(20)
        sock.connect((host, int(port)))
        known = ssl.create_default_context(cafile=pem)
        with known.wrap_socket(sock, server_hostname=host) as spoken:
            yield spoken


def test_who_has_not_said_goodbye_when_the_gateway_stops_costs_nobody_else_an_answer(
    start, tls, caplog, monkeypatch
):
    monkeypatch.setattr(http_protocol, "_FAREWELL", 2.0)
    options, pem = tls
    held = Held()
    with serve("aws", held) as service, ThreadPoolExecutor(1) as pool:
        gateway = start("aws", service, **options)
        path, headers, body = RAW["aws"]
        under_way = pool.submit(
            requests.post, gateway.url + path, headers=headers, data=body, verify=pem, timeout=40
        )
        assert held.begun.wait(30)
        with connected(gateway, pem) as sock:
            sock.sendall(b"GET /healthz HTTP/1.1\r\nhost: x\r\n" + LAST)
            assert sock.recv(65_536).startswith(b"HTTP/1.1 200")
            ending = threading.Thread(target=gateway.__exit__)
            ending.start()
            with pytest.raises(ConnectionRefusedError):
                while True:
                    with suppress(ConnectionResetError):  # in the moment in which it stops
                        socket.create_connection(sock.getpeername(), 20).close()
            held.go.set()
            assert under_way.result().headers["x-smoothapi-outcome"] == "certified"
        ending.join(30)
    assert not [said for said in caplog.records if said.name == "asyncio"]


def test_who_reads_slowly_gets_the_whole_of_a_last_reply(upstream, start, tls, monkeypatch):
    monkeypatch.setattr(http_protocol, "_FAREWELL", 0.05)
    upstream.reply = (200, {}, bytes(60_000))
    options, pem = tls
    gateway = start("aws", upstream, provider={"passthrough": True}, **options)
    gateway._listener.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
    path, headers, body = OTHER["aws"]
    head = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
    asked = f"POST {path} HTTP/1.1\r\nhost: x\r\n{head}content-length: {len(body)}\r\n"
    with connected(gateway, pem, window=4096) as sock:
        sock.sendall(asked.encode() + LAST + body)
        received = sock.recv(1)
        threading.Event().wait(0.5)  # ten times as long as a caller has who reads it at once
        while data := sock.recv(65_536):
            received += data
    assert received.endswith(bytes(60_000))
