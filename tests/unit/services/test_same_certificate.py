"""One photo, one labeller, five protocols: one certificate."""

from __future__ import annotations

from contextlib import ExitStack

import numpy as np
import pytest

from smoothapi import Smoother
from smoothapi.errors import PermanentError
from smoothapi.provider import make_adapter
from smoothapi.services import PROVIDERS, by_colour, serve

PHOTO = np.full((96, 96, 3), (150, 128, 90), np.uint8)  # green hangs in the balance
ENVIRONMENT = {
    "AWS_ACCESS_KEY_ID": "emulated",
    "AWS_SECRET_ACCESS_KEY": "emulated",
    "AWS_DEFAULT_REGION": "us-east-1",
    "AWS_EC2_METADATA_DISABLED": "true",
}


def adapter(service, closing):
    if service.name in ("google", "google-grpc"):
        from google.auth.credentials import AnonymousCredentials

        if service.name == "google":
            return make_adapter(
                "google", transport="rest", endpoint=service.url, credentials=AnonymousCredentials()
            )
        import grpc
        from google.cloud import vision
        from google.cloud.vision_v1.services.image_annotator import transports

        channel = grpc.insecure_channel(service.address)
        closing.callback(channel.close)
        transport = transports.ImageAnnotatorGrpcTransport(channel=channel)
        return make_adapter("google", client=vision.ImageAnnotatorClient(transport=transport))
    options = {
        "aws": {},
        "azure": {"key": "emulated"},
        "azure4": {"key": "emulated"},
        "clarifai": {"pat": "emulated"},
    }[service.name]
    return make_adapter(service.name, endpoint=service.url, **options)


def certificate(provider, labeller, home, **options):
    with serve(provider, labeller) as service, ExitStack() as closing:
        with Smoother(
            adapter(service, closing),
            sigma=0.25,
            size=96,
            denoiser="none",
            max_votes=150,
            plain=False,
            home=home,
            **options,
        ) as smoother:
            made = smoother.certify(PHOTO, radius=0.1)
        assert sum(received.pictures for received in service.received) == made.queries
        assert service.billed == made.queries - made.failed
        assert all(min(size) >= 80 for received in service.received for size in received.sizes)
    return made


@pytest.fixture
def homes(tmp_path, monkeypatch):
    for name, value in ENVIRONMENT.items():
        monkeypatch.setenv(name, value)

    def home(provider):
        folder = tmp_path / provider
        folder.mkdir()
        key = folder / "noise.key"
        key.write_bytes(bytes(range(32)))
        key.chmod(0o600)
        return folder

    return home


def test_each_protocol_gives_the_same_certificate(homes):
    def labeller(pixels):
        if pixels[0, 0].sum() % 29 == 0:
            raise PermanentError("this one will never be answered")
        return by_colour(pixels)

    made = {name: certificate(name, labeller, homes(name)) for name in PROVIDERS}
    first = made["aws"]
    assert first.failed > 0  # the unanswered were votes for "no answer"
    assert first.label is not None
    assert len(first.tally) > 2
    for provider, other in made.items():
        assert (other.label, other.radius) == (first.label, first.radius), provider
        assert (other.tally, other.failed) == (first.tally, first.failed), provider
