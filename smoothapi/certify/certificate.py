"""The certificate: what is claimed, and all that is needed to check the claim again."""

from __future__ import annotations

import json
import math
import re
from collections import Counter
from dataclasses import dataclass, field, fields
from itertools import groupby, islice, pairwise
from typing import TYPE_CHECKING, Any, Literal

from smoothapi import notebook
from smoothapi.certify.arithmetic import floor_to
from smoothapi.certify.bounds import check_radius
from smoothapi.certify.decision import RULES, Claim, Reason
from smoothapi.certify.radii import native_radius, rms_radius, rms_steps
from smoothapi.certify.votes import labels_of, shown, text_of
from smoothapi.errors import CertificateError, UnreadableCertificateError
from smoothapi.files import canonical_json, parse_json, to_json
from smoothapi.signing import SignedCertificate
from smoothapi.text import printable, shortened

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from smoothapi.signing import SigningKey

SCHEMA = "smoothapi.certificate/3"
_SCHEMAS = {"smoothapi.certificate/1": 1, "smoothapi.certificate/2": 2, SCHEMA: RULES}
_VOTES_AS_JSON = 3  # rules, that is schema, from which on they stand so
_SINCE_2 = ("largest", "or_less", "radius_asked", "mix", "refreshes", "replaced")
_SINCE_3 = ("final", "issued")
_UTC = re.compile(r"\d{4}-[01]\d-[0-3]\dT[0-2]\d:[0-5]\d:[0-6]\dZ", re.ASCII)


