"""The four SDKs' clients, each before a server that speaks its protocol, called alike."""

from __future__ import annotations

import hashlib
import io
import threading
import warnings
from contextlib import contextmanager
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from PIL import Image

from smoothapi import Label, Retry, wrap
from smoothapi.dispatch import dispatcher
from smoothapi.encode import Codec
from smoothapi.services import serve
from smoothapi.wrapping import deadline
from tests.conftest import Ticks

SECRET = "s3cr3ts3cr3ts3cr3ts3cr3ts3cr3t12"
PIXELS = np.random.default_rng(0).integers(60, 190, (90, 100, 3), dtype=np.uint8)
PHOTO = Codec().encode(PIXELS)
FAST = {
    "denoiser": "none",
    "max_votes": 60,
    "concurrency": 4,
    "radius": 0.05,
    "alpha": 0.01,
    "retry": Retry(attempts=3, base=0.001, cap=0.002, deadline=30.0),  # however busy it is here
}
# Of faults by number: all may befall one query, since others may be held up meanwhile.
PATIENT = Retry(attempts=9, base=0.001, cap=0.002, deadline=30.0)
IMPATIENT = Retry(attempts=3, base=0.001, cap=0.002, deadline=1.0)  # of a service that stays down


def digest(pixels):
    return hashlib.sha256(np.ascontiguousarray(pixels).tobytes()).digest()


def labeller(pixels):
    """Bus, always; Van for the photo itself and a third of the copies; Kite for copies only."""
    found = [Label("Bus", 0.97, ("Vehicle",)), Label("Vehicle", 0.96)]
    if digest(pixels) == digest(PIXELS):
        return [*found, Label("Van", 0.9)]
    return [*found, Label("Kite", 0.95), *([Label("Van", 0.9)] if digest(pixels)[0] < 85 else [])]


class Gate:
    """A labeller that holds up what is asked about noisy copies, until it is opened."""

    def __init__(self):
        self.begun, self.open = threading.Semaphore(0), threading.Event()

    def __call__(self, pixels):
        if digest(pixels) != digest(PIXELS):
            self.begun.release()
            self.open.wait(50)
        return labeller(pixels)


def give_up_soon(patch):
    """Have a service that is down given up soon; each of its answers is awaited as ever."""

    class Breaker(dispatcher.Breaker):
        def __init__(self, failures, _, **more):
            super().__init__(failures, 0.5, **more)

    patch.setattr(dispatcher, "Breaker", Breaker)


@pytest.fixture
def passing_when(monkeypatch):
    """Have the deadlines of calls pass when a semaphore is released, however busy it is here."""

    @contextmanager
    def passing(begun):
        clock = Ticks()

        def wait(steps, _):
            while not steps[0].done():
                if begun.acquire(timeout=0.01):
                    clock.passed += 3600.0
                    return

        with monkeypatch.context() as patch:
            patch.setattr(deadline, "wait", wait)
            patch.setattr(deadline, "time", SimpleNamespace(monotonic=clock))
            yield

    return passing


@dataclass(frozen=True)
class Kit:
    """One SDK: how to make its client, to label, to read the answer, and to do something else."""

    service: str
    make: Any
    label: Any
    scores: Any
    marked: Any
    other: Any
    other_operation: str
    url: Any = None
    retried: tuple[str, ...] = ("503", "reset")

    def client(self, service):
        return self.make(service)


def _aws(service):
    import boto3

    return boto3.client(
        "rekognition",
        endpoint_url=service.url,
        region_name="us-east-1",
        aws_access_key_id="AKIAIOSFODNN7EXAMPLE",
        aws_secret_access_key=SECRET,
    )


def _google(service):
    from google.auth.credentials import AnonymousCredentials
    from google.cloud import vision

    return vision.ImageAnnotatorClient(
        transport="rest",
        credentials=AnonymousCredentials(),
        client_options={"api_endpoint": service.url},
    )


