"""What is reserved holds for the day, and the month, in which it is sent."""

from __future__ import annotations

import calendar
import threading
import time
from collections import Counter
from decimal import Decimal

import pytest

from smoothapi.dispatch import Dispatcher, Retry
from smoothapi.errors import BudgetExceededError, ThrottledError, TransientError
from smoothapi.provider import Price
from smoothapi.store import Budget, Home
from smoothapi.store.local.database import Database
from smoothapi.store.local.pace import LocalPace
from tests.conftest import ScriptedAdapter
from tests.unit.dispatch.harness import Job, pictures

LIMIT = 12
EVE = calendar.timegm((2026, 1, 31, 23, 59, 59))  # of a day and of a month
FORMATS = {"day": "%Y-%m-%d", "month": "%Y-%m"}


class Midnight:
    """A clock that stands still before midnight, until something makes it strike."""

    def __init__(self):
        self.now = float(EVE)

    def __call__(self):
        return self.now

    def strike(self):
        self.now = EVE + 2.0

    def strike_while_others_wait(self, *, first):
        """For a request before midnight: the first one makes it strike, the others outlast that."""
        if self.now < EVE + 1.0:
            time.sleep(0.1 if first else 0.2)
            if first:
                self.strike()

    def period(self, per):
        return time.strftime(FORMATS[per], time.gmtime(self.now))


class Counting(ScriptedAdapter):
    """Counts pictures by the period in which their request begins; `meet` makes things happen."""

    def __init__(self, clock, per, meet, *, batch=1):
        super().__init__(batch=batch)
        self.by_period: Counter[str] = Counter()
        self._clock, self._per, self._meet = clock, per, meet
        self._counting = threading.Lock()

    def ask(self, payloads):
        with self._counting:
            self.by_period[self._clock.period(self._per)] += len(payloads)
            count = sum(self.by_period.values())
        error = self._meet(count)
        if error is not None:
            raise error
        return super().ask(payloads)


def ask_until_refused(home, adapter, budget, *, prepare=pictures):
    dispatcher = Dispatcher.open(
        adapter, home.answers, home, [budget], concurrency=3,
        retry=Retry(attempts=50, base=0.001, cap=0.002),
    )  # fmt: skip
    try:
        job = Job(needed=lambda: 100, prepare=prepare, batch=4)
        with dispatcher.run(job) as deliveries, pytest.raises(BudgetExceededError):
            for _ in deliveries:
                pass
    finally:
        dispatcher.close()


@pytest.mark.parametrize(("per", "dollars"), [("day", False), ("month", True)])
@pytest.mark.parametrize("batch", [1, 3])
@pytest.mark.parametrize("where", ["slot", "pace", "retry", "outage", "denoising", "ledger"])
@pytest.mark.timeout(60)
def test_no_period_has_more_than_its_budget(  # noqa: C901  a branch for each place
    tmp_path, monkeypatch, where, batch, per, dollars
):
    """Wherever it waits when midnight strikes, between having been wanted and being sent."""
    clock = Midnight()
    half = LIMIT // 2

    def meet(count):
        if where == "slot":
            clock.strike_while_others_wait(first=count <= batch)
        elif where == "pace" and half <= count < half + batch:
            return ThrottledError("slow down", retry_after=0.05)
        elif where in ("retry", "outage") and half <= count < half + batch * (
            1 if where == "retry" else 5
        ):
            clock.strike()
            return TransientError("503")
        return None

    def take(pace, pictures, real=LocalPace.take):
        wait = real(pace, pictures)
        if wait:
            clock.strike()
        return min(wait, 0.05)

    commits = iter(range(10**6))

    def transaction(database, *, durable=False, real=Database.transaction):
        if durable and next(commits) == half:
            clock.strike()  # while another process holds the database
        return real(database, durable=durable)

    def prepare(indices):
        if where == "denoising" and indices[0] >= half:
            clock.strike()
        return pictures(indices)

    if where == "pace":
        monkeypatch.setattr(LocalPace, "take", take)
    if where == "ledger":
        monkeypatch.setattr(Database, "transaction", transaction)
    adapter = Counting(clock, per, meet, batch=batch)
    thousand = Decimal(LIMIT) / 1000
    budget = Budget(dollars=thousand, per=per) if dollars else Budget(attempts=LIMIT, per=per)
    with Home(tmp_path, clock=clock) as home:
        ask_until_refused(home, adapter, budget, prepare=prepare)
    assert len(adapter.by_period) == 2, "midnight was met"
    assert max(adapter.by_period.values()) <= LIMIT


def test_what_another_process_sends_meanwhile_counts(tmp_path):
    """Two stores of one home, as two processes have them, and a midnight while both wait."""
    clock = Midnight()

    def meet(count):
        clock.strike_while_others_wait(first=count == 1)

    adapter = Counting(clock, "day", meet)

    def work(answers):
        with Home(tmp_path / "shared", clock=clock) as home, Home(answers, clock=clock) as other:
            home.answers = other.answers  # each buys its own
            ask_until_refused(home, adapter, Budget(attempts=LIMIT, per="day"))

    threads = [threading.Thread(target=work, args=[tmp_path / name]) for name in "ab"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60.0)
        assert not thread.is_alive()
    assert len(adapter.by_period) == 2
    assert max(adapter.by_period.values()) == adapter.by_period["2026-02-01"] == LIMIT


def test_a_month_pays_for_what_is_sent_in_it_with_its_own_free_pictures(tmp_path):
    """What waits for a slot at the end of a month is the next month's, at that month's price."""
    clock, free = Midnight(), 5

    def meet(count):
        clock.strike_while_others_wait(first=count == 1)

    adapter = Counting(clock, "month", meet)
    adapter.price = Price(Decimal(1000), free_per_month=free)
    with Home(tmp_path, clock=clock) as home:
        ask_until_refused(home, adapter, Budget(dollars=2, per="month"))
        spent = {account.period: account.dollars for account in home.accounts()}
    assert adapter.by_period["2026-02"] == free + 2
    assert spent == {"2026-01": 0, "2026-02": 2}
