"""Mixes of shares that a deployment learnt from its own past photos, to give runs up by.

How sure a provider is of photos under noise depends on its options, on the denoiser, sigma and size
of what it is shown, and on which classes its labels are counted for: so there is a mix for each
`Deployment`. They are kept in one file of the home, and in the header of a recording.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter, defaultdict
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from smoothapi.answer import Answer
from smoothapi.certify.futility import ChanceRule, Futility, Mix, PriceRule
from smoothapi.certify.labels import LabelSpace, top1
from smoothapi.errors import StoreError, UsageError
from smoothapi.files import canonical_json, parse_json
from smoothapi.store.rows import answer_key

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from smoothapi.errors import PermanentError
    from smoothapi.store import Store

SCHEMA = "smoothapi.mixes/2"
_DIGITS = 16  # of a digest
_BEFORE = "smoothapi.mixes/1"  # of deployments by provider, denoiser and sigma alone
_NOTE = "mixes"


@dataclass(frozen=True, slots=True, order=True)
class Deployment:
    """What the share of a photo's top label depends on, besides the photo.

    Attributes:
        provider: the adapter's name.
        denoiser: the denoiser's fingerprint.
        sigma: noise level.
        options: digest of the options that decide the provider's answers; "" where they were not
            noted, in mixes of before.
        size: shorter side of the working image; 0 where it was not noted.
        classes: digest of the caller's classes; "" for the provider's own labels.
    """

    provider: str
    denoiser: str
    sigma: float
    options: str = ""
    size: int = 0
    classes: str = ""

    @classmethod
    def of(
        cls,
        *,
        provider: str,
        identity: Mapping[str, object],
        denoiser: str,
        sigma: float,
        size: int | Sequence[int],
        space: LabelSpace | None,
    ) -> Deployment:
        """Return the deployment of an adapter with these options.

        Args:
            provider: the adapter's name.
            identity: what decides its answers besides the picture.
            denoiser: the denoiser's fingerprint.
            sigma: noise level.
            size: of the working image, its shorter side or (width, height).
            space: the caller's classes.
        """
        options = hashlib.sha256(canonical_json(dict(identity))).hexdigest()[:_DIGITS]
        shorter = size if isinstance(size, int) else min(size)
        classes = "" if space is None else space.digest[:_DIGITS]
        return cls(provider, denoiser, float(sigma), options, shorter, classes)


@dataclass(frozen=True, slots=True)
class PastPhoto:
    """What was answered about one photo: k of n votes were for its top label."""

    deployment: Deployment
    k: int
    n: int


@dataclass(frozen=True, slots=True)
class Mixes:
    """The mixes that were learnt.

    Attributes:
        by_deployment: one for each deployment that had past photos.
    """

    by_deployment: Mapping[Deployment, Mix]

    def mix(self, deployment: Deployment) -> Mix | None:
        """Return the mix of a deployment, None where none was learnt.

        One that was learnt before options, size and classes were noted is of them all.
        """
        known = self.by_deployment
        before = Deployment(deployment.provider, deployment.denoiser, deployment.sigma)
        return known.get(deployment) or known.get(before)

    @classmethod
    def learnt(cls, photos: Iterable[PastPhoto]) -> Mixes:
        """Return a mix for each deployment that has photos."""
        counts: dict[Deployment, list[tuple[int, int]]] = defaultdict(list)
        for photo in photos:
            counts[photo.deployment].append((photo.k, photo.n))
        return cls({deployment: Mix.learnt(counts[deployment]) for deployment in sorted(counts)})

    @classmethod
    def load(cls, store: Store) -> Mixes:
        """Read what `save` kept in a store; without it, nothing was learnt.

        Raises:
            StoreError: it cannot be read.
        """
        text = store.note(_NOTE)
        if text is None:
            return cls({})
        try:
            return cls.from_dict(parse_json(text))
        except (ValueError, UsageError) as error:
            raise StoreError(
                f"The mixes of shares ({_NOTE}.json of the home) cannot be read: {error}. Learn "
                "them anew with `smoothapi plan --learn`: certificates do not rest on them."
            ) from error

    def save(self, store: Store) -> None:
        """Keep the mixes in a store, in place of earlier ones; raises StoreError."""
        store.keep_note(_NOTE, json.dumps(self.to_dict()) + "\n")

    def to_dict(self) -> dict[str, Any]:
        """Return a JSON-ready dict; `from_dict` is its inverse."""
        rows = [
            {
                "provider": deployment.provider,
                "denoiser": deployment.denoiser,
                "sigma": deployment.sigma,
                "options": deployment.options,
                "size": deployment.size,
                "classes": deployment.classes,
                "photos": mix.photos,
                "shares": list(mix.shares),
                "weights": list(mix.weights),
            }
            for deployment, mix in self.by_deployment.items()
        ]
        return {"schema": SCHEMA, "mixes": rows}

    @classmethod
    def from_dict(cls, data: Any) -> Mixes:
        """Rebuild mixes; raises UsageError."""
        found = data.get("schema") if isinstance(data, dict) else type(data).__name__
        if found not in (SCHEMA, _BEFORE):
            raise UsageError(f"The schema is {found!r}; this version reads {SCHEMA!r}")
        try:
            read = _from_row if found == SCHEMA else _from_row_of_before
            return cls(dict(map(read, data["mixes"])))
        except (KeyError, TypeError, ValueError, ArithmeticError) as error:
            raise UsageError(f"The mixes are malformed: {error!r}") from error


def _from_row(row: Mapping[str, Any]) -> tuple[Deployment, Mix]:
    deployment, mix = _from_row_of_before(row)
    options, classes = (str(row[name]) for name in ("options", "classes"))
    return replace(deployment, options=options, size=int(row["size"]), classes=classes), mix


def _from_row_of_before(row: Mapping[str, Any]) -> tuple[Deployment, Mix]:
    shares, weights = (tuple(map(float, row[name])) for name in ("shares", "weights"))
    mix = Mix(shares, weights, int(row["photos"]))
    return Deployment(str(row["provider"]), str(row["denoiser"]), float(row["sigma"])), mix


def futility_rule(mixes: Mixes | None, deployment: Deployment) -> Futility:
    """Return the rule by which runs of a deployment are given up.

    Args:
        mixes: None for a recording from before there were any: it has no votes beyond those that
            the rule of its time asked for.
        deployment: whose runs.
    """
    if mixes is None:
        return ChanceRule()
    mix = mixes.mix(deployment)
    return PriceRule() if mix is None else PriceRule(mix)


def past_photos(
    answers: Iterable[tuple[Mapping[str, Any], Answer | PermanentError]],
    space: LabelSpace | None = None,
) -> list[PastPhoto]:
    """Count what was answered about the variants of each photo.

    Args:
        answers: what was asked, and what was answered; what is not about a variant is passed over,
            and what was asked twice counts once.
        space: the caller's classes; by default the provider's own labels.
    """
    tallies: dict[str, Counter[str | None]] = defaultdict(Counter)
    deployments: dict[str, Deployment] = {}
    seen: set[str] = set()
    for asked, outcome in answers:
        if "index" not in asked:
            continue
        key = answer_key(asked)
        if key in seen:
            continue
        seen.add(key)
        photo = answer_key({name: asked[name] for name in asked if name != "index"})
        vote = top1(outcome, space) if isinstance(outcome, Answer) else None
        tallies[photo][vote] += 1
        deployments[photo] = Deployment.of(
            provider=str(asked["provider"]),
            identity=asked["identity"],
            denoiser=str(asked["denoiser"]),
            sigma=float(asked["sigma"]),
            size=asked["size"],
            space=space,
        )
    return [
        PastPhoto(
            deployments[photo],
            max((count for label, count in tally.items() if label is not None), default=0),
            tally.total(),
        )
        for photo, tally in tallies.items()
    ]
