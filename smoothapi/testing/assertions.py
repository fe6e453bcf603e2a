"""Assertions about certificates that explain themselves when they fail."""

from __future__ import annotations

import json
from statistics import NormalDist
from typing import TYPE_CHECKING

from smoothapi.certify.certificate import confidence, rounded_down
from smoothapi.text import printable

if TYPE_CHECKING:
    from smoothapi.certify.certificate import Certificate

_LABELS_SHOWN = 6
_FINAL = (
    "final=True promised that this photo is asked about with no more votes and at no other radius: "
    "choose max_votes and radius before the first vote"
)


def assert_certified(
    certificate: Certificate,
    *,
    label: str | None = None,
    radius: float | None = None,
    alpha: float | None = None,
) -> None:
    """Fail unless a label is certified.

    Args:
        certificate: what `Smoother.certify` returned.
        label: the label it must be; any by default.
        radius: least L2 radius around the working image, in units of the [0, 1] range. The largest
            that the votes certify counts (`Certificate.largest`), whatever was asked for.
        alpha: greatest chance of a wrong certificate.

    Raises:
        AssertionError: says what was expected and found, how the votes fell, and what would help.
    """
    __tracebackhide__ = True
    wrong = (
        certificate.kind != "certify"
        or (certificate.abstained if radius is None else certificate.largest_radius < radius)
        or (label is not None and label != _label(certificate))
        or (alpha is not None and certificate.alpha > alpha)
    )
    if wrong:
        wanted = [
            "a label" if label is None else repr(printable(label)),
            "certified",
            *([] if radius is None else [f"at an L2 radius of {radius:g} or more"]),
            *([] if alpha is None else [f"with alpha {alpha:g} or less"]),
        ]
        raise AssertionError(
            _message(certificate, " ".join(wanted), _advice(certificate, label, radius, alpha))
        )


def _label(certificate: Certificate) -> str | None:
    less = [claim.label for claim in certificate.lesser]
    return ", ".join(less) if less and certificate.abstained else certificate.label


def assert_abstained(certificate: Certificate, *, reason: str | None = None) -> None:
    """Fail unless smoothapi abstained.

    Args:
        certificate: what `Smoother.certify` or `.predict` returned.
        reason: the reason it must have, as in `Certificate.reason`; any by default.

    Raises:
        AssertionError: says what was found instead, and how the votes fell.
    """
    __tracebackhide__ = True
    if not certificate.abstained or (reason is not None and certificate.reason != str(reason)):
        wanted = "no label" if reason is None else f"no label, for the reason {str(reason)!r}"
        advice = (
            f"the reason was {certificate.reason!r}"
            if certificate.abstained
            else "a label that should not stand at this radius has too many votes for that"
        )
        raise AssertionError(_message(certificate, wanted, advice))


def _message(certificate: Certificate, wanted: str, advice: str) -> str:
    if certificate.abstained:
        found = f"abstained ({certificate.explanation})"
    else:
        found = f"{printable(certificate.label or '')!r}"
        if certificate.kind == "certify":
            found += f" at an L2 radius of {rounded_down(certificate.radius)}"
        found += f", confidence {confidence(certificate.alpha)}"
    shown = [
        f"{count} for {'no answer' if name is None else repr(printable(name))}"
        for name, count in certificate.tally.items()
    ]
    more = len(shown) - _LABELS_SHOWN
    votes = ", ".join(shown[:_LABELS_SHOWN]) + (f" and {more} other labels" if more > 0 else "")
    failed = f"; {certificate.failed} variants failed for good" if certificate.failed else ""
    return (
        f"expected {wanted}\n"
        f"   found {found}\n"
        f"   photo {printable(certificate.image.name)}, sigma {certificate.sigma:g}, provider "
        f"{printable(certificate.provider)}\n"
        f"   votes {votes or 'none'} ({certificate.total_votes} of at most "
        f"{certificate.max_votes}){failed}\n"
        f"    hint {advice}"
    )


def _advice(
    certificate: Certificate, label: str | None, radius: float | None, alpha: float | None
) -> str:
    """Return what stands in the way, and what would remove it."""
    if certificate.kind != "certify":
        return "this is a prediction, which claims no radius: call certify(), not predict()"
    if alpha is not None and certificate.alpha > alpha:
        return f"it was made with alpha={certificate.alpha:g}: give alpha={alpha:g} to the Smoother"
    if not certificate.abstained and label is not None and certificate.label != label:
        return (
            f"{printable(label)!r} got {certificate.tally.get(label, 0)} votes: a label space "
            "(classes=...) can join names that mean the same"
            if _is_top1(certificate)
            else f"this was the target: {printable(json.dumps(dict(certificate.target)))}"
        )
    if not certificate.abstained and radius is not None:
        if certificate.final:
            return f"radius={certificate.radius_requested:g} was asked for, and {_FINAL}"
        return (
            f"radius={certificate.radius_requested:g} was asked for: ask for {radius:g}"
            if certificate.radius_requested is not None
            else "it is the largest that these votes give: raise max_votes, or alpha"
        )
    return _why_abstained(certificate, radius)


def _is_top1(certificate: Certificate) -> bool:
    return certificate.target.get("target") == "top1"


def _why_abstained(certificate: Certificate, radius: float | None) -> str:
    if not _is_top1(certificate):
        if certificate.final:
            return _FINAL
        return (
            f"raise max_votes (now {certificate.max_votes}), lower the radius, or lower the "
            "score that the target asks for"
        )
    tally = {name: count for name, count in certificate.tally.items() if name is not None}
    if not tally:
        return "no variant got a label: look at what the provider answers to the photo as it is"
    share = max(tally.values()) / certificate.total_votes
    wanted = radius if certificate.radius_requested is None else certificate.radius_requested
    sigma = certificate.sigma
    wanted = 0.0 if wanted is None else wanted
    needed = NormalDist().cdf(wanted / sigma)
    wants = f"radius {wanted:g} at sigma {sigma:g} needs more than {needed:.1%}"
    leader = f"the first label has {share:.1%} of the votes"
    if share <= needed:
        reach = sigma * NormalDist().inv_cdf(min(max(share, 0.5), 1.0 - 1e-9))
        return (
            f"{leader}, and {wants}: no number of votes would do. With this share endless votes "
            f"reach {reach:.3f}: "
            + (
                _FINAL
                if certificate.final
                else "lower the radius, or use another sigma or denoiser"
            )
        )
    if certificate.final:
        return f"{leader}, and {wants}; {_FINAL}"
    return (
        f"{leader}, and {wants}: raise max_votes (now {certificate.max_votes}), lower the radius, "
        "or raise alpha"
    )
