"""Mixes of shares that a deployment learnt from its own past photos, to give runs up by.

How sure a provider is of photos under noise depends on the denoiser and on sigma, so there is a mix
for each `Deployment`. They are kept in one file of the home, and in the header of a recording.
"""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from smoothapi.answer import Answer
from smoothapi.certify.futility import ChanceRule, Futility, Mix, PriceRule
from smoothapi.certify.labels import LabelSpace, top1
from smoothapi.errors import StoreError, UsageError
from smoothapi.files import parse_json
from smoothapi.store.rows import answer_key

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from smoothapi.errors import PermanentError
    from smoothapi.store import Store

SCHEMA = "smoothapi.mixes/1"
_NOTE = "mixes"


@dataclass(frozen=True, slots=True, order=True)
class Deployment:
    """What the share of a photo's top label depends on, besides the photo.

    Attributes:
        provider: the adapter's name.
        denoiser: the denoiser's fingerprint.
        sigma: noise level.
    """

    provider: str
    denoiser: str
    sigma: float


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
        """Return the mix of a deployment, None where none was learnt."""
        return self.by_deployment.get(deployment)

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
        if found != SCHEMA:
            raise UsageError(f"The schema is {found!r}; this version reads {SCHEMA!r}")
        try:
            return cls(dict(map(_from_row, data["mixes"])))
        except (KeyError, TypeError, ValueError, ArithmeticError) as error:
            raise UsageError(f"The mixes are malformed: {error!r}") from error


def _from_row(row: Mapping[str, Any]) -> tuple[Deployment, Mix]:
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
        deployments[photo] = Deployment(
            str(asked["provider"]), str(asked["denoiser"]), float(asked["sigma"])
        )
    return [
        PastPhoto(
            deployments[photo],
            max((count for label, count in tally.items() if label is not None), default=0),
            tally.total(),
        )
        for photo, tally in tallies.items()
    ]