@dataclass(frozen=True)
class ImageFacts:
    """Which picture a certificate speaks of.

    Attributes:
        name: file name, or what kind of object the photo was given as.
        digest: SHA-256 (hex) of the working image.
        size: (width, height) of the working image.
        native_size: (width, height) of the upright photo.
        gain: operator norm of the resize between them.
        notes: what was done to the photo besides.
    """

    name: str
    digest: str
    size: tuple[int, int]
    native_size: tuple[int, int]
    gain: float
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Certificate:
    """What smoothapi says about one photo.

    With `kind` "certify" and a label: with probability at least 1 - alpha over the noise, no
    change of the working image of L2 norm below `radius` changes the smoothed classifier's label
    (Cohen, Rosenfeld, Kolter, ICML 2019). With `kind` "predict" and a label: with that
    probability the label is the smoothed classifier's answer for this picture; no radius is
    claimed.

    Attributes:
        kind: "certify" or "predict".
        label: the certified label, or None where smoothapi abstains.
        reason: why it ended so; a value of `smoothapi.certify.Reason`.
        plain_label: the provider's label for the working image itself; None if it answered without
            labels, or was not asked.
        plain_asked: whether it was asked.
        plain_agrees: whether the plain answer says the same; None where either is missing, or the
            target cannot be read off one answer.
        radius: certified L2 radius around the working image, in units of the [0, 1] range,
            rounded down; 0 where nothing is certified.
        radius_requested: the radius asked for; None where the largest was asked for.
        radius_native: certified radius around the photo before the resize, rounded down.
        p_lower: lower confidence bound of the label's share of votes, rounded down; 0 where
            nothing is certified.
        sigma: noise level.
        alpha: chance that the certificate is wrong.
        max_votes: most votes that were allowed.
        votes: the votes in order of index, as runs (vote, length): a label, None for "no answer",
            or the JSON text that `target` makes of an answer.
        delta: what was taken off the share of votes for arithmetic (see certify.arithmetic).
        rounding: what was taken off the native radius for rounding to the grid.
        provider: the adapter's name.
        identity: what decides the provider's answers besides the picture.
        model_version: what the provider says of its model.
        image: the picture.
        denoiser: name of the denoiser.
        denoiser_fingerprint: what tells it from any other.
        codec: how variants were encoded.
        target: what was to be certified, as the description that `parse_target` reads.
        claims: what is certified about each label, for targets other than the top label.
        largest: of each label that the votes certify at some radius from sigma / 8 up, the largest
            such radius, whether or not it is the one asked for; so also where smoothapi abstains.
            All of this holds together with the rest, with probability 1 - alpha: the radius that
            is relied on may be chosen after the votes.
        or_less: whether the run was to go on for less than the radius asked for.
        final: whether the test was calibrated to `max_votes`, never to be raised: then alpha does
            not hold for this certificate and one of the same photo at another radius or with a
            larger cap together.
        radius_asked: the radius in the unit that it was asked for in ("0.5 native"), "" where that
            is `radius_requested`; see `smoothapi.radius`.
        noise_key: public id of the installation's noise key.
        version: of smoothapi.
        rules: those that the votes were tested by: `smoothapi.certify.RULES`, or the number of the
            schema in older certificates, which are read and verified as they were issued.
        mix: digest of the mix of shares, learnt from past photos, by which the run was given up or
            would have been; "" for the one that is assumed. For information: no claim rests on it.
        refreshes: how often the answers had been asked for anew by choice (`refresh`), this run
            included. The chance that any of these sets of answers certifies wrongly is up to
            (refreshes + 1) * alpha.
        replaced: what the answers came to that this run asked for anew: "certified", "abstained" or
            "undecided"; "" where it replaced none.
        never_seen: of the labels asked for by name, those that the provider is not known to have:
            neither does it state them, nor were they in any answer of it that was stored when this
            was issued. That such a label is absent is certified, and says little. For information:
            no claim rests on it.
        replayed_from: the recording that the answers were replayed from; "" where a provider gave
            them to this installation.
        issued: when, by the clock of the machine that issued it: UTC, "2026-11-28T22:06:05Z"; "" in
            certificates of schemas 1 and 2. For information: whoever signs vouches for it.
        queries: variants sent in this run, each counted once, the plain query included.
        attempts: pictures sent, retries included.
        cached: answers that earlier runs had bought.
        failed: votes for "no answer" because a variant failed for good. One that was given up
            after its retries is asked again by the next run, which can only turn "no answer" into
            what the provider really says, and so never adds votes to a wrong label.
        cost: dollars for the attempts by the price list, rounded up.
        seconds: how long the run took.

    Two certificates are equal if they claim the same, whatever the runs cost.
    """

    kind: Literal["certify", "predict"]
    label: str | None
    reason: str
    plain_label: str | None
    plain_asked: bool
    plain_agrees: bool | None
    radius: float
    radius_requested: float | None
    radius_native: float
    p_lower: float
    sigma: float
    alpha: float
    max_votes: int
    votes: tuple[tuple[str | None, int], ...]
    delta: float
    rounding: float
    provider: str
    identity: Mapping[str, str | int | float | bool | None]
    model_version: str
    image: ImageFacts
    denoiser: str
    denoiser_fingerprint: str
    codec: str
    target: Mapping[str, Any]
    claims: tuple[Claim, ...]
    noise_key: str
    version: str
    largest: tuple[Claim, ...] = ()
    or_less: bool = False
    final: bool = False
    radius_asked: str = ""
    rules: int = RULES
    mix: str = field(default="", compare=False)
    refreshes: int = field(default=0, compare=False)
    replaced: str = field(default="", compare=False)
    never_seen: tuple[str, ...] = field(default=(), compare=False)
    replayed_from: str = field(default="", compare=False)
    issued: str = field(default="", compare=False)
    queries: int = field(default=0, compare=False)
    attempts: int = field(default=0, compare=False)
    cached: int = field(default=0, compare=False)
    failed: int = field(default=0, compare=False)
    cost: float = field(default=0.0, compare=False)
    seconds: float = field(default=0.0, compare=False)

    @property
    def abstained(self) -> bool:
        """Whether no label is claimed."""
        return self.label is None

    @property
    def largest_radius(self) -> float:
        """The L2 radius up to which all that was asked about is certified; 0 where it is not.

        Where smoothapi abstained it may be above 0: less than was asked for. Of several labels
        asked for by name it is the least of theirs, 0 if one is not certified at all; of the most
        specific label that was certified, its own, and where none was, the least of its chain.
        """
        claims = self.largest or self.claims
        asked = self.target.get("labels")
        if isinstance(asked, list):
            reach = {claim.label: claim.radius for claim in claims}
            return min((reach.get(name, 0.0) for name in asked), default=0.0)
        named = [claim.radius for claim in claims if claim.label == self.label]
        return max(named) if named else min((claim.radius for claim in claims), default=self.radius)

    def certified_at(self, radius: float) -> tuple[Claim, ...]:
        """Return what is certified at a radius that may be chosen now, after the votes.

        Args:
            radius: L2 radius around the working image, above 0.

        Returns:
            A claim for each label that is certified there, empty if none is. The radii of all
            claims hold together with probability 1 - alpha.

        Raises:
            UsageError: `radius` is not a number above 0.
        """
        check_radius(radius)
        return tuple(claim for claim in self.largest if claim.radius >= radius > 0.0)

    @property
    def lesser(self) -> tuple[Claim, ...]:
        """What is certified at a smaller radius than was asked for: of a label that is not at that.

        Of several labels one can be certified as asked for, and another at less.
        """
        asked = self.radius_requested
        if asked is None:
            return ()
        return tuple(claim for claim in self.largest if claim.radius < asked)

    @property
    def radius_rms(self) -> float:
        """`radius_native` as a root mean square over the photo's channel values, rounded down.

        In units of the [0, 1] range: 1 / 255 is one step of an 8-bit value, in every channel value.
        """
        return rms_radius(self.radius_native, self.image.native_size)

    def native(self, radius: float) -> float:
        """Return the radius around the photo before the resize, rounded down.

        A change of norm e there changes the working image by at most gain * e + rounding.

        Args:
            radius: L2 radius around the working image.
        """
        return native_radius(radius, self.image.gain, self.rounding)

    def rms_steps(self, radius: float) -> float:
        """Return the same as a root mean square over the photo's channel values, for people.

        In steps of 8-bit values, rounded down to three digits.

        Args:
            radius: L2 radius around the working image.
        """
        return rms_steps(radius, self.image.native_size, self.image.gain, self.rounding)

    @property
    def explanation(self) -> str:
        """The reason in words."""
        return Reason(self.reason).text

    @property
    def total_votes(self) -> int:
        """Votes counted."""
        return sum(length for _, length in self.votes)

    @property
    def tally(self) -> dict[str | None, int]:
        """Votes by label, most first; None stands for "no answer".

        Where labels are asked for by name, a vote counts for each that was present in the answer,
        or had the least score wanted: then these numbers need not sum to `total_votes`.
        """
        counter: Counter[str | None] = Counter()
        for vote, length in self.votes:
            counter.update(dict.fromkeys(labels_of(vote, self.target), length))
        return dict(counter.most_common())

    def vote_order(self) -> Iterator[str | None]:
        """Yield the votes one by one, in order of index."""
        for label, length in self.votes:
            for _ in range(length):
                yield label

    def to_dict(self) -> dict[str, Any]:
        """Return a JSON-ready dict; `from_dict` is its inverse."""
        data: dict[str, Any] = {"schema": next(k for k, v in _SCHEMAS.items() if v == self.rules)}
        for item in fields(self):
            data[item.name] = getattr(self, item.name)
        del data["rules"]
        data["abstained"] = self.abstained
        data["never_seen"] = list(self.never_seen)
        if not self.never_seen:  # as in certificates of before there was such a field
            del data["never_seen"]
        data["identity"] = dict(self.identity)
        data["target"] = dict(self.target)
        data["claims"] = [_claim_dict(claim) for claim in self.claims]
        data["largest"] = [
            {**_claim_dict(claim), "radius_native": self.native(claim.radius)}
            for claim in self.largest
        ]
        data["radius_rms"] = self.radius_rms
        if self.rules == 1:
            del data["radius_rms"]
        for since, names in ((2, _SINCE_2), (3, _SINCE_3)):
            for name in names if self.rules < since else ():
                del data[name]
        data["image"] = {
            "name": self.image.name,
            "digest": self.image.digest,
            "size": list(self.image.size),
            "native_size": list(self.image.native_size),
            "gain": self.image.gain,
            "notes": list(self.image.notes),
        }
        data["votes"] = self._votes_dict()
        return data

    def _votes_dict(self) -> dict[str, Any]:
        tally, order = self.tally, [[shown(v, self.target), length] for v, length in self.votes]
        if self.rules < _VOTES_AS_JSON:  # votes were text throughout, and tallied as such
            raw: Counter[str | None] = Counter()
            for vote, length in self.votes:
                raw[vote] += length
            tally, order = dict(raw.most_common()), [[vote, length] for vote, length in self.votes]
        return {
            "total": self.total_votes,
            "tally": {label: count for label, count in tally.items() if label is not None},
            "no_answer": tally.get(None, 0),
            "order": order,
        }

    def to_json(self, *, indent: int | None = None) -> str:
        """Return the certificate as JSON text."""
        return to_json(self.to_dict(), indent=indent)

    def sign(self, key: SigningKey) -> SignedCertificate:
        """Return the certificate signed: whoever trusts the key can tell that it is its holder's.

        The same certificate and key give the same bytes.
        """
        return SignedCertificate.make(canonical_json(self.to_dict()), key)

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Certificate:
        """Rebuild a certificate.

        Raises:
            UnreadableCertificateError: `data` is something else, or has another schema.
            CertificateError: it is malformed, or contradicts itself (its tally is not that of its
                votes, say).
        """
        schema = data.get("schema") if isinstance(data, dict) else type(data).__name__
        if not isinstance(schema, str) or schema not in _SCHEMAS:
            raise UnreadableCertificateError(
                f"This is not a certificate that this version reads: expected schema {SCHEMA!r}, "
                f"found {shortened(schema)}."
            )
        try:
            certificate = cls(**_checked(data))
            made, given = json.loads(certificate.to_json()), json.loads(json.dumps(data))
        except KeyError as error:
            raise CertificateError(f"The certificate is malformed: it lacks {error}.") from error
        except (TypeError, ValueError, ArithmeticError, AttributeError, RecursionError) as error:
            raise CertificateError(f"The certificate is malformed: {error}.") from error
        wrong = list(islice(_contradictions(made, given), _MOST_CONTRADICTIONS))
        if not isinstance(data["abstained"], bool):
            wrong.append("abstained is not a boolean")
        if made != given or wrong:
            raise CertificateError(f"The certificate contradicts itself: {'; '.join(wrong)}.")
        return certificate

    @classmethod
    def from_json(cls, text: str | bytes) -> Certificate:
        """Rebuild a certificate from JSON text; raises CertificateError."""
        try:
            data = parse_json(text)
        except ValueError as error:
            raise UnreadableCertificateError(f"The certificate cannot be read: {error}.") from error
        return cls.from_dict(data)

    def __str__(self) -> str:
        unknown = f"; {never_seen_text(self)}" if self.never_seen else ""
        return f"{self._sentence()}{unknown}"

    def _sentence(self) -> str:
        spent = f"{self.total_votes} votes, {self.queries} queries sent"
        if self.replayed_from:
            spent = f"{self.total_votes} votes replayed from {printable(self.replayed_from)}"
        if self.label is None:
            less = f"; {less_text(self)}" if self.lesser else ""
            return f"abstained ({self.explanation}){less}: {_leader_text(self)}{spent}"
        label, sure = printable(self.label), confidence(self.alpha)
        if self.kind == "predict":
            return f"{label}: the smoothed label, with confidence {sure}, {spent}"
        less = f"; {less_text(self)}" if self.lesser else ""
        return (
            f"{label}: certified at L2 radius {rounded_down(self.radius)} (native "
            f"{rounded_down(self.radius_native)}), sigma {self.sigma:g}, confidence {sure}{less}, "
            f"{spent}"
        )

    def __hash__(self) -> int:
        return hash((self.kind, self.label, self.radius, self.image.digest, self.votes))

    def __repr__(self) -> str:
        return (
            f"<Certificate {self.kind} label={self.label!r} radius={rounded_down(self.radius)} "
            f"reason={self.reason!r} votes={self.total_votes} queries={self.queries}>"
        )

    def _repr_html_(self) -> str:
        """Return a small table for notebooks; labels come from outside and are escaped.

        `Smoother.look(certificate, photo)` shows the photo, too.
        """
        return notebook.facts(_facts(self)) + notebook.bars(_bars(self.tally))


