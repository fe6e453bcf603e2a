"""What Azure's errors mean in both SDKs, how its answers are read, where its keys are found."""

from __future__ import annotations

import inspect
import json
import os
import re
import subprocess
import sys
import time
import types
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import requests
import responses
from azure.ai.vision.imageanalysis.models import ImageAnalysisResult
from azure.cognitiveservices.vision.computervision import ComputerVisionClient
from azure.cognitiveservices.vision.computervision.models import (
    ComputerVisionErrorCodes,
    ComputerVisionErrorResponseException,
    ComputerVisionInnerErrorCodeValue,
)
from azure.core import credentials as core_credentials
from azure.core import exceptions as core
from msrest import exceptions as msrest
from msrest.authentication import CognitiveServicesCredentials

from smoothapi.answer import Answer, Label
from smoothapi.certify.labels import top1
from smoothapi.encode import Codec
from smoothapi.errors import (
    FatalError,
    MissingExtraError,
    PermanentError,
    ThrottledError,
    TransientError,
    UsageError,
)
from smoothapi.provider import Adapter, NeedsCredentials, make_adapter
from smoothapi.services import by_colour, serve
from smoothapi_adapters.azure import Azure4Adapter, AzureAdapter
from smoothapi_adapters.azure.errors import of_status
from smoothapi_adapters.azure.resource import ENDPOINT_VARIABLES, KEY_VARIABLES, Resource
from smoothapi_adapters.azure.v3 import errors as v3
from smoothapi_adapters.azure.v4 import errors as v4
from tests.conftest import invoke

ANSWERS = Path(__file__).parents[4] / "shared" / "data" / "answers"
KEY = "0123456789abcdef0123456789abcdef"
URL = "https://name.cognitiveservices.azure.com"
PNG = Codec("png").encode(np.full((60, 60, 3), 200, np.uint8))
OWNER = Resource(URL, KEY, "")
both = pytest.mark.parametrize("make", [AzureAdapter, Azure4Adapter])


@pytest.fixture(autouse=True)
def _no_keys(monkeypatch):
    ours = [name for name in os.environ if name.startswith("AZURE_")]
    for name in (*ENDPOINT_VARIABLES, *KEY_VARIABLES, *ours):
        monkeypatch.delenv(name, raising=False)


def subclasses(cls):
    for sub in cls.__subclasses__():
        yield sub
        yield from subclasses(sub)


def body(code, message="no", inner=None):
    error = {"code": code, "message": message}
    if inner:
        error["innererror"] = {"code": inner, "message": message}
    return json.dumps({"error": error})


FATAL = {401, 402, 403, 404, 405, 407, 410, 501, 505}
TRANSIENT = {408, 409, 423, 425, 499}


def meant(status):
    if status == 429:
        return ThrottledError
    if status in FATAL or status < 400:
        return FatalError
    return TransientError if status in TRANSIENT or status >= 500 else PermanentError


def raised(status, text, headers=None):
    """Return what the real 3.2 SDK raises for an answer."""
    answer = requests.Response()
    answer.status_code, answer._content = status, text.encode()
    answer.headers.update({"content-type": "application/json", **(headers or {})})
    client = ComputerVisionClient(URL, CognitiveServicesCredentials(KEY))
    return ComputerVisionErrorResponseException(client._deserialize, answer)


def test_every_status_means_the_same_in_both_sdks():
    for status in range(300, 600):
        text = body(str(status))
        old = v3.mapped_error(raised(status, text), OWNER)
        answer = types.SimpleNamespace(
            status_code=status, reason="", headers={}, text=lambda text=text: text, request=None
        )
        new = v4.mapped_error(core.HttpResponseError(response=answer), OWNER)
        assert type(old) is type(new) is meant(status), status
        assert f"HTTP {status}" in str(old)
        assert f"HTTP {status}" in str(new)


