"""What a wrapped call costs, and whether a caller's threshold decides as a certificate does.

Labels photos through boto3 before a local Rekognition with the live labeller behind it, plain and
wrapped, and certifies the same photos directly: the top label, and `Scores`. The two ask separately,
about the same noisy copies. Printed are the queries of both; at the end their medians, each with
the plain query, and how many decisions "score >= threshold" differ between the wrapped response and
the certificate of Scores, for every label of the plain answer. Bars: the median of a wrapped call
within 1.2 times that of a top-1 certificate, and no differing decision. Ends with 1 if one is
missed.

    python benchmarks/wrapped_calls.py [--photos FOLDER] [--most 20] [--size 96]

Of a folder with more photos, those are taken that no training of the denoisers saw
(see ../shared/data, labelled_photos: 200 of them).
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
from pathlib import Path
from typing import Any

import boto3

from smoothapi import Budget, Scores, Smoother, certificate_of, denoise, wrap
from smoothapi.denoise.training.photo_files import files, held_out
from smoothapi.services import serve
from smoothapi_adapters.mock import EfficientNetLite0, MockAdapter

PHOTOS = Path(__file__).parent.parent / "examples" / "photos"
THRESHOLDS = (0.5, 0.8, 0.9)
MOST = 1.2


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


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--photos", type=Path, default=PHOTOS)
    parser.add_argument("--most", type=int, default=20)
    parser.add_argument("--size", type=int, default=96)
    parser.add_argument("--denoiser", default="small")
    options = parser.parse_args()

    paths = {path.name: path for path in files(options.photos)}
    labeller = EfficientNetLite0()
    denoiser = denoise.load(options.denoiser)
    common = {"size": options.size, "denoiser": denoiser, "max_votes": 1000}
    wrapped_queries, top1_queries = [], []
    decided = dict.fromkeys(THRESHOLDS, (0, 0, 0, 0))
    with tempfile.TemporaryDirectory() as home, serve("aws", labeller) as service:
        plain = rekognition(service.url)
        client = wrap(plain, budget=Budget(), home=home, **common)
        smoother = Smoother(MockAdapter(labeller), home=home, **common)
        for name in sorted(held_out(paths, options.most)):
            photo = {"Bytes": paths[name].read_bytes()}
            before = scores(plain.detect_labels(Image=photo, MinConfidence=0))
            response = client.detect_labels(Image=photo, MinConfidence=0)
            wrapped, top1 = certificate_of(response), smoother.certify(paths[name])
            wrapped_queries.append(wrapped.queries)
            top1_queries.append(top1.queries)
            shown, claims = scores(response), {}
            if asked := wrapped.target.get("labels"):
                same = smoother.certify(paths[name], target=Scores(asked, 0.5, parents=False))
                claims = {claim.label: claim.score for claim in same.claims}
            for threshold, (labels, from_plain, certified, differ) in decided.items():
                says = {label: shown.get(label, 0.0) >= threshold for label in before}
                should = {label: claims.get(label, 0.0) >= threshold for label in before}
                decided[threshold] = (
                    labels + len(before),
                    from_plain + sum(score >= threshold for score in before.values()),
                    certified + sum(says.values()),
                    differ + sum(says[label] != should[label] for label in before),
                )
            print(
                f"{name}: queries wrapped {wrapped.queries}, top-1 {top1.queries}; certified "
                f"{ {label: round(score, 3) for label, score in shown.items()} }",
                flush=True,
            )
        smoother.close()
        client.close()
    median, top1_median = map(statistics.median, (wrapped_queries, top1_queries))
    for threshold, (labels, from_plain, certified, differ) in decided.items():
        print(
            f"Score >= {threshold}: {labels} labels, {from_plain} by the plain answers, "
            f"{certified} by wrapped ones, of which {differ} differ from the certificates."
        )
    ratio = median / top1_median
    print(
        f"{len(wrapped_queries)} photos of size {options.size}, median queries: wrapped "
        f"{median:g}, top-1 {top1_median:g}, ratio {ratio:.2f} (bar {MOST})."
    )
    sys.exit(ratio > MOST or any(differ for *_, differ in decided.values()))


if __name__ == "__main__":
    main()
