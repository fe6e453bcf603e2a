"""What an abstention says besides: how near it was, what is certified all the same, what to try.

Nothing here is certified but `Advice.certified`. The rest is a plan, worked out as if the label's
share of votes were the one that was seen.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Literal

from smoothapi.certify.arithmetic import floor_to, share_deduction
from smoothapi.certify.bounds import radius_from_p
from smoothapi.certify.certificate import (
    claim_text,
    leader_of,
    open_labels,
    percent,
    rounded_down,
)
from smoothapi.certify.planning import presence_queries
from smoothapi.certify.sequential import needed_share
from smoothapi.errors import UnreachableRadiusError
from smoothapi.text import printable

if TYPE_CHECKING:
    from collections.abc import Iterator

    from smoothapi.certify.certificate import Certificate, OpenLabel
    from smoothapi.certify.planning import QueryCount
    from smoothapi.provider import Price

_TIMES = (2, 5, 10)  # the cap
_LARGEST_CAP = 10_000
_SIGMAS = (0.12, 0.25, 0.5, 0.75, 1.0)
_WORTH = 0.5  # chance of a certificate from which a change is worth naming
_PERCENT = 100.0
_MOST_SHOWN = 5  # labels that were asked for by name


@dataclass(frozen=True, slots=True)
class Trial:
    """A change that would probably certify, if the label's share of votes stayed as it was.

    Attributes:
        change: "max_votes" or "sigma".
        value: what to set it to. A sigma is for all photos of a deployment, never for one.
        needed_share: what the label's share of votes must exceed then.
        votes: that it would take, on average.
        certified: the chance that they certify.
        dollars: that they would cost by the price list, those that are stored not counted.
    """

    change: Literal["max_votes", "sigma"]
    value: float
    needed_share: float
    votes: float
    certified: float
    dollars: float


@dataclass(frozen=True, slots=True)
class Advice:
    """What to make of an abstention.

    Attributes:
        leader: the label with the most votes; None where none has any, or votes are not labels.
        share: its share of the votes, 0 without one; of labels asked for by name, the least.
        votes: counted.
        needed_share: what its share must exceed for the radius; None where that is not one number.
        certified: largest radius at which these votes certify, and what: (what, radius). To ask for
            the least of these, where there is one for each label, sends nothing, and all hold
            whether or not they are asked for.
        limit: radius that no number of votes reaches if its true share is the one seen; 0 for none.
        trials: what else to try, cheapest first; of several labels, for all together.
        final: whether no more votes and no other radius may be asked for (`Certificate.final`):
            then there are no trials.
        labels: those that were asked for by name and are not certified as asked, with what most
            votes say of each, the least share first.
    """

    leader: str | None
    share: float
    votes: int
    needed_share: float | None
    certified: tuple[tuple[str, float], ...]
    limit: float
    trials: tuple[Trial, ...]
    final: bool = False
    labels: tuple[OpenLabel, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """Return it for JSON."""
        return {"schema": "smoothapi.advice/1", **asdict(self)}

    def lines(self) -> Iterator[str]:
        """Yield it in words, fit to be shown."""
        if self.leader is not None:
            yield (
                f"{printable(self.leader)} leads with {percent(self.share)} of {self.votes} votes"
                f"{self._takes()}"
            )
        for one in self.labels[:_MOST_SHOWN]:
            yield f"{one.text} in {percent(one.share)} of {self.votes} votes{self._takes()}"
        if len(self.labels) > _MOST_SHOWN:
            more = len(self.labels) - _MOST_SHOWN
            yield f"{more} other labels, in as many votes or more, are not certified either"
        yield from self._certified_lines()
        several = len(self.labels) > 1
        if self.limit:
            yield (
                f"with {'the least of these shares' if several else 'that share'} no number of "
                f"votes certifies {'all at ' if several else ''}more than about "
                f"{rounded_down(floor_to(self.limit, 3))}"
            )
        if self.final:
            yield (
                "final promised that this photo is asked about with no more votes and at no other "
                "radius: do neither, or alpha no longer holds"
            )
        for trial in self.trials:
            cost = (
                f"{trial.votes:,.0f} votes (${trial.dollars:.2f}), a chance of "
                f"{floor_to(_PERCENT * trial.certified, 0):.0f}% if "
                f"{'all shares were as the least' if several else 'its share is as'} seen"
            )
            if trial.change == "max_votes":
                yield f"try --max-votes {trial.value:.0f}: about {cost}"
            else:
                yield (
                    f"try --sigma {trial.value:g}, for all photos and not for this one alone: it "
                    f"takes more than {percent(trial.needed_share)}; about {cost}. More noise "
                    "mostly lowers shares: `smoothapi study` measures by how much"
                )

    def _takes(self) -> str:
        if self.needed_share is None:
            return ""
        return f"; the radius takes more than {percent(self.needed_share)}"

    def _certified_lines(self) -> Iterator[str]:
        if not self.certified and self.votes and self.leader is None and not self.labels:
            # Which labels are chosen, and when, depends on the radius: no one run tells of others.
            yield (
                "what these votes certify at a smaller radius is seen by asking for one "
                "(--radius): what is stored is used before anything is sent"
            )
        elif not self.certified:
            what = ("any of these" if self.labels[1:] else "that") if self.labels else "anything"
            yield f"at no radius from sigma / 8 up do these votes certify {what}"
        elif len(self.labels) > 1:
            yield self._certified_of_several()
        else:
            for what, radius in self.certified:
                text = rounded_down(radius)
                yield f"these votes certify {what} at radius {text}: {self._use('that', text)}"

    def _certified_of_several(self) -> str:
        found = [f"{what} at radius {rounded_down(radius)}" for what, radius in self.certified]
        more = len(found) - _MOST_SHOWN
        line = "these votes certify " + ", ".join(found[:_MOST_SHOWN])
        if more > 0:
            line += f" and {more} other labels at theirs"
        if len(self.certified) < len(self.labels):
            # At a smaller radius votes would be bought for the others.
            return f"{line}: use that as it stands"
        least = rounded_down(min(radius for _, radius in self.certified))
        return f"{line}: {self._use('the least', least)}"

    def _use(self, which: str, radius: str) -> str:
        if self.final:
            return f"use that as it stands (--accept-radius {radius})"
        return f"ask for {which} (--radius {radius}), and nothing more is sent"

    def __str__(self) -> str:
        return "\n".join(self.lines())


def advise(certificate: Certificate, price: Price | None = None) -> Advice | None:
    """Return what to make of an abstention, or of labels asked for by name that are not certified.

    None for a certificate of all that was asked for, and for a prediction.

    Args:
        certificate: what `certify` returned.
        price: of the provider; None for one that costs nothing.
    """
    named = open_labels(certificate)
    if certificate.kind != "certify" or not (certificate.abstained or named):
        return None
    open_names = {one.label for one in named}
    certified = tuple(
        (claim_text(claim), claim.radius)
        for claim in certificate.largest
        if not named or claim.label in open_names
    )
    votes, leading = certificate.total_votes, leader_of(certificate)
    final = certificate.final
    if leading is not None:
        leader: str | None = leading[0]
        share = leading[1] / votes
    elif named:
        leader, share = None, named[0].share
    else:
        return Advice(None, 0.0, votes, None, certified, 0.0, (), final)
    wanted = certificate.radius_requested
    limit = _limit(share - certificate.delta, certificate.sigma)
    needed: float | None = None
    trials: tuple[Trial, ...] = ()
    if wanted is not None:
        needed = needed_share(wanted, certificate.sigma, certificate.delta)
        if not final:
            found = _trials(certificate, share, max(1, len(named)), wanted, price)
            trials = tuple(sorted(found, key=lambda trial: trial.dollars))
        limit = limit if limit < wanted else 0.0
    return Advice(leader, share, votes, needed, certified, limit, trials, final, named)


def _limit(share: float, sigma: float) -> float:
    return radius_from_p(share, sigma) if 0.5 < share < 1.0 else 0.0


def _trials(
    certificate: Certificate, share: float, labels: int, radius: float, price: Price | None
) -> Iterator[Trial]:
    """Yield the smallest larger cap, and the smallest larger sigma, that are worth trying."""
    caps = (min(certificate.max_votes * times, _LARGEST_CAP) for times in _TIMES)
    for cap in caps:
        if cap > certificate.max_votes:
            trial = _trial(
                "max_votes", certificate, share, labels, radius, certificate.sigma, cap, price
            )
            if trial is not None:
                yield trial
                break
    for sigma in _SIGMAS:
        if sigma > certificate.sigma:
            cap = certificate.max_votes
            trial = _trial("sigma", certificate, share, labels, radius, sigma, cap, price)
            if trial is not None:
                yield trial
                break


def _trial(  # noqa: PLR0917  private, and called above alone
    change: Literal["max_votes", "sigma"],
    certificate: Certificate,
    share: float,
    labels: int,
    radius: float,
    sigma: float,
    cap: int,
    price: Price | None,
) -> Trial | None:
    """Return what a change would come to; None where it is not worth it."""
    width, height = certificate.image.size
    delta = share_deduction(3 * width * height, sigma)
    try:
        needed = needed_share(radius, sigma, delta)
        if share <= needed:
            return None
        count = _planned(
            radius,
            sigma,
            _alpha(certificate, labels),
            floor_to(share, 3),
            labels,
            cap,
            _two_digits_up(delta),
        )
    except UnreachableRadiusError:
        return None
    if count.certified < _WORTH:
        return None
    # A larger cap goes on from the votes that are there; another sigma begins anew.
    new = max(0, round(count.mean) - (certificate.total_votes if change == "max_votes" else 0))
    dollars = 0.0 if price is None else float(price.of(new))
    value = float(cap if change == "max_votes" else sigma)
    return Trial(change, value, needed, count.mean, count.certified, dollars)


def _alpha(certificate: Certificate, labels: int) -> float:
    """Return the part of alpha that so many of the labels asked for by name share."""
    asked = certificate.target.get("labels")
    return certificate.alpha * labels / len(asked) if asked else certificate.alpha


@lru_cache(maxsize=4096)
def _planned(  # noqa: PLR0917  what it is kept by
    radius: float, sigma: float, alpha: float, share: float, labels: int, cap: int, delta: float
) -> QueryCount:
    """Return what a run would take for so many labels with that share.

    It takes a tenth of a second to work out: photos whose shares and sizes are nearly the same
    share it, so that the abstentions among many photos are not what they wait for.
    """
    return presence_queries(radius, sigma, alpha, share, labels=labels, max_votes=cap, delta=delta)


def _two_digits_up(value: float) -> float:
    """Return a number from 0 up with two digits, never less than it is."""
    if value <= 0.0:
        return 0.0
    unit = 10.0 ** (math.floor(math.log10(value)) - 1)
    return math.ceil(value / unit) * unit
