"""What a study found, as plain values that go to JSON and back.

Figures are derived from these (`smoothapi.study.figures`), so a report can be drawn from the JSON
alone, later and elsewhere.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping  # noqa: TC003  read by get_type_hints
from dataclasses import dataclass, field, fields, is_dataclass
from decimal import Decimal
from functools import cache
from pathlib import Path
from types import UnionType
from typing import (
    TYPE_CHECKING,
    Any,
    Literal,
    Self,
    Union,
    cast,
    get_args,
    get_origin,
    get_type_hints,
)

from smoothapi.errors import UsageError
from smoothapi.files import parse_json, to_json
from smoothapi.provider import Price
from smoothapi.study.collect import Outcome, Rules
from smoothapi.study.folder import is_right
from smoothapi.study.success import Success
from smoothapi.text import shortened

if TYPE_CHECKING:
    from collections.abc import Iterator

SCHEMA = "smoothapi.study/2"
_FIRST_SCHEMA = "smoothapi.study/1"  # the same, with max_votes called caps, and cap in outcomes


@dataclass(frozen=True, slots=True)
class Photo:
    """A photo that was studied.

    Attributes:
        name: its path below the folder.
        digest: SHA-256 (hex) of the working image.
        size: (width, height) of the working image.
        native_size: (width, height) of the photo.
        gain: operator norm of the resize between them: radii around the photo are smaller by it.
        truth: the labels that are right; empty if none were given.
        calibration: whether it is of the half on which sigma is chosen.
    """

    name: str
    digest: str
    size: tuple[int, int]
    native_size: tuple[int, int]
    gain: float
    truth: tuple[str, ...] = ()
    calibration: bool = False


@dataclass(frozen=True, slots=True)
class Problem:
    """A photo that is not in the figures, or not in all of them, or only as not certified.

    Attributes:
        photo: its name.
        why: in words.
        kind: "unreadable", "duplicate", "tuned" (answers about it had a part in a denoiser),
            "failed" (left out of the figures that `why` names), or "undecided" (counted there as
            not certified).
    """

    photo: str
    why: str
    kind: str


@dataclass(frozen=True, slots=True)
class ProviderFacts:
    """A provider that was asked.

    Attributes:
        name: as in the cells; unique in the study.
        identity: what decides its answers.
        price: its price list.
    """

    name: str
    identity: Mapping[str, Any]
    price: Price


@dataclass(frozen=True, slots=True)
class DenoiserFacts:
    """A denoiser that was used: its name, unique in the study, and its fingerprint."""

    name: str
    fingerprint: str


@dataclass(frozen=True, slots=True)
class Cell:
    """The votes about one photo from one provider, through one denoiser, at one sigma.

    Attributes:
        photo: name of the photo.
        provider: name of the provider.
        denoiser: name of the denoiser.
        sigma: noise level.
        votes: votes in order, as runs of (label or None, how often in a row).
        plain: the label of the photo itself, None if the provider gave none.
        model_version: of the provider's model.
        queries: variants sent in this run of the study.
        attempts: pictures sent, retries and the plain one included.
        cached: answers that the store already had.
        dollars: what the attempts cost.
        seconds: how long it took.
        outcomes: what each test made of the votes.
    """

    photo: str
    provider: str
    denoiser: str
    sigma: float
    votes: tuple[tuple[str | None, int], ...]
    plain: str | None
    model_version: str
    queries: int
    attempts: int
    cached: int
    dollars: float
    seconds: float
    outcomes: tuple[Outcome, ...]

    @property
    def total_votes(self) -> int:
        """How many votes there are."""
        return sum(length for _, length in self.votes)

    @property
    def tally(self) -> dict[str | None, int]:
        """Votes by label, most first; None stands for "no answer"."""
        counts: dict[str | None, int] = {}
        for label, length in self.votes:
            counts[label] = counts.get(label, 0) + length
        return dict(sorted(counts.items(), key=lambda item: (-item[1], item[0] or "")))

    @property
    def leader(self) -> str | None:
        """The label with most votes; None if no vote was for one."""
        return next((label for label in self.tally if label is not None), None)

    @property
    def share(self) -> tuple[int, int]:
        """(votes for the label with most of them, all votes)."""
        named = [count for label, count in self.tally.items() if label is not None]
        return max(named, default=0), self.total_votes

    def outcome(self, radius: float, max_votes: int, method: str = "sequential") -> Outcome | None:
        """Return what a test made of the votes; None if it has not got them."""
        for outcome in self.outcomes:
            if (outcome.radius, outcome.max_votes, outcome.method) == (radius, max_votes, method):
                return outcome
        return None


@dataclass(frozen=True, slots=True)
class GalleryPhoto:
    """A photo of the gallery: small WebP pictures in base64.

    Attributes:
        photo: name of the photo.
        provider: name of the provider of the cell it illustrates.
        denoiser: name of the denoiser.
        sigma: noise level.
        original: the working image.
        noisy: its first variant before the denoiser, clipped to [0, 1].
        denoised: the same variant, as the provider was shown it.
    """

    photo: str
    provider: str
    denoiser: str
    sigma: float
    original: str
    noisy: str
    denoised: str


@dataclass(frozen=True)
class Findings:
    """What a study found.

    Attributes:
        name: what was studied, such as the folder's name.
        created: when it ended (ISO, UTC).
        command: what made it, "" if it was made from Python.
        versions: of what it rests on.
        rules: what was tested on the votes.
        sigmas: noise levels, ascending.
        target: what was certified.
        size: shorter side of the working image, or its (width, height).
        codec: how variants were encoded.
        photos_found: how many photos there were; more than `photos` after a pilot or a stop.
        passed_over: files whose suffix is not a photo's.
        photos: those that were studied.
        problems: those that were not, or not to the end, and why.
        providers: who was asked.
        denoisers: what was put in front.
        cells: the votes, and what the tests made of them.
        pictures: the gallery.
        stopped: why the study ended before its end; "" if it did not.
        seconds: how long it took.
    """

    name: str
    created: str
    command: str
    versions: Mapping[str, str]
    rules: Rules
    sigmas: tuple[float, ...]
    target: Mapping[str, Any]
    size: int | tuple[int, int]
    codec: str
    photos_found: int
    passed_over: int
    photos: tuple[Photo, ...]
    problems: tuple[Problem, ...]
    providers: tuple[ProviderFacts, ...]
    denoisers: tuple[DenoiserFacts, ...]
    cells: tuple[Cell, ...]
    pictures: tuple[GalleryPhoto, ...] = field(default=(), repr=False)
    stopped: str = ""
    seconds: float = 0.0

    @property
    def queries(self) -> int:
        """Variants sent in this run of the study."""
        return sum(cell.queries for cell in self.cells)

    @property
    def dollars(self) -> float:
        """What this run of the study cost, retries and plain queries included."""
        return sum(cell.dollars for cell in self.cells)

    @property
    def left_out(self) -> int:
        """How many photos are not in the figures, or not in all of them."""
        return len({p.photo for p in self.problems if p.kind != "undecided"})

    @property
    def labelled(self) -> bool:
        """Whether it is known of some photo what it shows."""
        return any(photo.truth for photo in self.photos)

    def photo(self, name: str) -> Photo:
        """Return the photo of that name."""
        return next(photo for photo in self.photos if photo.name == name)

    def records(self) -> list[dict[str, Any]]:
        """Return one flat dict per photo and test, for `pandas.DataFrame` or `polars.DataFrame`.

        `certified`, `agreeing` and `right` are those that the figures count
        (`smoothapi.study.success`); `right` and `plain_right` are None where the photo has no
        label. `dollars` is the price of the votes that the test used, at the list's first paid
        step.
        """
        return list(self._records())

    def _records(self) -> Iterator[dict[str, Any]]:
        photos = {photo.name: photo for photo in self.photos}
        prices = {facts.name: float(facts.price.per_thousand) / 1000 for facts in self.providers}
        for cell in self.cells:
            truth = photos[cell.photo].truth
            for outcome in cell.outcomes:
                end = Success.of(outcome, truth)
                yield {
                    "photo": cell.photo,
                    "provider": cell.provider,
                    "denoiser": cell.denoiser,
                    "sigma": cell.sigma,
                    "radius": outcome.radius,
                    "max_votes": outcome.max_votes,
                    "method": outcome.method,
                    "certified": end.certified,
                    "agreeing": end.agreeing,
                    "right": end.right,
                    "label": outcome.label,
                    "reason": outcome.reason,
                    "votes": outcome.votes,
                    "dollars": outcome.votes * prices[cell.provider],
                    "plain": cell.plain,
                    "plain_right": None
                    if not truth
                    else cell.plain is not None and is_right(cell.plain, truth),
                    "truth": "|".join(truth) or None,
                    "largest_radius": outcome.largest_radius,
                    "largest_label": outcome.largest_label,
                    "calibration": photos[cell.photo].calibration,
                }

    def to_dict(self) -> dict[str, Any]:
        """Return a JSON-ready dict; `from_dict` is its inverse."""
        return {"schema": SCHEMA, **_plain(self)}

    def to_json(self, *, indent: int | None = None) -> str:
        """Return the result as JSON text."""
        return to_json(self.to_dict(), indent=indent)

    @classmethod
    def from_dict(cls, data: Any) -> Self:
        """Rebuild a result.

        Raises:
            UsageError: `data` is malformed, or of another schema.
        """
        found = data.get("schema") if isinstance(data, dict) else type(data).__name__
        if found not in (SCHEMA, _FIRST_SCHEMA):
            raise UsageError(
                f"This is not a study's result that can be read: expected schema {SCHEMA!r}, found "
                f"{found!r}."
            )
        try:
            rebuilt = cls(**_values(data if found == SCHEMA else _renamed(data)))
            _check_kind(rebuilt, Findings, "the study")
            _check_values(rebuilt)
        except UsageError as error:
            raise UsageError(f"The study is malformed: {error}") from error
        except KeyError as error:
            raise UsageError(f"The study is malformed: it lacks {error}.") from error
        except (TypeError, ValueError, AttributeError, ArithmeticError, RecursionError) as error:
            raise UsageError(
                f"The study is malformed: {shortened(str(error), 200)[1:-1]}."
            ) from error
        return rebuilt

    @classmethod
    def from_json(cls, text: str | bytes) -> Self:
        """Rebuild a result from JSON text; raises UsageError."""
        try:
            data = parse_json(text)
        except ValueError as error:
            raise UsageError(f"This is not the JSON of a study: {error}.") from error
        return cls.from_dict(data)

    @classmethod
    def load(cls, path: str | Path) -> Self:
        """Read a result from a JSON file; raises UsageError."""
        try:
            text = Path(path).read_bytes()
        except (OSError, ValueError) as error:  # a ValueError: no file has such a name
            raise UsageError(f"The study {str(path)!r} cannot be read: {error}.") from error
        return cls.from_json(text)

    def __repr__(self) -> str:
        facts = f"photos={len(self.photos)} cells={len(self.cells)} queries={self.queries}"
        return f"<{type(self).__name__} {self.name!r} {facts}{' STOPPED' if self.stopped else ''}>"


def _plain(value: Any) -> Any:
    """Return a value in JSON's own types."""
    if is_dataclass(value):
        return {item.name: _plain(getattr(value, item.name)) for item in fields(value)}
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    return str(value) if isinstance(value, Decimal) else value


