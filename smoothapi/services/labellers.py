"""What can stand behind a mock or a local service: functions from pictures to labels.

A labeller is any callable (H, W, 3) uint8 RGB -> an Answer, labels with scores, or one name. One
with an attribute `labeller_id` says what tells its answers from another's, so that answers kept
from it can be used by later runs; one with an attribute `vocabulary` says which labels it can give
(`smoothapi.provider.Vocabulary`). `Probabilities` and `Table` are such; `Recorded` needs the bytes
that were sent, and so has `label_payload` instead.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Mapping
from itertools import accumulate
from pathlib import Path
from statistics import NormalDist
from typing import TYPE_CHECKING, Any, Protocol, Self, TypeAlias, runtime_checkable

import numpy as np
from PIL import Image

from smoothapi.answer import Answer, Label
from smoothapi.errors import PermanentError, UsageError
from smoothapi.files import parse_json, parse_toml, read_text
from smoothapi.image import load_image
from smoothapi.provider import Vocabulary
from smoothapi.services.seeded import uniform
from smoothapi.store.recording import read_recording
from smoothapi.text import shortened

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from smoothapi.image import PhotoSource

Labels: TypeAlias = "Answer | str | Iterable[Label | tuple[str, float]] | None"
Labeller: TypeAlias = "Callable[[NDArray[np.uint8]], Labels]"
"""(H, W, 3) uint8 RGB -> an Answer, labels with scores, one name, or None for no label."""

_SHA256 = re.compile(r"[0-9a-f]{64}")
_THUMBNAIL = 16


@runtime_checkable
class PayloadLabeller(Protocol):
    """A labeller that goes by the encoded bytes, not by what they show."""

    def label_payload(self, payload: bytes) -> Labels:
        """Return the labels of an encoded picture; raise one of smoothapi's ProviderErrors."""


def to_answer(labels: Labels, *, model_version: str = "", request_id: str = "") -> Answer:
    """Return what a labeller returned as an Answer; one that is an Answer already stays as it is.

    Raises:
        UsageError: a labeller may not return such a value.
    """
    if isinstance(labels, Answer):
        return labels
    if labels is None:
        labels = ()
    elif isinstance(labels, str):
        labels = ((labels, 1.0),)
    try:
        return Answer(
            tuple(
                label if isinstance(label, Label) else Label(label[0], float(label[1]))
                for label in labels
            ),
            model_version,
            request_id,
        )
    except (TypeError, IndexError) as error:
        raise UsageError(
            f"A labeller returned {type(labels).__name__}; it must return an Answer, (name, score) "
            "pairs, Labels, one name, or None."
        ) from error


def picture_digest(picture: NDArray[np.uint8]) -> str:
    """Return the SHA-256 (hex) of the pixels of an (H, W, 3) uint8 picture and of its size.

    It is what a `Table` may name a picture by: of a file as it is, or of what smoothapi sends for
    the plain label, `picture_digest(load_image(photo, size=224).to_uint8())`.
    """
    height, width, _ = picture.shape
    digest = hashlib.sha256(f"{width}x{height}".encode())
    digest.update(picture.tobytes())
    return digest.hexdigest()