def _facts(of: Certificate) -> Iterator[tuple[str, object]]:
    yield "Label", of.label if of.label is not None else f"abstained: {of.explanation}"
    if of.lesser:
        yield "Certified at less", less_text(of)
    if of.never_seen:
        yield "Never seen", never_seen_text(of)
    yield "Plain label", _plain_text(of)
    if of.kind == "certify" and of.radius:
        yield "L2 radius", f"{rounded_down(of.radius)} around the working image"
        yield "Native radius", f"{rounded_down(of.radius_native)} before the resize"
        yield "As rms", f"{of.rms_steps(of.radius):g}/255 over the photo's channel values"
    elif of.kind == "certify":
        yield "L2 radius", "none certified"
    yield "Confidence", f"{confidence(of.alpha)} at sigma {of.sigma:g}"
    yield "Votes", _tally_text(of.tally)
    yield "Queries", f"{of.queries} sent, {of.cached} from the store, ${of.cost:.4f}"
    yield "Provider", f"{of.provider} {of.model_version}".strip()
    if of.replayed_from:
        yield "Replayed from", of.replayed_from
    yield "Photo", f"{of.image.name} ({of.image.digest[:12]})"


def _bars(tally: Mapping[str | None, int], most: int = 5) -> Iterator[tuple[str, int]]:
    rows = [("no answer" if label is None else label, n) for label, n in tally.items()]
    yield from rows[:most]
    if len(rows) > most:
        yield f"{len(rows) - most} other labels", sum(n for _, n in rows[most:])


