"""An attack that flips a threshold decision on the plain score, and fails on the certified one.

The decision is that of any caller: is "monarch" there with a score of at least 0.5? The Square
attack (Andriushchenko et al., ECCV 2020), as the Adversarial Robustness Toolbox has it, sees
nothing but the scores that anyone gets; its change stays within the certified radius. The photo
was made grainy, so that the service is right, but hardly: an easy target. Takes a minute or two.
Writes attack.png, or the file given. Needs the extras "demo" and "attack".
"""

from __future__ import annotations

import random
import sys
import tempfile
from pathlib import Path
from typing import Any

import boto3
import numpy as np
from art.attacks.evasion import SquareAttack
from art.estimators.classification.blackbox import BlackBoxClassifierNeuralNetwork
from matplotlib.figure import Figure
from rich.console import Console
from rich.progress import MofNCompleteColumn, Progress, TimeElapsedColumn

from smoothapi import Scores, certificate_of, load_image, wrap
from smoothapi.encode import Codec
from smoothapi.services import serve
from smoothapi_adapters.mock import EfficientNetLite0

PHOTO = Path(__file__).parent / "photos" / "monarch.jpg"
PICTURE = Path(sys.argv[1] if len(sys.argv) > 1 else "attack.png")
RADIUS, GRAIN, MOST = 0.25, 0.15, 400
LABEL, THRESHOLD, GOAL = "monarch", 0.5, 0.497  # where the attack is content


def eight_bit(picture: np.ndarray) -> np.ndarray:
    return np.rint(np.clip(picture, 0, 1) * 255).astype(np.uint8)


def ask(client: Any, picture: np.ndarray) -> tuple[float, dict]:
    """Return the label's score for (H, W, 3) floats in [0, 1], and the response."""
    image = {"Bytes": Codec().encode(eight_bit(picture))}
    response = client.detect_labels(Image=image, MinConfidence=1)
    found = {row["Name"]: row["Confidence"] / 100 for row in response["Labels"]}
    return found.get(LABEL, 0.0), response


def said(score: float) -> str:
    return f"{score:.3f}, {'kept' if score >= THRESHOLD else 'REFUSED'}"


random.seed(0)
np.random.seed(0)  # noqa: NPY002  what the toolbox draws from
clear = load_image(PHOTO, size=128).pixels
photo = eight_bit(clear + np.random.default_rng(1).normal(0, GRAIN, clear.shape)) / 255
labeller = EfficientNetLite0()
columns = (*Progress.get_default_columns()[:2], MofNCompleteColumn(), TimeElapsedColumn())
with (
    Progress(*columns, console=Console(stderr=True)) as progress,
    tempfile.TemporaryDirectory() as home,
    serve("aws", lambda pixels: (progress.advance(stage), labeller(pixels))[1]) as service,
):
    stage, known = progress.add_task("Attack", total=MOST), {}
    keys = {"aws_access_key_id": "nobody", "aws_secret_access_key": "nothing"}
    plain = boto3.client("rekognition", endpoint_url=service.url, region_name="eu-west-1", **keys)

    def margins(pictures: np.ndarray) -> np.ndarray:
        """What the toolbox is to turn round: the score is above the goal, or below it."""
        for picture in pictures:
            if picture.tobytes() not in known:  # it asks more than once about a picture
                known[picture.tobytes()] = ask(plain, picture)[0]
        scores = np.array([known[picture.tobytes()] for picture in pictures], dtype=np.float32)
        return np.stack([scores, 2 * GOAL - scores], axis=1)

    target = BlackBoxClassifierNeuralNetwork(
        margins, photo.shape, 2, channels_first=False, clip_values=(0.0, 1.0)
    )
    limits = {"norm": 2, "eps": 0.98 * RADIUS, "max_iter": MOST, "p_init": 0.1}
    attack = SquareAttack(target, **limits, verbose=False)
    attacked = eight_bit(attack.generate(photo[None].astype(np.float32))[0]) / 255  # as a file
    stage = progress.add_task("Certify both", total=None)
    # Named beforehand, so that no attack on the plain answer keeps it from the vote.
    options = {"size": 128, "denoiser": "small", "radius": RADIUS}
    certified = wrap(plain, budget="3000", home=home, target=Scores(LABEL, THRESHOLD), **options)
    pairs = [(ask(plain, p)[0], ask(certified, p)) for p in (photo, attacked)]
    radius = min(certificate_of(response).radius for _, (_, response) in pairs)
    certified.close()

change = float(np.linalg.norm(attacked - photo))
if not change < RADIUS:  # NaN, too: the toolbox can divide by zero
    raise SystemExit(f"The change has L2 norm {change}, not below {RADIUS}.")
print(f"Attack: {len(known)} pictures sent, a change of L2 norm {change:.3f} < {RADIUS}.")
titles = [f"plain: {said(own)}\ncertified: {said(score)}" for own, (score, _) in pairs]
print("Before", titles[0], "After", titles[1], sep="\n")
flips = pairs[0][0] >= THRESHOLD > pairs[1][0]
if not flips or radius < RADIUS or min(score for _, (score, _) in pairs) < THRESHOLD:
    raise SystemExit("The attack did not flip the plain decision, or the certified one fell.")
print("The plain decision flips; the certified decision holds.")

figure = Figure(figsize=(10, 4.3), layout="constrained")
magnified = np.clip(0.5 + 20 * (attacked - photo), 0, 1)
titles.insert(1, f"the change, 20 times as strong\nL2 norm {change:.2f}")
for n, axes in enumerate(figure.subplots(1, 3)):
    axes.imshow((photo, magnified, attacked)[n])
    axes.set(title=titles[n], xticks=[], yticks=[])
figure.savefig(PICTURE, dpi=100)
