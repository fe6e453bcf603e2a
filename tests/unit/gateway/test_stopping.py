"""A server that stops while callers connect."""

from __future__ import annotations

import gc
import socket
from contextlib import ExitStack

import pytest

from smoothapi.services import serve

TURNS = 12  # of the loop, more than it takes from a stop to a closed listener

pytestmark = pytest.mark.timeout(60)


@pytest.fixture
def gateway(start, aws):
    gateway = start("aws", aws)
    return gateway._server, gateway.port, gateway


@pytest.fixture
def service():
    with ExitStack() as stack:
        service = stack.enter_context(serve("aws"))
        yield service._transport._server, int(service.address.rpartition(":")[2]), stack


@pytest.mark.parametrize("server", ["gateway", "service"])
def test_a_connection_that_is_taken_in_the_moment_of_the_end_is_closed(server, request):
    """Python forgets it half made (python/cpython#109564), and warns of it, which is an error here."""
    running, port, end = request.getfixturevalue(server)
    callers = []

    def connect(turns):
        callers.append(socket.create_connection(("127.0.0.1", port), 20))
        if turns:
            running._loop.call_soon(connect, turns - 1)

    def stop_and_connect():
        running.should_exit = True
        running._stopping.set()
        connect(TURNS)

    running._loop.call_soon_threadsafe(stop_and_connect)
    end.__exit__(None, None, None)
    gc.collect()
    assert callers
    for caller in callers:
        caller.close()
