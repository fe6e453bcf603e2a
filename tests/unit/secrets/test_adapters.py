"""No way out of an adapter, or of a wrapped client, tells what signs the requests."""

from __future__ import annotations

import io
import json
import logging
import pickle
import traceback
import warnings
from types import SimpleNamespace

import numpy as np
import pytest
import requests

from smoothapi import Retry, wrap
from smoothapi.answer import Answer, Label
from smoothapi.cli import _log_to_stderr
from smoothapi.cli.errors import to_json
from smoothapi.encode import Codec
from smoothapi.errors import FatalError, PermanentError, ProviderError
from smoothapi.provider import Mask, make_adapter, masked
from smoothapi.provider.asking import ask
from smoothapi.provider.mask import MaskedError
from smoothapi.testing.watch import everything_logged
from tests.unit.secrets.conftest import ENCODINGS, SECRET, everywhere, tells

# Sessions of clients that were given are their SDKs' own, which leave it to the collector to close.
pytestmark = pytest.mark.filterwarnings(
    "ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning"
)

PNG = Codec("png").encode(np.full((96, 96, 3), 90, np.uint8))


def _boto3(url, **keys):
    import boto3

    return boto3.client(
        "rekognition",
        endpoint_url=url,
        region_name="us-east-1",
        **{"aws_access_key_id": "AKIDEXAMPLE", "aws_secret_access_key": "x" * 40, **keys},
    )


def _vision(url):
    from google.api_core.client_options import ClientOptions
    from google.cloud import vision

    options = ClientOptions(api_endpoint=url, api_key=SECRET)
    return vision.ImageAnnotatorClient(transport="rest", client_options=options)


def _azure3(url):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from azure.cognitiveservices.vision.computervision import ComputerVisionClient
        from msrest.authentication import CognitiveServicesCredentials

    return ComputerVisionClient(url, CognitiveServicesCredentials(SECRET))


def _azure4(url):
    from azure.ai.vision.imageanalysis import ImageAnalysisClient
    from azure.core.credentials import AzureKeyCredential

    return ImageAnalysisClient(url, AzureKeyCredential(SECRET))


def _session(**members):
    session = requests.Session()
    for name, value in members.items():
        setattr(session, name, value)
    return session


class _OwnAuth(requests.auth.AuthBase):
    def __call__(self, request):
        request.headers["X-Signed-Token"] = SECRET
        return request


HTTP = {"labels": "tags[*].{name: name, score: confidence}", "model_version": "modelVersion"}
BASIC = ("someone", SECRET)

ADAPTERS = {
    "aws": lambda url: make_adapter("aws", client=_boto3(url, aws_session_token=SECRET)),
    "azure": lambda url: make_adapter("azure", endpoint=url, key=SECRET),
    "azure, a client given": lambda url: make_adapter("azure", client=_azure3(url)),
    "azure4": lambda url: make_adapter("azure4", endpoint=url, key=SECRET),
    "azure4, a client given": lambda url: make_adapter("azure4", client=_azure4(url)),
    "google": lambda url: make_adapter("google", endpoint=url, api_key=SECRET, transport="rest"),
    "google, a client given": lambda url: make_adapter("google", client=_vision(url)),
    "clarifai": lambda url: make_adapter("clarifai", endpoint=url, pat=SECRET),
    "http": lambda url: make_adapter(
        "http", url=url, headers={"Authorization": f"Bearer {SECRET}"}, **HTTP
    ),
    "http, in the URL": lambda url: make_adapter(
        "http", url=url, query={"api_key": "env:MY_KEY"}, **HTTP
    ),
    "http, in the body": lambda url: make_adapter(
        "http", url=url, form={"token": "env:MY_KEY"}, **HTTP
    ),
    "http, basic": lambda url: make_adapter("http", url=url, client=_session(auth=BASIC), **HTTP),
    "http, own auth": lambda url: make_adapter(
        "http", url=url, client=_session(auth=_OwnAuth()), **HTTP
    ),
}
SOME = " ".join(ENCODINGS[name](SECRET) for name in ("raw", "base64", "all percent", "cut short"))