def _google_grpc(service):
    import grpc
    from google.cloud import vision
    from google.cloud.vision_v1.services.image_annotator.transports import (
        ImageAnnotatorGrpcTransport,
    )

    channel = grpc.insecure_channel(service.address)
    return vision.ImageAnnotatorClient(transport=ImageAnnotatorGrpcTransport(channel=channel))


def _azure(service):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from azure.cognitiveservices.vision.computervision import ComputerVisionClient
        from msrest.authentication import CognitiveServicesCredentials

    return ComputerVisionClient(service.url, CognitiveServicesCredentials(SECRET))


def _azure4(service):
    from azure.ai.vision.imageanalysis import ImageAnalysisClient
    from azure.core.credentials import AzureKeyCredential

    return ImageAnalysisClient(service.url, AzureKeyCredential(SECRET))


def _google_label(client, photo=PHOTO):
    from google.cloud import vision

    return client.label_detection(vision.Image(content=photo), max_results=5)


def _google_scores(response):
    return {a.description: pytest.approx(a.score, abs=1e-6) for a in response.label_annotations}


def _google_marked(response):
    return {a.description: a.properties[0].value == "certified" for a in response.label_annotations}


def _google_other(client):
    from google.cloud import vision

    return client.safe_search_detection(vision.Image(content=PHOTO))


def _google_url(client):
    from google.cloud import vision

    image = vision.Image(source=vision.ImageSource(image_uri="http://127.0.0.1:9/x.png"))
    return client.label_detection(image)


GOOGLE = {
    "label": _google_label,
    "scores": _google_scores,
    "marked": _google_marked,
    "other": _google_other,
    "url": _google_url,
}
KITS = {
    "aws": Kit(
        "aws",
        _aws,
        lambda client, photo=PHOTO: client.detect_labels(Image={"Bytes": photo}),
        lambda response: {row["Name"]: row["Confidence"] / 100 for row in response["Labels"]},
        lambda response: {row["Name"]: row["Certified"] for row in response["Labels"]},
        lambda client: client.detect_faces(Image={"Bytes": PHOTO}),
        "",  # the local service does not know it, and has counted it
        lambda client: client.detect_labels(Image={"S3Object": {"Bucket": "abc", "Name": "x"}}),
    ),
    "google": Kit("google", _google, other_operation="images:annotate", **GOOGLE),
    "google-grpc": Kit("google-grpc", _google_grpc, other_operation="images:annotate", **GOOGLE),
    "azure": Kit(
        "azure",
        _azure,
        lambda client, photo=PHOTO: client.tag_image_in_stream(io.BytesIO(photo)),
        lambda response: {tag.name: tag.confidence for tag in response.tags},
        lambda response: {tag.name: tag.certified for tag in response.tags},
        lambda client: client.describe_image_in_stream(io.BytesIO(PHOTO)),
        "describe",
        lambda client: client.tag_image("http://127.0.0.1:9/x.png"),
    ),
    "azure4": Kit(
        "azure4",
        _azure4,
        lambda client, photo=PHOTO: client.analyze(photo, ["tags"]),
        lambda response: {tag.name: tag.confidence for tag in response.tags.list},
        lambda response: {tag.name: tag["certified"] for tag in response.tags.list},
        lambda client: client.analyze(PHOTO, ["caption"]),
        "analyze",
        lambda client: client.analyze_from_url("http://127.0.0.1:9/x.png", ["tags"]),
    ),
}


# The same client as google, over another transport: one test of its own is enough.
MOST = [name for name in KITS if name != "google-grpc"]


@pytest.fixture(params=MOST)
def kit(request):
    return KITS[request.param]


@pytest.fixture
def service(kit):
    with serve(kit.service, labeller) as service:
        yield service


@pytest.fixture
def wrapped(kit, service):
    made = []

    def make(client=None, **options):
        options = {"budget": "$5", **FAST, **options}
        made.append(wrap(client or kit.client(service), **options))
        return made[-1]

    yield make
    for client in made:
        client.close()


def png(pixels):
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, "PNG")
    return stream.getvalue()