INNER = {
    "InvalidImageFormat": PermanentError,
    "UnsupportedMediaType": PermanentError,
    "InvalidImageUrl": PermanentError,
    "NotSupportedFeature": FatalError,
    "NotSupportedImage": PermanentError,
    "Timeout": TransientError,
    "InternalServerError": TransientError,
    "InvalidImageSize": PermanentError,
    "BadArgument": PermanentError,
    "DetectFaceError": PermanentError,
    "NotSupportedLanguage": FatalError,
    "InvalidThumbnailSize": PermanentError,
    "InvalidDetails": FatalError,
    "InvalidModel": FatalError,
    "CancelledRequest": TransientError,
    "NotSupportedVisualFeature": FatalError,
    "FailedToProcess": TransientError,
    "Unspecified": TransientError,
    "StorageException": TransientError,
}


def test_every_inner_code_that_the_sdk_names_is_mapped():
    assert {code.value for code in ComputerVisionInnerErrorCodeValue} == set(INNER)
    for code, kind in INNER.items():
        mapped = v3.mapped_error(raised(400, body("InvalidRequest", inner=code)), OWNER)
        assert type(mapped) is kind, code
        assert code in str(mapped)


def test_every_outer_code_that_the_sdk_names_is_mapped():
    outer = {
        "InvalidRequest": PermanentError,
        "InvalidArgument": PermanentError,
        "InternalServerError": TransientError,
        "ServiceUnavailable": TransientError,
    }
    assert {code.value for code in ComputerVisionErrorCodes} == set(outer)
    for code, kind in outer.items():
        assert type(of_status(400, body(code), {}, OWNER)) is kind, code


@pytest.mark.parametrize(
    ("status", "text", "kind"),
    [
        (403, body("403", "Out of call volume quota. Retry after 7 days."), FatalError),
        (429, body("429", "Out of call volume quota. Retry after 7 days."), FatalError),
        (429, body("429", "Quota exceeded for this month"), FatalError),
        (429, body("429", "Requests have exceeded the call rate limit."), ThrottledError),
        (429, body("InternalServerError"), ThrottledError),
        (401, body("InvalidRequest", inner="InvalidImageFormat"), FatalError),
        (400, '{"code": "InvalidImageSize", "message": "older form"}', PermanentError),
        (400, '{"error": "text"}', PermanentError),
        (400, "[]", PermanentError),
        (503, "<html>", TransientError),
        (503, '{"error": {"code": null}}', TransientError),
        (None, "", TransientError),
    ],
)
def test_what_an_answer_with_an_error_means(status, text, kind):
    assert type(of_status(status, text, {}, OWNER)) is kind


def test_an_endless_error_is_read_to_a_depth():
    nested = {"code": "a"}
    for _ in range(500):
        nested = {"code": "a", "innererror": nested}
    assert type(of_status(400, json.dumps({"error": nested}), {}, OWNER)) is PermanentError


def test_wait_and_request_id_are_handed_on_and_the_key_is_not():
    headers = {"Retry-After": "9", "apim-request-id": "abc"}
    error = of_status(429, body("429", f"key {KEY} is too fast"), headers, OWNER)
    assert (error.retry_after, error.request_id) == (9, "abc")
    assert KEY not in str(error)
    assert KEY not in repr(OWNER)
    assert of_status(429, body("429"), {"retry-after": "9"}, OWNER).retry_after == 9
    assert of_status(429, body("429"), None, OWNER).retry_after is None


def test_every_exception_of_msrest_is_mapped():
    fatal = {
        "ClientException", "TokenExpiredError", "ValidationError", "AuthenticationError",
        "SerializationError",
    }  # fmt: skip
    known = {
        name: cls
        for name, cls in inspect.getmembers(msrest, inspect.isclass)
        if issubclass(cls, Exception)
    }
    assert {"HttpOperationError", "ClientRequestError", "DeserializationError"} <= set(known)
    for name, cls in known.items():
        if name == "HttpOperationError":
            error = raised(503, body("ServiceUnavailable"))
        elif name == "ValidationError":
            error = cls("required", "image", "x")
        else:
            error = cls("it broke")
        mapped = v3.mapped_error(error, OWNER)
        assert type(mapped) is (FatalError if name in fatal else TransientError), name


