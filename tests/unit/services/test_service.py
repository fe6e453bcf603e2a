"""What all local services do alike, seen through the real SDKs."""

from __future__ import annotations

import hashlib
import logging
import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import pytest

from smoothapi.answer import Answer, Label
from smoothapi.errors import (
    FatalError,
    MissingExtraError,
    PermanentError,
    ThrottledError,
    TransientError,
    UsageError,
)
from smoothapi.services import PROVIDERS, by_colour, serve
from smoothapi.services.faults import Fault
from tests.unit.services.conftest import picture, shown
from tests.waiting import PATIENCE, until

ON_HTTP = [name for name in PROVIDERS if name != "google-grpc"]
RED = [("red", 0.75), ("bright", 0.2876)]


@pytest.mark.parametrize("provider", PROVIDERS)
def test_a_picture_is_labelled_counted_and_billed(provider, calling):
    data = picture()
    with serve(provider, by_colour) as service:
        assert calling(service).ask(data) == [
            (name, pytest.approx(score, abs=1e-6)) for name, score in RED
        ]
        [received] = service.received
        assert (received.number, received.pictures, service.billed) == (0, 1, 1)
        assert (received.sizes, received.bytes) == (((120, 100),), (len(data),))
        assert received.digests == (hashlib.sha256(data).hexdigest(),)
        assert (received.refused, received.fault) == ("", None)
        assert received.body >= len(data)
        assert received.operation
        assert "user-agent" in received.headers_seen
        assert "emulated" not in repr(received)  # no key


@pytest.mark.parametrize(
    ("provider", "error"),
    [
        ("aws", "InvalidImageFormatException"),
        ("google", "3 Bad image data."),
        ("google-grpc", "3 Bad image data."),
        ("azure", 400),
        ("azure4", 400),
        ("clarifai", 400),
    ],
)
def test_what_is_not_a_picture_is_refused_and_not_billed(provider, error, calling):
    cut = picture(kind="JPEG")[:300]
    with serve(provider, by_colour) as service:
        caller = calling(service)
        for data in (b"no picture", cut, b"\x89PNG\r\n\x1a\n" + bytes(100)):
            assert shown(lambda data=data: caller.ask(data))[1] == error
        assert service.billed == 0
        assert len(service.received) == 3
        assert [received.pictures for received in service.received] == [0, 0, 0]


