"""When runs are given up: by the best rule for a mix, which can lose certificates but make none."""

from __future__ import annotations

from fractions import Fraction
from functools import cache

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from smoothapi.certify import (
    MostSpecific,
    Reason,
    SequentialCertify,
    queries_needed,
    replay,
    share_deduction,
)
from smoothapi.certify.evalue import Boundary, boundary
from smoothapi.certify.futility import (
    DEFAULT_MIX,
    NEVER,
    ChanceRule,
    Mix,
    PriceRule,
    _fewest_hopeful,
    hoped_share,
)
from smoothapi.errors import UsageError

TWO = Mix((0.5, 0.9375), (0.25, 0.75))


def certify(**options: object) -> SequentialCertify:
    terms = {"sigma": 1.0, "alpha": 0.05, "max_votes": 60, "radius": 0.5, **options}
    return SequentialCertify(**terms)  # type: ignore[arg-type]


def votes_of(rule: PriceRule, mix: Mix, enough: Boundary, cap: int, price: float) -> float:
    """Return votes less the worth of certificates that a rule comes to, by carrying chances on."""
    cost = 0.0
    alive = {(0, share): weight for share, weight in zip(mix.shares, mix.weights, strict=True)}
    for n in range(1, cap + 1):
        after: dict[tuple[int, float], float] = {}
        for (lost, p), chance in alive.items():
            cost += chance
            for losses, here in ((lost, chance * p), (lost + 1, chance * (1.0 - p))):
                if enough[losses] <= n:
                    cost -= price * here
                elif not (losses > lost and rule.gives_up(n, losses, enough, cap)):
                    after[losses, p] = after.get((losses, p), 0.0) + here
        alive = after
    return cost


@pytest.mark.parametrize("mix", [TWO, Mix((0.25, 0.75, 0.875), (0.5, 0.25, 0.25))])
@pytest.mark.parametrize(("q", "cap"), [(0.5, 40), (0.75, 50)])
def test_it_is_the_best_rule_by_exact_arithmetic(mix: Mix, q: float, cap: int) -> None:
    enough = boundary(q, 0.05)
    price = Fraction(85.0 * cap**0.5)
    shares = [Fraction(share) for share in mix.shares]
    weights = [Fraction(weight) for weight in mix.weights]

    @cache
    def worth(n: int, lost: int) -> Fraction:
        if enough[lost] <= n:
            return price
        if n == cap:
            return Fraction(0)
        seen = [w * p ** (n - lost) * (1 - p) ** lost for p, w in zip(shares, weights, strict=True)]
        win = sum(s * p for s, p in zip(seen, shares, strict=True)) / sum(seen)
        more = win * worth(n + 1, lost) + (1 - win) * worth(n + 1, lost + 1) - 1
        return max(Fraction(0), more)

    fewest = _fewest_hopeful(mix, enough, cap)
    for n in range(1, cap):
        for lost in range(1, n + 1):
            if enough[lost] > n:
                gives_up = n < fewest[min(lost, len(fewest) - 1)]
                assert gives_up == (worth(n, lost) == 0), (n, lost)


def test_no_other_rule_of_ours_is_better_on_the_mix() -> None:
    enough, cap = boundary(0.75, 0.05), 80
    rules = [PriceRule(TWO), PriceRule(), NEVER, *map(ChanceRule, (0.001, 0.01, 0.1))]
    price = 85.0 * cap**0.5
    costs = [votes_of(rule, TWO, enough, cap, price) for rule in rules]
    assert costs[0] == min(costs)
    assert costs[0] < min(costs[2:])


@given(
    q=st.floats(0.5, 0.99),
    cap=st.integers(1, 250),
    mix=st.sampled_from([DEFAULT_MIX, TWO, Mix((0.01,), (1.0,)), Mix((0.999999,), (1.0,))]),
)
@settings(max_examples=25, deadline=None)
def test_what_is_hopeful_stays_so_after_a_win(q: float, cap: int, mix: Mix) -> None:
    enough = boundary(q, 0.01)
    if enough[0] > cap:
        return
    votes, losses = np.mgrid[1 : cap + 1, 1 : cap + 1]
    for rule in (PriceRule(mix), ChanceRule()):
        given_up = rule.gives_up(np.maximum(votes, losses), losses, enough, cap)
        assert not np.any(~given_up[:-1] & given_up[1:])
        # Nor does a loss make hope.
        assert not np.any(given_up[:, :-1] & ~given_up[:, 1:])


class Whim:
    """Gives up whenever it likes."""

    def __init__(self, seed: int, chance: float) -> None:
        self.random, self.chance = np.random.default_rng(seed), chance

    def gives_up(self, *_: object) -> np.ndarray:
        return np.asarray(self.random.random() < self.chance)