class Probabilities:
    """Answers with each label as often as it is told to, whatever the picture shows.

    Each picture gets a draw of its own, decided by the seed and its pixels alone: the same picture
    always gets the same label, and two that differ in one bit get independent ones. Noisy variants
    of any photo therefore vote for a label with exactly the given probability, so that what a
    certificate must say is known beforehand: see `radius`.

    Args:
        labels: label -> probability; None is for a picture without labels. They add up to 1.
        seed: another one draws anew.
        score: confidence that each label comes with, in [0, 1].

    Raises:
        UsageError: the probabilities are out of range or do not add up to 1.
    """

    def __init__(
        self, labels: Mapping[str | None, float], *, seed: int = 0, score: float = 0.9
    ) -> None:
        self._names = list(labels)
        shares = [float(labels[name]) for name in self._names]
        if not shares or not all(0.0 <= share <= 1.0 for share in shares):
            raise UsageError(f"The chances of labels are in [0, 1], unlike {dict(labels)}.")
        if abs(sum(shares) - 1.0) > 1e-9:
            raise UsageError(
                f"The chances of labels add up to {sum(shares):g}, not to 1. What is left over can "
                "be pictures without a label: None."
            )
        self._bounds = list(accumulate(shares))
        self._shares = dict(zip(self._names, shares, strict=True))
        self._seed = seed
        self._answers = {
            name: () if name is None else (Label(name, score),) for name in self._names
        }
        text = json.dumps([list(self._shares.items()), seed, score])
        self.labeller_id = f"probabilities-{hashlib.sha256(text.encode()).hexdigest()[:12]}"
        self.vocabulary = _of_answers(Answer(labels) for labels in self._answers.values())

    @classmethod
    def parse(cls, text: str, *, seed: int = 0) -> Self:
        """Read "bus 97%, van 2%, none 1%"; chances may also be written as 0.97.

        Raises:
            UsageError: it says something else.
        """
        labels: dict[str | None, float] = {}
        for term in text.split(","):
            name, _, share = term.strip().rpartition(" ")
            try:
                chance = float(share.removesuffix("%")) / (100.0 if share.endswith("%") else 1.0)
            except ValueError:
                chance = -1.0
            if not name.strip() or chance < 0.0:
                raise UsageError(
                    f"{term.strip()!r} is not a label with its chance. Write 'bus 97%, van 2%, "
                    "none 1%'."
                )
            labels[None if name.strip() == "none" else name.strip()] = chance
        return cls(labels, seed=seed)

    def __call__(self, picture: NDArray[np.uint8]) -> tuple[Label, ...]:
        """Return the label of an (H, W, 3) uint8 picture, or () for none."""
        drawn = uniform("label", self._seed, picture_digest(picture))
        for name, bound in zip(self._names, self._bounds, strict=True):
            if drawn < bound:
                return self._answers[name]
        return self._answers[self._names[-1]]  # the sum of floats may end just below 1

    def radius(self, sigma: float) -> float:
        """Return sigma * Phi^-1(p), p being the chance of the likeliest label.

        It is the most that endless votes could certify; 0.0 where p is 1/2 or less or the
        likeliest answer has no label, infinite where p is 1. A certificate at a radius above
        it is wrong.
        """
        name = max(self._names, key=lambda label: self._shares[label])
        p = self._shares[name]
        if name is None or p <= 0.5:
            return 0.0
        return float("inf") if p >= 1.0 else sigma * NormalDist().inv_cdf(p)


class Table:
    """Answers by a table of photos, for each photo and for every noisy copy of it.

    A provider sees a copy's pixels and not the photo's, so a row that names a photo answers for
    all pictures that look like it: the nearest photo of the table by its thumbnail (16 x 16, root
    mean square of the difference), if it is near enough. A row that names a digest answers for
    that one picture, and goes first.

    Args:
        rows: {photo or `picture_digest`: labels as a labeller returns them}; or pairs, where the
            photo is an array or a PIL image, which cannot be a key.
        within: how near a thumbnail must be, in units of the [0, 1] range. Clipping at sigma 0.25
            moves one by about 0.1, without a denoiser.
        otherwise: the labels of any other picture, () for none; by default such a picture is
            refused (PermanentError).

    Raises:
        UsageError: a row names neither a photo nor a digest, or its labels cannot be read.
        ImageError: a photo cannot be read.
    """

    def __init__(
        self,
        rows: Mapping[str, Labels] | Iterable[tuple[PhotoSource, Labels]],
        *,
        within: float = 0.3,
        otherwise: Labels = None,
    ) -> None:
        self._exact: dict[str, Answer] = {}
        self._answers: list[Answer] = []
        thumbnails: list[NDArray[np.float64]] = []
        digest = hashlib.sha256(f"{within}".encode())
        for photo, labels in rows.items() if isinstance(rows, Mapping) else rows:
            answer = to_answer(labels)
            if isinstance(photo, str) and _SHA256.fullmatch(photo):
                self._exact[photo] = answer
                named = photo
            else:
                image = load_image(photo, size=4 * _THUMBNAIL)
                thumbnails.append(_thumbnail(image.to_uint8()))
                self._answers.append(answer)
                named = image.digest
            digest.update(json.dumps([named, answer.to_dict()]).encode())
        self._thumbnails = np.array(thumbnails)
        self._within = within
        self._otherwise = None if otherwise is None else to_answer(otherwise)
        digest.update(json.dumps(self._otherwise and self._otherwise.to_dict()).encode())
        self.labeller_id = f"table-{digest.hexdigest()[:12]}"
        others = () if self._otherwise is None else (self._otherwise,)
        self.vocabulary = _of_answers((*self._exact.values(), *self._answers, *others))

    @classmethod
    def read(cls, file: str | Path) -> Self:
        """Read a JSON or TOML file {photo: labels}; photos are looked for beside the file.

        Labels are a name, a list of names, or a list of [name, score].

        Raises:
            UsageError: it cannot be read, or does not map photos to labels.
        """
        path = Path(file)
        try:
            text = read_text(path)
            data = parse_toml(text) if path.suffix.lower() == ".toml" else parse_json(text)
        except (OSError, ValueError) as error:
            raise UsageError(f"The table {str(path)!r} cannot be read: {error}.") from error
        if not isinstance(data, dict):
            raise UsageError(f"The table {str(path)!r} must map photos to their labels.")
        try:
            return cls(
                {
                    name if _SHA256.fullmatch(name) else str(path.parent / name): _labels(labels)
                    for name, labels in data.items()
                }
            )
        except UsageError as error:
            raise UsageError(f"The table {str(path)!r} cannot be used: {error}") from error

    def __call__(self, picture: NDArray[np.uint8]) -> Answer:
        """Return the labels of an (H, W, 3) uint8 picture."""
        if self._exact and (found := self._exact.get(picture_digest(picture))) is not None:
            return found
        if len(self._thumbnails):
            differences = self._thumbnails - _thumbnail(picture)
            distances = np.sqrt((differences**2).mean(axis=(1, 2, 3)))
            nearest = int(distances.argmin())
            if distances[nearest] <= self._within:
                return self._answers[nearest]
        if self._otherwise is None:
            raise PermanentError("The table has no photo that looks like this picture.")
        return self._otherwise


