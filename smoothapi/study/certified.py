"""How many photos a denoiser lets a classifier at hand certify: what counts, before any API.

The test is `smoothapi.certify.SequentialCertify`, the noise that of `smoothapi.noise`, a vote the
classifier's first label for an 8-bit variant. A variant is denoised once and shown to all
classifiers. The noise key is public, as nobody attacks here: figures can be had again.

A certified share alone means nothing: a classifier that calls all noise by one name certifies it
everywhere. So the share that is certified with the photo's right label is said where that is
known, and what the classifier says of the photo itself where it is not.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from smoothapi.certify import SequentialCertify
from smoothapi.certify.arithmetic import share_deduction
from smoothapi.errors import UnreachableRadiusError, UsageError
from smoothapi.files import read_csv
from smoothapi.noise import MAX_SIGMA, NoiseKey, noisy_variants, variant_seeds
from smoothapi.study.figures import Band, band
from smoothapi.text import shortened

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    import numpy as np
    from numpy.typing import NDArray

    from smoothapi.certify.decision import Decision
    from smoothapi.denoise import DenoiserRuntime
    from smoothapi.denoise.training.surrogates import Classifier
    from smoothapi.image import WorkingImage

_VOTES_TOGETHER = 8
_VOTES_TOGETHER_ON_A_CARD = 64  # few are too small for it, more would mostly come in vain
_CLASS = re.compile("[0-9]{1,9}")
_CLASS_COLUMNS = ("label", "class_index")


@dataclass(frozen=True, slots=True)
class Terms:
    """What a certificate is to say, and for how much.

    Attributes:
        radius: L2 radius wanted, above 0, in the units of sigma.
        alpha: chance of a wrong certificate, in (0, 1).
        max_votes: most votes a photo, at least 1.
    """

    radius: float = 0.25
    alpha: float = 0.001
    max_votes: int = 200

    def test(self, sigma: float, pixels: int) -> SequentialCertify:
        """Return a fresh test for a photo of so many numbers (height * width * 3).

        Raises:
            UnreachableRadiusError: not even an unbroken run of the votes would suffice.
            UsageError: a value is out of range.
        """
        return SequentialCertify(
            sigma=sigma,
            alpha=self.alpha,
            max_votes=self.max_votes,
            radius=self.radius,
            delta=share_deduction(pixels, sigma),
        )


@dataclass(frozen=True, slots=True)
class CertifiedPhoto:
    """How the test of one photo ended.

    Attributes:
        sigma: noise level.
        classifier: whose votes they were.
        photo: its name.
        label: the class that is certified; None if the test abstains.
        reason: why it ended, as in `smoothapi.certify.Reason`.
        votes: how many it took.
        clean: the class that the photo itself gets.
        truth: the photo's right class; None if that is not known.
    """

    sigma: float
    classifier: str
    photo: str
    label: int | None
    reason: str
    votes: int
    clean: int
    truth: int | None


@dataclass(frozen=True, slots=True)
class CertifiedRow:
    """Shares of photos at one sigma, with exact 95% intervals (Clopper and Pearson).

    Attributes:
        sigma: noise level.
        classifier: whose votes they were.
        photos: how many.
        known: of how many the right class is known. `clean_right`, `right` and `wrong` are shares
            of these; None without any.
        clean_right: share that the classifier is right about without noise.
        right: share certified with the right class.
        as_clean: share of all photos certified with the class that the photo itself gets.
        wrong: share certified with another class than the right one.
        mean_votes: votes a photo, those of photos that were not certified too.
    """

    sigma: float
    classifier: str
    photos: int
    known: int
    clean_right: Band | None
    right: Band | None
    as_clean: Band
    wrong: Band | None
    mean_votes: float


@dataclass(frozen=True, slots=True)
class Certified:
    """What `certified` found.

    Attributes:
        terms: what was asked for.
        seed: of the noise.
        rows: by sigma and classifier.
        unreachable: by sigma, why no photo can be certified there on these terms; such a sigma has
            no rows.
        photos: how each photo's test ended.
    """

    terms: Terms
    seed: int
    rows: tuple[CertifiedRow, ...]
    unreachable: dict[float, str]
    photos: tuple[CertifiedPhoto, ...]

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        found = asdict(self)
        found["unreachable"] = [
            {"sigma": sigma, "reason": reason} for sigma, reason in self.unreachable.items()
        ]
        return found


def certified(
    runtime: DenoiserRuntime,
    photos: Mapping[str, WorkingImage],
    classifiers: Sequence[Classifier],
    terms: Terms,
    *,
    sigmas: Sequence[float],
    truth: Mapping[str, int] | None = None,
    seed: int = 0,
    progress: Callable[[float, int], None] | None = None,
) -> Certified:
    """Certify every photo before every classifier at every sigma, and count.

    Args:
        runtime: the denoiser. Classifiers are moved to its device.
        photos: by name.
        classifiers: whose first labels are the votes; names must differ.
        terms: radius, alpha, most votes.
        sigmas: noise levels, in (0, 1.5].
        truth: right class by photo's name or bare file name, for those of which it is known.
        seed: of the noise, the same for every denoiser.
        progress: called with sigma and the number of its photos that are done, after each.

    Returns:
        The shares, and each photo's end.

    Raises:
        UnreachableRadiusError: at none of the sigmas do the votes reach the radius.
        UsageError: photos or classifiers are missing, two classifiers have one name, the truth is
            about none of the photos, or a value is out of range.
        DenoiserError: the denoiser cannot be used.
    """
    from smoothapi.denoise.training.evaluate import by_name, labels_of, true_class  # noqa: PLC0415 - torch

    if not photos or not classifiers:
        what = "photo" if classifiers else "classifier"
        raise UsageError(f"Nothing can be certified without a {what}. Name at least one.")
    right = {name: true_class(name, truth) for name in photos}
    if truth is not None and all(label is None for label in right.values()):
        raise UsageError(
            f"The truth names none of the photos; they are called {', '.join([*photos][:3])}, ... "
            "Give the right class by such a name, or none."
        )
    unreachable = out_of_reach(terms, sigmas, max(i.pixels.size for i in photos.values()))
    named = by_name(classifiers, runtime.device)
    clean = {
        who: {
            name: labels_of(classifier, image.to_uint8()[None])[0] for name, image in photos.items()
        }
        for who, classifier in named.items()
    }
    key = noise_key(seed)
    rows: list[CertifiedRow] = []
    ends: list[CertifiedPhoto] = []
    for sigma in (sigma for sigma in sigmas if sigma not in unreachable):
        found: dict[str, list[CertifiedPhoto]] = {who: [] for who in named}
        for done, (name, image) in enumerate(photos.items(), start=1):
            decisions = certify_photo(image, runtime, named, terms, sigma=sigma, key=key)
            for who, decision in decisions.items():
                end = ended(
                    decision, sigma, who, photo=name, clean=clean[who][name], truth=right[name]
                )
                found[who].append(end)
            if progress is not None:
                progress(sigma, done)
        for of_one in found.values():
            rows.append(summary(of_one))
            ends += of_one
    return Certified(terms, seed, tuple(rows), unreachable, tuple(ends))


def out_of_reach(terms: Terms, sigmas: Sequence[float], pixels: int) -> dict[float, str]:
    """Return why nothing can be certified, by sigma, for those of which that is so.

    Args:
        terms: radius, alpha, most votes.
        sigmas: noise levels, in (0, 1.5].
        pixels: numbers in the largest photo (height * width * 3).

    Raises:
        UnreachableRadiusError: it is so for all of them.
        UsageError: a value is out of range.
    """
    found: dict[float, str] = {}
    for sigma in sigmas:
        if not 0.0 < sigma <= MAX_SIGMA:
            raise UsageError(f"sigma={sigma} is out of range: noise is in (0, {MAX_SIGMA}].")
        try:
            terms.test(sigma, pixels)
        except UnreachableRadiusError as error:
            found[sigma] = str(error)
    if found and len(found) == len(set(sigmas)):
        raise UnreachableRadiusError(next(iter(found.values())))
    return found


def certify_photo(
    image: WorkingImage,
    runtime: DenoiserRuntime,
    classifiers: Mapping[str, Classifier],
    terms: Terms,
    *,
    sigma: float,
    key: NoiseKey,
    votes: Mapping[str, list[int]] | None = None,
) -> dict[str, Decision]:
    """Feed each classifier's test until all are done; denoise only what is not known yet.

    Args:
        image: the photo.
        runtime: the denoiser; on CUDA it draws the noise, too.
        classifiers: by name, on the runtime's device.
        terms: radius, alpha, most votes.
        sigma: noise level, in (0, 1.5].
        key: what the noise is drawn from.
        votes: by the same names, classes in order of index that are known from before. Those that
            are new are put there, so that a run that was ended can go on.

    Returns:
        The decisions by name; labels are class numbers as text.

    Raises:
        UnreachableRadiusError: the votes do not reach the radius.
        UsageError: a value is out of range.
        DenoiserError: the denoiser cannot be used.
    """
    from smoothapi.denoise.training.evaluate import labels_of  # noqa: PLC0415 - torch

    tests = {name: terms.test(sigma, image.pixels.size) for name in classifiers}
    known = {name: [] for name in classifiers} if votes is None else votes
    together = _VOTES_TOGETHER_ON_A_CARD if runtime.draws_noise else _VOTES_TOGETHER
    for start in range(0, terms.max_votes, together):
        stop = min(start + together, terms.max_votes)
        variants = None
        for name, test in tests.items():
            given = known[name]
            if not test.done and len(given) < stop:
                if variants is None:
                    variants = _variants(image, runtime, sigma, range(start, stop), key)
                del given[start:]
                given += labels_of(classifiers[name], variants)
            for vote in given[start:stop]:
                if not test.done:
                    test.add(str(vote))
        if all(test.done for test in tests.values()):
            break
    return {name: test.result() for name, test in tests.items()}


def _variants(
    image: WorkingImage, runtime: DenoiserRuntime, sigma: float, indices: range, key: NoiseKey
) -> NDArray[np.uint8]:
    if runtime.draws_noise:
        seeds = variant_seeds(image, sigma, indices, key)
        return runtime.variants_of(image.pixels, sigma, seeds)
    return runtime.variants(noisy_variants(image, sigma, indices, key), sigma)


def noise_key(seed: int) -> NoiseKey:
    """Return the key of a seed, which anybody can know: for figures, never for certificates."""
    return NoiseKey(hashlib.sha256(f"certified fraction {seed}".encode()).digest())


def ended(
    decision: Decision,
    sigma: float,
    classifier: str,
    *,
    photo: str,
    clean: int,
    truth: int | None,
) -> CertifiedPhoto:
    """Return how a photo's test ended, from what `certify_photo` decided."""
    return CertifiedPhoto(
        sigma=sigma,
        classifier=classifier,
        photo=photo,
        label=None if decision.label is None else int(decision.label),
        reason=str(decision.reason),
        votes=decision.votes,
        clean=clean,
        truth=truth,
    )


