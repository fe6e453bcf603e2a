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
from smoothapi.store.block_ledger import BlockLedger
from smoothapi.store.local.database import Database
from smoothapi.store.local.pace import LocalPace
from tests.conftest import ScriptedAdapter
from tests.unit.dispatch.harness import Job, pictures, until

LIMIT = 12
EVE = calendar.timegm((2026, 1, 31, 23, 59, 59))  # of a day and of a month
FORMATS = {"day": "%Y-%m-%d", "month": "%Y-%m"}


class Midnight:
    """A clock that stands still before midnight, until something makes it strike.

    It does not strike between the last look at it and the sending, which is no time at all; but
    for one that waits there, as none should, it does not wait for ever.
    """

    def __init__(self):
        self.now = float(EVE)
        self._changed = threading.Condition()
        self._sending = set()  # threads that have reserved, and are to send
        self._struck = threading.Event()

    def __call__(self):
        return self.now

    def strike(self):
        with self._changed:
            self._changed.wait_for(lambda: not self._sending, 5.0)
            self.now = EVE + 2.0
        self._struck.set()

    def strike_while_others_wait(self, *, first):
        """For a request before midnight: the first one makes it strike, the others outlast that."""
        if first:
            time.sleep(0.1)  # others come to wait
            self.strike()
        else:
            self._struck.wait(30.0)

    def period(self, per):
        return time.strftime(FORMATS[per], time.gmtime(self.now))

    def reserves(self, block):
        """Note that this thread sends next; False if the day of its block is over."""
        with self._changed:
            if block.day != self.now // 86_400:
                return False
            self._sending.add(threading.get_ident())
            return True

    def sends(self, per):
        """Note that it sends; return in which period."""
        with self._changed:
            self._sending.discard(threading.get_ident())
            self._changed.notify_all()
            return self.period(per)


@pytest.fixture
def clock(monkeypatch):
    clock, real = Midnight(), BlockLedger.reserve

    def reserve(ledger, attempts):
        while not clock.reserves(block := real(ledger, attempts)):
            ledger.release(block, attempts)
        return block

    monkeypatch.setattr(BlockLedger, "reserve", reserve)
    return clock


class Counting(ScriptedAdapter):
    """Counts pictures by the period in which their request begins; `meet` makes things happen."""

    def __init__(self, clock, per, meet, *, batch=1):
        super().__init__(batch=batch)
        self.by_period: Counter[str] = Counter()
        self._clock, self._per, self._meet = clock, per, meet
        self._counting = threading.Lock()

    def ask(self, payloads):
        with self._counting:
            self.by_period[self._clock.sends(self._per)] += len(payloads)
            count = sum(self.by_period.values())
        error = self._meet(count)
        if error is not None:
            raise error
        return super().ask(payloads)


def ask_until_refused(home, adapter, budget, *, prepare=pictures, concurrency=3):
    dispatcher = Dispatcher.open(
        adapter, home.answers, home, [budget], concurrency=concurrency,
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
    tmp_path, monkeypatch, clock, where, batch, per, dollars
):
    """Wherever it waits when midnight strikes, between having been wanted and being sent."""
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
            until(lambda: adapter.by_period)  # some were sent before
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


def test_what_another_process_sends_meanwhile_counts(tmp_path, clock):
    """Two stores of one home, as two processes have them, and a midnight while both wait."""

    def meet(count):
        clock.strike_while_others_wait(first=count == 1)

    adapter = Counting(clock, "day", meet)

    def work(answers):
        with Home(tmp_path / "shared", clock=clock) as home, Home(answers, clock=clock) as other:
            home.answers = other.answers  # each buys its own
            # One at a time, else some of what was reserved is given back when another is refused.
            ask_until_refused(home, adapter, Budget(attempts=LIMIT, per="day"), concurrency=1)

    threads = [threading.Thread(target=work, args=[tmp_path / name]) for name in "ab"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60.0)
        assert not thread.is_alive()
    assert len(adapter.by_period) == 2
    assert max(adapter.by_period.values()) == adapter.by_period["2026-02-01"] == LIMIT


def test_a_month_pays_for_what_is_sent_in_it_with_its_own_free_pictures(tmp_path, clock):
    """What waits for a slot at the end of a month is the next month's, at that month's price."""
    free = 5

    def meet(count):
        clock.strike_while_others_wait(first=count == 1)

    adapter = Counting(clock, "month", meet)
    adapter.price = Price(Decimal(1000), free_per_month=free)
    with Home(tmp_path, clock=clock) as home:
        ask_until_refused(home, adapter, Budget(dollars=2, per="month"), concurrency=1)
        spent = {account.period: account.dollars for account in home.accounts()}
    assert adapter.by_period["2026-02"] == free + 2
    assert spent == {"2026-01": 0, "2026-02": 2}