@dataclass(frozen=True, slots=True)
class OpenLabel:
    """A label that was asked for by name, and is not certified as that was asked.

    Attributes:
        label: its name.
        relation: what most votes say of it, of what was wanted.
        share: of the votes, those that say so.
        score: for "at least", the least one wanted.
    """

    label: str
    relation: Literal["present", "absent", "at least"]
    share: float
    score: float | None = None

    @property
    def text(self) -> str:
        """The label and what the votes say of it, fit to be shown."""
        score = "" if self.score is None else f" {self.score:g}"
        return f"{printable(self.label)} {self.relation}{score}"


def open_labels(certificate: Certificate) -> tuple[OpenLabel, ...]:
    """Return the labels asked for by name that are not certified as asked, the least share first.

    Empty for other targets, and without votes.
    """
    target, votes = certificate.target, certificate.total_votes
    labels, wanted, least = (target.get(name) for name in ("labels", "wanted", "least"))
    if target.get("target") not in ("presence", "scores") or not isinstance(labels, list):
        return ()
    if not votes or not all(isinstance(label, str) for label in labels):
        return ()
    tally = certificate.tally
    failed = tally.get(None, 0)
    certified = {claim.label for claim in certificate.claims}
    found = []
    for label in labels:
        there = tally.get(label, 0)
        absent = votes - failed - there
        if label in certified:
            continue
        if isinstance(least, (int, float)):
            found.append(OpenLabel(label, "at least", there / votes, least))
        elif wanted == "absent" or (wanted == "either" and absent > there):
            found.append(OpenLabel(label, "absent", absent / votes))
        else:
            found.append(OpenLabel(label, "present", there / votes))
    return tuple(sorted(found, key=lambda one: one.share))


