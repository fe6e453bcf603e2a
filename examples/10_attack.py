"""An attack that flips the service's plain label, and fails against the certified one.

The Square attack (Andriushchenko et al., ECCV 2020) as the Adversarial Robustness Toolbox has it
sees nothing but the labels and scores that anyone gets; its change stays within the certified
radius. The photo was made grainy, so that the service is right, but hardly: an easy target.
Writes attack.png, or the file given. Needs the extras "demo" and "attack".
"""

from __future__ import annotations

import random
import sys
import tempfile
from pathlib import Path

import numpy as np
from art.attacks.evasion import SquareAttack
from art.estimators.classification.blackbox import BlackBoxClassifierNeuralNetwork
from matplotlib.figure import Figure

from smoothapi import Smoother, load_image
from smoothapi.encode import Codec
from smoothapi_adapters.mock import EfficientNetLite0, MockAdapter

PHOTO = Path(__file__).parent / "photos" / "monarch.jpg"
PICTURE = Path(sys.argv[1] if len(sys.argv) > 1 else "attack.png")
RADIUS, GRAIN = 0.5, 0.195

service = MockAdapter(EfficientNetLite0(top=1000))
columns: dict[str, int] = {}  # labels, as they are first heard of
answers: dict[bytes, np.ndarray] = {}  # the toolbox asks more than once about a picture


def scores(pictures: np.ndarray) -> np.ndarray:
    """Ask the service about (N, H, W, 3) floats in [0, 1]; return (N, 1000) scores."""
    for payload in (payloads := [Codec().encode(eight_bit(picture)) for picture in pictures]):
        if payload not in answers:
            answers[payload] = np.zeros(1000, dtype=np.float32)
            for label in service.ask([payload])[0].labels:
                answers[payload][columns.setdefault(label.name, len(columns))] = label.score
    return np.stack([answers[payload] for payload in payloads])


def eight_bit(picture: np.ndarray) -> np.ndarray:
    return np.rint(np.clip(picture, 0, 1) * 255).astype(np.uint8)


random.seed(0)
np.random.seed(0)  # noqa: NPY002  what the toolbox draws from
clear = load_image(PHOTO, size=128).pixels
photo = eight_bit(clear + np.random.default_rng(1).normal(0, GRAIN, clear.shape)) / 255
classifier = BlackBoxClassifierNeuralNetwork(
    scores, photo.shape, 1000, channels_first=False, clip_values=(0.0, 1.0)
)
limits = {"norm": 2, "eps": 0.98 * RADIUS, "max_iter": 1000, "p_init": 0.1}
attack = SquareAttack(classifier, **limits, verbose=False)
attacked = eight_bit(attack.generate(photo[None].astype(np.float32))[0]) / 255  # as a file
change = float(np.linalg.norm(attacked - photo))
if not change < RADIUS:  # NaN, too: the toolbox can divide by zero
    raise SystemExit(f"The change has L2 norm {change}, not below {RADIUS}.")
print(f"Attack: {len(answers)} pictures sent, a change of L2 norm {change:.3f} < {RADIUS}.")
options = {"sigma": 0.25, "radius": RADIUS, "size": 128}
with tempfile.TemporaryDirectory() as home, Smoother(service, home=home, **options) as smoother:
    before, after = smoother.certify(photo), smoother.certify(attacked)
print(f"Plain label: {before.plain_label}, after the attack {after.plain_label}.")
print("Before:", before, "\nAfter: ", after)
held = not before.abstained and after.label == before.label  # two abstentions are no defence
if after.plain_label == before.plain_label or not held:
    raise SystemExit("The attack did not flip the plain label, or the smoothed one did not hold.")
print("The plain label flips; the certified label holds.")

figure = Figure(figsize=(10, 4.3), layout="constrained")
magnified = np.clip(0.5 + 20 * (attacked - photo), 0, 1)
titles = [f"plain: {c.plain_label}\ncertified: {c.label}" for c in (before, after)]
titles.insert(1, f"the change, 20 times as strong\nL2 norm {change:.2f}")
for n, axes in enumerate(figure.subplots(1, 3)):
    axes.imshow((photo, magnified, attacked)[n])
    axes.set(title=titles[n], xticks=[], yticks=[])
figure.savefig(PICTURE, dpi=100)
