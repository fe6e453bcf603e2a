"""Labels leave a gateway certified or not at all, and only what may pass is outside its budgets."""

from __future__ import annotations

import json
import subprocess
import sys
from types import SimpleNamespace

import pytest
import requests
from google.cloud import vision

from smoothapi.gateway import app
from smoothapi.services import serve
from smoothapi.wires.wire import Reply
from tests.unit.gateway.conftest import (
    AMZ,
    AWS_KEYS,
    CONTENT,
    JSON,
    KITS,
    OCTETS,
    RAW,
    call,
    tables,
)
from tests.unit.wrapping.conftest import KITS as WRAPPED
from tests.unit.wrapping.conftest import PHOTO, labeller

pytestmark = pytest.mark.timeout(60)

LABELS = {"image": {"content": CONTENT}, "features": [{"type": "LABEL_DETECTION"}]}
ADULT = {"image": {"content": CONTENT}, "features": [{"type": "SAFE_SEARCH_DETECTION"}]}
GOOGLE, OUTPUTS = RAW["google"][0], RAW["clarifai"][0]
TAG, ANALYZE = "/vision/v3.2/tag", "/vision/v3.2/analyze"
ANALYZE4 = "/computervision/imageanalysis:analyze"


def of_google(*rows):
    return GOOGLE, JSON, json.dumps({"requests": rows}).encode()


def of_clarifai(*images, path=OUTPUTS):
    inputs = [{"data": image} for image in images]
    return path, JSON, json.dumps({"inputs": inputs}).encode()


def of_aws(target="DetectLabels", **members):
    body = {"Image": {"Bytes": CONTENT}, **members}
    headers = {**AMZ, "x-amz-target": f"RekognitionService.{target}"}
    return "/", headers, json.dumps(body).encode()


def put(what, at):
    path, headers, body = what
    return requests.post(at.url + path, headers=headers, data=body, timeout=20)


def spent(gateway):
    """Return what is counted of a gateway's calls: the provider's account, or the caller's."""
    return max(account.attempts for account in gateway.app.gateway.accounts())


BATCHES = {
    "features": [LABELS, ADULT, ADULT],
    "no picture": [LABELS, {**LABELS, "image": {"content": "!!!"}}],
    "an empty picture": [LABELS, {**LABELS, "image": {}}],
    "no features": [LABELS, {"image": {"content": CONTENT}}],
    "features that are not known": [LABELS, {**LABELS, "features": [{"type": "label_detection"}]}],
}


@pytest.mark.parametrize("rows", list(BATCHES.values()), ids=list(BATCHES))
def test_what_may_not_pass_alone_does_not_pass_in_a_batch_of_googles(rows, start):
    with serve("google", labeller) as service:
        gateway = start("google", service)
        found = put(of_google(*rows), gateway)
        assert service.billed == spent(gateway), "all that is paid for is counted"
    assert found.status_code == 200
    first, *others = found.json()["responses"]
    assert [one["description"] for one in first["labelAnnotations"]] == ["Bus", "Vehicle"]
    assert [list(one) for one in others] == [["error"]] * len(others)
    assert found.headers["x-smoothapi-outcome"] == ",".join(
        ["certified", *["refused"] * len(others)]
    )


def test_what_may_pass_passes_in_a_batch_too(start):
    with serve("google", labeller) as service:
        gateway = start("google", service, provider={"passthrough": ["images:annotate"]})
        found = put(of_google(ADULT, LABELS, {**LABELS, "image": {}}), gateway)
        assert service.billed == spent(gateway) + 1
    assert found.headers["x-smoothapi-outcome"] == "passed,certified,refused"
    assert "safeSearchAnnotation" in found.json()["responses"][0]