def leader_of(certificate: Certificate) -> tuple[str, int] | None:
    """Return the label with the most votes, and how many; None if none leads or votes are lists."""
    tally = certificate.tally if certificate.target.get("target") == "top1" else {}
    return next(((label, n) for label, n in tally.items() if label is not None), None)


def _leader_text(certificate: Certificate) -> str:
    """Return which label leads, or is furthest from what was asked, and by what share; else ""."""
    leader = leader_of(certificate)
    if leader is not None:
        label, count = leader
        return f"{printable(label)} leads with {percent(count / certificate.total_votes)} of "
    return next((f"{one.text} in {percent(one.share)} of " for one in open_labels(certificate)), "")


def percent(share: float) -> str:
    """Return a share in percent with one decimal, never more than it is."""
    return f"{floor_to(100.0 * share, 1):g}%"


def less_text(certificate: Certificate) -> str:
    """Return what is certified at less than the radius asked for, in words."""
    words = [
        f"{claim_text(claim)} certified at {rounded_down(claim.radius)}"
        for claim in certificate.lesser
    ]
    return f"{', '.join(words)} ({asked_text(certificate)} was asked for)"


_MOST_NEVER_SEEN = 8


def never_seen_names(certificate: Certificate) -> str:
    """Return the labels that were asked for and the provider is not known to have, in quotes."""
    names = [repr(printable(name)) for name in certificate.never_seen]
    shown = ", ".join(names[:_MOST_NEVER_SEEN])
    if len(names) > _MOST_NEVER_SEEN:
        shown += f" and {len(names) - _MOST_NEVER_SEEN} more"
    return shown


def never_seen_text(certificate: Certificate) -> str:
    """Return which labels that were asked for the provider is not known to have, in words."""
    names = never_seen_names(certificate)
    return f"{names} never seen in any answer of {printable(certificate.provider)}"


