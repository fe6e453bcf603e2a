"""What a wrapped call costs, and whether a caller's threshold decides as a certificate does.

Labels photos through boto3 before a local Rekognition with the live labeller behind it, plain and
wrapped, and certifies the same photos directly: the top label, and `Scores`. Printed per photo are
the queries of both; at the end their medians, and how many decisions "score >= threshold" of the
wrapped response and of the certificate of Scores differ. Bars: the median of a wrapped call within
1.2 times that of a top-1 certificate, and no differing decision.

    python benchmarks/wrapped_calls.py [--photos FOLDER] [--most 20] [--size 96]
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
from pathlib import Path
from typing import Any

import boto3

from smoothapi import Budget, Scores, Smoother, certificate_of, denoise, wrap
from smoothapi.services import serve
from smoothapi_adapters.mock import EfficientNetLite0, MockAdapter

PHOTOS = Path(__file__).parent.parent / "examples" / "photos"
THRESHOLDS = (0.5, 0.8, 0.9)
SUFFIXES = (".jpg", ".jpeg", ".png")


def rekognition(url: str) -> Any:
    return boto3.client(
        "rekognition",
        endpoint_url=url,
        region_name="eu-west-1",
        aws_access_key_id="nobody",
        aws_secret_access_key="nothing",
    )


def scores(response: dict[str, Any]) -> dict[str, float]:
    return {row["Name"]: row["Confidence"] / 100 for row in response["Labels"]}


def above(found: dict[str, float], threshold: float) -> set[str]:
    return {name for name, score in found.items() if score >= threshold}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--photos", type=Path, default=PHOTOS)
    parser.add_argument("--most", type=int, default=20)
    parser.add_argument("--size", type=int, default=96)
    options = parser.parse_args()

    files = sorted(path for path in options.photos.iterdir() if path.suffix in SUFFIXES)
    labeller = EfficientNetLite0()
    common = {"size": options.size, "denoiser": denoise.load("small"), "max_votes": 1000}
    wrapped_queries, top1_queries, decisions, differ = [], [], 0, 0
    with tempfile.TemporaryDirectory() as home, serve("aws", labeller) as service:
        plain = rekognition(service.url)
        client = wrap(plain, budget=Budget(), home=home, **common)
        smoother = Smoother(MockAdapter(labeller), plain=False, home=home, **common)
        for path in files[: options.most]:
            photo = {"Bytes": path.read_bytes()}
            before = scores(plain.detect_labels(Image=photo, MinConfidence=0))
            response = client.detect_labels(Image=photo, MinConfidence=0)
            wrapped = certificate_of(response)
            top1 = smoother.certify(path)
            wrapped_queries.append(wrapped.queries)
            top1_queries.append(top1.total_votes)
            print(f"{path.name}: wrapped {wrapped.queries}, top-1 {top1.total_votes}")
            if asked := wrapped.target.get("labels"):
                same = smoother.certify(path, target=Scores(asked, 0.5, parents=False))
                claims = {claim.label: claim.score or 0.0 for claim in same.claims}
                for threshold in THRESHOLDS:
                    decided = above(scores(response), threshold)
                    decisions += 1
                    differ += decided != above(claims, threshold)
                    print(f"  from {threshold}: {above(before, threshold)} now {decided}")
        smoother.close()
        client.close()
    median = statistics.median(wrapped_queries)
    top1_median = statistics.median(top1_queries)
    print(
        f"Median queries: wrapped {median:g}, top-1 {top1_median:g}, ratio "
        f"{median / top1_median:.2f}. Decisions that differ: {differ} of {decisions}."
    )


if __name__ == "__main__":
    main()