def test_nor_does_it_over_grpc(start):
    with serve("google", labeller) as service:
        gateway = start("google", service, grpc_port=0)
        at = SimpleNamespace(address=f"127.0.0.1:{gateway.grpc_port}")
        client = WRAPPED["google-grpc"].client(at)
        image, kinds = vision.Image(content=PHOTO), vision.Feature.Type
        rows = [
            vision.AnnotateImageRequest(image=image, features=[{"type_": kind}])
            for kind in (kinds.LABEL_DETECTION, kinds.SAFE_SEARCH_DETECTION)
        ]
        found = client.batch_annotate_images(requests=rows).responses
        client.transport.close()
        assert service.billed == spent(gateway)
    assert [one.error.code for one in found] == [0, 3]
    assert [one.description for one in found[0].label_annotations] == ["Bus", "Vehicle"]


@pytest.mark.parametrize(
    "other",
    [
        {"text": {"raw": "A bus."}},
        {"image": {"base64": "!!!"}},
        {"image": {}},
        {"image": {"base64": CONTENT, "url": "https://a.example.com/x.png"}},
        {"parts": [{"data": {"image": {"base64": CONTENT}}}]},
    ],
)
def test_nor_does_an_input_of_clarifais(other, start):
    with serve("clarifai", labeller) as service:
        gateway = start("clarifai", service)
        found = put(of_clarifai({"image": {"base64": CONTENT}}, other), gateway)
        assert service.billed == spent(gateway)
    assert found.headers["x-smoothapi-outcome"] == "certified,refused"
    assert [one["status"]["code"] for one in found.json()["outputs"]] == [10000, 30104]


def test_features_beside_the_labels_are_one_call_that_is_counted_with_its_price(start):
    with serve("azure", labeller) as service:
        gateway = start("azure", service)
        path = f"{ANALYZE}?visualFeatures=Tags,Adult,Description"
        found = put((path, OCTETS, PHOTO), gateway)
        assert service.billed == spent(gateway)
        account = max(gateway.app.gateway.accounts(), key=lambda one: one.dollars)
        votes = (spent(gateway) - 1) * 1.0
        assert float(account.dollars) == pytest.approx((votes + 3.5) / 1000)
    assert found.headers["x-smoothapi-outcome"] == "certified"


def changed(what, body=None, **headers):
    path, own, data = what
    return path, {**own, **headers}, data if body is None else body