def asked_text(certificate: Certificate) -> str:
    """Return the radius that was asked for, in the unit it was asked for in too."""
    requested = certificate.radius_requested
    if requested is None:
        return "the largest"
    asked = printable(certificate.radius_asked)
    return f"{asked}, here {requested:g}," if asked else f"{requested:g}"


def rounded_down(value: float) -> str:
    """Return a radius or a share with at most 6 decimals, never more than it is."""
    return f"{floor_to(value, 6):.6f}".rstrip("0").rstrip(".")


def confidence(alpha: float) -> str:
    """Return 1 - alpha in percent, never more than it is."""
    return f"{floor_to(100.0 * (1.0 - alpha), 6):.6f}".rstrip("0").rstrip(".") + "%"


def runs_of(votes: Iterable[str | None]) -> tuple[tuple[str | None, int], ...]:
    """Return votes as runs: (label, how often in a row)."""
    return tuple((label, sum(1 for _ in group)) for label, group in groupby(votes))


def claim_text(claim: Claim) -> str:
    """Return what is certified of a label, in words and fit to be shown."""
    name = printable(claim.label)
    if claim.relation == "top":
        return name
    score = "" if claim.score is None else f" {claim.score:g}"
    return f"{name} {claim.relation}{score}"


def _plain_text(certificate: Certificate) -> str:
    if not certificate.plain_asked:
        return "not asked"
    agrees = {True: " (agrees)", False: " (DIFFERS)", None: ""}[certificate.plain_agrees]
    return f"{certificate.plain_label or 'no label'}{agrees}"


def _tally_text(tally: Mapping[str | None, int], most: int = 5) -> str:
    shown = [f"{'no answer' if k is None else k} {n}" for k, n in list(tally.items())[:most]]
    if len(tally) > most:
        shown.append(f"{len(tally) - most} other labels")
    return ", ".join(shown) or "none"


_NUMBERS = (
    "radius", "radius_native", "p_lower", "sigma", "alpha", "delta", "rounding", "cost", "seconds",
)  # fmt: skip
_COUNTS = ("max_votes", "queries", "attempts", "cached", "failed")
_TEXTS = (
    "reason", "provider", "model_version", "denoiser", "denoiser_fingerprint", "codec",
    "noise_key", "version", "replayed_from",
)  # fmt: skip


_MOST_CONTRADICTIONS = 3


def _contradictions(made: object, given: object, where: str = "") -> Iterator[str]:
    """Yield where a certificate differs from the one that its fields make, in words.

    Args:
        made: what the fields that all else follows from come to.
        given: what it says.
        where: in it these stand, as a path.
    """
    if isinstance(made, dict) and isinstance(given, dict):
        for name in [*given, *(name for name in made if name not in given)]:
            path = f"{where}.{printable(name)}" if where else printable(name)
            if name not in made:
                yield f"it holds the unknown field {path}"
            elif name not in given:
                yield f"it lacks {path}"
            else:
                yield from _contradictions(made[name], given[name], path)
    elif isinstance(made, list) and isinstance(given, list) and len(made) == len(given):
        for place, (ours, theirs) in enumerate(zip(made, given, strict=True)):
            yield from _contradictions(ours, theirs, f"{where}[{place}]")
    elif made != given:
        yield f"{where} is {shortened(given)}, but follows as {shortened(made)}"


def _checked(data: Mapping[str, Any]) -> dict[str, Any]:
    """Return the constructor's arguments; raises KeyError, TypeError or ValueError."""
    values: dict[str, Any] = {}
    for name in _NUMBERS:
        values[name] = _number(data, name)
    for name in _COUNTS:
        values[name] = _count(data[name], name)
    for name in _TEXTS:
        values[name] = _string(data[name], name)
    values["label"] = None if data["label"] is None else _string(data["label"], "label")
    values["kind"] = data["kind"]
    if values["kind"] not in ("certify", "predict"):
        raise ValueError(f"kind {shortened(data['kind'])} is unknown")
    Reason(values["reason"])  # a ValueError if it is unknown
    values.update(_plain(data))
    asked = data["radius_requested"]
    values["radius_requested"] = None if asked is None else _number(data, "radius_requested")
    for name in ("identity", "target"):
        if not isinstance(data[name], dict):
            raise TypeError(f"{name} is not an object")
        values[name] = dict(data[name])
    values["never_seen"] = _never_seen(data)
    values["claims"] = tuple(_claim(claim) for claim in data["claims"])
    values["rules"] = _SCHEMAS[data["schema"]]
    values.update(_later(data, values["rules"]))
    order = data["votes"]["order"]
    if values["rules"] >= _VOTES_AS_JSON:
        order = [(text_of(vote, values["target"]), length) for vote, length in order]
    values["votes"] = _votes(order)
    values["image"] = _image(data["image"])
    return values