def _tuples(value: Any) -> Any:
    return tuple(_tuples(item) for item in value) if isinstance(value, list) else value


def _made(kind: Any, data: Mapping[str, Any]) -> Any:
    return kind(**{name: _tuples(value) for name, value in data.items()})


def _renamed(data: Mapping[str, Any]) -> dict[str, Any]:
    """Return a result of the first schema in the words of this one."""
    names = {"caps": "max_votes", "cap": "max_votes"}

    def renamed(row: Mapping[str, Any]) -> dict[str, Any]:
        return {names.get(name, name): value for name, value in row.items()}

    cells = [
        {**cell, "outcomes": [renamed(row) for row in cell["outcomes"]]} for cell in data["cells"]
    ]
    return {**data, "rules": renamed(data["rules"]), "cells": cells}


def _values(data: Mapping[str, Any]) -> dict[str, Any]:
    plain = {name: _tuples(value) for name, value in data.items() if name != "schema"}
    plain["rules"] = _made(Rules, data["rules"])
    for name, kind in (
        ("photos", Photo), ("problems", Problem), ("denoisers", DenoiserFacts),
    ):  # fmt: skip
        plain[name] = tuple(_made(kind, item) for item in data[name])
    plain["pictures"] = tuple(_picture(item) for item in data["pictures"])
    plain["providers"] = tuple(
        ProviderFacts(item["name"], dict(item["identity"]), _price(item["price"]))
        for item in data["providers"]
    )
    plain["cells"] = tuple(
        _made(
            Cell,
            item | {"outcomes": [_made(Outcome, outcome) for outcome in item["outcomes"]]},
        )
        for item in data["cells"]
    )
    return plain


