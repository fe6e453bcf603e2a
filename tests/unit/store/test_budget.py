"""The budget: read right, reserved before sending, never passed by one, kept through kill -9."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
import time
from decimal import Decimal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from smoothapi.errors import BudgetExceededError, StoreError, UsageError
from smoothapi.provider import Price
from smoothapi.store import Budget, Home
from tests.conftest import Clock

DOLLAR = Price(Decimal("1.00"))


def ledger(home, *budgets, price=DOLLAR, provider="aws"):
    return home.ledger(budgets, provider, price)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("500", Budget(attempts=500)),
        ("$2", Budget(dollars=Decimal(2))),
        ("$0.50", Budget(dollars=Decimal("0.50"))),
        ("500, $2", Budget(attempts=500, dollars=2)),
        ("1_000", Budget(attempts=1000)),
        ("$20/month", Budget(dollars=20, per="month")),
        ("20usd", Budget(dollars=20)),
        ("500,2.50 USD / day", Budget(attempts=500, dollars="2.50", per="day")),
        ("100 / day", Budget(attempts=100, per="day")),
    ],
)
def test_budgets_are_read(text, expected):
    assert Budget.parse(text) == expected


@pytest.mark.parametrize(
    "text",
    [
        "",
        "two",
        "-5",
        "$",
        "$-1",
        "2$",
        "5,5",
        "$1,$2",
        "$nan",
        "5/week",
        "/day",
        "usd",
        "2usd,3usd",
        "$2usd",
        "-1usd",
    ],
)
def test_other_texts_are_refused(text):
    with pytest.raises(UsageError):
        Budget.parse(text)


@pytest.mark.parametrize("text", ["0", "00", "", "0/day"])
def test_what_a_shell_makes_of_dollars_is_said(text):
    with pytest.raises(UsageError, match=r"In a shell an unquoted \$20 becomes 0.*20usd"):
        Budget.parse(text)


@pytest.mark.parametrize(
    "bad", [{"attempts": -1}, {"attempts": 1.5}, {"dollars": float("inf")}, {"per": "week"}]
)
def test_impossible_budgets(bad):
    with pytest.raises(UsageError):
        Budget(**bad)


def test_dollars_are_exact(home):
    """0.1 + 0.1 + 0.1 is 0.3 here: 300 queries at a dollar a thousand, not 299."""
    book = ledger(home, Budget(dollars=0.3))
    assert book.room() == 300
    book.reserve(300)
    with pytest.raises(BudgetExceededError):
        book.reserve(1)


def test_a_free_provider_is_limited_by_queries_alone(home):
    assert ledger(home, Budget(dollars=0), price=Price(Decimal(0))).room() is None


def test_several_budgets_hold_at_once(home):
    book = ledger(
        home,
        Budget(attempts=100),
        Budget(dollars="0.05", per="day"),
        Budget(attempts=70, per="month"),
    )
    assert book.room() == 50
    book.settle(book.reserve(50), 50)
    with pytest.raises(BudgetExceededError, match="a day"):
        book.reserve(1)
    assert ledger(home, Budget(attempts=70, per="month")).room() == 20


def test_reservations_count_until_released(home):
    book = ledger(home, Budget(attempts=5))
    first, second = book.reserve(3), book.reserve(1)
    assert book.room() == 1
    book.release(second, 1)
    assert book.room() == 2
    spent = book.settle(first, 3)
    assert (spent.attempts, spent.dollars) == (3, Decimal("0.003"))
    assert book.room() == 2


def test_a_run_without_a_name_has_its_own_budget_and_leaves_nothing_behind(home):
    one, other = ledger(home, Budget(attempts=5)), ledger(home, Budget(attempts=5))
    one.settle(one.reserve(5), 5)
    assert other.room() == 5
    one.close()
    assert home.accounts() == []


def test_named_budgets_are_shared_and_can_be_reset(home):
    one, other = (ledger(home, Budget(attempts=5, name="study")) for _ in range(2))
    one.settle(one.reserve(4), 4)
    one.rest()
    assert other.room() == 1
    one.close()
    [account] = home.accounts()
    assert (account.name, account.attempts, account.reserved, account.attempt_limit) == (
        "study",
        4,
        0,
        5,
    )
    assert home.reset("study") == 1
    assert other.room() == 5


@pytest.mark.parametrize(("per", "later"), [("day", 86_400), ("month", 31 * 86_400)])
def test_periods_begin_anew(home, clock, per, later):
    clock.now = time.mktime((2026, 11, 22, 12, 0, 0, 0, 0, 0))
    book = ledger(home, Budget(attempts=5, per=per))
    book.settle(book.reserve(5), 5)
    assert book.room() == 0
    clock.now += later
    assert book.room() == 5


@pytest.mark.parametrize(
    ("price", "pictures", "already", "dollars"),
    [
        (DOLLAR, 1500, 0, "1.5"),
        (Price(Decimal(1), free_per_month=1000), 1500, 0, "0.5"),
        (Price(Decimal(1), free_per_month=1000), 1500, 600, "1.1"),
        (Price(Decimal(1), free_per_month=1000), 1500, 5000, "1.5"),
        (Price(Decimal(1), steps=((1000, Decimal("0.5")),)), 1500, 0, "1.25"),
        (Price(Decimal(1), steps=((1000, Decimal("0.5")),)), 10, 999, "0.0055"),
        (Price(Decimal(2), "", 10, ((20, Decimal(1)), (30, Decimal("0.1")))), 40, 0, "0.031"),
    ],
)
def test_free_tiers_and_volume_steps(price, pictures, already, dollars):
    assert price.of(pictures, already) == Decimal(dollars)


@given(
    st.integers(0, 50),
    st.integers(0, 50),
    st.integers(0, 100),
    st.integers(0, 20),
    st.integers(1, 40),
)
def test_a_price_does_not_depend_on_how_pictures_are_grouped(one, other, already, free, step):
    price = Price(Decimal(2), "", free, ((free + step, Decimal("0.7")),))
    assert price.of(one + other, already) == price.of(one, already) + price.of(other, already + one)


@pytest.mark.parametrize(
    "bad",
    [
        {"per_thousand": Decimal(-1)},
        {"per_thousand": Decimal("nan")},
        {"per_thousand": 1.0},
        {"per_thousand": Decimal(1), "free_per_month": -1},
        {"per_thousand": Decimal(1), "steps": ((5, Decimal(1)), (5, Decimal(1)))},
        {"per_thousand": Decimal(1), "free_per_month": 9, "steps": ((5, Decimal(1)),)},
    ],
)
def test_impossible_prices(bad):
    with pytest.raises(UsageError):
        Price(**bad)


@given(
    st.integers(0, 60), st.integers(0, 60), st.integers(0, 60), st.integers(0, 40),
    st.integers(1, 40), st.sampled_from(["0.5", "2"]),
)  # fmt: skip
def test_the_dearest_price_is_the_dearest(pictures, one, other, free, step, then):
    fewest, most = sorted([one, other])
    price = Price(Decimal(1), free_per_month=free, steps=((free + step, Decimal(then)),))
    dearest = max(price.of(pictures, start) for start in range(fewest, most + 1))
    assert price.dearest(pictures, fewest, most) == dearest


def test_a_discount_that_others_may_give_back_is_not_counted_on(home):
    discount = Price(Decimal(10), steps=((32, Decimal(1)),))
    first = ledger(home, Budget(attempts=10**6, name="first"), price=discount)
    second = ledger(home, Budget(dollars="0.05", name="second"), price=discount)
    first.settle(first.reserve(1), 1)  # sets more aside, and with it the step is passed
    sent = 0
    with pytest.raises(BudgetExceededError):
        while True:
            second.settle(second.reserve(1), 1)
            sent += 1
    first.rest()
    second.rest()
    assert sent > 0
    assert discount.of(sent, 1) <= Decimal("0.05")


def test_the_free_tier_is_counted_over_all_runs_of_a_month(home):
    price = Price(Decimal(1), free_per_month=100)
    first = ledger(home, price=price)
    first.settle(first.reserve(90), 90)
    first.rest()
    second = ledger(home, Budget(dollars="0.005"), price=price)
    assert second.room() == 15
    spent = second.settle(second.reserve(15), 15)
    assert spent.dollars == Decimal("0.005")


@settings(max_examples=40, deadline=None)
@given(st.lists(st.integers(1, 7), max_size=30), st.integers(0, 60))
def test_no_order_of_reservations_passes_the_limit(tmp_path_factory, requests, limit):
    home = Home(tmp_path_factory.mktemp("ledger"))
    book = ledger(home, Budget(attempts=limit))
    taken = 0
    for size in requests:
        try:
            number = book.reserve(size)
        except BudgetExceededError:
            assert taken + size > limit
        else:
            taken += size
            if size % 2:
                book.settle(number, size)
    assert taken <= limit
    book.rest()
    assert book.room() == limit - taken
    book.close()
    home.close()


PROCESS = """
import sys, threading
from decimal import Decimal
from pathlib import Path
from smoothapi.provider import Price
from smoothapi.store import Budget, Home
from smoothapi.errors import BudgetExceededError
home = Home(Path(sys.argv[1]))
book = home.ledger([Budget(attempts=int(sys.argv[2]), name="shared")], "aws", Price(Decimal(1)))
sent = []
def work():
    try:
        while True:
            number = book.reserve(1)
            print("sent", flush=True)
            book.settle(number, 1)
    except BudgetExceededError:
        pass
