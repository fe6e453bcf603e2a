"""Whatever a provider answers is an answer or an error of its own, and can be written again."""

from __future__ import annotations

import copy
import json
from dataclasses import replace
from urllib.parse import parse_qsl

import pytest

from smoothapi import Answer, ProviderError, StoppedError
from smoothapi.gateway.front import Incoming, make_front
from smoothapi.services import serve
from smoothapi.wires.wire import Request
from smoothapi.wrapping import Finding, Verdict
from tests.unit.gateway.conftest import AWS_KEYS, KITS, RAW, options_of

pytestmark = pytest.mark.timeout(60)

ODD = [
    None, True, -1, 7, 10**30, 0.5, 1e308, float("nan"), float("inf"), "", "\ud800", "\0", "x",
    "Infinity", [], {}, [None], [{}], [[]], {"a": 1}, {"code": 5},
]  # fmt: skip


def places(value, path=()):
    """Yield the way to each value in a tree of JSON."""
    yield path
    inner = (
        value.items() if isinstance(value, dict)
        else enumerate(value) if isinstance(value, list)
        else ()
    )  # fmt: skip
    for key, below in inner:
        yield from places(below, (*path, key))


def changed(data, path, odd):
    """Return a tree of JSON with another value in one place."""
    if not path:
        return odd
    data = copy.deepcopy(data)
    at = data
    for key in path[:-1]:
        at = at[key]
    at[path[-1]] = odd
    return data


@pytest.fixture(scope="module")
def asked():
    """Return name -> its front, a request that asks for labels, and a provider's reply to it."""
    made = {}
    with pytest.MonkeyPatch.context() as patch:
        for name, value in AWS_KEYS.items():
            patch.setenv(name, value)
        for name, kit in KITS.items():
            with serve(kit.service, lambda _: [("Bus", 0.97)]) as service:
                front = make_front(name, options_of(name, service.url), "gateway")
                target, headers, body = RAW[name]
                path, _, query = target.partition("?")
                request = Request(
                    "POST", path, query=dict(parse_qsl(query)), headers=headers, body=body
                )
                incoming = Incoming(request, target, tuple(headers.items()))
                made[name] = front, incoming, front.relay(incoming)
        yield made
        for front, _, _ in made.values():
            front.close()


def bodies(good):
    """Yield a good answer with something odd in each of its places."""
    for path in places(good):
        for odd in ODD:
            body = json.dumps(changed(good, path, odd))
            yield body.encode()
            if "Infinity" in body:
                yield body.replace("Infinity", "1e999").encode()
    yield from (b"", b"\xff", b"[" * 100_000, b'{"a": 1, "a": 2}', json.dumps(good).encode()[:-9])


@pytest.mark.parametrize("name", list(KITS))
def test_an_answer_with_something_odd_in_it_is_read_and_written_or_refused(name, asked):
    front, incoming, reply = asked[name]
    [item] = front.read(incoming).items
    read = 0
    for body in bodies(json.loads(reply.body)):
        front._relay.send = lambda *_, body=body, **__: replace(reply, body=body)
        try:
            [answer] = item.own.ask([item.photo])
        except ProviderError:
            continue
        assert isinstance(answer, Answer)
        read += 1
        if item.own.refusal is not None:
            continue
        ended = Finding.without(StoppedError("in a test"), answer)
        for otherwise, mark in (("plain", False), ("none", False), ("none", True)):
            verdict = Verdict(ended, mark, mark, otherwise)
            written = item.write(copy.deepcopy(item.own.response), verdict)
            json.loads(written.body, parse_constant=pytest.fail)
    assert read > 20


@pytest.mark.parametrize(
    "body",
    [
        b'{"__type": "AccessDeniedException", "__type": "ThrottlingException"}',
        b'{"__type": "ThrottlingException", "wait": NaN}',
        '{"__type": "ThrottlingException"}'.encode("utf-16"),
        b'{"__type": "ThrottlingException", "deep": ' + b"[" * 99_999 + b"]" * 99_999 + b"}",
    ],
)
def test_an_error_of_aws_that_can_be_read_in_two_ways_says_nothing(body, asked):
    front, incoming, reply = asked["aws"]
    [item] = front.read(incoming).items
    said = []
    for sent in (body, b""):
        front._relay.send = lambda *_, sent=sent, **__: replace(reply, status=400, body=sent)
        with pytest.raises(ProviderError) as caught:
            raise item.own.ask([item.photo])[0]
        said.append((type(caught.value), str(caught.value)))
    assert said[0] == said[1]


@pytest.mark.parametrize("status", [400, 429, 503])
@pytest.mark.parametrize("name", list(KITS))
def test_an_error_with_something_odd_in_it_is_an_error(name, status, asked):
    front, incoming, _ = asked[name]
    [item] = front.read(incoming).items
    refused = front.wire.refuse(front.wire.unanswerable("It is too large."))
    for body in bodies(json.loads(refused.body)):
        front._relay.send = lambda *_, body=body, **__: replace(refused, status=status, body=body)
        with pytest.raises(ProviderError):
            raise item.own.ask([item.photo])[0]