@pytest.mark.parametrize("error", [msrest.DeserializationError("no JSON"), TypeError("no error")])
def test_what_is_no_json_is_judged_by_its_status(error):
    """A body of HTML, or none: the SDK fails while it reads it and says no status."""
    seen = requests.Response()
    for status in (200, 401, 403, 429, 503):
        seen.status_code = status
        mapped = v3.mapped_error(error, OWNER, seen)
        assert type(mapped) is (TransientError if status == 200 else meant(status))


CORE_FATAL = {"AzureError", "SerializationError", "StreamConsumedError", "StreamClosedError",
              "ResponseNotReadError", "ClientAuthenticationError", "ServiceRequestError"}  # fmt: skip


def test_every_exception_of_azure_core_is_mapped():
    classes = {core.AzureError, *subclasses(core.AzureError)}
    own = {cls for cls in classes if cls.__module__ == "azure.core.exceptions"}
    own |= {core.SerializationError, core.DeserializationError}
    assert len(own) > 15
    response = types.SimpleNamespace(status_code=503, reason="", headers={}, text=lambda: "")
    for cls in own:
        name = cls.__name__
        if name == "TooManyRedirectsError":
            error = cls([])
        elif name == "ODataV4Error":
            error = cls(response)
        elif name.startswith(("Stream", "ResponseNot")):
            request = types.SimpleNamespace(method="POST", url=URL)
            error = cls(types.SimpleNamespace(request=request, status_code=200))
        else:
            error = cls("it broke")
        mapped = v4.mapped_error(error, OWNER)
        # What is raised while writing the request: the same for every picture.
        assert type(mapped) is (FatalError if name in CORE_FATAL else TransientError), name


def test_every_error_of_requests_is_mapped_beneath_both():
    fatal = {"InvalidURL", "InvalidProxyURL", "InvalidSchema", "MissingSchema", "InvalidHeader",
             "URLRequired", "SSLError", "TooManyRedirects"}  # fmt: skip
    classes = {requests.RequestException, *subclasses(requests.RequestException)}
    for cls in (cls for cls in classes if cls.__module__ == "requests.exceptions"):
        error = cls("a", "b", 0) if cls.__name__ == "JSONDecodeError" else cls("it broke")
        kind = FatalError if cls.__name__ in fatal else TransientError
        assert type(v3.mapped_error(error, OWNER)) is kind
        assert type(v4.mapped_error(core.ServiceRequestError(error, error=error), OWNER)) is kind
        try:
            try:
                raise error
            except requests.RequestException as inner:
                msrest.raise_with_traceback(msrest.ClientRequestError, "", inner)
        except msrest.ClientRequestError as outer:
            mapped = v3.mapped_error(outer, OWNER)
        assert type(mapped) is kind


def test_what_is_not_the_sdks_is_not_hidden():
    assert v3.mapped_error(MemoryError(), OWNER) is None
    assert v4.mapped_error(MemoryError(), OWNER) is None


def parsed(data, *features):
    """Return the labels of an answer of 3.2 that the real SDK has deserialized."""
    client = ComputerVisionClient(URL, CognitiveServicesCredentials(KEY))
    answer = requests.Response()
    answer.status_code, answer._content = 200, json.dumps(data).encode()
    answer.headers["content-type"] = "application/json"
    try:
        result = client._deserialize("ImageAnalysis", answer)
    except msrest.DeserializationError as error:
        raise v3.mapped_error(error, OWNER, answer) from error
    raw = types.SimpleNamespace(output=result, response=answer)
    return AzureAdapter(features=features or ("tags",), endpoint=URL, key=KEY)._answer(raw)


@pytest.mark.parametrize("data", [{}, None, "", [], {"tags": None}, {"tags": [{"name": "bus"}]},
                                  {"tags": [{"confidence": 0.5}]}, {"tags": [None]},
                                  {"tags": [{"name": "bus", "confidence": 1.5}]}])  # fmt: skip