def _later(data: Mapping[str, Any], rules: int) -> dict[str, Any]:
    """Return what certificates of schema 1 do not have."""
    values: dict[str, Any] = {}
    if rules > 1:
        values["largest"] = tuple(_claim(claim) for claim in data["largest"])
        values["or_less"] = _bool(data, "or_less")
        values["refreshes"] = _count(data["refreshes"], "refreshes")
        for name in ("radius_asked", "replaced", "mix"):
            values[name] = _string(data[name], name)
    if rules > 2:
        values["final"] = _bool(data, "final")
        values["issued"] = _issued(data["issued"])
    return values


def _bool(data: Mapping[str, Any], name: str) -> bool:
    value = data[name]
    if not isinstance(value, bool):
        raise TypeError(f"{name} is not a boolean")
    return value


def _never_seen(data: Mapping[str, Any]) -> tuple[str, ...]:
    names = data.get("never_seen", [])
    if not isinstance(names, list):
        raise TypeError("never_seen is not a list")
    return tuple(_string(name, "never_seen") for name in names)


def _plain(data: Mapping[str, Any]) -> dict[str, Any]:
    label, asked, agrees = (data[name] for name in ("plain_label", "plain_asked", "plain_agrees"))
    if not isinstance(asked, bool) or not isinstance(agrees, (bool, type(None))):
        raise TypeError("plain_asked or plain_agrees is not a boolean")
    if label is not None and not (asked and isinstance(label, str)):
        raise ValueError("plain_label is not text, or was not asked for")
    return {"plain_label": label, "plain_asked": asked, "plain_agrees": agrees}


def _image(data: Mapping[str, Any]) -> ImageFacts:
    return ImageFacts(
        name=_string(data["name"], "image.name"),
        digest=_string(data["digest"], "image.digest"),
        size=_size(data["size"]),
        native_size=_size(data["native_size"]),
        gain=_number(data, "gain"),
        notes=tuple(_string(note, "image.notes") for note in data["notes"]),
    )


def _votes(order: Iterable[Any]) -> tuple[tuple[str | None, int], ...]:
    votes = tuple(
        (None if label is None else _string(label, "votes"), _count(length, "votes"))
        for label, length in order
    )
    labels = [label for label, _ in votes]
    if any(not n for _, n in votes) or any(one == next_ for one, next_ in pairwise(labels)):
        raise ValueError("the votes are not in runs")
    return votes


def _claim_dict(claim: Claim) -> dict[str, Any]:
    return {
        "label": claim.label,
        "relation": claim.relation,
        "radius": claim.radius,
        "p_lower": claim.p_lower,
        "votes": list(claim.votes),
        **({} if claim.score is None else {"score": claim.score}),
    }


def _claim(data: Mapping[str, Any]) -> Claim:
    return Claim(
        label=_string(data["label"], "claims"),
        relation=data["relation"],
        radius=_number(data, "radius"),
        p_lower=_number(data, "p_lower"),
        votes=_size(data["votes"]),
        score=_number(data, "score") if "score" in data else None,
    )


def _number(data: Mapping[str, Any], name: str) -> float:
    value = data[name]
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise TypeError(f"{name} is not a number")
    number = float(value)
    if not math.isfinite(number) or number < 0.0:
        raise ValueError(f"{name} is {number}; it must be finite and not negative")
    return number


def _count(value: object, name: str) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        raise TypeError(f"{name} is not a whole number from 0 up")
    return value


def _string(value: object, name: str) -> str:
    if not isinstance(value, str):
        raise TypeError(f"{name} is not text")
    return value


def _issued(value: object) -> str:
    text = _string(value, "issued")
    if text and not _UTC.fullmatch(text):
        raise ValueError("issued is not a time in UTC")
    return text


def _size(value: object) -> tuple[int, int]:
    if not isinstance(value, list) or len(value) != 2:
        raise TypeError("an image size is [width, height]")
    return _count(value[0], "size"), _count(value[1], "size")