@pytest.fixture(scope="module")
def adapters(server):
    """The adapters, each made once: a client of boto3 takes a while."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MY_KEY", SECRET)
        made = {name: make(server.url) for name, make in ADAPTERS.items()}
        yield made
        for adapter in made.values():
            adapter.close()


def ways_out(error):
    """Yield how an error can be shown, and what each way shows."""
    seen = []
    ahead = [error]
    while ahead:
        link = ahead.pop()
        if isinstance(link, BaseException) and link not in seen:
            seen.append(link)
            ahead += [
                link.__cause__,
                link.__context__,
                *link.args,
                *getattr(link, "exceptions", ()),
            ]
            yield "text", f"{link} {link!r} {link.args!r} {getattr(link, '__notes__', '')}"
            yield "members", repr(vars(link))
            yield (
                "members",
                json.dumps(vars(link), default=lambda v: repr(getattr(v, "__dict__", v))),
            )
    with_locals = traceback.TracebackException.from_exception(error, capture_locals=True)
    ahead = [with_locals]
    while ahead:
        link = ahead.pop()
        if link is not None:
            ahead += [link.__cause__, link.__context__]
            link.stack = traceback.StackSummary.from_list(
                [f for f in link.stack if "tests" not in f.filename]
            )
    yield "traceback", "".join(with_locals.format())
    yield "traceback", "".join(traceback.format_exception(error))
    stream = io.StringIO()
    log = logging.getLogger("tests.secrets")
    handler = logging.StreamHandler(stream)
    log.addHandler(handler)
    log.propagate = False
    log.error("it failed: %s", error, exc_info=error)
    log.removeHandler(handler)
    yield "log", stream.getvalue()
    if isinstance(error, ProviderError):
        yield "json", to_json(error)
        yield "pickle", repr(pickle.dumps(error))


def outcome_of(adapter, server, reply):
    server.reply, server.seen = reply, []
    try:
        [outcome] = adapter.ask([PNG])
    except Exception as error:  # noqa: BLE001  whatever it is, it is looked at
        return error
    return outcome


def check(outcome, what):
    if isinstance(outcome, Answer):
        assert not tells(json.dumps(outcome.to_dict(), ensure_ascii=False)), what
        return
    assert isinstance(outcome, ProviderError), f"{what}: {outcome!r}"
    assert outcome.__context__ is None
    assert isinstance(outcome.__cause__, MaskedError | None)
    for way, text in ways_out(outcome):
        assert not tells(text), f"{what}: {way}: {text}"


@pytest.mark.parametrize("name", ADAPTERS)
def test_what_a_service_repeats_is_masked_on_every_way_out(name, place, adapters, server):
    outcome = outcome_of(adapters[name], server, everywhere(SOME)[place])
    assert server.seen, "nothing was sent"
    assert all(server.seen) or name == "http, basic", "the secret was not even sent"
    check(outcome, f"{name}, {place}")


@pytest.mark.parametrize("encoding", ENCODINGS)
@pytest.mark.parametrize("name", ["aws", "azure", "azure4", "google", "clarifai", "http"])
def test_in_every_encoding(name, encoding, adapters, server):
    for place in ("body of 400", "labels"):
        reply = everywhere(ENCODINGS[encoding](SECRET))[place]
        check(outcome_of(adapters[name], server, reply), f"{name}, {encoding}")


CLIENTS = {
    "aws": (
        lambda url: _boto3(url, aws_session_token=SECRET),
        lambda client: client.detect_labels(Image={"Bytes": PNG}),
    ),
    "azure": (_azure3, lambda client: client.tag_image_in_stream(io.BytesIO(PNG))),
    "azure4": (_azure4, lambda client: client.analyze(PNG, ["tags"])),
    "google": (_vision, lambda client: client.label_detection({"content": PNG})),
}


@pytest.fixture(scope="module")
def wrapped(server):
    once = Retry(attempts=1, base=0.001, cap=0.002)
    made = {
        name: wrap(make(server.url), budget="$50", denoiser="none", max_votes=60, retry=once)
        for name, (make, _) in CLIENTS.items()
    }
    yield made
    for client in made.values():
        client.close()


@pytest.mark.parametrize("name", CLIENTS)
def test_a_wrapped_client_raises_the_sdks_error_without_the_secret(name, place, wrapped, server):
    server.reply, server.seen = everywhere(SOME)[place], []
    error = None
    try:
        CLIENTS[name][1](wrapped[name])
    except Exception as caught:  # noqa: BLE001  whatever it is, it is looked at
        error = caught
    assert all(server.seen)
    if error is None:  # what the client itself was told is its caller's
        assert place in ("labels", "error in an answer")
        return
    for way, text in ways_out(error):
        assert not tells(text), f"{way}: {text}"
    if place == "body of 400":
        assert not isinstance(error, ProviderError), "the SDK's own error is expected"


def test_an_error_that_nobody_foresaw_keeps_its_class_and_loses_the_secret():
    class Careless:
        def mask(self):
            return Mask([SECRET])

        @masked
        def ask(self, payloads):
            held = {"X-Key": SECRET}
            error = KeyError(f"no {SECRET}", SECRET.encode(), held, [held])
            error.request = SimpleNamespace(headers=held, url=f"https://u:{SECRET}@host/")
            error.add_note(f"with {SECRET}")
            raise error from ExceptionGroup(SECRET, [ValueError(SECRET), OSError(7, SECRET)])

    with pytest.raises(KeyError) as caught:
        Careless().ask([b"x"])
    for way, text in ways_out(caught.value):
        assert not tells(text), f"{way}: {text}"
    assert "in ask" in "".join(caught.value.__notes__)


def test_a_token_is_masked_that_only_the_request_tells():
    class RefusedError(Exception):
        request = SimpleNamespace(headers={"Authorization": f"Bearer {SECRET}"}, url="")

    cause = RefusedError(f"the token {SECRET} has expired")
    error = FatalError(f"Signing in failed: {cause}")
    error.__cause__ = cause
    for _, text in ways_out(Mask([]).error(error)):
        assert not tells(text)
    assert str(error) == "Signing in failed: the token *** has expired"


def test_a_proxys_password_is_masked(monkeypatch):
    monkeypatch.setenv("HTTPS_PROXY", f"http://someone:{SECRET}@proxy:3128")
    error = Mask([]).error(FatalError(f"The proxy says that {SECRET} is wrong."))
    assert str(error) == "The proxy says that *** is wrong."


@pytest.mark.parametrize(
    ("text", "masked_text"),
    [
        ("the access key AKIA2 is unknown", "the access key *** is unknown"),
        ("Nothing secret: a school bus, 0.98", None),
        (f"https://host/?key={SECRET}&x=1", "https://host/?key=***&x=1"),
        (f"...{SECRET[-4:]} is the one", None),  # as services show it
        (f"{SECRET}{SECRET} twice", "*** twice"),
    ],
)
def test_only_what_is_secret_is_masked(text, masked_text):
    assert Mask([SECRET, "AKIA2"]).text(text) == (text if masked_text is None else masked_text)


@pytest.mark.parametrize("value", ["", None, "abc", "Bearer", "Basic !!!", "Basic", "\ud800abcd"])
def test_any_value_can_be_given(value):
    mask = Mask([value])
    assert mask.text("a Bearer of Basic things, abc") == "a Bearer of Basic things, abc"
    assert repr(mask) in ("Mask(0 secrets)", "Mask(1 secrets)", "Mask(2 secrets)")


def test_spans_and_logs_of_a_run_are_clean(server, adapters):
    trace = pytest.importorskip("opentelemetry.sdk.trace")
    export = pytest.importorskip("opentelemetry.sdk.trace.export.in_memory_span_exporter")
    from opentelemetry.sdk.trace.export import SimpleSpanProcessor

    provider, spans = trace.TracerProvider(), export.InMemorySpanExporter()
    provider.add_span_processor(SimpleSpanProcessor(spans))
    server.reply = everywhere(SOME)["body of 401"]
    with provider.get_tracer("tests").start_as_current_span("attempt"):
        pass
    for name in ("azure", "google", "http"):
        with pytest.raises(ProviderError):
            with provider.get_tracer("tests").start_as_current_span("attempt"):
                adapters[name].ask([PNG])
    assert len(spans.get_finished_spans()) == 4
    assert not tells("".join(span.to_json() for span in spans.get_finished_spans()))


@pytest.mark.parametrize("name", ["aws", "azure", "azure4", "google", "clarifai", "http"])
def test_no_logger_tells(name, adapters, server):
    with everything_logged() as logged:
        for place in ("body of 401", "header", "status line"):
            outcome_of(adapters[name], server, everywhere(SOME)[place])
    telling = {logger for logger, text in logged if tells(text)}
    # What SDKs write at DEBUG alone, whose readers ask for all that is said on the wire.
    assert telling <= {
        "botocore.auth",
        "botocore.endpoint",
        "botocore.parsers",
        "msrest.exceptions",
    }


@pytest.mark.parametrize("name", ["aws", "azure", "azure4", "google", "clarifai", "http"])
def test_a_traceback_that_shows_locals_tells_nothing(name, adapters, server):
    """As rich's and pytest's do: all that a frame of the adapter held is not reached any more."""
    from rich.console import Console
    from rich.traceback import Traceback

    server.reply = everywhere(SOME)["body of 401"]
    with pytest.raises(ProviderError) as caught:
        ask(adapters[name], [PNG])
    error = caught.value
    error.__traceback__ = error.__traceback__.tb_next  # this test's own frame holds all
    console = Console(file=io.StringIO(), width=20_000, record=True)
    shown = Traceback.from_exception(
        type(error), error, error.__traceback__, show_locals=True,
        locals_max_string=None, locals_max_length=None,
    )  # fmt: skip
    console.print(shown)
    assert "payloads" in console.export_text(clear=False)
    assert not tells(console.export_text())


@pytest.mark.parametrize("level", ["0", "1"])
def test_debug_output_of_the_command_leaves_the_sdks_loggers_alone(level, monkeypatch):
    names = ("", "botocore", "urllib3", "google", "azure", "msrest", "requests")
    log = logging.getLogger("smoothapi")

    def state():
        loggers = [logging.getLogger(name) for name in names]
        return [(logger.level, list(logger.handlers)) for logger in loggers]

    before, own_level, own = state(), log.level, list(log.handlers)
    monkeypatch.setenv("SMOOTHAPI_DEBUG", level)
    try:
        _log_to_stderr()
        assert log.isEnabledFor(logging.DEBUG) is (level == "1")
        assert state() == before
    finally:
        log.setLevel(own_level)
        log.handlers[:] = own


def test_no_two_labels_become_one():
    """What is masked in an answer could make a vote for another label of it."""
    labels = [Label(name, 0.5) for name in ("school-bus", "school-boat", "School-Bus", "***")]
    answer = Answer(tuple(labels), "school-bus-v1", "school-bus-7")
    for secret in ("school-bus", "school-bus-detector", "bus-bus-bus"):
        assert Mask([secret]).outcomes([answer]) == [answer]
    told = Mask([SECRET]).outcomes([Answer((Label(f"the {SECRET}", 0.5),)), answer])
    assert isinstance(told[0], PermanentError)
    assert told[1] == answer
    assert Mask([SECRET]).outcomes([Answer(tuple(labels), SECRET, SECRET)]) == [
        Answer(tuple(labels), "***", "***")
    ]