def test_malformed_is_never_no_label(data):
    with pytest.raises(TransientError, match="malformed"):
        parsed(data)


@pytest.mark.parametrize("width", ["Infinity", "1e999", "NaN", '"x"', "[]", "{}"])
def test_a_number_that_the_sdk_cannot_read_is_malformed(width):
    raw = b'{"tags": [], "requestId": "1", "metadata": {"width": %b}}' % width.encode()
    with responses.RequestsMock() as service:
        service.post(re.compile(".*"), body=raw, content_type="application/json")
        with pytest.raises(TransientError, match="malformed"):
            AzureAdapter(endpoint=URL, key=KEY).ask([b"x"])


def test_no_tags_at_all_are_an_answer():
    assert parsed({"tags": [], "requestId": "r", "modelVersion": "2021-04-01"}) == (
        Answer((), "2021-04-01", "r")
    )


WHOLE = {
    "tags": [{"name": "bus", "confidence": 0.9}],
    "categories": [{"name": "trans_bus", "score": 0.6}, {"name": "others_", "score": 0.1}],
    "description": {"tags": ["bus"], "captions": [{"text": "a bus", "confidence": 0.4}]},
    "adult": {"adultScore": 0.01, "racyScore": 0.02, "goreScore": 0.03},
    "requestId": "r",
    "metadata": {"width": 1, "height": 1, "format": "Png"},
}


def test_each_feature_becomes_labels():
    assert parsed(WHOLE).labels == (Label("bus", 0.9),)
    assert parsed(WHOLE, "categories").labels == (
        Label("trans_bus", 0.6, ("trans_",)),
        Label("others_", 0.1),
    )
    assert parsed(WHOLE, "description").labels == (Label("a bus", 0.4),)
    assert parsed(WHOLE, "adult").labels == (
        Label("adult", 0.01),
        Label("racy", 0.02),
        Label("gory", 0.03),
    )
    assert parsed(WHOLE, "adult", "tags").labels[:2] == (
        Label("bus", 0.9, (), ("tags",)),
        Label("adult", 0.01, (), ("adult",)),
    )


def test_categories_are_left_out_where_there_are_none():
    rest = {name: value for name, value in WHOLE.items() if name != "categories"}
    assert parsed(rest, "categories").labels == ()
    for missing in ("requestId", "metadata"):
        with pytest.raises(TransientError, match="categories"):
            parsed({**rest, missing: None}, "categories")
    for feature in ("tags", "description", "adult"):
        with pytest.raises(TransientError, match=feature):
            parsed({**WHOLE, feature: None}, feature)


@pytest.mark.skipif(not ANSWERS.is_dir(), reason="shared/data/answers is not beside the project")
def test_all_recorded_answers_are_read_and_have_the_right_top_label():
    files = sorted(ANSWERS.glob("*.msft.json"))
    assert len(files) == 23
    tops = {}
    for file in files:
        recorded = json.loads(file.read_text(encoding="utf-8"))
        answer = parsed(recorded)
        assert answer.request_id == recorded["requestId"]
        assert [(label.name, label.score) for label in answer.labels] == [
            (tag["name"], tag["confidence"]) for tag in recorded["tags"]
        ]
        best = max(recorded["tags"], key=lambda tag: tag["confidence"], default={"name": None})
        tops[file.name] = top1(answer)
        assert tops[file.name] == best["name"]
        categories = parsed(recorded, "categories").labels
        assert len(categories) == len(recorded.get("categories", []))
        captions = parsed(recorded, "description").labels
        assert len(captions) == len(recorded["description"]["captions"])
        adult = parsed(recorded, "adult").labels
        assert adult[0].score == recorded["adult"]["adultScore"]
    assert tops["collie_in_a_park.jpg.msft.json"] == "grass"
    assert None in tops.values()  # an empty list of tags is real


def parsed4(data, *features):
    adapter = Azure4Adapter(features=features or ("tags",), endpoint=URL, key=KEY)
    return adapter._answer(ImageAnalysisResult(data), {"apim-request-id": "r"})


