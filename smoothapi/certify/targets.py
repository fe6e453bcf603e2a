"""What may be certified from the same answers: a target turns answers into votes and tests them.

The label that a provider puts first is not always the one to ask about: on one API the top three
of a photo were tied to the last digit. A target costs no further query; it is chosen before the
first vote.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import (
    TYPE_CHECKING,
    Any,
    Protocol,
    Unpack,
    runtime_checkable,
)

from smoothapi.certify.futility import DEFAULT_RULE, Futility
from smoothapi.certify.labels import LabelSpace, label_key, top1
from smoothapi.certify.presence import MostSpecificTest, PresenceTest, Wanted
from smoothapi.certify.scores import ScoresTest
from smoothapi.certify.sequential import SequentialCertify, VoteTerms
from smoothapi.certify.topk import TopKTest
from smoothapi.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from smoothapi.answer import Answer
    from smoothapi.certify.decision import Decision, Vote, VoteTest


_MOST_BEST = 1000


@runtime_checkable
class Target(Protocol):
    """What is certified. Votes are text or None, so that they can be kept and replayed."""

    @property
    def description(self) -> dict[str, Any]:
        """A JSON-ready dict that `parse_target` makes the same target of."""
        ...

    def vote(self, answer: Answer | None) -> Vote:
        """Return the vote of an answer; None stands for a variant that failed for good."""
        ...

    def agrees(self, plain: Answer, decision: Decision) -> bool | None:
        """Whether one plain answer says what was decided; None where it cannot be told."""
        ...

    def start(self, **terms: Unpack[VoteTerms]) -> VoteTest:
        """Return a fresh test of such votes; arguments as for `SequentialCertify`.

        A target of one's own may leave out `or_less`, `final` and `rules`: they are given only
        where they are asked for.
        """
        ...


@dataclass(frozen=True)
class Top1:
    """The label with the highest score.

    Attributes:
        space: the caller's classes; by default the provider's own labels.
    """

    space: LabelSpace | None = None

    @property
    def description(self) -> dict[str, Any]:
        """A JSON-ready dict that `parse_target` makes the same target of."""
        return {"target": "top1", "space": _described(self.space)}

    def vote(self, answer: Answer | None) -> Vote:
        """Return `top1` of the answer."""
        return None if answer is None else top1(answer, self.space)

    def agrees(self, plain: Answer, decision: Decision) -> bool | None:
        """Whether the plain answer's top label is the one that was decided."""
        name = top1(plain, self.space)
        return None if name is None or decision.label is None else name == decision.label

    def start(
        self, futility: Futility = DEFAULT_RULE, **terms: Unpack[VoteTerms]
    ) -> SequentialCertify:
        """Return a `SequentialCertify`."""
        return SequentialCertify(futility=futility, **terms)


@dataclass(frozen=True)
class Presence:
    """Whether labels are among those of the answer with at least some score.

    A label counts as present if it, or a label that names it among its parents, has the score.
    An answer without it, also an empty one, says that it is absent; a failed variant says
    neither. Labels are compared without regard to case.

    Attributes:
        labels: one label, or several that share alpha.
        score: the least score, in (0, 1].
        wanted: "present" or "absent" ends a run early that goes the other way; "either" certifies
            whichever it is.
    """

    labels: tuple[str, ...]
    score: float
    wanted: Wanted = field(default="either", kw_only=True)

    def __init__(
        self, labels: str | Sequence[str], score: float, *, wanted: Wanted = "either"
    ) -> None:
        names = _named(labels)
        _check_wanted(wanted)
        _check_score(score)
        object.__setattr__(self, "labels", names)
        object.__setattr__(self, "score", float(score))
        object.__setattr__(self, "wanted", wanted)

    @property
    def description(self) -> dict[str, Any]:
        """A JSON-ready dict that `parse_target` makes the same target of."""
        return {
            "target": "presence",
            "labels": list(self.labels),
            "score": self.score,
            "wanted": self.wanted,
        }

    def vote(self, answer: Answer | None) -> Vote:
        """Return JSON: the labels that are present, those that are not, and the score for it."""
        if answer is None:
            return None
        keys = {label_key(name) for name in _present(answer, self.score)}
        present = [name for name in self.labels if label_key(name) in keys]
        absent = [name for name in self.labels if label_key(name) not in keys]
        return json.dumps([present, absent, self.score])

    def agrees(self, plain: Answer, decision: Decision) -> bool | None:
        """Whether every claim holds of the plain answer."""
        return _claims_hold(plain, self.score, decision)

    def start(self, **terms: Unpack[VoteTerms]) -> PresenceTest:
        """Return a `PresenceTest`."""
        return PresenceTest(self.labels, self.wanted, self.score, **terms)


