"""The fixed-sample certificate of Cohen, Rosenfeld and Kolter (ICML 2019), vote for vote.

Here to reproduce published tables and to compare with. The numbers of votes are fixed before the
first is seen; a run that looks at them on the way needs `smoothapi.certify.sequential`.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from smoothapi.certify.arithmetic import floor_to
from smoothapi.certify.bounds import check_alpha, clopper_pearson_lower, radius_from_p
from smoothapi.certify.decision import Decision, Reason, Vote
from smoothapi.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Sequence


def fixed_certify(
    selection: Sequence[Vote],
    estimation: Sequence[Vote],
    *,
    sigma: float,
    alpha: float,
    delta: float = 0.0,
) -> Decision:
    """Certify the largest radius from two disjoint samples of votes (CERTIFY of the paper).

    With probability at least 1 - alpha, a label that is returned is the smoothed label everywhere
    within the returned radius.

    Args:
        selection: n0 votes, which only name the candidate: the label with most of them, on a tie
            the first by name.
        estimation: n further votes, which bound the candidate's share (Clopper-Pearson).
        sigma: noise level, positive.
        alpha: chance of a wrong certificate, in (0, 1).
        delta: what arithmetic may have moved the share of votes by.

    Returns:
        The decision; it abstains if the bound, less delta, is not above 1/2. Both samples count
        in its `votes`, the second alone in its `tally`.

    Raises:
        UsageError: a value is out of range, or a sample is empty.
    """
    check_alpha(alpha)
    if not selection or not estimation:
        raise UsageError("Both samples need votes: some to name a candidate, others to test it.")
    tally = Counter(estimation)
    named = Counter(vote for vote in selection if vote is not None)
    candidate = min(named, key=lambda label: (-named[label], label)) if named else None
    k, n = (tally[candidate] if candidate is not None else 0), len(estimation)
    p_low = floor_to(clopper_pearson_lower(k, n, alpha), 9)
    radius = floor_to(radius_from_p(max(p_low - delta, 0.0), sigma), 6)
    certified = radius > 0.0
    failed = Reason.NO_ANSWER if candidate is None else Reason.CAP
    return Decision(
        label=candidate if certified else None,
        reason=Reason.CERTIFIED if certified else failed,
        radius=radius,
        radius_requested=None,
        p_lower=p_low if certified else 0.0,
        votes=len(selection) + n,
        tally=dict(tally.most_common()),
        candidate=candidate,
        candidate_votes=(k, n),
        alpha=alpha,
        level=alpha,
    )