def test_each_feature_of_4_becomes_labels():
    data = {
        "modelVersion": "2023-10-01",
        "tagsResult": {"values": [{"name": "bus", "confidence": 0.9}]},
        "captionResult": {"text": "a bus", "confidence": 0.4},
        "denseCaptionsResult": {"values": [{"text": "a bus", "confidence": 0.3},
                                           {"text": "a bus", "confidence": 0.5}]},
        "objectsResult": {"values": [{"tags": [{"name": "bus", "confidence": 0.7}]},
                                     {"tags": [{"name": "bus", "confidence": 0.8}]}]},
    }  # fmt: skip
    answer = parsed4(data)
    assert (answer.model_version, answer.request_id) == ("2023-10-01", "r")
    assert answer.labels == (Label("bus", 0.9),)
    assert parsed4(data, "caption").labels == (Label("a bus", 0.4),)
    assert parsed4(data, "denseCaptions").labels == (Label("a bus", 0.5),)
    assert parsed4(data, "objects").labels == (Label("bus", 0.8),)
    assert parsed4({"tagsResult": {"values": []}}).labels == ()
    bus = parsed4(data, "tags", "caption").labels[0]
    assert bus.categories == ("tags",)


@pytest.mark.parametrize("data", [{}, {"tagsResult": None}, {"tagsResult": {}},
                                  {"tagsResult": {"values": None}},
                                  {"tagsResult": {"values": [{"name": "bus"}]}},
                                  {"tagsResult": {"values": [{"name": "b", "confidence": 2}]}},
                                  {"tagsResult": {"values": "bus"}}])  # fmt: skip
def test_malformed_is_never_no_label_in_4_either(data):
    with pytest.raises(TransientError, match="malformed"):
        parsed4(data)


@pytest.mark.parametrize("name", ["azure", "azure4"])
def test_they_are_adapters_made_without_credentials(name):
    adapter = make_adapter(name)
    assert isinstance(adapter, Adapter)
    assert isinstance(adapter, NeedsCredentials)
    assert adapter.name == name
    assert adapter.limits.min_side == 50
    assert adapter.limits.max_side == 16_000
    assert adapter.retires == "2028-09-25"
    assert not adapter.credentials().found
    with pytest.raises(FatalError, match="VISION_KEY"):
        adapter.ask([b"x"])
    adapter.close()
    assert make_adapter("azure").limits.max_bytes < 4_000_000
    assert make_adapter("azure4").limits.max_bytes < 20_000_000


def test_each_feature_is_charged_for():
    assert AzureAdapter().price.of(1000) == 1
    assert AzureAdapter(features="tags, adult").price.of(1000) == 2
    assert AzureAdapter(features=["description"]).price.of(1000) == 1.5
    assert Azure4Adapter(features=["tags", "caption"]).price.of(1000) == 2.5


@both
@pytest.mark.parametrize(
    "pairs",
    [
        ("VISION_ENDPOINT", "VISION_KEY"),
        ("COMPUTER_VISION_ENDPOINT", "COMPUTER_VISION_SUBSCRIPTION_KEY"),
        ("COMPUTER_VISION_ENDPOINT", "COMPUTER_VISION_KEY"),
    ],
)
def test_endpoint_and_key_are_found_where_azures_users_keep_them(make, pairs, monkeypatch):
    endpoint, key = pairs
    monkeypatch.setenv(endpoint, URL + "/")
    assert not make().credentials().found
    monkeypatch.setenv(key, KEY)
    found = make().credentials()
    assert found.found
    assert endpoint in found.where
    assert key in found.where
    assert KEY not in found.where
    assert make().identity["endpoint"] == "name.cognitiveservices.azure.com"


@both
def test_what_was_given_comes_first(make, monkeypatch):
    monkeypatch.setenv("VISION_ENDPOINT", "https://other.example")
    monkeypatch.setenv("VISION_KEY", "other")
    found = make(endpoint=URL, key=KEY)
    assert found.identity["endpoint"] == "name.cognitiveservices.azure.com"
    assert "option key" in found.credentials().where