@given(
    wins=st.lists(st.sampled_from(["a", "a", "a", "a", "b", None]), min_size=1, max_size=60),
    rule=st.one_of(
        st.builds(Whim, st.integers(0, 99), st.sampled_from([0.0, 0.2, 1.0])),
        st.sampled_from([PriceRule(), PriceRule(TWO), ChanceRule(), ChanceRule(0.9)]),
    ),
    radius=st.sampled_from([None, 0.5]),
)
@settings(max_examples=80, deadline=None)
def test_no_rule_whatever_makes_a_certificate(
    wins: list[str | None], rule: Whim, radius: float | None
) -> None:
    ruled, free = (certify(radius=radius, futility=each) for each in (rule, NEVER))
    for vote in wins:
        if ruled.done:
            break
        ruled.add(vote)
        free.add(vote)
        mine, theirs = ruled.result(), free.result()
        assert (mine.label, mine.radius, mine.p_lower) == (
            theirs.label,
            theirs.radius,
            theirs.p_lower,
        )
        if not ruled.done:
            assert ruled.needed() == free.needed()
    if ruled.done and not free.done:
        assert ruled.result().reason in (Reason.UNLIKELY, Reason.NO_ANSWER)
        assert ruled.result().label is None


def test_a_run_is_given_up_at_a_loss_only() -> None:
    # Where the cap has no room for a loss, an unbroken run must not be given up.
    for rule in (PriceRule(), ChanceRule(), PriceRule(Mix((0.01,), (1.0,)))):
        test = certify(max_votes=certify().needed(), futility=rule)
        assert not replay(test, ["cat"] * test.needed()).abstained
    least = queries_needed(0.25, 0.25, 0.001, 1.0).at_least
    for rule in (PriceRule(), ChanceRule()):
        plan = queries_needed(0.25, 0.25, 0.001, 0.999, max_votes=least, futility=rule)
        assert plan.certified == pytest.approx(0.999**least)
    target = MostSpecific(0.5)
    first = target.start(sigma=1.0, alpha=0.05, max_votes=500, radius=0.5)
    cap = first.needed()
    specific = target.start(sigma=1.0, alpha=0.05, max_votes=cap, radius=0.5)
    assert not replay(specific, ['[["cat"], [], 0.5]'] * cap).abstained


def test_a_hopeless_mix_gives_up_at_the_first_loss_and_not_before() -> None:
    enough, cap = boundary(0.84, 0.001), 300
    fewest = _fewest_hopeful(Mix((0.01,), (1.0,)), enough, cap)
    assert fewest[0] <= 1  # an unbroken run goes on
    lost = np.arange(1, enough.most_losses(cap) + 1)
    # Any loss ends it, but where the very next vote may certify.
    assert np.all(fewest[lost] >= enough.upto(cap)[lost] - 1)


def test_above_ten_thousand_votes_it_goes_by_chance() -> None:
    enough = boundary(0.9, 0.001)
    votes, losses = np.mgrid[1:200:7, 1:40]
    for cap in (10_001, 1_000_000):
        assert np.array_equal(
            PriceRule().gives_up(votes, losses, enough, cap),
            ChanceRule().gives_up(votes, losses, enough, cap),
        )
    below = (rule.gives_up(votes, losses, enough, 10_000) for rule in (PriceRule(), ChanceRule()))
    assert not np.array_equal(*below)


@pytest.mark.parametrize(("q", "cap"), [(0.5, 70), (0.55, 300), (0.84, 700), (0.98, 900)])
def test_a_whole_boundary_is_its_single_values(q: float, cap: int) -> None:
    enough = Boundary(q, 0.001)
    found = enough.upto(cap).tolist()
    assert found == [enough[losses] for losses in range(len(found))]
    assert enough[len(found)] > cap
    assert Boundary(q, 0.001).upto(3).tolist() == []


def test_photos_of_all_sizes_share_what_is_worked_out() -> None:
    _fewest_hopeful.cache_clear()
    for pixels in range(100_000, 400_000, 7_919):
        delta = share_deduction(pixels, 0.25)
        test = SequentialCertify(sigma=0.25, alpha=0.001, max_votes=300, radius=0.25, delta=delta)
        replay(test, ["cat", "dog", "dog", "dog"])
    assert _fewest_hopeful.cache_info().currsize <= 4


def test_hope_is_a_share_that_the_cap_can_certify() -> None:
    enough = boundary(0.84, 0.001)
    most = enough.most_losses(500)
    assert hoped_share(enough, 500) == 1.0 - most / 500


