"""Only type-checked, never run: a wrapped client has the type of the client, each method of it."""

# pyright: reportUnnecessaryTypeIgnoreComment=true

from __future__ import annotations

from typing import assert_type

from azure.ai.vision.imageanalysis import ImageAnalysisClient
from azure.ai.vision.imageanalysis.aio import ImageAnalysisClient as AioImageAnalysisClient
from azure.ai.vision.imageanalysis.models import ImageAnalysisResult, VisualFeatures
from azure.core.credentials import AzureKeyCredential
from google.cloud import vision

from smoothapi import (
    Budget,
    Certificate,
    Retry,
    Scores,
    certificate_of,
    finding_of,
    with_options,
    wrap,
)


class Rekognition:
    """As mypy-boto3-rekognition types boto3's client."""

    def detect_labels(
        self,
        *,
        Image: dict[str, bytes],  # noqa: N803
        MaxLabels: int = 0,  # noqa: N803
    ) -> dict[str, object]:
        raise NotImplementedError


rekognition = wrap(Rekognition(), budget="$20/day")
assert_type(rekognition, Rekognition)
response = rekognition.detect_labels(Image={"Bytes": b""})
assert_type(response, dict[str, object])
assert_type(certificate_of(response), Certificate)
rekognition.detect_labels(Image={"Bytes": b""}, MaxLabels="3")  # pyright: ignore[reportArgumentType]
rekognition.detect_dogs()  # pyright: ignore[reportAttributeAccessIssue, reportUnknownMemberType]

google = wrap(vision.ImageAnnotatorClient(), budget=Budget(dollars=2), uncertified="mark")
assert_type(google, vision.ImageAnnotatorClient)
batch = google.batch_annotate_images(  # pyright: ignore[reportUnknownMemberType]
    requests=[vision.AnnotateImageRequest()]
)
assert_type(batch, vision.BatchAnnotateImagesResponse)
assert_type(certificate_of(batch, 1).radius, float)

assert_type(with_options(google, score=0.9, within=2.0), vision.ImageAnnotatorClient)
assert_type(with_options(google, budget="$0.10"), vision.ImageAnnotatorClient)
assert_type(finding_of(batch).certified, bool)
wrap(Rekognition(), budget="$2", otherwise="plain", target=Scores("Weapon"), classes={"a": ["b"]})

azure = ImageAnalysisClient("https://example.org", AzureKeyCredential("key"))
with wrap(azure, budget=[Budget(attempts=9)], sigma=0.25, retry=Retry(attempts=2)) as certified:
    assert_type(certified, ImageAnalysisClient)
    assert_type(certified.analyze(b"", [VisualFeatures.TAGS]), ImageAnalysisResult)

wrap(azure)  # pyright: ignore[reportCallIssue]
wrap(azure, budget=2)  # pyright: ignore[reportArgumentType]
wrap(azure, budget="$2", uncertified="hide")  # pyright: ignore[reportArgumentType]
wrap(azure, budget="$2", provider="aws")  # pyright: ignore[reportCallIssue]
with_options(azure, otherwise="open")  # pyright: ignore[reportArgumentType]
with_options(azure, budget=2)  # pyright: ignore[reportArgumentType]


async def awaited() -> None:
    """Of asynchronous clients, too, and what is awaited."""
    aio = AioImageAnalysisClient("https://example.org", AzureKeyCredential("key"))
    async with wrap(aio, budget="$2", abandon_on_cancel=True) as certified:
        assert_type(certified, AioImageAnalysisClient)
        assert_type(await certified.analyze(b"", [VisualFeatures.TAGS]), ImageAnalysisResult)
        assert certified.analyze(b"", []).captions  # pyright: ignore[reportAttributeAccessIssue, reportUnknownMemberType]
    asynchronous = wrap(vision.ImageAnnotatorAsyncClient(), budget="$2")
    assert_type(asynchronous, vision.ImageAnnotatorAsyncClient)
    answer = await with_options(asynchronous, within=2.0).batch_annotate_images(  # pyright: ignore[reportUnknownMemberType]
        requests=[vision.AnnotateImageRequest()]
    )
    assert_type(answer, vision.BatchAnnotateImagesResponse)
    with_options(asynchronous, abandon_on_cancel=1.5)  # pyright: ignore[reportArgumentType]