@both
@pytest.mark.parametrize(
    "options",
    [
        {"features": "faces"},
        {"features": ""},
        {"features": []},
        {"model_version": "newest"},
        {"model_version": "2021-04-01; drop"},
        {"timeout": 0},
        {"timeout": "soon"},
        {"per_second": 0},
        {"endpoint": "name.cognitiveservices.azure.com"},
        {"endpoint": "http://name.cognitiveservices.azure.com"},
        {"endpoint": "https://user:pw@name.example"},
        {"key": 5},
        {"key": {"secret": KEY}},
        {"endpoint": 5},
        {"endpoint": [URL]},
        {"key": "two words"},
        {"key": "two\nlines"},
    ],
)
def test_options_that_cannot_work(make, options):
    with pytest.raises(ValueError, match=r"\w"):
        make(**options)


@both
def test_a_key_from_a_file_may_end_with_a_line_break_and_a_bad_one_is_not_shown(make, monkeypatch):
    monkeypatch.setenv("VISION_KEY", KEY + "\n")
    assert make(endpoint=URL)._resource.required().key == KEY
    monkeypatch.setenv("VISION_KEY", KEY + "\n" + KEY)
    with pytest.raises(UsageError) as caught:
        make(endpoint=URL)
    assert KEY not in str(caught.value)


@both
def test_options_come_as_text_too(make):
    one = make(features=" adult,tags" if make is AzureAdapter else "caption ,tags", timeout="2")
    assert one.identity["operation"].startswith("tags,")
    assert one.identity != make().identity
    assert make(model_version="2021-04-01").identity != make().identity
    assert make(language="es").identity != make().identity
    assert make(timeout=3, key=KEY, per_second=2).identity == make().identity
    assert (make().limits.per_second, make(per_second="0.3").limits.per_second) == (10.0, 0.3)
    assert KEY not in repr(make(key=KEY))


class Issuer:
    """A token credential: tokens of an hour, or what `fails` says."""

    def __init__(self, fails=None, seconds=3600.0):
        self.asked = []
        self.fails, self.seconds = fails, seconds

    def get_token(self, *scopes, **options):
        self.asked.append(scopes)
        if self.fails is not None:
            raise self.fails
        return core_credentials.AccessToken(
            f"token-{len(self.asked)}", int(time.time() + self.seconds)
        )


@both
def test_a_token_instead_of_a_key(make):
    adapter = make(endpoint=URL, credential=Issuer(core.ClientAuthenticationError("no login")))
    assert adapter.credentials().found
    with pytest.raises(FatalError, match="no login") as caught:
        adapter.ask([b"x"])
    assert not caught.value.sent
    adapter.close()
    assert not make(credential=Issuer()).credentials().found
    with pytest.raises(UsageError, match="not both"):
        make(credential=Issuer(), key=KEY)


@both
def test_a_token_signs_each_request_and_is_renewed_before_it_ends(make):
    with serve(make.name, by_colour, key="token-1") as service:
        issuer = Issuer()
        adapter = make(endpoint=service.url, credential=issuer)
        adapter._resource.tokens._plain = False
        with ThreadPoolExecutor(8) as pool:
            answers = list(pool.map(lambda _: adapter.ask([PNG]), range(8)))
        assert all(answer.labels for [answer] in answers)
        assert issuer.asked == [("https://cognitiveservices.azure.com/.default",)]
        issuer.seconds = 100.0
        adapter._resource.tokens._renew_at = 0.0
        with pytest.raises(FatalError) as caught:
            adapter.ask([PNG])  # token-2, which the service does not know
        assert "token-2" not in str(caught.value)
        assert len(service.received) == 9
        assert len(issuer.asked) == 2
        assert 40.0 < adapter._resource.tokens._renew_at - time.time() < 60.0
        adapter.close()


@both
def test_a_token_is_not_sent_unencrypted(make):
    with serve(make.name, by_colour) as service:
        adapter = make(endpoint=service.url, credential=Issuer())
        with pytest.raises(FatalError, match="https"):
            adapter.ask([PNG])
        assert not service.received
        adapter.close()