def _check_kind(value: Any, kind: Any, where: str) -> None:
    """Check that a value is what an annotation says, all that it holds included."""
    if is_dataclass(kind):
        for name, hint in _hints(cast("type", kind)).items():
            _check_kind(getattr(value, name), hint, f"{name} of {where}")
        return
    origin, within = get_origin(kind), get_args(kind)
    if origin is tuple and isinstance(value, tuple):
        kinds = within[:1] * len(value) if within[-1] is Ellipsis else within
        for item, one in zip(value, kinds, strict=True):
            _check_kind(item, one, where)
    elif not _fits(value, kind, origin, within):
        raise TypeError(f"{where} cannot be {shortened(value)}")


@cache
def _hints(kind: type) -> dict[str, Any]:
    return get_type_hints(kind)


def _fits(value: Any, kind: Any, origin: Any, within: tuple[Any, ...]) -> bool:
    if kind is Any:
        return True
    if origin is Literal:
        return value in within
    if origin in (Union, UnionType):
        return any(_fits(value, one, get_origin(one), get_args(one)) for one in within)
    if origin is tuple:  # within a union: of numbers
        return isinstance(value, tuple) and tuple(map(type, value)) == within
    if kind is float:
        return type(value) in (int, float)
    return isinstance(value, origin) if origin is not None else type(value) is kind


