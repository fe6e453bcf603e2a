"""A certificate's claims, derived again from its votes."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import TYPE_CHECKING

from smoothapi.certify.certificate import claim_text
from smoothapi.certify.decision import RULES, Claim, Reason
from smoothapi.certify.futility import NEVER, ChanceRule
from smoothapi.certify.predict import SequentialPredict
from smoothapi.certify.sequential import VoteTerms
from smoothapi.certify.targets import Top1, TopK, parse_target
from smoothapi.errors import CertificateError, UsageError
from smoothapi.text import shortened

if TYPE_CHECKING:
    from smoothapi.certify.certificate import Certificate
    from smoothapi.certify.decision import Decision, VoteTest
    from smoothapi.certify.targets import Target

MAX_SIGMA = 1.5
"""Beyond, the noise would leave the range in which its arithmetic is exact (`smoothapi.noise`)."""

_MOST_VOTES = 10_000_000

_EXACT = ("radius", "claims", "largest radii", "label", "reason")

# For figures that two machines may compute differently in the last place.
_RELATIVE = 1e-9
_LAST_PLACE = 1.5e-9  # p_lower has 9 decimals


def verify_claims(
    certificate: Certificate, *, gain: float, delta: float, rounding: float, radius_native: float
) -> list[str]:
    """Replay the votes through the test that made the certificate, and compare all claims.

    Args:
        certificate: what to check.
        gain: operator norm of the resize between the certificate's two sizes.
        delta: deduction off the share of votes for its picture's size and its sigma.
        rounding: deduction off the native radius for its picture's size.
        radius_native: what its radius and these come to.

    Returns:
        What was recomputed, in words.

    Raises:
        CertificateError: a claim does not follow; names each one.
    """
    _check_ranges(certificate)
    certify = certificate.kind == "certify"
    test: VoteTest
    try:
        target = parse_target(certificate.target)
        if certify:
            test = _start(certificate, target)
        else:
            test = SequentialPredict(alpha=certificate.alpha, max_votes=certificate.max_votes)
    except (UsageError, OverflowError) as error:
        raise CertificateError(f"The certificate does not add up: {error}") from error
    if not certify and (
        certificate.radius_requested is not None
        or certificate.or_less
        or certificate.final
        or not isinstance(target, Top1)
    ):
        raise CertificateError("The certificate does not add up: a prediction has no radius.")
    decision = test.result()
    if certificate.votes:
        problems = _replay(test, certificate, stopped=_gave_up(certificate, target))
        decision = _as_stopped(test.result(), certificate, target)
    else:  # there was nothing to ask about; then nothing is claimed either
        problems = []
        decision = replace(decision, reason=Reason.NO_ANSWER)
    claims: dict[str, tuple[object, object]] = {
        "label": (certificate.label, decision.label),
        "claims": (certificate.claims, decision.claims),
        "largest radii": (certificate.largest, decision.largest),
        "reason": (certificate.reason, str(decision.reason)),
        "radius": (certificate.radius, decision.radius),
        "lower bound of p": (certificate.p_lower, decision.p_lower),
        "native radius": (certificate.radius_native, radius_native),
        "gain": (certificate.image.gain, gain),
        "deduction off p": (certificate.delta, delta if certify else 0.0),
        "deduction off the native radius": (certificate.rounding, rounding if certify else 0.0),
    }
    problems += _out_of_place(certificate, target)
    if isinstance(target, Top1):
        claims["agreement with the plain label"] = (
            certificate.plain_agrees,
            None
            if None in (certificate.label, certificate.plain_label)
            else certificate.label == certificate.plain_label,
        )
    for name, (claimed, found) in claims.items():
        if not (claimed == found if name in _EXACT else _same(claimed, found)):
            problems.append(f"its {name} is {_said(claimed)}, but follows as {_said(found)}")
    if problems:
        raise CertificateError("The certificate does not add up: " + "; ".join(problems) + ".")
    return ["the order of the votes", *claims]


def _start(certificate: Certificate, target: Target) -> VoteTest:
    terms = VoteTerms(
        sigma=certificate.sigma,
        alpha=certificate.alpha,
        max_votes=certificate.max_votes,
        radius=certificate.radius_requested,
        delta=certificate.delta,
    )
    if certificate.or_less:
        terms["or_less"] = True
    if certificate.final:
        terms["final"] = True
    if certificate.rules != RULES:
        terms["rules"] = certificate.rules
    if isinstance(target, Top1):
        # Which rule would have given it up need not be known, unless it was the only one.
        return target.start(NEVER if certificate.rules > 1 else ChanceRule(), **terms)
    return target.start(**terms)


def _gave_up(certificate: Certificate, target: Target) -> bool:
    """Return whether a run ended since success had become unlikely, by whatever estimate.

    When a run for the top label is given up decides about cost, never about validity, so the rule
    that gave it up need not be known.
    """
    return (
        certificate.rules > 1
        and certificate.reason in (Reason.UNLIKELY, Reason.NO_ANSWER)
        and isinstance(target, Top1)
        and certificate.kind == "certify"
    )


def _as_stopped(decision: Decision, certificate: Certificate, target: Target) -> Decision:
    if _gave_up(certificate, target) and decision.reason is Reason.STOPPED:
        return replace(decision, reason=Reason.UNLIKELY)
    return decision


def _replay(test: VoteTest, certificate: Certificate, *, stopped: bool) -> list[str]:
    """Feed the votes to the test; return what is wrong with where they end."""
    for number, vote in enumerate(certificate.vote_order()):
        if test.done:
            return [f"it goes on after vote {number}, where its test had ended"]
        try:
            test.add(vote)
        except (UsageError, ValueError, TypeError) as error:
            raise CertificateError(
                f"The certificate does not add up: vote {number} cannot be counted ({error})."
            ) from error
    return [] if test.done or stopped else ["its votes end before its test had"]


def _out_of_place(certificate: Certificate, target: Target) -> list[str]:
    """Return what its target rules out, whatever the votes are."""
    problems = []
    space = target.space if isinstance(target, (Top1, TopK)) else None
    if space is not None:
        problems = [
            f"{name!r} is voted for, but its label space has no such class"
            for name in dict.fromkeys((*certificate.tally, certificate.plain_label))
            if name is not None and name not in space.classes
        ]
    can_tell = certificate.plain_asked and not isinstance(target, TopK)
    if certificate.plain_agrees is not None and not can_tell:
        problems.append("the plain answer cannot say whether it agrees")
    return problems


def _check_ranges(certificate: Certificate) -> None:
    """Refuse at once what no run can have made."""
    problem = ""
    if certificate.total_votes > min(certificate.max_votes, _MOST_VOTES):
        problem = "it has more votes than allowed"
    elif certificate.sigma > MAX_SIGMA:
        problem = f"its sigma is above {MAX_SIGMA}"
    elif certificate.queries + certificate.cached < certificate.total_votes:
        problem = "it has more votes than queries and stored answers"
    elif certificate.failed > certificate.tally.get(None, 0):
        problem = "it has more failures than votes for no answer"
    if problem:
        raise CertificateError(f"The certificate does not add up: {problem}.")


def _said(value: object) -> str:
    """Return what is claimed in words; labels come from outside."""
    if isinstance(value, tuple):
        return ", ".join(map(_said, value)) or "none"
    if isinstance(value, Claim):
        votes, total = value.votes
        return (
            f"{claim_text(value)} at radius {value.radius!r} (in {votes} of {total} votes, lower "
            f"bound of p {value.p_lower!r})"
        )
    return "none" if value is None else shortened(value)


def _same(claimed: object, found: object) -> bool:
    if isinstance(claimed, float) and isinstance(found, float):
        return math.isclose(claimed, found, rel_tol=_RELATIVE, abs_tol=_LAST_PLACE)
    return claimed == found