@both
@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (core.ClientAuthenticationError("denied"), FatalError),
        (core.ServiceRequestError("no network"), TransientError),
        (ValueError("a bad tenant"), FatalError),
        (RuntimeError("anything"), FatalError),
    ],
)
def test_signing_in_that_fails_is_said_and_sends_nothing(make, error, kind):
    with serve(make.name, by_colour) as service:
        adapter = make(endpoint=service.url, credential=Issuer(error))
        adapter._resource.tokens._plain = False
        with pytest.raises(kind, match=str(error)) as caught:
            adapter.ask([PNG])
        assert getattr(caught.value, "sent", False) is False
        assert not service.received
        adapter.close()


@both
@pytest.mark.parametrize(
    ("endpoint", "scope", "authority"),
    [
        (URL, "https://cognitiveservices.azure.com/.default", "login.microsoftonline.com"),
        (
            URL[:-3] + "us",
            "https://cognitiveservices.azure.us/.default",
            "login.microsoftonline.us",
        ),
        (URL[:-3] + "cn", "https://cognitiveservices.azure.cn/.default", "login.chinacloudapi.cn"),
    ],
)
def test_tokens_are_for_the_cloud_of_the_endpoint(make, endpoint, scope, authority, monkeypatch):
    made = []

    def default(**options):
        made.append(options)
        return Issuer(core.ClientAuthenticationError(f"for {options}"))

    monkeypatch.setattr("azure.identity.DefaultAzureCredential", default)
    issuer = Issuer(ValueError("enough"))
    with pytest.raises(FatalError):
        make(endpoint=endpoint, credential=issuer).ask([b"x"])
    assert issuer.asked == [(scope,)]
    with pytest.raises(FatalError):
        make(endpoint=endpoint, credential="default").ask([b"x"])
    assert made == [{"authority": authority}]
    monkeypatch.setenv("AZURE_AUTHORITY_HOST", "login.of.ours.example")
    with pytest.raises(FatalError):
        make(endpoint=endpoint, credential="default").ask([b"x"])
    assert made[1:] == [{}]


IDENTITY = {"AZURE_TENANT_ID": "t", "AZURE_CLIENT_ID": "c"}


@both
@pytest.mark.parametrize(
    "proof",
    [
        {"AZURE_CLIENT_SECRET": "s3cret-of-the-client"},
        {"AZURE_CLIENT_CERTIFICATE_PATH": "/c.pem"},
        {"AZURE_FEDERATED_TOKEN_FILE": "/t"},
        {"AZURE_USERNAME": "u", "AZURE_PASSWORD": "p"},
    ],
)
def test_an_identity_in_the_environment_stands_in_for_a_key(make, proof, monkeypatch):
    for name, value in (IDENTITY | proof).items():
        monkeypatch.setenv(name, value)
    found = make(endpoint=URL).credentials()
    assert found.found
    assert all(name in found.where for name in proof)
    assert "s3cret" not in found.where
    assert make(endpoint=URL, key=KEY)._resource.tokens is None
    monkeypatch.setattr("smoothapi_adapters.azure.tokens._installed", lambda: False)
    missing = make(endpoint=URL).credentials()
    assert not missing.found
    assert "smoothapi-vision[azure-identity]" in missing.where
    monkeypatch.delenv("AZURE_TENANT_ID")
    assert not make(endpoint=URL).credentials().found


@both
def test_the_secret_of_an_identity_is_not_shown(make, monkeypatch):
    for name, value in (IDENTITY | {"AZURE_CLIENT_SECRET": KEY}).items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(
        "azure.identity.DefaultAzureCredential",
        lambda **_: Issuer(core.ClientAuthenticationError(f"bad secret {KEY}")),
    )
    with pytest.raises(FatalError, match="bad secret") as caught:
        make(endpoint=URL).ask([b"x"])
    assert KEY not in str(caught.value)


