"""The budget: read right, reserved before sending, never passed by one."""

from __future__ import annotations

import threading
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from smoothapi.dispatch import Budget, Ledger, Price
from smoothapi.errors import BudgetExceededError, UsageError

DOLLAR = Price(Decimal("1.00"))


@pytest.mark.parametrize(
    ("text", "queries", "dollars"),
    [
        ("500", 500, None),
        ("$2", None, Decimal(2)),
        ("$0.50", None, Decimal("0.50")),
        ("500, $2", 500, Decimal(2)),
        ("1_000", 1000, None),
    ],
)
def test_budgets_are_read(text, queries, dollars):
    assert Budget.parse(text) == Budget(queries=queries, dollars=dollars)


@pytest.mark.parametrize("text", ["", "two", "-5", "$", "$-1", "2$", "5,5", "$1,$2", "$nan"])
def test_what_is_no_budget_is_refused(text):
    with pytest.raises(UsageError):
        Budget.parse(text)


@pytest.mark.parametrize("bad", [{"queries": -1}, {"queries": 1.5}, {"dollars": float("inf")}])
def test_impossible_budgets(bad):
    with pytest.raises(UsageError):
        Budget(**bad)


def test_dollars_are_exact():
    """0.1 + 0.1 + 0.1 is 0.3 here: 300 queries at a dollar a thousand, not 299."""
    ledger = Ledger(Budget(dollars=0.3), DOLLAR)
    assert ledger.room() == 300
    ledger.reserve(300)
    with pytest.raises(BudgetExceededError):
        ledger.reserve(1)


def test_a_free_provider_is_limited_by_queries_alone():
    assert Ledger(Budget(dollars=0), Price(Decimal(0))).room() is None


def test_the_smaller_limit_counts():
    assert Ledger(Budget(queries=10, dollars=1), DOLLAR).room() == 10
    assert Ledger(Budget(queries=10_000, dollars=1), DOLLAR).room() == 1000


def test_reservations_count_until_released():
    ledger = Ledger(Budget(queries=5), DOLLAR)
    ledger.reserve(3)
    assert ledger.room() == 2
    ledger.release(1)
    ledger.settle(2)
    assert ledger.room() == 3
    assert ledger.spent.queries == 2
    assert ledger.spent.dollars == Decimal("0.002")


@given(st.lists(st.integers(1, 7), max_size=40), st.integers(0, 60))
def test_no_order_of_reservations_passes_the_limit(requests, limit):
    ledger = Ledger(Budget(queries=limit), DOLLAR)
    taken = 0
    for size in requests:
        try:
            ledger.reserve(size)
        except BudgetExceededError:
            assert taken + size > limit
        else:
            taken += size
    assert taken <= limit


def test_threads_cannot_pass_the_limit_together():
    ledger = Ledger(Budget(queries=1000), DOLLAR)
    taken = []
    barrier = threading.Barrier(16)

    def take():
        barrier.wait()
        mine = 0
        try:
            while True:
                ledger.reserve(1)
                mine += 1
                ledger.settle(1)
        except BudgetExceededError:
            taken.append(mine)

    threads = [threading.Thread(target=take) for _ in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sum(taken) == 1000