def _of_answers(answers: Iterable[Answer]) -> Vocabulary:
    """Return the labels in answers; open, since these stand in for a service that has more."""
    parents = {label.name: label.parents for answer in answers for label in answer.labels}
    return Vocabulary(
        tuple(name for name in parents if name.strip()),
        parents={name: above for name, above in parents.items() if all(map(str.strip, above))},
        source="the labeller",
    )


def _thumbnail(picture: NDArray[np.uint8]) -> NDArray[np.float64]:
    image = Image.fromarray(picture).resize((_THUMBNAIL, _THUMBNAIL), Image.Resampling.BOX)
    return np.asarray(image, dtype=np.float64) / 255.0


def _labels(value: Any) -> Labels:
    if value is None or isinstance(value, str):
        return value
    rows = value if isinstance(value, list) else [value]
    pairs: list[Any] = [[row, 1.0] if isinstance(row, str) else row for row in rows]
    if not all(isinstance(pair, list) and len(pair) == 2 for pair in pairs):
        raise UsageError(f"Labels are a name, names, or [name, score]; not {shortened(value)}.")
    return [Label(name, score) for name, score in pairs]


class Recorded:
    """Answers as a recording does, to the very pictures that it was asked about.

    Args:
        file: what `Smoother(record=...)` or `smoothapi cache export` wrote. Only answers that say
            which bytes they are to can be used.

    Raises:
        UsageError: it is not a recording, or does not say which bytes its answers are to.
    """

    def __init__(self, file: str | Path) -> None:
        self._file = Path(file).name
        self._outcomes = {
            row["payload"]: outcome for row, outcome in read_recording(file) if "payload" in row
        }
        if not self._outcomes:
            raise UsageError(f"The recording {self._file!r} does not say what was sent.")
        text = json.dumps(sorted(self._outcomes))
        self.labeller_id = f"recorded-{hashlib.sha256(text.encode()).hexdigest()[:12]}"

    def label_payload(self, payload: bytes) -> Answer:
        """Return what was answered to these bytes; raises PermanentError if nothing was."""
        outcome = self._outcomes.get(hashlib.sha256(payload).hexdigest())
        if isinstance(outcome, Answer):
            return outcome
        raise outcome or PermanentError(
            f"The recording {self._file!r} has no answer to this picture. Answers are recorded to "
            "exact bytes: noisy variants are the same only with the same noise key, denoiser and "
            "codec; without them, use Smoother('replay:FILE')."
        )