SHOWN = {
    # fault: what each SDK makes of it, by class and code
    "aws": {
        "429": ("ThrottlingException", "ThrottlingException"),
        "429-wait": (
            "ProvisionedThroughputExceededException",
            "ProvisionedThroughputExceededException",
        ),
        "429-date": (
            "ProvisionedThroughputExceededException",
            "ProvisionedThroughputExceededException",
        ),
        "500": ("InternalServerError", "InternalServerError"),
        "503": ("ClientError", "ServiceUnavailableException"),
        "403": ("AccessDeniedException", "AccessDeniedException"),
        "quota": ("LimitExceededException", "LimitExceededException"),
        "reset": ("ConnectionClosedError", None),
        "timeout": ("ReadTimeoutError", None),
        "late": ("ReadTimeoutError", None),
        # botocore makes an answer without any labels of what is cut off or no JSON at all.
        "half": ("KeyError", "Labels"),
        "garbage": ("KeyError", "Labels"),
        "inside": ("KeyError", "Labels"),
    },
    "google": {
        "429": ("TooManyRequests", None),
        "429-wait": ("TooManyRequests", None),
        "429-date": ("TooManyRequests", None),
        "500": ("InternalServerError", None),
        "503": ("ServiceUnavailable", None),
        "403": ("Forbidden", None),
        "quota": ("TooManyRequests", None),
        "reset": ("ConnectionError", None),
        "timeout": ("ReadTimeout", None),
        "late": ("ReadTimeout", None),
        "half": ("ChunkedEncodingError", None),
        "garbage": ("ParseError", None),
        "inside": ("RuntimeError", "13 Internal server error. Unexpected feature response."),
    },
    "google-grpc": {
        "429": ("ResourceExhausted", None),
        "429-wait": ("ResourceExhausted", None),
        "429-date": ("ResourceExhausted", None),
        "500": ("InternalServerError", None),
        "503": ("ServiceUnavailable", None),
        "403": ("PermissionDenied", None),
        "quota": ("ResourceExhausted", None),
        "reset": ("ServiceUnavailable", None),
        "timeout": ("DeadlineExceeded", None),
        "late": ("DeadlineExceeded", None),
        "half": ("InternalServerError", None),
        "garbage": ("InternalServerError", None),
        "inside": ("RuntimeError", "13 Internal server error. Unexpected feature response."),
    },
    "azure": {
        "429": ("ComputerVisionErrorResponseException", 429),
        "429-wait": ("ComputerVisionErrorResponseException", 429),
        "429-date": ("ComputerVisionErrorResponseException", 429),
        "500": ("ComputerVisionErrorResponseException", 500),
        "503": ("ComputerVisionErrorResponseException", 503),
        "403": ("ComputerVisionErrorResponseException", 403),
        "quota": ("ComputerVisionErrorResponseException", 403),
        "reset": ("ClientRequestError", None),
        "timeout": ("ClientRequestError", None),
        "late": ("ClientRequestError", None),
        "half": ("ClientRequestError", None),
        "garbage": ("DeserializationError", None),
        "inside": None,  # tags that are None
    },
    "azure4": {
        "429": ("HttpResponseError", 429),
        "429-wait": ("HttpResponseError", 429),
        "429-date": ("HttpResponseError", 429),
        "500": ("HttpResponseError", 500),
        "503": ("HttpResponseError", 503),
        "403": ("HttpResponseError", 403),
        "quota": ("HttpResponseError", 403),
        "reset": ("ServiceResponseError", None),
        "timeout": ("ServiceResponseTimeoutError", None),
        "late": ("ServiceResponseTimeoutError", None),
        "half": ("IncompleteReadError", None),
        "garbage": ("JSONDecodeError", None),
        "inside": None,
    },
    "clarifai": {
        "429": ("ClarifaiError", 429),
        "429-wait": ("ClarifaiError", 429),
        "429-date": ("ClarifaiError", 429),
        "500": ("ClarifaiError", 500),
        "503": ("ClarifaiError", 503),
        "403": ("ClarifaiError", 403),
        "quota": ("ClarifaiError", 429),
        "reset": ("ConnectionError", None),
        "timeout": ("ReadTimeout", None),
        "late": ("ReadTimeout", None),
        "half": ("ChunkedEncodingError", None),
        "garbage": ("JSONDecodeError", None),
        "inside": ("ClarifaiError", 200),
    },
}


@pytest.mark.parametrize("provider", PROVIDERS)
def test_each_fault_as_the_sdk_shows_it_and_only_late_is_billed(provider, calling):
    assert set(SHOWN[provider]) == set(Fault) - {"slow"}
    data = picture()
    plan = ", ".join(f"1x{fault}" for fault in SHOWN[provider])
    with serve(provider, by_colour, faults=plan, late=600.0) as service:
        patient = calling(service)
        if provider == "google-grpc":
            # What is late before it is read is not received at all.
            hasty = calling(service, timeout=1.5)
            hasty.client = patient.client  # whose connection is there
        else:
            hasty = calling(service, timeout=0.4)
        for number, (fault, expected) in enumerate(SHOWN[provider].items()):
            caller = hasty if fault in ("timeout", "late") else patient
            billed = service.billed
            error = shown(partial(caller.ask, data))
            until(lambda many=number + 1: len(service.received) == many)
            if expected is None:
                assert error is None, fault
            else:
                name, code = expected
                assert error[0] == name, (fault, error)
                assert code in (None, error[1]), (fault, error)
            if fault == "late":
                until(lambda now=billed + 1: service.billed == now)
            else:
                assert service.billed == billed, fault
        assert patient.ask(data)[0][0] == "red"  # and then all is well again
        assert [str(r.fault) for r in service.received] == [*SHOWN[provider], "None"]
        assert all(r.pictures == 1 and not r.refused for r in service.received)


