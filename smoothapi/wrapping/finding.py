"""What was found about the labels of one picture of a response."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Literal, Self, TypeAlias, cast, get_args

from smoothapi.certify.certificate import Certificate, less_text
from smoothapi.certify.labels import label_key
from smoothapi.errors import (
    BudgetExceededError,
    CertificateError,
    ImageError,
    ProviderError,
    StoppedError,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

    from smoothapi.answer import Answer
    from smoothapi.errors import SmoothAPIError

Ended: TypeAlias = Literal["", "budget", "deadline", "provider", "picture", "here", "elsewhere"]
"""What ended a call before its votes: "here" is this machine (store, denoiser); "" is nothing."""


@dataclass(frozen=True)
class FoundLabel:
    """A label of the provider's own answer.

    Attributes:
        name: as the provider says it.
        own: the score in the provider's own answer, in [0, 1].
        certified: whether anything is certified of it.
        score: the certified score, in [0, 1]: with probability 1 - alpha, its median under noise
            stays at or above it within the radius; 0 if it is not certified.
        share: of the votes, in which it had the score that decides; 0 if it was not asked about.
    """

    name: str
    own: float
    certified: bool = False
    score: float = 0.0
    share: float = 0.0


@dataclass(frozen=True)
class Finding:
    """What smoothapi found about one picture of a response.

    Attributes:
        certified: whether anything is: then labels left in the response are, but for those marked.
        ended: what ended the call before its votes did; "" where they came to an end.
        why: why nothing is certified as it was asked for, in words, and what is at a smaller
            radius; "" where something is.
        labels: of the provider's own answer, in its order.
        certificate: what the votes came to; None where they did not come to an end.
    """

    certified: bool
    ended: Ended = ""
    why: str = ""
    labels: tuple[FoundLabel, ...] = ()
    certificate: Certificate | None = None

    @property
    def never_seen(self) -> tuple[str, ...]:
        """Labels asked for by name that the provider is not known to have: see `Certificate`."""
        return () if self.certificate is None else self.certificate.never_seen

    @classmethod
    def of(cls, certificate: Certificate, answer: Answer) -> Self:
        """Return what a certificate says about an answer's labels."""
        scores, shares = _scores(certificate), _shares(certificate)
        labels = tuple(
            FoundLabel(
                name=label.name,
                own=label.score,
                certified=(key := label_key(label.name)) in scores,
                score=scores.get(key, 0.0),
                share=shares.get(key, 0.0),
            )
            for label in answer.labels
        )
        why = certificate.explanation if certificate.abstained else ""
        if why and certificate.lesser:
            why += f"; {less_text(certificate)}"
        return cls(not certificate.abstained, why=why, labels=labels, certificate=certificate)

    @classmethod
    def without(cls, error: SmoothAPIError, answer: Answer) -> Self:
        """Return that an error ended the votes on an answer."""
        labels = tuple(FoundLabel(label.name, own=label.score) for label in answer.labels)
        return cls(certified=False, ended=what_ended(error), why=str(error), labels=labels)

    @classmethod
    def elsewhere(cls, what: str) -> Self:
        """Return that the picture is not here; `what` says where it is."""
        why = f"The picture is {what}, where no noise can be added to it."
        return cls(certified=False, ended="elsewhere", why=why)

    def to_dict(self) -> dict[str, Any]:
        """Return a JSON-ready dict; `from_dict` is its inverse."""
        return {
            "certified": self.certified,
            "ended": self.ended,
            "why": self.why,
            "labels": [asdict(label) for label in self.labels],
            "certificate": None if self.certificate is None else self.certificate.to_dict(),
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Self:
        """Rebuild a finding.

        Raises:
            CertificateError: it is malformed, or its certificate is.
        """
        try:
            certificate = data["certificate"]
            return cls(
                certified=bool(data["certified"]),
                ended=_ended(data["ended"]),
                why=str(data["why"]),
                labels=tuple(FoundLabel(**label) for label in data["labels"]),
                certificate=None if certificate is None else Certificate.from_dict(certificate),
            )
        except CertificateError:
            raise
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise CertificateError(
                f"What this response says of its labels is malformed: {error!r}."
            ) from error


def what_ended(error: SmoothAPIError) -> Ended:
    """Return what an error says ended a call before its votes."""
    kinds: tuple[tuple[type[SmoothAPIError], Ended], ...] = (
        (BudgetExceededError, "budget"),
        (StoppedError, "deadline"),
        (ProviderError, "provider"),
        (ImageError, "picture"),
    )
    return next((ended for kind, ended in kinds if isinstance(error, kind)), "here")


def _ended(written: object) -> Ended:
    if written not in get_args(Ended):
        raise ValueError(f"ended is {written!r}")
    return cast("Ended", written)


def _scores(certificate: Certificate) -> dict[str, float]:
    """Return label key -> the score that is certified, of each label certified to be there."""
    target = certificate.target
    at_least = float(target.get("least", target.get("score", 0.0)))
    return {
        label_key(claim.label): at_least if claim.score is None else claim.score
        for claim in certificate.claims
        if claim.relation in ("at least", "present")
    }


def _shares(certificate: Certificate) -> dict[str, float]:
    """Return label key -> the share of the votes in which the label had the score that decides."""
    votes = certificate.total_votes
    return {
        label_key(label): count / votes
        for label, count in certificate.tally.items()
        if label is not None
    }