def _check_values(result: Findings) -> None:
    photos = {photo.name for photo in result.photos}
    providers = {facts.name for facts in result.providers}
    denoisers = {facts.name for facts in result.denoisers}
    if len(photos) < len(result.photos) or not (result.sigmas and providers and denoisers):
        raise ValueError("a photo is in it twice, or it has no sigma, provider or denoiser")
    above = [*result.sigmas, *(photo.gain for photo in result.photos), result.rules.alpha]
    if min(above) <= 0.0 or result.rules.alpha >= 1.0:
        raise ValueError("alpha is not in (0, 1), or a sigma or gain is not above 0")
    for cell in result.cells:
        counts = [cell.queries, cell.attempts, cell.cached, cell.dollars, cell.seconds]
        counts += [outcome.votes for outcome in cell.outcomes]
        if min(counts) < 0 or any(length < 1 for _, length in cell.votes):
            raise ValueError(f"a cell about {cell.photo!r} counts less than nothing")
        if any(outcome.votes > cell.total_votes for outcome in cell.outcomes):
            raise ValueError(f"a cell about {cell.photo!r} has outcomes of more votes than it has")
        if cell.photo not in photos or cell.provider not in providers:
            raise ValueError(f"a cell is about {cell.photo!r} of {cell.provider!r}")
        if cell.denoiser not in denoisers or cell.sigma not in result.sigmas:
            raise ValueError(f"a cell has denoiser {cell.denoiser!r} at sigma {cell.sigma}")
    cells = {(cell.photo, cell.provider, cell.denoiser, cell.sigma) for cell in result.cells}
    for shown in result.pictures:
        if (shown.photo, shown.provider, shown.denoiser, shown.sigma) not in cells:
            raise ValueError(f"a picture of {shown.photo!r} belongs to no cell")


def _price(data: Mapping[str, Any]) -> Price:
    return Price(
        Decimal(data["per_thousand"]),
        str(data["as_of"]),
        int(data["free_per_month"]),
        tuple((int(start), Decimal(price)) for start, price in data["steps"]),
    )


def _picture(data: Mapping[str, Any]) -> GalleryPhoto:
    picture = _made(GalleryPhoto, data)
    for text in (picture.original, picture.noisy, picture.denoised):
        try:
            base64.b64decode(text, validate=True)
        except binascii.Error as error:
            raise ValueError(f"a picture is not base64: {error}") from error
    return picture  # type: ignore[no-any-return]