@pytest.mark.parametrize("provider", PROVIDERS)
def test_a_slow_answer_is_a_true_one(provider, calling):
    with serve(provider, by_colour, faults="1xslow", drip=0.2) as service:
        began = time.monotonic()
        assert calling(service).ask(picture())[0][0] == "red"
        assert time.monotonic() - began > 0.15
        assert service.billed == 1


@pytest.mark.parametrize(
    ("fault", "pattern"),
    [
        ("429", None),
        ("429-wait", r"7"),
        ("429-date", r"[A-Z][a-z]{2}, \d\d [A-Z][a-z]{2} \d{4} \d\d:\d\d:\d\d GMT"),
    ],
)
@pytest.mark.parametrize("provider", ON_HTTP)
def test_retry_after_as_seconds_as_date_or_not_at_all(provider, fault, pattern):
    import re

    import requests

    with serve(provider, by_colour, faults=f"@1- {fault}", retry_after=7) as service:
        response = requests.post(service.url + service.wire.paths[0], timeout=PATIENCE)
        told = response.headers.get("Retry-After")
        assert told is None if pattern is None else re.fullmatch(pattern, told)


def test_retry_after_over_grpc_is_a_detail(calling):
    from google.api_core.exceptions import ResourceExhausted

    with serve("google-grpc", by_colour, faults="1x429-wait", retry_after=2.5) as service:
        with pytest.raises(ResourceExhausted) as caught:
            calling(service).ask(picture())
        [delay] = [d.retry_delay for d in caught.value.details if hasattr(d, "retry_delay")]
        assert (delay.seconds, delay.nanos) == (2, 500_000_000)


@pytest.mark.parametrize("provider", PROVIDERS)
def test_32_callers_are_labelled_at_the_same_time(provider, calling):
    together = threading.Barrier(32)

    def backend(pixels):
        together.wait(PATIENCE)  # each waits for the other 31
        return by_colour(pixels)

    colours = [(8 * i, 255 - 8 * i, 40) for i in range(32)]
    with serve(provider, backend) as service:
        caller = calling(service, timeout=2 * PATIENCE)
        with ThreadPoolExecutor(32) as pool:
            answers = list(pool.map(lambda colour: caller.ask(picture(colour)), colours))
        assert service.billed == 32
        assert sorted(r.number for r in service.received) == list(range(32))
    assert len({r.digests for r in service.received}) == 32
    for (red, green, blue), answer in zip(colours, answers, strict=True):
        assert dict(answer)["bright"] == pytest.approx((red + green + blue) / 765, abs=1e-3)


@pytest.mark.parametrize("provider", PROVIDERS)
def test_closing_ends_what_hangs_and_leaves_no_thread(provider, calling):
    before = set(threading.enumerate())
    service = serve(provider, by_colour, faults="@1 timeout, @2 late", late=600)
    caller = calling(service, timeout=200)
    with ThreadPoolExecutor(2) as pool:
        hanging = [pool.submit(shown, lambda: caller.ask(picture())) for _ in range(2)]
        until(lambda: len(service.received) == 2 and service.billed == 1)
        began = time.monotonic()
        service.close()
        assert time.monotonic() - began < PATIENCE
        assert len([hung for hung in hanging if hung.result(PATIENCE) is not None]) >= 1
    service.close()  # twice does no harm
    with pytest.raises(OSError):
        socket.create_connection(("127.0.0.1", service.port), timeout=1).close()
    until(
        lambda: (
            not any(
                thread.name.startswith("smoothapi-") or "_serve" in thread.name
                for thread in set(threading.enumerate()) - before
            )
        )
    )


@pytest.mark.parametrize("provider", PROVIDERS)
@pytest.mark.parametrize("fault", ["timeout", "late", "slow"])
def test_closing_in_the_midst_of_a_fault_logs_no_error(provider, fault, calling, caplog):
    with serve(provider, by_colour, faults=f"1x{fault}", late=600, drip=600) as service:
        caller = calling(service, timeout=200)
        with ThreadPoolExecutor(1) as pool:
            hanging = pool.submit(shown, lambda: caller.ask(picture()))
            until(lambda: service.requests == 1 and service.billed == (fault != "timeout"))
            time.sleep(0.02)
            service.close()
            hung = hanging.result(PATIENCE)
    assert provider == "google-grpc" or hung is not None
    assert not [r for r in caplog.records if r.name.startswith(("uvicorn", "asyncio", "smooth"))]


