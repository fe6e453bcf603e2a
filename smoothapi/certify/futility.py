"""When a run is given up: about cost only, since a run that is given up certifies nothing.

A run is a walk on the lattice of (votes, losses), losses being the votes against the leader. It is
given up at a loss, for good news ends no run.

The best rule for photos of which one knows how their labels' shares are distributed
    Let c(n, l) be the chance that l of n votes are losses: a mixture of binomials. All orders of
    the n votes are equally likely, so of the chance of (n, l) the part (n - l) / n comes from a win
    and l / n from a loss. Let V(n, l) be the certificates still to come from (n, l), times the
    price of one, less the votes still to come, by the best rule, times c(n, l). Then

        c(n, l) = c(n + 1, l) (n + 1 - l) / (n + 1) + c(n + 1, l + 1) (l + 1) / (n + 1)
        V(n, l) = max(0, the same sum of V - c(n, l))

    with V = price * c where the boundary certifies, and 0 at the cap: worked out from the cap
    backwards. Where V = 0, the votes to come cost more than the certificates to come are worth:
    the run is given up. No other rule certifies as many with fewer votes on average: the price is
    the Lagrange multiplier of that trade. (Bellman; for tests: Wald and Wolfowitz, Annals of
    Mathematical Statistics 1948.) If V > 0 then a win leads to V > 0, so for each number of losses
    the hopeful states are those from some number of votes on.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections import defaultdict
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import TYPE_CHECKING, Protocol

import numpy as np

from smoothapi._special import special
from smoothapi.certify.bounds import check_counts
from smoothapi.certify.decision import UNLIKELY
from smoothapi.certify.default_mix import SHARES, WEIGHTS
from smoothapi.certify.evalue import PRIOR, Boundary, boundary
from smoothapi.errors import UsageError
from smoothapi.worked_out import worked_out

if TYPE_CHECKING:
    from collections.abc import Iterable

    from numpy.typing import ArrayLike, NDArray

_MOST_VOTES = 10_000  # up to which the best rule is worked out, in less than a second
_PRICE = 85.0
_SHRINKAGE = 50.0  # photos' worth of the default mix in one that is learnt
_ROUNDS = 200  # of expectation and maximisation: by then weights move by less than matters
_DECIMALS = 9
_MOST_LOST = 0.05  # of the chance of a certificate, at any share, for a mix that was learnt
_MOST_BOUNDED = 2_000  # votes
_HALVINGS = 7


class Futility(Protocol):
    """A rule by which runs are given up. It decides about cost, never about validity."""

    def gives_up(
        self, votes: ArrayLike, losses: ArrayLike, enough: Boundary, max_votes: int
    ) -> NDArray[np.bool_]:
        """Return whether a run is given up, element by element.

        Once more votes for the same losses keep a run alive, so do still more.

        Args:
            votes: votes so far.
            losses: of these, votes against the leader; at least 1.
            enough: the boundary that certifies.
            max_votes: most votes of the run.
        """
        ...


@dataclass(frozen=True, slots=True)
class ChanceRule:
    """Give up once the leader will hardly have a share that the cap can certify.

    Attributes:
        least: chance of such a share, by the Beta(1/2, 1/2) posterior of the leader's share, below
            which a run is given up; 0 never does.
    """

    least: float = UNLIKELY

    def gives_up(
        self, votes: ArrayLike, losses: ArrayLike, enough: Boundary, max_votes: int
    ) -> NDArray[np.bool_]:
        """Return whether a run is given up; see `Futility`."""
        votes, losses = np.asarray(votes), np.asarray(losses)
        hope = hoped_share(enough, max_votes)
        chance = special.betaincc(votes - losses + PRIOR[0], losses + PRIOR[1], hope)
        return np.asarray(chance < self.least)


NEVER = ChanceRule(0.0)
"""Go on as long as an unbroken run of votes could suffice."""


@dataclass(frozen=True)
class Mix:
    """How the shares of votes of photos' top labels are distributed.

    Attributes:
        shares: values of p, ascending, in (0, 1).
        weights: how frequent each is; they sum to 1.
        photos: from how many it was learnt; 0 for one that is assumed.
    """

    shares: tuple[float, ...]
    weights: tuple[float, ...]
    photos: int = 0

    def __post_init__(self) -> None:
        inside = all(0.0 < share < 1.0 for share in self.shares)
        if not (inside and list(self.shares) == sorted(set(self.shares)) and self.photos >= 0):
            raise UsageError("The shares of a mix are in (0, 1), ascending.")
        sound = len(self.weights) == len(self.shares) and all(w >= 0.0 for w in self.weights)
        if not (sound and math.isclose(math.fsum(self.weights), 1.0, abs_tol=1e-6)):
            raise UsageError("A mix has a weight for each share, and they sum to 1.")

    @classmethod
    def learnt(cls, counts: Iterable[tuple[int, int]]) -> Mix:
        """Return the mix that makes past votes likely, drawn towards the default.

        Runs that were stopped early, for whatever reason that their votes gave, do not lean it:
        given those, p^k (1 - p)^(n - k) is all that the votes say of p. Maximised by expectation
        and maximisation (Laird, Journal of the American Statistical Association 1978), with the
        default mix counting as 50 photos.

        Args:
            counts: (k, n) of each photo, k of n votes being for its top label.

        Raises:
            UsageError: a count is not k of n with 0 <= k <= n.
        """
        rows = list(counts)
        for k, n in rows:
            check_counts(k, n)
        prior = np.array(DEFAULT_MIX.weights)
        weights = prior
        if rows:
            (k, n), times = (
                part.T
                for part in np.unique(np.array(rows, dtype=float), axis=0, return_counts=True)
            )
            p = np.array(DEFAULT_MIX.shares)
            logs = special.xlogy(k[:, None], p) + special.xlog1py((n - k)[:, None], -p)
            likely = np.exp(logs - logs.max(axis=1, keepdims=True))
            for _ in range(_ROUNDS):
                belongs = likely * weights
                belongs *= (times / belongs.sum(axis=1))[:, None]
                weights = (_SHRINKAGE * prior + belongs.sum(axis=0)) / (_SHRINKAGE + len(rows))
        kept = [round(float(weight), _DECIMALS) for weight in weights]
        return cls(DEFAULT_MIX.shares, tuple(kept), len(rows))

    def drawn(self, counts: float) -> Mix:
        """Return the mix of which this one is a part in (0, 1], and the default mix the rest."""
        parts = [*zip(self.shares, np.multiply(self.weights, counts), strict=True)]
        parts += zip(
            DEFAULT_MIX.shares, np.multiply(DEFAULT_MIX.weights, 1.0 - counts), strict=True
        )
        together: dict[float, float] = defaultdict(float)
        for share, weight in sorted(parts):
            together[share] += float(weight)
        return Mix(tuple(together), tuple(together.values()), self.photos)

    @cached_property
    def digest(self) -> str:
        """SHA-256 (hex) of the shares and weights."""
        text = json.dumps([self.shares, self.weights], separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()

    def losses(self, votes: ArrayLike, losses: ArrayLike) -> NDArray[np.float64]:
        """Return the chance of so many losses in so many votes, element by element."""
        n, lost = np.broadcast_arrays(*(np.asarray(x, dtype=float) for x in (votes, losses)))
        p = np.array(self.shares).reshape(-1, *(1,) * n.ndim)
        orders = (
            special.gammaln(n + 1.0) - special.gammaln(lost + 1.0) - special.gammaln(n - lost + 1.0)
        )
        each = np.exp(orders + special.xlogy(n - lost, p) + special.xlog1py(lost, -p))
        return np.asarray(np.tensordot(self.weights, np.where(lost <= n, each, 0.0), axes=1))


DEFAULT_MIX = Mix(SHARES, WEIGHTS)
"""Beta(1/2, 1/4): on mixes that it was not chosen on, nearly as good as the true one."""


@dataclass(frozen=True, slots=True)
class PriceRule:
    """Give up where another certificate would cost more votes than it is worth.

    The best rule for a mix of photos (the top of this module says why), at a price of
    85 * sqrt(max_votes) votes for a certificate. Above 10,000 votes it is `ChanceRule`.

    A mix that was learnt from hopeless photos would give up those between, too. So it counts for
    half, a quarter and so on, the default mix for the rest, until at no share of votes the chance
    of a certificate is more than 0.05 below what it is by the default mix. Above 2,000 votes, where
    that takes long to find out, it does not count.

    Attributes:
        mix: of the photos' shares.
    """

    mix: Mix = DEFAULT_MIX

    def gives_up(
        self, votes: ArrayLike, losses: ArrayLike, enough: Boundary, max_votes: int
    ) -> NDArray[np.bool_]:
        """Return whether a run is given up; see `Futility`."""
        if max_votes > _MOST_VOTES:
            return ChanceRule().gives_up(votes, losses, enough, max_votes)
        fewest = _fewest_bounded(self.mix, _near(enough), max_votes)
        return np.asarray(np.asarray(votes) < fewest[np.minimum(losses, len(fewest) - 1)])


DEFAULT_RULE = PriceRule()


@lru_cache(maxsize=512)
def hoped_share(enough: Boundary, max_votes: int) -> float:
    """Return the share that `max_votes` votes can certify: below it they would only be used up."""
    return max(enough.q, 1.0 - enough.most_losses(max_votes) / max_votes)


def _near(enough: Boundary) -> Boundary:
    """Return nearly the same boundary, so that photos of all sizes share what is worked out.

    The deduction for arithmetic, and with it the boundary, differs a little by a photo's size.
    """
    return boundary(1.0 - float(f"{1.0 - enough.q:.3g}"), float(f"{enough.alpha:.2g}"))


@lru_cache(maxsize=256)
def _fewest_bounded(mix: Mix, enough: Boundary, max_votes: int) -> NDArray[np.int64]:
    """Return `_fewest_hopeful` of a mix, drawn towards the default mix as far as it must be."""
    given = (mix.digest, enough.q, enough.alpha, max_votes)
    fewest = worked_out("fewest", given, lambda: _drawn_as_far(mix, enough, max_votes).tolist())
    return np.array(fewest, dtype=np.int64)


def _drawn_as_far(mix: Mix, enough: Boundary, max_votes: int) -> NDArray[np.int64]:
    usual = _fewest_hopeful(DEFAULT_MIX, enough, max_votes)
    if mix == DEFAULT_MIX or max_votes > _MOST_BOUNDED:
        return usual
    wanted = _certified(usual, enough, max_votes) - _MOST_LOST
    for halvings in range(_HALVINGS):
        fewest = _fewest_hopeful(mix.drawn(0.5**halvings), enough, max_votes)
        if np.all(_certified(fewest, enough, max_votes) >= wanted):
            return fewest
    return usual


def _certified(fewest: NDArray[np.int64], enough: Boundary, max_votes: int) -> NDArray[np.float64]:
    """Return the chance of a certificate, by share of votes, of runs that go on from `fewest`."""
    p = np.array([share for share in DEFAULT_MIX.shares if share > enough.q])[:, None]
    certify = enough.upto(max_votes)
    alive = np.zeros((len(p), len(certify)))
    alive[:, :1] = 1.0
    certified = np.zeros(len(p))
    for n in range(1, max_votes + 1):
        lost = alive[:, :-1] * (1.0 - p)
        alive *= p
        alive[:, 1:] += lost
        done = int(np.searchsorted(certify, n, side="right"))
        certified += alive[:, :done].sum(axis=1)
        alive[:, :done] = 0.0
        alive[:, fewest[:-1] > n] = 0.0
    return certified


@lru_cache(maxsize=256)
def _fewest_hopeful(mix: Mix, enough: Boundary, max_votes: int) -> NDArray[np.int64]:
    """Return by losses, from 0 on, the fewest votes at which a run is worth going on with.

    The last number of losses is one more than can be certified, and never hopeful.
    """
    certify = enough.upto(max_votes)
    price = _PRICE * math.sqrt(max_votes)
    lost = np.arange(len(certify) + 1.0)
    chance = mix.losses(max_votes, lost)
    beyond = mix.losses(np.arange(max_votes + 1.0), lost[-1])
    value = price * chance
    value[-1] = 0.0
    fewest = np.full(len(lost), max_votes + 1)
    for n in range(max_votes - 1, 0, -1):
        won, also_lost = (n + 1.0 - lost[:-1]) / (n + 1.0), lost[1:] / (n + 1.0)
        chance = np.append(chance[:-1] * won + chance[1:] * also_lost, beyond[n])
        value = np.append(value[:-1] * won + value[1:] * also_lost, 0.0) - chance
        value = np.where(value > 0.0, value, 0.0)
        done = int(np.searchsorted(certify, n, side="right"))
        value[:done] = price * chance[:done]
        fewest[value > 0.0] = n
    fewest[0] = 0
    return fewest