class Async:
    async def get_token(self, *scopes, **options):
        raise AssertionError


@both
@pytest.mark.parametrize(
    "credential", ["", "Default", KEY, b"x", 5, {"key": KEY}, object(), Issuer, Async(), Async]
)
def test_a_credential_that_is_none_is_refused_when_it_is_given(make, credential):
    with pytest.raises(UsageError, match="credential: it is") as caught:
        make(endpoint=URL, credential=credential)
    assert KEY not in str(caught.value)


@both
def test_a_credential_from_settings(make, monkeypatch):
    monkeypatch.setenv(f"SMOOTHAPI_PROVIDERS__{make.name.upper()}__CREDENTIAL", "default")
    monkeypatch.setenv(f"SMOOTHAPI_PROVIDERS__{make.name.upper()}__ENDPOINT", URL)
    [row] = [r for r in json.loads(invoke("providers", "--json").stdout) if r["name"] == make.name]
    assert row["credentials"] is True
    assert "option credential" in row["where"]
    monkeypatch.setattr("smoothapi_adapters.azure.tokens._installed", lambda: False)
    [row] = [r for r in json.loads(invoke("providers", "--json").stdout) if r["name"] == make.name]
    assert "azure-identity" in row["problem"]
    monkeypatch.setenv(f"SMOOTHAPI_PROVIDERS__{make.name.upper()}__CREDENTIAL", "defualt")
    refused = invoke("certify", "none.png", "--provider", make.name)
    assert refused.exit_code == 2


@both
def test_a_regions_endpoint_takes_no_tokens(make):
    with pytest.raises(UsageError, match="region"):
        make(endpoint="https://westeurope.api.cognitive.microsoft.com", credential=Issuer())


@both
@pytest.mark.parametrize(
    "given",
    [
        f"{URL}/vision/v3.2/analyze",
        f"{URL}/computervision/imageanalysis:analyze?api-version=2023-10-01",
        f"{URL}?x=1",
        f"{URL}#top",
        f" {URL}",
        f"{URL}/ ",
        f'"{URL}"',
        f"'{URL}/'",
        f"<{URL}>",
        f"\u201c{URL}\u201d",
        URL.removeprefix("https://"),
        URL.replace("https", "http"),
        URL.replace("https", "ftp"),
        f"{URL}\n",
    ],
)
def test_an_endpoint_in_another_form_is_refused_with_the_right_one(make, given, monkeypatch):
    with pytest.raises(UsageError, match=r"^endpoint: ") as caught:
        make(endpoint=given, key=KEY)
    right = "ftp" in given or "\u201c" in given or f"Give {URL}." in str(caught.value)
    assert right, str(caught.value)
    monkeypatch.setenv("VISION_ENDPOINT", given)
    with pytest.raises(UsageError, match=r"^VISION_ENDPOINT: "):
        make(key=KEY)


@both
@pytest.mark.parametrize("given", ["https://<name>.cognitiveservices.azure.com", "{endpoint}", "x"])
def test_an_endpoint_that_nobody_filled_in_is_refused(make, given):
    with pytest.raises(UsageError, match="as the Azure portal shows it"):
        make(endpoint=given, key=KEY)


@both
def test_without_the_extra_the_error_says_what_to_install(make, monkeypatch):
    monkeypatch.setattr(f"{make.__module__}._installed", lambda: False)
    with pytest.raises(MissingExtraError, match=r"smoothapi-vision\[azure\]"):
        make()


def test_both_are_silent_and_light_until_asked():
    script = (
        "import sys; from smoothapi_adapters.azure import AzureAdapter as A;"
        "from smoothapi_adapters.azure import Azure4Adapter as B;"
        f"A(endpoint={URL!r}, key='k'); B(endpoint={URL!r}, key='k');"
        "assert not {'requests', 'msrest', 'azure.core'} & set(sys.modules);"
        "A(endpoint='http://127.0.0.1:9', key='k')._ready();"
        "B(endpoint='http://127.0.0.1:9', key='k')._ready()"
    )
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", script], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