@pytest.mark.parametrize("provider", ["google", "google-grpc", "clarifai"])
@pytest.mark.parametrize(
    "raw", [b"", b"{", {"responses": [], "outputs": []}, {"responses": 7, "outputs": 7}]
)
def test_malformed_replies_are_an_internal_error_and_logged(provider, raw, calling, caplog):
    with serve(provider, replies=lambda _: raw) as service:
        error = shown(lambda: calling(service).ask(picture()))
        assert "nternal" in error[0] + error[2] or "98009" in error[2]
    assert "provider's own JSON" in caplog.text


@pytest.mark.parametrize("provider", ON_HTTP)
def test_a_body_over_the_limit_is_refused_in_the_providers_words(provider):
    import requests

    with serve(provider, by_colour) as service:
        most = min(service.wire.max_body, 2**21)
        service.wire.max_body = most  # the limit itself is asserted in each provider's test
        url = service.url + service.wire.paths[0]
        for body in (b"x" * (most + 1), iter([b"x" * 2**16] * (most // 2**16 + 1))):
            response = requests.post(url, data=body, timeout=PATIENCE)
            assert 400 <= response.status_code < 500
            response.json()
        assert [r.refused != "" for r in service.received] == [True, True]
        assert service.received[0].body == most + 1  # not a byte more is kept
        # Far too much is not even read to its end.
        address = (service.host, service.port)
        with socket.create_connection(address, timeout=PATIENCE) as line:
            line.sendall(
                b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 99999999999\r\n\r\n" + b"x" * 64
            )
            with pytest.raises(ConnectionError):
                while True:
                    line.sendall(b"x" * 2**20)
        response = requests.post(url, data=b"", timeout=PATIENCE)
        assert response.status_code >= 400


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (ThrottledError("slow down"), "ThrottlingException"),
        (TransientError("later"), "ServiceUnavailableException"),
        (FatalError("never"), "AccessDeniedException"),
        (PermanentError("nothing recorded"), "InvalidParameterException"),
        (RuntimeError("SECRET"), "InternalServerError"),
    ],
)
def test_a_backends_errors_become_the_providers(error, code, calling, caplog):
    def backend(_):
        raise error

    with caplog.at_level(logging.WARNING), serve("aws", backend) as service:
        name, shown_code, text = shown(lambda: calling(service).ask(picture()))
        assert shown_code == code, name
        assert "SECRET" not in text
        assert service.billed == 0
    assert ("RuntimeError" in caplog.text) == isinstance(error, RuntimeError)
    assert "SECRET" not in caplog.text


@pytest.mark.parametrize("provider", PROVIDERS)
def test_whatever_a_labeller_may_return(provider, calling):
    returned = {
        (200, 0, 0): ([], []),
        (0, 200, 0): (None, []),
        (0, 0, 200): ("bus", [("bus", 1.0)]),
        (9, 9, 9): ([Label("a", 0.5)], [("a", 0.5)]),
        (90, 9, 9): (Answer((Label("b", 0.25),)), [("b", 0.25)]),
    }
    with serve(provider, lambda pixels: returned[tuple(map(int, pixels[0, 0]))][0]) as service:
        caller = calling(service)
        for colour, (_, expected) in returned.items():
            assert caller.ask(picture(colour)) == expected
        assert service.billed == len(returned)


@pytest.mark.parametrize("provider", PROVIDERS)
def test_only_the_key_is_let_in(provider, calling):
    refused = {
        "aws": "UnrecognizedClientException",
        "google": "400 POST",
        "google-grpc": "403 Method doesn't allow unregistered callers",
        "azure": 401,
        "azure4": 401,
        "clarifai": 401,
    }
    with serve(provider, by_colour, key="right") as service:
        error = shown(lambda: calling(service, key="wrong").ask(picture()))
        assert str(error[1]) in str(refused[provider]) or str(refused[provider]) in error[2], error
        assert service.billed == 0
        if provider != "google-grpc":
            assert calling(service, key="right").ask(picture())[0][0] == "red"
        assert all("right" not in repr(r) and "wrong" not in repr(r) for r in service.received)


def test_latency_is_what_each_answer_takes_at_least(calling):
    done = []
    with serve(
        "aws", by_colour, latency="empirical 0.15 0.2", on_done=lambda *it: done.append(it)
    ) as service:
        caller = calling(service)
        for _ in range(3):
            caller.ask(picture())
    assert [status for _, status, _ in done] == ["200"] * 3
    assert all(0.149 < seconds < PATIENCE for _, _, seconds in done)


def test_only_the_latest_requests_are_kept_if_so_wished(calling):
    with serve("aws", by_colour, keep=2) as service:
        caller = calling(service)
        for _ in range(5):
            caller.ask(picture())
        assert [received.number for received in service.received] == [3, 4]
        assert (service.requests, service.billed) == (5, 5)


def test_a_server_that_cannot_start_says_so_and_does_not_hang(monkeypatch):
    from smoothapi.services import http_server

    async def startup(self, sockets=None):
        raise RuntimeError("no loop today")

    monkeypatch.setattr(http_server._Server, "startup", startup)
    with pytest.raises(UsageError, match="no loop today"):
        serve("aws", by_colour)


def test_who_looks_on_cannot_break_an_answer(calling, caplog):
    def on_done(*_):
        raise RuntimeError("no")

    with serve("aws", by_colour, on_done=on_done) as service:
        assert calling(service).ask(picture())
    assert "on_done" in caplog.text


@pytest.mark.parametrize("provider", ["aws", "google-grpc"])
def test_an_ipv6_loopback_will_do(provider, calling):
    try:
        with socket.create_server(("::1", 0), family=socket.AF_INET6):
            pass
    except OSError:
        pytest.skip("no IPv6 here")
    with serve(provider, by_colour, host="::1") as service:
        assert service.address.startswith("[::1]:")
        assert calling(service).ask(picture())[0][0] == "red"


@pytest.mark.parametrize("options", [{"retry_after": -1}, {"late": float("nan")}, {"drip": 1e9}])
def test_times_must_be_times(options):
    with pytest.raises(UsageError, match="seconds"):
        serve("aws", by_colour, **options)


def test_a_taken_port_and_an_unknown_provider_are_refused():
    with serve("aws", by_colour) as service:
        for provider in ("aws", "google-grpc"):
            with pytest.raises(UsageError, match="port"):
                serve(provider, by_colour, port=service.port)
    with pytest.raises(UsageError, match="clarifai"):
        serve("amazon", by_colour)


@pytest.mark.parametrize(
    ("provider", "missing", "extra"),
    [("aws", "uvicorn", "emulate"), ("google-grpc", "grpc", "google")],
)
def test_a_missing_package_is_named_with_its_extra(provider, missing, extra, monkeypatch):
    import sys

    package = sys.modules["smoothapi.services"]
    for name in [name for name in sys.modules if name.startswith("smoothapi.services.")]:
        monkeypatch.delitem(sys.modules, name)
        monkeypatch.delattr(
            package, name.rpartition(".")[2], raising=False
        )  # or the fresh one stays there
    monkeypatch.setitem(sys.modules, missing, None)
    from smoothapi.services.service import serve as fresh

    with pytest.raises(MissingExtraError, match=rf"\[{extra}\]"):
        fresh(provider, by_colour)


def test_importing_services_loads_no_server_no_sdk_and_no_torch():
    import subprocess
    import sys

    code = (
        "import sys, smoothapi.services as s; s.PROVIDERS; from smoothapi.services import serve\n"
        "print([m for m in ('torch','boto3','google.cloud','grpc','azure','requests','uvicorn','starlette') if m in sys.modules])"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"