threads = [threading.Thread(target=work) for _ in range(8)]
for t in threads: t.start()
for t in threads: t.join()
"""


def start(path, limit):
    return subprocess.Popen(
        [sys.executable, "-c", PROCESS, str(path.parent), str(limit)],
        stdout=subprocess.PIPE,
        text=True,
    )


def test_processes_and_threads_together_send_exactly_the_budget(tmp_path):
    processes = [start(tmp_path / "ledger.db", 400) for _ in range(3)]
    sent = sum(process.communicate()[0].count("sent") for process in processes)
    assert sent == 400


def test_kill_9_never_lets_more_through_and_leaves_what_was_reserved_as_spent(tmp_path):
    path = tmp_path / "ledger.db"
    sent = 0
    for delay in (0.0, 0.01, 0.02, 0.03):
        process = start(path, 2000)
        assert process.stdout is not None
        sent += process.stdout.readline().count("sent")
        time.sleep(delay)
        process.send_signal(signal.SIGKILL)
        sent += process.communicate()[0].count("sent")
    home = Home(path.parent)
    [account] = home.accounts()
    assert (
        sent <= account.attempts <= sent + 4 * (8 + 2 * 32)
    )  # what was reserved and perhaps not sent
    last = start(path, 2000)
    sent += last.communicate()[0].count("sent")
    assert sent <= 2000
    reserved = home.accounts()[0].reserved
    assert home.release_abandoned() == reserved
    assert home.accounts()[0].reserved == 0
    assert home.accounts()[0].attempts == 2000 - reserved
    home.close()


def test_what_a_living_process_reserved_is_not_released(home):
    book = ledger(home, Budget(attempts=5, name="mine"))
    book.reserve(2)
    assert home.release_abandoned() == 0
    assert book.room() == 3


def test_a_damaged_ledger_is_not_forgotten_silently(tmp_path):
    path = tmp_path / "ledger.db"
    path.write_bytes(b"this is no database" * 100)
    with pytest.raises(StoreError, match="budgets could not be kept"):
        Home(path.parent).accounts()


def test_a_ledger_of_another_version_is_refused(tmp_path):
    home = Home(tmp_path)
    with home.database.transaction() as database:
        database.execute("PRAGMA user_version = 99")
    home.close()
    with pytest.raises(StoreError, match="schema 99"):
        Home(tmp_path).accounts()


def test_the_ledger_is_private(home):
    assert home.database.path.stat().st_mode & 0o077 == 0


def test_threads_of_one_process_cannot_pass_the_limit_together(home):
    book = ledger(home, Budget(attempts=300))
    taken = []

    def take():
        mine = 0
        try:
            while True:
                book.settle(book.reserve(1), 1)
                mine += 1
        except BudgetExceededError:
            taken.append(mine)

    threads = [threading.Thread(target=take) for _ in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sum(taken) == 300


def test_a_new_day_is_not_paid_from_yesterdays_reservation(home, clock):
    clock.now = time.mktime((2026, 11, 22, 12, 0, 0, 0, 0, 0))
    book = ledger(home, Budget(attempts=5000, per="day"))
    book.settle(book.reserve(1), 1)  # sets 16 aside
    clock.now += 86_400
    for _ in range(5000):
        book.settle(book.reserve(1), 1)
    with pytest.raises(BudgetExceededError):
        book.reserve(1)
    book.close()
    assert [account.attempts for account in home.accounts()] == [1, 5000]


def test_the_next_block_is_set_aside_before_the_last_is_used_up(home, monkeypatch):
    book = home.ledger([Budget(attempts=100_000, name="x")], "a", DOLLAR)
    book.reserve(1)
    [before] = home.accounts()
    for _ in range(before.attempts // 2):
        book.reserve(1)
    [ahead] = home.accounts()
    assert ahead.attempts == 2 * before.attempts
    with monkeypatch.context() as patch:
        patch.setattr(home.database, "transaction", None)  # no disk is waited for
        for _ in range(before.attempts // 2):
            book.reserve(1)


def test_what_was_given_back_is_not_given_back_again(home, monkeypatch):
    """Ctrl-C may come between the transaction and the note that it was made."""
    book = home.ledger([Budget(attempts=100_000, dollars=100, name="x")], "a", DOLLAR)
    for _ in range(3):
        book.settle(book.reserve(1), 1)
    book.reserve(2)  # under way
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(book, "_strike_off", lambda _: (_ for _ in ()).throw(KeyboardInterrupt))
        book.rest()
    for _ in range(3):
        book.rest()
    [account] = home.accounts()
    assert (account.attempts, account.dollars, account.reserved) == (5, Decimal("0.005"), 5)


@given(
    st.lists(
        st.sampled_from(["reserve", "many", "settle", "release", "rest", "other", "day"]),
        max_size=60,
    ),
    st.integers(1, 400) | st.integers(2_000, 5_000),
)
@settings(max_examples=60, deadline=None)
def test_the_account_is_what_was_sent_or_may_be(tmp_path_factory, steps, limit):
    """Of two ledgers that share a budget for a month, in any order of events."""
    clock = Clock()
    clock.now = 1_700_000_000.0
    home = Home(tmp_path_factory.mktemp("ledger"), clock=clock)
    budget = Budget(attempts=limit, per="month", name="x")
    books = [home.ledger([budget], "a", DOLLAR) for _ in range(2)]
    mine, under_way = 0, []
    for step in steps:
        book = books[step == "other"]
        if step in ("reserve", "many", "other"):
            many = 7 if step == "many" else 1
            try:
                under_way.append((book, book.reserve(many), many))
                mine += many
            except BudgetExceededError:
                assert mine + many > limit - 2 * 2 * limit // 64 - 2
        elif step == "day":
            clock.now += 86_400.0 * (time.gmtime(clock.now + 86_400.0).tm_mon == 11)
        elif step == "rest":
            book.rest()
        elif under_way:
            of, reservation, many = under_way.pop(0)
            if step == "settle":
                of.settle(reservation, many)
            else:
                of.release(reservation, many)
                mine -= many
        assert mine <= limit
        assert mine <= sum(account.attempts for account in home.accounts()) <= limit
    for book in books:
        book.rest()
    assert sum(account.attempts for account in home.accounts()) == mine
    assert sum(account.reserved for account in home.accounts()) <= mine
    home.close()
