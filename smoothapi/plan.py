"""What a run would send and cost, before anything is sent; and what cannot be paid, refused."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from smoothapi import notebook
from smoothapi.answer import Answer
from smoothapi.certify.arithmetic import share_deduction
from smoothapi.certify.certificate import rounded_down
from smoothapi.certify.planning import target_queries
from smoothapi.certify.radii import photo_radii, rounding_of
from smoothapi.errors import BudgetExceededError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from smoothapi.certify.decision import VoteTest
    from smoothapi.certify.targets import Target
    from smoothapi.errors import PermanentError
    from smoothapi.image import WorkingImage
    from smoothapi.session import Session

_SHARES = (0.999, 0.99, 0.95, 0.9)
"""Of a label's votes, that a plan says the mean number of votes for."""


@dataclass(frozen=True, slots=True)
class Plan:
    """What a run would send and cost, found out without sending anything.

    Attributes:
        photo: name of the photo.
        stored: answers that the store already holds, of those that could be needed.
        at_least: queries to send if every further vote is for one label.
        at_most: queries to send if the cap is reached.
        expected: votes by p, the label's true share of them: (p, mean), at a wanted radius; what
            is assumed of the other labels is said by `certify.target_queries`, which cannot tell
            for `TopK`.
        dollars: price of 1,000 queries.
        price_date: date of the price list.
        radius: the L2 radius around the working image that would be certified, None for the
            largest.
        radius_native: what it comes to around the photo before the resize.
        radius_rms: the same as a root mean square over the photo's channel values.
        rms_steps: that in steps of 8-bit values, rounded down to three digits: what the certificate
            will show.
        image: SHA-256 (hex) of the working image: the same picture twice is paid for once.
    """

    photo: str
    stored: int
    at_least: int
    at_most: int
    expected: tuple[tuple[float, float], ...]
    dollars: float
    price_date: str
    radius: float | None
    radius_native: float | None
    radius_rms: float | None
    rms_steps: float | None
    image: str = ""

    @property
    def costs(self) -> tuple[float, float]:
        """Dollars of `at_least` and of `at_most`."""
        return self.at_least * self.dollars / 1000.0, self.at_most * self.dollars / 1000.0

    def _repr_html_(self) -> str:
        """Return a small table for notebooks."""
        least, most = self.costs
        rows = [
            ("Photo", self.photo),
            *self._radii(),
            ("Nothing was sent", "a run that certifies would send"),
            ("Queries", f"{self.at_least:,} to {self.at_most:,}"),
            ("Dollars", f"${least:.4f} to ${most:.4f}"),
            ("Stored", f"{self.stored:,} answers"),
            *((f"Votes if p = {p:g}", f"{mean:.0f} on average") for p, mean in self.expected),
        ]
        return notebook.facts(rows)

    def _radii(self) -> Iterator[tuple[str, str]]:
        if self.radius is not None and self.radius_native is not None:
            yield "L2 radius", f"{rounded_down(self.radius)} around the working image"
            yield "Native radius", f"{rounded_down(self.radius_native)} before the resize"
        if self.rms_steps is not None:
            yield "As rms", f"{self.rms_steps:g}/255 over the photo's channel values"


def plan_run(
    session: Session,
    image: WorkingImage,
    target: Target,
    test: VoteTest,
    radius: float | None,
    *,
    final: bool = False,
) -> Plan:
    """Say what a run would send and cost.

    Args:
        session: who would be asked.
        image: the working image.
        target: what would be certified.
        test: a fresh test of its votes; takes the ones that are stored.
        radius: the radius wanted, None for the largest.
        final: whether the test is calibrated to its cap.
    """
    settings = session.settings
    stored = session.stored(image)
    votes = count_stored(stored, test, target)
    ahead = [stored(index) is not None for index in range(votes, settings.max_votes)]
    plain = settings.plain and stored(None) is None
    price = session.dispatcher.price
    around = None
    if radius is not None:
        rounding = rounding_of(image.pixels.size)
        around = photo_radii(radius, image.native_size, image.gain, rounding)
    return Plan(
        photo=image.name,
        stored=votes + sum(ahead),
        at_least=test.needed() - sum(ahead[: test.needed()]) + plain,
        at_most=(0 if test.done else ahead.count(False)) + plain,
        expected=() if radius is None else _expected(session, image, target, radius, final=final),
        dollars=float(price.per_thousand),
        price_date=price.as_of,
        radius=radius,
        radius_native=None if around is None else around.native,
        radius_rms=None if around is None else around.rms,
        rms_steps=None if around is None else around.steps,
        image=image.digest,
    )


def refuse_unpayable(
    session: Session,
    image: WorkingImage,
    target: Target,
    start: Callable[[], VoteTest],
    *,
    more: int = 0,
) -> None:
    """Refuse before the first query what the budget cannot pay for even at best.

    Args:
        session: who would be asked.
        image: the working image.
        target: what would be certified.
        start: makes a test of its votes.
        more: queries besides.

    Raises:
        BudgetExceededError: the budget has no room for the fewest queries that could be enough.
    """
    room = session.dispatcher.room()
    if room is None:
        return
    stored, test = session.stored(image), start()
    # Stored votes can decide it, an abstention too: so they are counted as they will be.
    votes = count_stored(stored, test, target)
    needed = range(votes, votes + test.needed())
    missing = more + sum(stored(index) is None for index in needed)
    if session.settings.plain:
        missing += stored(None) is None
    if missing > room:
        raise BudgetExceededError(
            f"This needs at least {missing:,} queries "
            f"(${session.dispatcher.price.of(missing):.4f}), but the budget leaves room for "
            f"{room:,}. Nothing was sent. Raise the budget, ask for a smaller radius, or, for "
            "the largest radius, set max_votes to what the budget allows; or buy a part now "
            "and the rest later by the setting partial (SMOOTHAPI_PARTIAL=1, or --partial)."
        )


def count_stored(
    stored: Callable[[int], Answer | PermanentError | None], test: VoteTest, target: Target
) -> int:
    """Feed a test the votes that are stored, from the first on; return how many it took."""
    votes = 0
    while not test.done and (outcome := stored(votes)) is not None:
        test.add(target.vote(outcome if isinstance(outcome, Answer) else None))
        votes += 1
    return votes


def _expected(
    session: Session, image: WorkingImage, target: Target, radius: float, *, final: bool
) -> tuple[tuple[float, float], ...]:
    """Return (p, mean votes) where they can be told."""
    sigma, alpha = session.sigma, session.settings.alpha
    most = session.settings.max_votes
    delta = share_deduction(image.pixels.size, sigma)
    planned = partial(
        target_queries,
        target,
        radius,
        sigma,
        alpha,
        max_votes=most,
        delta=delta,
        futility=session.futility,
        final=final,
    )
    counts = ((p, planned(p)) for p in _SHARES)
    return tuple((p, count.mean) for p, count in counts if count is not None)