LABELLING = {
    "google": [
        *((path, *of_google(LABELS)[1:]) for path in (
            "/v1p1beta1/images:annotate", "/v1p4beta1/images:annotate",
            "/v1p4beta1/projects/p/images:annotate", "/v1/images:asyncBatchAnnotate",
            "/v1p2beta1/images:asyncBatchAnnotate", "/v1/files:annotate",
            "/v1p4beta1/files:asyncBatchAnnotate", "/v1/images:Annotate", "/v1//images:annotate",
            "/v1/images:annotate/", "/v1/x/images:annotate", "/v1/%69mages:annotate%20",
        )),
        of_google({**LABELS, "features": {"type": "LABEL_DETECTION"}}),
        of_google({**LABELS, "features": [{"type": "label_detection"}]}),
        of_google({**LABELS, "features": [{"type": 0}]}),
        of_google({**LABELS, "features": []}),
        of_google({"image": {"content": CONTENT}}),
        of_google({**LABELS, "image": {"content": ""}}),
        of_google({**LABELS, "image": {"content": "!!!"}}),
        changed(of_google(), json.dumps({"requests": LABELS}).encode()),
        changed(of_google(LABELS), of_google(LABELS)[2].replace(b"]}]}", b"],}]}")),
        changed(of_google(LABELS), of_google(LABELS)[2].replace(b'"', b"'")),
        changed(of_google(LABELS), b"\x0a\x00", **{"content-type": "application/x-protobuf"}),
        changed(of_google(LABELS), b""),
    ],
    "aws": [
        of_aws("detectlabels"),
        of_aws("DETECTMODERATIONLABELS"),
        of_aws(" DetectLabels"),
        of_aws(Image={"Bytes": "!!!"}),
        of_aws(Image={"Bytes": CONTENT, "Url": "x"}),
        of_aws(Features=[]),
        of_aws(Features="GENERAL_LABELS"),
        of_aws(Features=None),
        of_aws(Features=["general_labels"]),
        of_aws(MinConfidence="50"),
        of_aws(MinConfidence=101),
        of_aws("DetectModerationLabels", Features=["IMAGE_PROPERTIES"]),
        of_aws("DetectCustomLabels", ProjectVersionArn="x"),
        changed(of_aws(), of_aws()[2].replace(b'"', b"'")),
        changed(of_aws(), b"[]"),
        changed(of_aws(), b""),
    ],
    "azure": [
        *((path, OCTETS, PHOTO) for path in (
            "/vision/v3.0/tag", "/vision/v3.1/tag", "/vision/v2.0/analyze", "/vision/V3.1/Analyze",
            "/vision/v3.1/analyze?visualFeatures=Tags", "/vision//v3.2/tag", "/vision/v3.2//tag",
            "/vision/v3.2/tag/", "/vision/v3.2/tag%20", "/vision/v3.2%5Ctag",
            "/vision/v4.0-preview.1/operations/imageanalysis:analyze?features=Tags",
            f"{ANALYZE}?visualFeatures=Adult%20Tags", f"{TAG}?model-version=mine",
        )),
        (TAG, {"content-type": "multipart/form-data; boundary=x"}, PHOTO),
        (TAG, OCTETS, b""),
    ],
    "azure4": [
        *((path, OCTETS, PHOTO) for path in (
            f"{ANALYZE4}/?features=tags", "/computervision//imageanalysis:analyze?features=tags",
            "/computervision/v2/imageanalysis:analyze?features=tags",
            f"{ANALYZE4}?features=caption%20tags", f"{ANALYZE4}?features=caption,tag",
            f"{ANALYZE4}?model-name=mine", f"{ANALYZE4}?features=caption&Model-Name=mine",
            f"{ANALYZE4}?features=tags&model-version=mine",
        )),
        (f"{ANALYZE4}?features=tags", {"content-type": "multipart/form-data"}, PHOTO),
        (f"{ANALYZE4}?features=tags", OCTETS, b""),
    ],
    "clarifai": [
        *(of_clarifai({"image": {"base64": CONTENT}}, path=path) for path in (
            "/v2/models/m/outputs", "/v2/models/m/versions/v/outputs", OUTPUTS + "/",
            OUTPUTS.replace("/apps", "//apps"), OUTPUTS.replace("outputs", "Outputs"),
            OUTPUTS.replace("outputs", "%6futputs"), "/v2/workflows/w/results",
            "/v2/users/u/apps/a/workflows/w/results",
        )),
        of_clarifai({"image": {"base64": "!!!"}}),
        of_clarifai({"image": {}}),
        of_clarifai({"image": {"base64": CONTENT, "url": "https://a.example.com/x.png"}}),
        of_clarifai({"parts": [{"data": {"image": {"base64": CONTENT}}}]}),
        of_clarifai({}),
        changed(of_clarifai(), json.dumps({"inputs": {"data": {}}}).encode()),
        changed(of_clarifai(), b"{'inputs': []}"),
        changed(of_clarifai(), b""),
    ],
}  # fmt: skip


@pytest.fixture(scope="module")
def letting_pass(tmp_path_factory):
    """Return name -> an application that lets all pass, and the list of what it sent."""
    made = {}
    for name in KITS:
        given = tables(
            name,
            "http://127.0.0.1:9",
            tmp_path_factory.mktemp(name),
            provider={"passthrough": True},
            certify={"otherwise": "none"},
        )
        with pytest.MonkeyPatch.context() as patch:
            for variable, value in AWS_KEYS.items():
                patch.setenv(variable, value)
            made[name] = app(given), []
        front, sent = made[name][0].gateway.served[name].front, made[name][1]

        def send(incoming, *, sent=sent, **_):
            sent.append(incoming)
            return Reply(418, b"{}")

        front._send = send
    yield made
    for one, _ in made.values():
        one.close()


@pytest.mark.parametrize(
    ("name", "what"), [(name, what) for name, those in LABELLING.items() for what in those]
)
def test_labels_that_cannot_be_certified_are_refused_whatever_passes(name, what, letting_pass):
    gateway, sent = letting_pass[name]
    sent.clear()
    reply = call(gateway, "POST", *what)
    assert 400 <= reply.status < 500
    assert reply.headers["x-smoothapi-outcome"] == "refused"
    assert sent == []
    said = reply.body.decode()
    assert "This gateway certifies labels, and hands on no others. " in said or "plain JSON" in said