def summary(ends: Sequence[CertifiedPhoto]) -> CertifiedRow:
    """Return the shares of photos of one sigma and one classifier, at least one photo."""
    known = [end for end in ends if end.truth is not None]

    def share(count: int) -> Band | None:
        return band(count, len(known)) if known else None

    return CertifiedRow(
        sigma=ends[0].sigma,
        classifier=ends[0].classifier,
        photos=len(ends),
        known=len(known),
        clean_right=share(sum(end.clean == end.truth for end in known)),
        right=share(sum(end.label == end.truth for end in known)),
        as_clean=band(sum(end.label == end.clean for end in ends), len(ends)),
        wrong=share(sum(end.label not in (None, end.truth) for end in known)),
        mean_votes=sum(end.votes for end in ends) / len(ends),
    )


def read_truth(path: Path) -> dict[str, int]:
    """Return {photo's name: right class} of a CSV file with a header.

    The column `file` names the photo, as a path below the folder or as the bare file name;
    `label`, or else `class_index`, is the classifier's number of its class, counted from 0. Other
    columns are ignored, and rows without a label, too.

    Raises:
        UsageError: the file cannot be read, lacks a column, has a label that is not a class number,
            or labels a photo twice.
    """
    try:
        columns, rows = read_csv(path)
    except (OSError, ValueError) as error:
        raise UsageError(f"The labels in {str(path)!r} cannot be read: {error}.") from error
    header = {name.strip().lower(): name for name in columns}
    column = next((header[name] for name in _CLASS_COLUMNS if name in header), None)
    if "file" not in header or column is None:
        raise UsageError(
            f"The labels in {str(path)!r} need a header with the columns file and "
            f"{' or '.join(_CLASS_COLUMNS)}; this one has: "
            f"{shortened(', '.join(header) or 'none', 200)}."
        )
    truth: dict[str, int] = {}
    for line, row in rows:
        name, text = row[header["file"]].strip().replace("\\", "/"), row[column].strip()
        if not name or not text:
            continue
        if not _CLASS.fullmatch(text):
            raise UsageError(
                f"Line {line:,} of {str(path)!r} says {shortened(text)} of {name!r}, which is not "
                "a class number. Classifiers answer with numbers, counted from 0: write those."
            )
        if truth.setdefault(name, int(text)) != int(text):
            raise UsageError(
                f"{str(path)!r} says of {name!r} that it is {truth[name]}, and again that it is "
                f"{text}. Leave one of them."
            )
    return truth