@given(st.integers(0, 60), st.sampled_from([TWO, DEFAULT_MIX]))
@settings(max_examples=25, deadline=None)
def test_losses_are_a_mixture_of_binomials(votes: int, mix: Mix) -> None:
    lost = np.arange(votes + 3)
    found = mix.losses(votes, lost)
    p = np.array(mix.shares)[:, None]
    wanted = np.array(mix.weights) @ stats.binom.pmf(lost, votes, 1.0 - p)
    assert found == pytest.approx(wanted, abs=1e-12)
    assert found.sum() == pytest.approx(sum(mix.weights))


def stopped_runs(shares: np.ndarray, seed: int) -> list[tuple[int, int]]:
    """Return (k, n) of runs that stop early in both directions, as runs do."""
    runs = []
    for wins in np.random.default_rng(seed).random((len(shares), 400)) < shares[:, None]:
        test = certify(max_votes=400)
        for win in wins:
            test.add("cat" if win else None)
            if test.done:
                break
        n = test.result().votes
        runs.append((int(wins[:n].sum()), n))
    return runs


def test_a_mix_is_learnt_from_runs_that_were_stopped_early() -> None:
    shares = np.repeat([0.4, 0.8, 0.97], 80)
    runs = stopped_runs(shares, seed=3)
    mix = Mix.learnt(runs)
    p, w = np.array(mix.shares), np.array(mix.weights)
    assert mix.photos == len(runs)
    assert w[p < 0.6].sum() == pytest.approx(1 / 3, abs=0.1)
    assert w[p > 0.9].sum() == pytest.approx(1 / 3, abs=0.1)
    # Cutting each run to fewer votes blurs it, and does not lean it.
    assert p @ w == pytest.approx(shares.mean(), abs=0.03)


def test_nothing_learnt_is_the_default_and_few_photos_move_it_little() -> None:
    assert Mix.learnt([]).weights == pytest.approx(DEFAULT_MIX.weights, abs=1e-9)
    one = Mix.learnt([(0, 1_000_000)])
    assert np.abs(np.array(one.weights) - DEFAULT_MIX.weights).sum() < 0.05
    assert Mix.learnt([(10, 10), (3, 9)]) == Mix.learnt([(3, 9), (10, 10)])


@given(st.lists(st.tuples(st.integers(0, 10**7), st.integers(1, 10**7)), max_size=30))
@settings(max_examples=30, deadline=None)
def test_any_counts_make_a_mix(counts: list[tuple[int, int]]) -> None:
    mix = Mix.learnt([(min(k, n), n) for k, n in counts])
    assert sum(mix.weights) == pytest.approx(1.0, abs=1e-6)
    assert min(mix.weights) >= 0.0
    assert len(mix.digest) == 64


@pytest.mark.parametrize("counts", [[(3, 2)], [(-1, 2)], [(0, 0)]])
def test_impossible_counts_are_refused(counts: list[tuple[int, int]]) -> None:
    with pytest.raises(UsageError):
        Mix.learnt(counts)


@pytest.mark.parametrize(
    ("shares", "weights", "photos"),
    [
        ((0.5, 0.4), (0.5, 0.5), 0),
        ((0.5, 0.5), (0.5, 0.5), 0),
        ((0.0, 0.5), (0.5, 0.5), 0),
        ((0.5, 1.0), (0.5, 0.5), 0),
        ((float("nan"), 0.5), (0.5, 0.5), 0),
        ((0.4, 0.5), (0.5,), 0),
        ((0.4, 0.5), (1.5, -0.5), 0),
        ((0.4, 0.5), (0.5, 0.4), 0),
        ((0.4, 0.5), (float("nan"), 0.5), 0),
        ((), (), 0),
        ((0.4, 0.5), (0.5, 0.5), -1),
    ],
)
def test_a_mix_that_is_none_is_refused(
    shares: tuple[float, ...], weights: tuple[float, ...], photos: int
) -> None:
    with pytest.raises(UsageError):
        Mix(shares, weights, photos)


def test_the_digest_tells_mixes_apart() -> None:
    assert len({DEFAULT_MIX.digest, TWO.digest, Mix.learnt([(9, 10)]).digest}) == 3
    assert Mix(TWO.shares, TWO.weights, photos=9).digest == TWO.digest


def test_the_default_mix_is_the_one_that_its_formula_gives():
    from scipy.special import betainc, ndtr

    grid = np.arange(-20, 51) * 0.1  # of Phi^-1(p), as radii are: p from 0.02 to 1 - 3e-7
    between = np.concatenate([[0.0], ndtr(grid[:-1] + 0.05), [1.0]])
    weights = np.diff(betainc(0.5, 0.25, between))
    assert DEFAULT_MIX.shares == pytest.approx(tuple(ndtr(grid)), rel=1e-15, abs=0.0)
    assert DEFAULT_MIX.weights == tuple(weights.round(9).tolist())