@dataclass(frozen=True)
class Scores:
    """The scores that labels keep: the largest that each is certified to have.

    A label's score in an answer is its own, or that of a label which names it among its parents if
    that is higher; 0 where it does not occur. Labels are compared without regard to case.

    Attributes:
        labels: one label, or several that share alpha.
        least: the score from which on a label is wanted, in (0, 1]: votes are bought until it is
            certified at this score, or will hardly be; no smaller score is reported.
        parents: whether a label has the score of one that names it among its parents, too; False
            for what the provider says of the label itself.
    """

    labels: tuple[str, ...]
    least: float = 0.5
    parents: bool = field(default=True, kw_only=True)

    def __init__(
        self, labels: str | Sequence[str], least: float = 0.5, *, parents: bool = True
    ) -> None:
        _check_score(least)
        if not isinstance(parents, bool):
            raise UsageError(f"parents={parents!r}: True or False.")
        object.__setattr__(self, "labels", _named(labels))
        object.__setattr__(self, "least", float(least))
        object.__setattr__(self, "parents", parents)

    @property
    def description(self) -> dict[str, Any]:
        """A JSON-ready dict that `parse_target` makes the same target of."""
        described = {"target": "scores", "labels": list(self.labels), "least": self.least}
        return described if self.parents else {**described, "parents": False}

    def vote(self, answer: Answer | None) -> Vote:
        """Return JSON: the labels with their scores, in their order, and the least wanted."""
        return None if answer is None else json.dumps([self._scores(answer), self.least])

    def agrees(self, plain: Answer, decision: Decision) -> bool | None:
        """Whether every claim holds of the plain answer."""
        if not decision.claims:
            return None
        scores = self._scores(plain)
        return all(
            claim.score is not None and scores[claim.label] >= claim.score
            for claim in decision.claims
        )

    def start(self, **terms: Unpack[VoteTerms]) -> ScoresTest:
        """Return a `ScoresTest`; it needs a radius."""
        return ScoresTest(self.labels, self.least, **terms)

    def _scores(self, answer: Answer) -> dict[str, float]:
        best: dict[str, float] = {}
        for label in answer.labels:
            parents = label.parents if self.parents else ()
            for key in {label_key(name) for name in (label.name, *parents)}:
                best[key] = max(best.get(key, 0.0), label.score)
        return {name: best.get(label_key(name), 0.0) for name in self.labels}


def Absence(labels: str | Sequence[str], score: float) -> Presence:  # noqa: N802 - read as a target
    """Return `Presence` with only absence worth a certificate."""
    return Presence(labels, score, wanted="absent")


@dataclass(frozen=True)
class MostSpecific:
    """The most specific label whose presence can be certified: Vulture, else Bird, else Animal.

    Attributes:
        score: the least score of a label that counts as present, in (0, 1].
    """

    score: float

    def __post_init__(self) -> None:
        _check_score(self.score)

    @property
    def description(self) -> dict[str, Any]:
        """A JSON-ready dict that `parse_target` makes the same target of."""
        return {"target": "most-specific", "score": self.score}

    def vote(self, answer: Answer | None) -> Vote:
        """Return JSON: the top label with its parents, what else is present, and the score."""
        if answer is None:
            return None
        present = _present(answer, self.score)
        name = top1(answer)
        if name is None or name not in present:
            return json.dumps([[], sorted(present), self.score])
        parents = next(label.parents for label in answer.labels if label.name == name)
        chain = list(dict.fromkeys((name, *parents)))
        return json.dumps([chain, sorted(present.difference(chain)), self.score])

    def agrees(self, plain: Answer, decision: Decision) -> bool | None:
        """Whether every claim holds of the plain answer."""
        return _claims_hold(plain, self.score, decision)

    def start(self, **terms: Unpack[VoteTerms]) -> MostSpecificTest:
        """Return a `MostSpecificTest`; it needs a radius."""
        return MostSpecificTest(self.score, **terms)


