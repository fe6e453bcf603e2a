"""A plan of faults is text, a value, and the same each time."""

from __future__ import annotations

from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from smoothapi.errors import UsageError
from smoothapi.services.faults import Fault, Faults, Span

faults = st.none() | st.sampled_from(Fault)


@st.composite
def plans(draw):
    spans, position = [], 0
    for gap, length, fault in draw(
        st.lists(st.tuples(st.integers(0, 3), st.integers(1, 5), faults), max_size=5)
    ):
        spans.append(Span(position + gap, position + gap + length - 1, fault))
        position += gap + length
    if draw(st.booleans()):
        spans.append(Span(position + draw(st.integers(0, 3)), None, draw(faults)))
    shares = draw(st.lists(st.integers(0, 2000), max_size=5))
    names = draw(st.permutations(list(Fault)))
    rates = [(name, Decimal(n) / 100) for name, n in zip(names, shares, strict=False)]
    return Faults(tuple(spans), tuple(rates), draw(st.integers(0, 2**40)))


@given(plans(), st.integers(0, 60))
def test_a_plan_survives_as_text(plan, number):
    again = Faults.parse(str(plan), seed=plan.seed)
    assert again == plan
    assert again.of(number) == plan.of(number)


def test_a_script_names_its_requests_and_leaves_the_others_alone():
    plan = Faults.parse("3x429, 1x ok, @6 reset, @8-9 503, @12- quota")
    got = [plan.of(number) for number in range(13)]
    assert got == ["429"] * 3 + [
        None,
        None,
        "reset",
        None,
        "503",
        "503",
        None,
        None,
        "quota",
        "quota",
    ]
    assert plan.of(10**9) is Fault.quota


def test_a_script_goes_before_rates():
    plan = Faults.parse("2xok, 100% 500")
    assert [plan.of(n) for n in range(4)] == [None, None, "500", "500"]


def test_rates_are_the_chances_they_say_for_each_seed():
    n = 40_000
    for seed in (0, 1):
        plan = Faults.parse("2% timeout, 0.5% 500, 30% 429-wait", seed=seed)
        got = [plan.of(number) for number in range(n)]
        seen = [got.count(f) for f in (Fault.timeout, Fault.error, Fault.throttled_wait, None)]
        expected = [n * p for p in (0.02, 0.005, 0.3, 0.675)]
        assert stats.chisquare(seen, expected).pvalue > 1e-4


def test_all_and_nothing_are_exact():
    assert all(Faults.parse("50% 500, 50% reset").of(n) is not None for n in range(2000))
    assert all(Faults.parse("0% 500").of(n) is None for n in range(2000))


def test_a_seed_decides_which():
    of = {
        seed: [Faults.parse("20% 500", seed=seed).of(n) for n in range(200)] for seed in (0, 0, 1)
    }
    assert of[0] != of[1]
    assert of[0] == [Faults.parse("20% 500").of(n) for n in range(200)]
    # Fixed for good: what a test saw with a seed, it sees in later versions too.
    assert [n for n in range(60) if Faults.parse("10% 500", seed=7).of(n)] == PINNED


PINNED = [15, 29, 30, 31, 45, 46, 49, 52]


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("3x429, 2 percent timeout", "'2 percent timeout' is not a fault"),
        ("2% tiemout", "no fault is called 'tiemout'"),
        ("x429", "'x429' is not a fault"),
        ("0x429", "names 0 requests"),
        ("@0 reset", "first request is number 1"),
        ("@5-3 reset", "to no request"),
        ("@2 reset, 3x429", "Request 2 is given two faults"),
        ("@5- quota, @9 reset", "Request 9 is given two faults"),
        ("60% 500, 50% reset", "add up to 110%"),
        ("101% 500", "from 0% to 100%"),
        ("-1% 500", "is not a fault"),
        ("1% 500, 1% 500", "two rates"),
        ("3% ok", "by itself"),
        ("nan% 500", "is not a fault"),
        ("٣x429", "is not a fault"),
    ],
)
def test_what_cannot_be_done_is_said_with_the_term(text, says):
    with pytest.raises(UsageError, match=says):
        Faults.parse(text)


def test_an_empty_text_is_a_plan_without_faults():
    assert not Faults.parse("")
    assert Faults.parse(" , ") == Faults() == Faults.parse("")
    assert str(Faults()) == ""
    assert (
        Faults.parse("2XRESET") == Faults.parse("1xreset, 1x reset") == Faults.parse("@1-2 reset")
    )