@pytest.mark.parametrize("name", list(KITS))
def test_nor_do_labels_that_are_asked_for_by_another_method(name, letting_pass):
    gateway, sent = letting_pass[name]
    path, headers, body = RAW[name]
    sent.clear()
    reply = call(gateway, "PUT", path, {**headers, "x-http-method-override": "POST"}, body)
    assert (reply.status, reply.headers["x-smoothapi-outcome"]) == (400, "refused")
    assert sent == []


FACES = {**LABELS, "features": [{"type": "FACE_DETECTION"}]}
OTHERS = [
    ("google", of_google(FACES)),
    ("google", of_google(FACES, FACES)),
    ("google", ("/v1p4beta1/images:annotate", *of_google(FACES)[1:])),
    ("google", ("/v1/files:annotate", *of_google({"features": [{"type": 11}]})[1:])),
    ("google", ("/v1/operations/1", JSON, b"")),
    ("aws", of_aws(Features=["IMAGE_PROPERTIES"])),
    ("aws", of_aws("DetectFaces")),
    ("azure", ("/vision/v3.2/read/analyze", OCTETS, PHOTO)),
    ("azure", ("/vision/v3.2/models/celebrities/analyze", OCTETS, PHOTO)),
    ("azure", ("/vision/v3.1/analyze?visualFeatures=Adult,faces", OCTETS, PHOTO)),
    ("azure4", (f"{ANALYZE4}?features=Read", OCTETS, PHOTO)),
    ("clarifai", of_clarifai({"text": {"raw": "x"}})),
    ("clarifai", of_clarifai({"text": {"raw": "x"}}, path="/v2/workflows/w/results")),
]


@pytest.mark.parametrize(("name", "what"), OTHERS)
def test_what_asks_for_no_labels_passes(name, what, letting_pass):
    gateway, sent = letting_pass[name]
    sent.clear()
    reply = call(gateway, "POST", *what)
    assert (reply.status, reply.headers["x-smoothapi-outcome"]) == (418, "passed")
    assert [one.request.body for one in sent] == [what[2]]


def test_an_operation_that_is_named_twice_is_refused(letting_pass):
    gateway, sent = letting_pass["aws"]
    sent.clear()
    for first, second in (("DetectLabels", "DetectFaces"), ("DetectFaces", "DetectLabels")):
        path, headers, body = of_aws(first)
        named = {**headers, "X-Amz-Target": f"RekognitionService.{second}"}
        assert call(gateway, "POST", path, named, body).headers["x-smoothapi-outcome"] == "refused"
    assert sent == []


@pytest.mark.parametrize(
    ("name", "path"),
    [
        ("azure", "/Vision/V3.2/Tag"),
        ("azure", "/vision/v3.2/ANALYZE?VisualFeatures=tAGS"),
        ("azure4", f"{ANALYZE4.title()}?Features=TAGS&api-version=2023-10-01"),
    ],
)
def test_azures_paths_and_features_are_certified_in_any_case(name, path, letting_pass):
    gateway, sent = letting_pass[name]
    sent.clear()
    reply = call(gateway, "POST", path, OCTETS, PHOTO)
    assert (reply.status, reply.headers["x-smoothapi-outcome"]) == (418, "refused"), "the service's"
    assert [one.target for one in sent] == [path], "the caller's own call, whose error is its own"


def test_the_certificate_that_is_kept_verifies_as_the_pages_say(start, tmp_path):
    with serve("google", labeller) as service:
        gateway = start("google", service)
        identity = put(of_google(LABELS), gateway).headers["x-smoothapi-certificate"]
        url = f"{gateway.url}/smoothapi/certificates/{identity}"
        kept = requests.get(url, timeout=20).json()["certificate"]
    path = tmp_path / "cert.json"
    path.write_text(json.dumps(kept))
    done = subprocess.run(
        [sys.executable, "-m", "smoothapi", "verify", str(path)],
        check=False,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