@dataclass(frozen=True)
class TopK:
    """A label that stays among the k with the largest shares of votes (Jia et al., ICLR 2020).

    Attributes:
        k: how many are among the best, at least 1.
        space: the caller's classes; by default the provider's own labels.
    """

    k: int
    space: LabelSpace | None = None

    def __post_init__(self) -> None:
        if type(self.k) is not int or not 1 <= self.k <= _MOST_BEST:
            raise UsageError(f"k={self.k}: the best are 1 to {_MOST_BEST} labels.")

    @property
    def description(self) -> dict[str, Any]:
        """A JSON-ready dict that `parse_target` makes the same target of."""
        return {"target": "top-k", "k": self.k, "space": _described(self.space)}

    def vote(self, answer: Answer | None) -> Vote:
        """Return `top1` of the answer: shares are of first places."""
        return None if answer is None else top1(answer, self.space)

    def agrees(self, plain: Answer, decision: Decision) -> bool | None:
        """Return None: one answer has one first place."""
        del plain, decision
        return None

    def start(self, **terms: Unpack[VoteTerms]) -> TopKTest:
        """Return a `TopKTest`."""
        return TopKTest(self.k, **terms)


def parse_target(given: Target | str | Mapping[str, Any]) -> Target:
    """Return the target that is meant.

    Args:
        given: a target, which is returned; "top1"; or a target's `description`.

    Raises:
        UsageError: it is something else, or its values are out of range.
    """
    if not isinstance(given, (str, Mapping)):
        return given
    by_name: Mapping[str, Any] = {"target": given, "space": None}
    fields = dict(by_name if isinstance(given, str) else given)
    kind = fields.pop("target", None)
    makers: dict[object, Callable[..., Target]] = {
        "top1": Top1,
        "presence": Presence,
        "scores": Scores,
        "most-specific": MostSpecific,
        "top-k": TopK,
    }
    try:
        if fields.get("space") is not None:
            fields["space"] = LabelSpace.parse(fields["space"])
        return makers[kind](**fields)
    except (KeyError, TypeError, AttributeError) as error:
        raise UsageError(
            f'{given!r} is not a target. Use "top1", Presence(label, score), Absence(label, '
            "score), Scores(label, least), MostSpecific(score) or TopK(k)."
        ) from error


def _described(space: LabelSpace | None) -> dict[str, Any] | None:
    return None if space is None else space.description


def _present(answer: Answer, score: float) -> set[str]:
    """Return the labels with at least the score, and all their parents."""
    certain = [label for label in answer.labels if label.score >= score]
    return {name for label in certain for name in (label.name, *label.parents)}


def _claims_hold(plain: Answer, score: float, decision: Decision) -> bool | None:
    if not decision.claims:
        return None
    present = {label_key(name) for name in _present(plain, score)}
    return all(
        (label_key(claim.label) in present) == (claim.relation == "present")
        for claim in decision.claims
    )


def _named(labels: str | Sequence[str]) -> tuple[str, ...]:
    names = (labels,) if isinstance(labels, str) else tuple(labels)
    keys = [label_key(name) for name in names]
    if not names or not all(keys) or len(set(keys)) < len(keys):
        raise UsageError(f"labels={labels!r}: name at least one label, and each only once.")
    return names


def _check_wanted(wanted: str) -> None:
    if wanted not in ("either", "present", "absent"):
        raise UsageError(f'wanted={wanted!r} is not "either", "present" or "absent".')


def _check_score(score: float) -> None:
    if not isinstance(score, (int, float)) or not (0.0 < score <= 1.0):
        raise UsageError(f"score={score}: the least score of a label that counts is in (0, 1].")
