"""What a wrapped call costs, and whether a caller's threshold decides as a certificate does.

Labels photos through boto3 before a local Rekognition with the live labeller behind it, plain and
wrapped, and certifies the same photos directly: the top label, and `Scores`. The two ask separately,
about the same noisy copies. Printed are the queries of both; at the end their medians, each with
the plain query, and how many decisions "score >= threshold" differ between the wrapped response and
the certificate of Scores, for every label of the plain answer. Bars: the median of a wrapped call
within 1.2 times that of a top-1 certificate, and no differing decision. Ends with 1 if one is
missed. Ctrl-C ends it with what it has; with --rows a photo's figures are kept in that file, and
what is there already isn't asked again.

    python benchmarks/wrapped_calls.py [--photos FOLDER] [--most 20] [--size 96] [--rows FILE]

Of a folder with more photos, those are taken that no training of the denoisers saw
(see ../shared/data, labelled_photos: 200 of them).
"""

from __future__ import annotations

import argparse
import hashlib
import json
import statistics
import sys
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import boto3

from smoothapi import Budget, Scores, Smoother, certificate_of, denoise, wrap
from smoothapi.denoise.training.photo_files import files, held_out
from smoothapi.services import serve
from smoothapi_adapters.mock import EfficientNetLite0, MockAdapter

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

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


class Recent:
    """A labeller that knows its answers to the pictures of one photo: both sides ask about them."""

    def __init__(self, labeller: EfficientNetLite0) -> None:
        self._labeller = labeller
        self._known: dict[bytes, list[tuple[str, float]]] = {}
        self.labeller_id, self.vocabulary = labeller.labeller_id, labeller.vocabulary

    def __call__(self, picture: NDArray[np.uint8]) -> list[tuple[str, float]]:
        key = hashlib.sha256(picture.tobytes()).digest()
        if key not in self._known:
            self._known[key] = self._labeller(picture)
        return self._known[key]

    def forget(self) -> None:
        self._known.clear()


def row_of(path: Path, plain: Any, client: Any, smoother: Smoother) -> dict[str, Any]:
    """Return what the plain and the wrapped call and the two certificates say of one photo."""
    photo = {"Bytes": path.read_bytes()}
    before = scores(plain.detect_labels(Image=photo, MinConfidence=0))
    response = client.detect_labels(Image=photo, MinConfidence=0)
    wrapped, top1 = certificate_of(response), smoother.certify(path)
    claims = {}
    if asked := wrapped.target.get("labels"):
        same = smoother.certify(path, target=Scores(asked, 0.5, parents=False))
        claims = {claim.label: claim.score for claim in same.claims}
    return {
        "photo": path.name,
        "wrapped": wrapped.queries,
        "top1": top1.queries,
        "before": before,
        "shown": scores(response),
        "claims": claims,
    }


def decisions(rows: list[dict[str, Any]], threshold: float) -> tuple[int, int, int, int]:
    """Return how many labels were seen, how many pass by each, and how many decisions differ."""
    labels = from_plain = certified = differ = 0
    for row in rows:
        for label, score in row["before"].items():
            says = row["shown"].get(label, 0.0) >= threshold
            labels += 1
            from_plain += score >= threshold
            certified += says
            differ += says != (row["claims"].get(label, 0.0) >= threshold)
    return labels, from_plain, certified, differ


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--photos", type=Path, default=PHOTOS)
    parser.add_argument("--most", type=int, default=20)
    parser.add_argument("--size", type=int, default=96)
    parser.add_argument("--denoiser", default="small")
    parser.add_argument("--rows", type=Path, help="keep each photo's figures here, and go on there")
    options = parser.parse_args()

    paths = {path.name: path for path in files(options.photos)}
    names = sorted(held_out(paths, options.most))
    kept = options.rows.read_text().splitlines() if options.rows and options.rows.exists() else []
    rows = [row for row in map(json.loads, kept) if row["photo"] in names]
    done = {row["photo"] for row in rows}
    labeller = Recent(EfficientNetLite0())
    denoiser = denoise.load(options.denoiser)
    common = {"size": options.size, "denoiser": denoiser, "max_votes": 1000}
    with tempfile.TemporaryDirectory() as home, serve("aws", labeller) as service:
        plain = rekognition(service.url)
        client = wrap(plain, budget=Budget(), home=home, **common)
        smoother = Smoother(MockAdapter(labeller), home=home, **common)
        with suppress(KeyboardInterrupt):
            for name in names:
                if name in done:
                    continue
                row = row_of(paths[name], plain, client, smoother)
                labeller.forget()
                rows.append(row)
                if options.rows:
                    with options.rows.open("a") as file:
                        file.write(json.dumps(row) + "\n")
                print(
                    f"{name}: queries wrapped {row['wrapped']}, top-1 {row['top1']}; certified "
                    f"{ {label: round(score, 3) for label, score in row['shown'].items()} }",
                    flush=True,
                )
        smoother.close()
        client.close()
    differing = 0
    for threshold in THRESHOLDS:
        labels, from_plain, certified, differ = decisions(rows, threshold)
        differing += differ
        print(
            f"Score >= {threshold}: {labels} labels, {from_plain} by the plain answers, "
            f"{certified} by wrapped ones, of which {differ} differ from the certificates."
        )
    median, top1_median = (
        statistics.median(row[who] for row in rows) for who in ("wrapped", "top1")
    )
    ratio = median / top1_median
    print(
        f"{len(rows)} photos of size {options.size}, median queries: wrapped "
        f"{median:g}, top-1 {top1_median:g}, ratio {ratio:.2f} (bar {MOST})."
    )
    sys.exit(ratio > MOST or differing > 0)


if __name__ == "__main__":
    main()
