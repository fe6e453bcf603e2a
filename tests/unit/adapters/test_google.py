"""What Google's errors mean, how its answers are read, and where its credentials are looked for."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import grpc
import pytest
import requests
from google.api_core import exceptions as api
from google.api_core.exceptions import from_http_status
from google.auth import exceptions as auth
from google.cloud import vision
from google.protobuf import duration_pb2
from google.protobuf.json_format import ParseError
from google.rpc import code_pb2, error_details_pb2

from smoothapi.errors import (
    FatalError,
    MissingExtraError,
    PermanentError,
    ThrottledError,
    TransientError,
    UsageError,
)
from smoothapi.provider import Adapter, NeedsCredentials, make_adapter
from smoothapi_adapters.google import GoogleAdapter
from smoothapi_adapters.google.adapter import CATEGORIES, LIKELIHOOD
from smoothapi_adapters.google.client import Connection
from smoothapi_adapters.google.errors import mapped_error, of_picture

ANSWERS = Path(__file__).parents[4] / "shared" / "data" / "answers"


class Client:
    """An SDK client that returns, or raises, what it is given."""

    def __init__(self, reply):
        self.reply = reply
        self.calls = []

    def batch_annotate_images(self, **arguments):
        self.calls.append(arguments)
        if isinstance(self.reply, Exception):
            raise self.reply
        return self.reply


def replied(text, **options):
    reply = vision.BatchAnnotateImagesResponse.from_json(text, ignore_unknown_fields=True)
    adapter = GoogleAdapter(client=Client(reply), **options)
    return adapter.ask([b"x"] * len(reply.responses))


def subclasses(cls):
    for sub in cls.__subclasses__():
        yield sub
        yield from subclasses(sub)


CALL_ERRORS = {
    "GoogleAPICallError": TransientError,
    "Redirection": TransientError,  # the bare class has no code, so nothing is known
    "MovedPermanently": FatalError,
    "NotModified": FatalError,
    "TemporaryRedirect": FatalError,
    "ResumeIncomplete": FatalError,
    "ClientError": TransientError,
    "BadRequest": PermanentError,
    "InvalidArgument": PermanentError,
    "FailedPrecondition": FatalError,
    "OutOfRange": PermanentError,
    "Unauthorized": FatalError,
    "Unauthenticated": FatalError,
    "Forbidden": FatalError,
    "PermissionDenied": FatalError,
    "NotFound": FatalError,
    "MethodNotAllowed": FatalError,
    "Conflict": TransientError,
    "AlreadyExists": PermanentError,
    "Aborted": TransientError,
    "LengthRequired": PermanentError,
    "PreconditionFailed": PermanentError,
    "RequestRangeNotSatisfiable": PermanentError,
    "TooManyRequests": ThrottledError,
    "ResourceExhausted": ThrottledError,
    "Cancelled": TransientError,
    "ServerError": TransientError,
    "InternalServerError": TransientError,
    "Unknown": TransientError,
    "DataLoss": TransientError,
    "MethodNotImplemented": FatalError,
    "BadGateway": TransientError,
    "ServiceUnavailable": TransientError,
    "GatewayTimeout": TransientError,
    "DeadlineExceeded": TransientError,
    # Of uploads in pieces, which are not used here.
    "ResumableTransferError": TransientError,
    "TransferStalledError": TransientError,
    "UnseekableStreamError": TransientError,
    "UploadCancelledError": TransientError,
    "MissingStatusHeaderError": TransientError,
}


def test_every_class_of_call_error_is_mapped_and_no_other_exists():
    classes = {api.GoogleAPICallError, *subclasses(api.GoogleAPICallError)}
    own = {cls for cls in classes if cls.__module__ == "google.api_core.exceptions"}
    assert {cls.__name__ for cls in own} == set(CALL_ERRORS)
    for cls in own:
        mapped = mapped_error(cls("it broke"))
        assert type(mapped) is CALL_ERRORS[cls.__name__], cls.__name__
        assert "it broke" in str(mapped)


CODES = {
    "CANCELLED": TransientError,
    "UNKNOWN": TransientError,
    "INVALID_ARGUMENT": PermanentError,
    "DEADLINE_EXCEEDED": TransientError,
    "NOT_FOUND": FatalError,
    "ALREADY_EXISTS": PermanentError,
    "PERMISSION_DENIED": FatalError,
    "UNAUTHENTICATED": FatalError,
    "RESOURCE_EXHAUSTED": ThrottledError,
    "FAILED_PRECONDITION": FatalError,
    "ABORTED": TransientError,
    "OUT_OF_RANGE": PermanentError,
    "UNIMPLEMENTED": FatalError,
    "INTERNAL": TransientError,
    "UNAVAILABLE": TransientError,
    "DATA_LOSS": TransientError,
}


@pytest.mark.parametrize("status", [s for s in grpc.StatusCode if s is not grpc.StatusCode.OK])
def test_every_grpc_code_is_mapped(status):
    mapped = mapped_error(api.from_grpc_status(status, "it broke"))
    assert type(mapped) is CODES[status.name]
    assert status.name in str(mapped)


@pytest.mark.parametrize(("name", "number"), [(n, v) for n, v in code_pb2.Code.items() if v])
def test_every_code_of_one_picture_is_mapped(name, number):
    mapped = of_picture(number, "no")
    own = {"NOT_FOUND": PermanentError, "FAILED_PRECONDITION": PermanentError}
    assert type(mapped) is own.get(name, CODES[name])
    assert name in str(mapped)


def test_too_many_bytes_are_no_reason_to_slow_down():
    error = api.ResourceExhausted("Received message larger than max (20 vs. 10)")
    assert type(mapped_error(error)) is PermanentError


def test_a_quota_of_a_month_is_gone_for_one_picture_as_for_all():
    assert type(of_picture(8, "Requests per month")) is FatalError
    assert type(of_picture(8, "Requests per minute")) is ThrottledError


def test_a_code_from_the_future_is_worth_another_try():
    assert type(of_picture(99, "")) is TransientError


FATAL = {401, 402, 403, 404, 405, 407, 410, 501, 505}
TRANSIENT = {408, 409, 423, 425, 499}


def test_every_http_status_is_mapped():
    for status in range(300, 600):
        mapped = mapped_error(from_http_status(status, "it broke"))
        if status == 429:
            assert type(mapped) is ThrottledError, status
        elif status in FATAL or status < 400:
            assert type(mapped) is FatalError, status
        elif status in TRANSIENT or status >= 500:
            assert type(mapped) is TransientError, status
        else:
            assert type(mapped) is PermanentError, status


def response(status, body, **headers):
    answer = requests.Response()
    answer.status_code = status
    answer._content = json.dumps(body).encode()
    answer.headers.update(headers)
    answer.request = requests.Request("POST", "https://vision.example/v1/images:annotate").prepare()
    return answer


def problem(status, message="no", *, reason="", metadata=None, more=(), **headers):
    info = {
        "@type": "type.googleapis.com/google.rpc.ErrorInfo",
        "reason": reason,
        "metadata": metadata or {},
    }
    body = {"error": {"code": status, "message": message, "details": [info, *more]}}
    return mapped_error(api.from_http_response(response(status, body, **headers)))


@pytest.mark.parametrize(
    "reason", ["API_KEY_INVALID", "SERVICE_DISABLED", "BILLING_DISABLED", "CONSUMER_SUSPENDED"]
)
def test_a_bad_key_comes_as_400_and_is_fatal(reason):
    error = problem(400, "API key not valid.", reason=reason)
    assert type(error) is FatalError
    assert reason in str(error)
    assert "gcloud auth" in str(error)


@pytest.mark.parametrize(
    ("metadata", "kind"),
    [
        ({}, ThrottledError),
        ({"quota_unit": "1/min/{project}", "quota_limit": "PerMinutePerProject"}, ThrottledError),
        ({"quota_unit": "1/d/{project}"}, FatalError),
        ({"quota_limit": "RequestsPerDayPerProject"}, FatalError),
        ({"quota_limit": "ImagesPerMonth"}, FatalError),
    ],
)
def test_a_quota_of_a_day_is_not_waited_for(metadata, kind):
    error = problem(429, reason="RATE_LIMIT_EXCEEDED", metadata=metadata)
    assert type(error) is kind
    info = error_details_pb2.ErrorInfo(reason="RATE_LIMIT_EXCEEDED", metadata=metadata)
    assert type(mapped_error(api.ResourceExhausted("no", error_info=info))) is kind


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("Quota exceeded for limit 'Requests per minute'", ThrottledError),
        ("Quota exceeded for limit 'Requests per day'", FatalError),
        ("the monthly limit is reached", FatalError),
        ("images per_day_and_user/daisy", ThrottledError),
    ],
)
def test_a_quota_of_a_day_is_known_by_its_words(text, kind):
    assert type(mapped_error(api.TooManyRequests(text))) is kind


def test_the_wait_that_is_asked_for_is_found_wherever_it_stands():
    info = {"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": "3.5s"}
    assert problem(429, more=[info]).retry_after == 3.5
    assert problem(429, **{"Retry-After": "7"}).retry_after == 7
    assert problem(503, **{"Retry-After": "7"}).retry_after == 7
    assert problem(429).retry_after is None
    assert problem(429, **{"Retry-After": "soon"}).retry_after is None
    delay = error_details_pb2.RetryInfo(
        retry_delay=duration_pb2.Duration(seconds=2, nanos=500_000_000)
    )
    assert mapped_error(api.ResourceExhausted("no", details=[delay])).retry_after == 2.5

    class Call:
        def trailing_metadata(self):
            return (("retry-after", "4"),)

    assert mapped_error(api.ResourceExhausted("no", response=Call())).retry_after == 4

    class Broken:
        def trailing_metadata(self):
            raise RuntimeError

    assert mapped_error(api.ResourceExhausted("no", response=Broken())).retry_after is None


REQUESTS_FATAL = {
    "InvalidURL",
    "InvalidProxyURL",
    "InvalidSchema",
    "MissingSchema",
    "InvalidHeader",
    "URLRequired",
    "SSLError",
    "TooManyRedirects",
}


def test_every_error_of_requests_is_mapped():
    classes = {requests.RequestException, *subclasses(requests.RequestException)}
    seen = set()
    for cls in (cls for cls in classes if cls.__module__ == "requests.exceptions"):
        error = cls("a", "b", 0) if cls.__name__ == "JSONDecodeError" else cls("it broke")
        mapped = mapped_error(error)
        fatal = cls.__name__ in REQUESTS_FATAL
        assert type(mapped) is (FatalError if fatal else TransientError), cls.__name__
        seen.add(cls.__name__)
    assert seen >= REQUESTS_FATAL | {"ReadTimeout", "ConnectTimeout", "ChunkedEncodingError"}


def test_every_error_of_signing_in_is_mapped():
    for cls in {auth.GoogleAuthError, *subclasses(auth.GoogleAuthError)}:
        error = cls() if cls.__name__ == "ReauthSamlChallengeFailError" else cls("it broke")
        for_now = cls.__name__ in ("TransportError", "TimeoutError")
        assert type(mapped_error(error)) is (TransientError if for_now else FatalError), cls
    assert type(mapped_error(auth.RefreshError("later", retryable=True))) is TransientError


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("Getting metadata from plugin failed with error: ('invalid_grant: gone', {})", FatalError),
        (
            "Getting metadata from plugin failed with error: HTTPSConnectionPool: Max retries",
            TransientError,
        ),
    ],
)
def test_over_grpc_a_failed_sign_in_looks_like_an_outage(text, kind):
    assert type(mapped_error(api.ServiceUnavailable(text))) is kind


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (api.RetryError("gave up", None), TransientError),
        (api.DuplicateCredentialArgs("two"), FatalError),
        (ParseError("no JSON"), TransientError),
        (AttributeError("'str' object has no attribute 'get'"), TransientError),
    ],
)
def test_the_rest(error, kind):
    assert type(mapped_error(error)) is kind


def test_what_is_not_the_sdks_is_not_hidden():
    assert mapped_error(MemoryError()) is None
    with pytest.raises(MemoryError):
        GoogleAdapter(client=Client(MemoryError())).ask([b"x"])


def test_one_feature_a_picture_no_retry_and_a_timeout():
    client = Client(vision.BatchAnnotateImagesResponse(responses=[{}, {}]))
    adapter = GoogleAdapter(client=client, max_results="7", timeout="2.5")
    one, two = adapter.ask([b"first", b"second"])
    assert one.labels == two.labels == ()
    [call] = client.calls
    assert call["retry"] is None
    assert call["timeout"] == 2.5
    first, second = call["request"].requests
    assert [first.image.content, second.image.content] == [b"first", b"second"]
    for request in (first, second):
        [feature] = request.features
        assert feature.type_ is vision.Feature.Type.LABEL_DETECTION
        assert (feature.max_results, feature.model) == (7, "builtin/stable")


def test_an_error_inside_is_of_its_picture_alone():
    good, bad, later = replied(
        '{"responses": [{"labelAnnotations": [{"description": "bus", "score": 0.5}]},'
        ' {"error": {"code": 3, "message": "Bad image data."}}, {"error": {"code": 8}}]}'
    )
    assert [label.name for label in good.labels] == ["bus"]
    assert type(bad) is PermanentError
    assert "Bad image data." in str(bad)
    assert type(later) is ThrottledError


@pytest.mark.parametrize(
    "text",
    [
        '{"labelAnnotations": [{"description": "", "score": 0.5}]}',
        '{"labelAnnotations": [{"description": "bus", "score": 1.5}]}',
        '{"labelAnnotations": [{"description": "bus", "score": "NaN"}]}',
    ],
)
def test_malformed_labels_are_no_answer_and_not_kept(text):
    [outcome] = replied(f'{{"responses": [{text}]}}')
    assert type(outcome) is TransientError
    assert "malformed" in str(outcome)


def test_an_answer_with_too_few_pictures_is_malformed():
    adapter = GoogleAdapter(client=Client(vision.BatchAnnotateImagesResponse()))
    with pytest.raises(TransientError, match="0 of 1"):
        adapter.ask([b"x"])


def searched(*likelihoods):
    found = dict(zip(CATEGORIES, likelihoods, strict=True))
    text = json.dumps({"responses": [{"safeSearchAnnotation": found}]})
    [answer] = replied(text, operation="safe_search")
    return answer


def test_likelihoods_rise():
    assert list(LIKELIHOOD) == [
        likelihood.name for likelihood in list(vision.Likelihood) if likelihood.value
    ]
    scores = list(LIKELIHOOD.values())
    assert scores == sorted(set(scores))
    assert (scores[0], scores[-1]) == (0.0, 1.0)
    answer = searched("VERY_LIKELY", "VERY_UNLIKELY", "POSSIBLE", "UNLIKELY", "LIKELY")
    assert {label.name: label.score for label in answer.labels} == {
        "adult": 1.0,
        "spoof": 0.0,
        "medical": 0.5,
        "violence": 0.25,
        "racy": 0.75,
    }


@pytest.mark.parametrize("unknown", ["UNKNOWN", 99])
def test_an_unknown_likelihood_is_no_answer_lest_it_count_as_absent(unknown):
    answer = searched("VERY_LIKELY", unknown, "POSSIBLE", "UNLIKELY", "LIKELY")
    assert type(answer) is PermanentError
    assert "spoof" in str(answer)


def test_a_safe_search_that_is_missing_is_tried_again():
    [missing] = replied('{"responses": [{}]}', operation="safe_search")
    assert type(missing) is TransientError


@pytest.mark.skipif(not ANSWERS.is_dir(), reason="shared/data/answers is not beside the project")
def test_all_recorded_answers_are_read():
    files = sorted(ANSWERS.glob("*.google.json"))
    assert len(files) == 23
    for file in files:
        text = file.read_text(encoding="utf-8")
        recorded = json.loads(text)["responses"][0]
        [answer] = replied(text)
        expected = [(r["description"], r["score"]) for r in recorded.get("labelAnnotations", [])]
        assert [label.name for label in answer.labels] == [name for name, _ in expected], file.name
        for label, (_, score) in zip(answer.labels, expected, strict=True):
            assert label.score == pytest.approx(score, abs=1e-6)
        # What was recorded is older than the category "racy": what it says of it is not known.
        [safe] = replied(text, operation="safe_search")
        assert type(safe) is PermanentError
        said = {**recorded["safeSearchAnnotation"], "racy": "LIKELY"}
        recorded["safeSearchAnnotation"] = said
        [safe] = replied(json.dumps({"responses": [recorded]}), operation="safe_search")
        assert {label.name: label.score for label in safe.labels} == {
            name: LIKELIHOOD[likelihood] for name, likelihood in said.items()
        }


def test_it_is_an_adapter_made_without_credentials_and_quietly():
    adapter = make_adapter("google")
    assert isinstance(adapter, Adapter)
    assert isinstance(adapter, NeedsCredentials)
    adapter.close()
    assert adapter.limits.batch == 16
    assert adapter.limits.max_request_bytes < 10_000_000
    rest = GoogleAdapter(transport="rest").limits
    assert rest.max_request_bytes * 4 / 3 < 10_000_000


def test_the_price_of_a_month():
    labels = GoogleAdapter(free_tier=True).price
    safe = GoogleAdapter(operation="safe_search", free_tier=True).price
    assert labels.of(1000) == 0
    assert labels.of(2000) == 1.5
    assert labels.of(1000, already=5_000_000) == 1
    assert float(safe.of(1000, already=5_000_000)) == 0.6


def test_what_decides_an_answer_is_in_its_identity():
    seen = [
        GoogleAdapter(**options).identity
        for options in (
            {},
            {"operation": "safe_search"},
            {"max_results": 10},
            {"model": "builtin/latest"},
            {"endpoint": "eu-vision.googleapis.com"},
        )
    ]
    assert all(one != other for i, one in enumerate(seen) for other in seen[:i])
    same = [
        GoogleAdapter(**options).identity
        for options in ({"api_key": "k"}, {"timeout": 5}, {"transport": "rest"})
    ]
    assert all(identity == seen[0] for identity in same)


@pytest.mark.parametrize(
    "options",
    [
        {"operation": "faces"},
        {"transport": "soap"},
        {"max_results": 0},
        {"max_results": 1001},
        {"model": "mine"},
        {"timeout": 0},
        {"timeout": float("nan")},
        {"api_key": "k", "credentials": object()},
        {"api_key": 5},
        {"endpoint": 5},
        {"api_key": "two words"},
        {"api_key": "two\nlines"},
        {"api_key": "\u2026"},
        {"credentials": "key.json"},
        {"credentials": {"client_email": "x"}},
        {"credentials": object()},
        {"endpoint": "https://vision.googleapis.com/v1/images:annotate"},
        {"endpoint": "https://vision.googleapis.com?key=x"},
        {"endpoint": "'vision.googleapis.com'"},
        {"endpoint": "http://vision.example"},
        {"endpoint": "ftp://vision.example"},
        {"endpoint": "https://user:pw@vision.example"},
    ],
)
def test_options_that_cannot_work(options):
    with pytest.raises(UsageError):
        GoogleAdapter(**options)


def test_without_the_extra_the_error_says_what_to_install(monkeypatch):
    monkeypatch.setattr(sys, "path", [])
    monkeypatch.setattr("smoothapi_adapters.google.adapter._installed", lambda: False)
    with pytest.raises(MissingExtraError, match=r"smoothapi-vision\[google\]"):
        GoogleAdapter()


@pytest.fixture
def nowhere(monkeypatch, tmp_path):
    for name in ("GOOGLE_APPLICATION_CREDENTIALS", "K_SERVICE", "GAE_SERVICE", "GAE_ENV"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("CLOUDSDK_CONFIG", str(tmp_path))
    monkeypatch.setenv("NO_GCE_CHECK", "true")
    monkeypatch.setattr("smoothapi_adapters.google.client._PRODUCT", tmp_path / "none")
    return tmp_path


@pytest.mark.parametrize("transport", ["grpc", "rest"])
def test_without_credentials_the_first_call_says_where_they_were_looked_for(nowhere, transport):
    adapter = GoogleAdapter(transport=transport)
    found = adapter.credentials()
    assert not found.found
    assert "GOOGLE_APPLICATION_CREDENTIALS is not set" in found.where
    with pytest.raises(FatalError, match="GOOGLE_APPLICATION_CREDENTIALS is not set") as caught:
        adapter.ask([b"x"])
    assert "gcloud auth" in str(caught.value)


def test_a_damaged_login_is_told_from_none(nowhere):
    (nowhere / "application_default_credentials.json").write_text("{}")
    with pytest.raises(FatalError, match="cannot be used"):
        GoogleAdapter().ask([b"x"])


def test_what_the_client_refuses_is_no_malformed_answer(monkeypatch):
    monkeypatch.setattr(Connection, "open", lambda self: int("no number s3cret"))
    with pytest.raises(FatalError, match="No client for Google") as caught:
        GoogleAdapter(api_key="s3cret").ask([b"x"])
    assert "s3cret" not in str(caught.value)


def test_where_credentials_are_found(nowhere, monkeypatch):
    assert "api_key" in GoogleAdapter(api_key="s3cret").credentials().where
    assert GoogleAdapter(client=Client(None)).credentials().found
    (nowhere / "application_default_credentials.json").write_text("{}")
    assert "gcloud" in GoogleAdapter().credentials().where
    assert GoogleAdapter().credentials().found
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(nowhere / "gone.json"))
    assert not GoogleAdapter().credentials().found
    (nowhere / "gone.json").write_text("{}")
    assert GoogleAdapter().credentials().found


def test_on_a_machine_of_googles_the_metadata_server_has_them(nowhere, monkeypatch):
    (nowhere / "none").write_text("Google Compute Engine\n")
    assert "metadata server" in GoogleAdapter().credentials().where
    (nowhere / "none").write_text("Standard PC\n")
    assert not GoogleAdapter().credentials().found
    monkeypatch.setenv("K_SERVICE", "service")
    assert GoogleAdapter().credentials().found


def test_a_key_that_the_provider_repeats_is_not_shown():
    adapter = GoogleAdapter(client=Client(api.InvalidArgument("bad key s3cret!")), api_key="s3cret")
    with pytest.raises(PermanentError) as caught:
        adapter.ask([b"x"])
    assert "s3cret" not in str(caught.value)
    assert "s3cret" not in repr(adapter)
    # Nor its beginning, where a long message is cut.
    for length in range(850, 900):
        adapter = GoogleAdapter(
            client=Client(api.InvalidArgument("x" * length + "s3cret")), api_key="s3cret"
        )
        with pytest.raises(PermanentError) as caught:
            adapter.ask([b"x"])
        assert "s3" not in str(caught.value)


def test_free_pictures_are_counted_on_only_if_asked_for():
    assert GoogleAdapter().price.free_per_month == 0
    assert GoogleAdapter(free_tier=True).price.free_per_month == 1000
    assert GoogleAdapter(free_tier="true").price.free_per_month == 1000
