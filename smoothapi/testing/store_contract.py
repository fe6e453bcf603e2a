"""What every store promises, as pytest tests that another backend inherits.

::

    import pytest
    from smoothapi.testing import StoreContract
    from acme_store import AcmeStore

    class TestAcme(StoreContract):
        @pytest.fixture
        def opening(self, acme_server):  # run in other processes too
            return f"from acme_store import AcmeStore; store = AcmeStore({acme_server.url!r})"

        @pytest.fixture
        def open_store(self, acme_server):
            return lambda: AcmeStore(acme_server.url)

Needs pytest, which smoothapi itself does not install.
"""

from __future__ import annotations

import subprocess
import sys
import textwrap
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from decimal import Decimal
from typing import TypeAlias

import pytest

from smoothapi.answer import Answer, Label
from smoothapi.errors import BudgetExceededError, PermanentError
from smoothapi.provider import Price
from smoothapi.store import (
    Budget,
    Ledger,
    Record,
    RunRecord,
    Seen,
    Store,
    StoredAnswer,
    Token,
    answer_key,
)

Open: TypeAlias = Callable[[], Store]
Advance: TypeAlias = Callable[[float], None]

_TOKEN = Token("a" * 16, "anna", bytes(range(32)), "$5/month", 2.5, operator=True)
_FINDING = {"labels": [{"name": "B\0\ud800ü"}]}  # labels can be anything
_RECORD = Record(f"{0:032x}", "anna", "aws", "DetectLabels", "certified", "", _FINDING)
_OUTCOMES = ((0, "certified"), (1, "budget"), (2, "certified"))
DOLLAR = Price(Decimal("1.00"))
DAY = 86_400.0
_THREADS = 8

_RESERVE_ALL = """
import threading
from decimal import Decimal
from smoothapi.errors import BudgetExceededError
from smoothapi.provider import Price
from smoothapi.store import Budget
{opening}
ledger = store.ledger([Budget(attempts={limit}, name="shared")], "p", Price(Decimal(1)))
def work():
    try:
        while True:
            block = ledger.reserve(1)
            print("sent", flush=True)
            ledger.settle(block, 1)
    except BudgetExceededError:
        pass
threads = [threading.Thread(target=work) for _ in range({threads})]
for thread in threads: thread.start()
for thread in threads: thread.join()
"""

_DIE = """
import os, signal
from decimal import Decimal
from smoothapi.answer import Answer, Label
from smoothapi.provider import Price
from smoothapi.store import Budget, StoredAnswer
{opening}
{step}
os.kill(os.getpid(), getattr(signal, "SIGKILL", signal.SIGTERM))
"""


class StoreContract:
    """Tests that a store keeps its promises; subclass it as `Test...` in a module of yours.

    Fixtures to give:
        open_store: a callable that opens the store, each time anew: what one opening has written,
            the others must see. The test closes them.
        opening: Python statements that open the same store in another process, as `store`.
        advance: a callable (seconds) that sets the store's clock forward, for all openings. Tests
            of what time does are skipped without it.
    """

    @pytest.fixture
    def open_store(self) -> Open:
        """Give this one."""
        pytest.fail("Give a fixture `open_store` that returns a callable () -> store.")

    @pytest.fixture
    def opening(self) -> str:
        """Give this one."""
        pytest.skip("Give a fixture `opening`: statements that open the same store as `store`.")

    @pytest.fixture
    def advance(self) -> Advance:
        """Give this one if the store's clock can be set."""
        pytest.skip("Give a fixture `advance` that sets the clock of the store forward.")

    @pytest.fixture
    def store(self, open_store: Open) -> Iterator[Store]:
        """One opening."""
        store = open_store()
        yield store
        store.close()

    @pytest.fixture
    def other(self, open_store: Open) -> Iterator[Store]:
        """Another opening, as another machine would have it."""
        other = open_store()
        yield other
        other.close()

    # What gateways keep

    def test_a_token_lets_in_everywhere_until_it_is_removed_anywhere(
        self, store: Store, other: Store
    ) -> None:
        """And its caller has one."""
        for token in (_TOKEN, replace(_TOKEN, id="b" * 16, name="Zoe", budget="", per_second=None)):
            assert store.records.add_token(token)
        assert not other.records.add_token(replace(_TOKEN, id="c" * 16))
        assert other.records.token("c" * 16) is None
        found = other.records.token(_TOKEN.id)
        assert found is not None
        assert found.made > 0.0
        assert replace(found, made=0.0) == _TOKEN
        assert [token.name for token in other.records.tokens()] == ["Zoe", "anna"]
        assert other.records.remove_token("anna")
        assert not store.records.remove_token("anna")
        assert store.records.token(_TOKEN.id) is None
        assert [token.name for token in store.records.tokens()] == ["Zoe"]
        assert store.records.add_token(replace(_TOKEN, id="c" * 16))

    def test_what_gateways_found_is_seen_by_all_the_last_one_first(
        self, store: Store, other: Store
    ) -> None:
        """Whole, and counted."""
        found = [replace(_RECORD, id=f"{n:032x}", outcome=outcome) for n, outcome in _OUTCOMES]
        for record, records in zip(found, (store, other, store), strict=True):
            records.records.keep(record)
        kept = other.records.record(_RECORD.id)
        assert kept is not None
        assert kept.at > 0.0
        assert replace(kept, at=0.0) == found[0]
        assert other.records.record("f" * 32) is None
        assert [record.id for record in store.records.latest(2)] == [found[2].id, found[1].id]
        assert other.records.outcomes(3600.0) == {
            ("aws", "anna", "certified"): 2,
            ("aws", "anna", "budget"): 1,
        }

    def test_what_gateways_found_is_forgotten_by_the_stores_time(
        self, store: Store, other: Store, advance: Advance
    ) -> None:
        """And counted by it."""
        store.records.keep(_RECORD)
        advance(600.0)  # a busy machine needs a while itself, here and below
        store.records.keep(replace(_RECORD, id="1" * 32))
        assert other.records.outcomes(300.0) == {("aws", "anna", "certified"): 1}
        assert other.records.outcomes(900.0) == {("aws", "anna", "certified"): 2}
        assert other.records.forget(900.0) == 0
        assert other.records.forget(300.0) == 1
        assert [record.id for record in store.records.latest(9)] == ["1" * 32]

    # Runs

    def test_runs_are_seen_by_all_openings_the_last_one_first(self, open_store: Open) -> None:
        """And end in place of how they began, at a time of the store's own."""
        store, other = open_store(), open_store()
        first = store.runs.begin(RunRecord("certify", by="anna", settings={"sigma": 0.25}))
        second = other.runs.begin(RunRecord("study"))
        assert first.id != second.id
        assert first.began
        assert not first.ended
        assert {run.id for run in other.runs.latest(9)} == {first.id, second.id}
        ended = store.runs.keep(replace(first, outcome="done", counts={"certified": 2}))
        assert ended.ended >= first.began
        assert [ended] == other.runs.find(first.id)
        assert [ended] == other.runs.find(first.id[-6:])
        assert [second] == store.runs.find(second.id)
        for run in (ended, second):
            store.runs.keep(run)
        assert len(other.runs.latest(9)) == 2
        store.close()
        other.close()

    def test_of_many_runs_the_latest_are_shown(self, store: Store, advance: Advance) -> None:
        """In the order in which they began."""
        begun = []
        for _ in range(6):  # so many that they do not stand in order by chance
            begun.append(store.runs.begin(RunRecord("certify")))
            advance(2.0)
        assert store.runs.latest(5) == begun[:0:-1]

    def test_runs_are_forgotten_by_their_age(self, store: Store, advance: Advance) -> None:
        """That of the store's clock; the others stay."""
        store.runs.begin(RunRecord("certify"))
        advance(7200.0)
        last = store.runs.begin(RunRecord("study"))
        assert [store.runs.older(days) for days in (1.0, 1 / 24, 0.0)] == [0, 1, 2]
        for ever in (1e7, 1e12, float("inf")):
            assert store.runs.older(ever) == 0
        assert store.runs.clear(1.0) == 0
        assert store.runs.clear(1 / 24) == 1
        assert store.runs.latest(9) == [last]
        assert store.runs.clear(1 / 24) == 0

    def test_a_run_that_is_cleared_while_it_is_under_way_is_kept_again(
        self, store: Store, advance: Advance
    ) -> None:
        """With its next word, as it was begun: it is not past."""
        past, under_way = (
            store.runs.begin(RunRecord("study")),
            store.runs.begin(RunRecord("certify")),
        )
        advance(5.0)
        assert store.runs.clear(0.0) == 2
        told = store.runs.keep(replace(under_way, counts={"certified": 1}))
        assert store.runs.latest(9) == [told]
        assert (told.began, told.ended) == (under_way.began, "")
        ended = store.runs.keep(replace(told, outcome="done"))
        assert ended.ended
        assert store.runs.find(under_way.id) == [ended]
        assert store.runs.find(past.id) == []

    def test_what_is_no_id_finds_no_run(self, store: Store) -> None:
        """Whatever its characters mean to the store."""
        store.runs.begin(RunRecord("certify"))
        for text in ("", "%", "_", "*", "../..", "'; --", "zzzzzz"):
            assert store.runs.find(text) == []

    def test_a_run_that_was_killed_is_there_and_has_not_ended(
        self, open_store: Open, opening: str
    ) -> None:
        """So that it is known that it began."""
        _die(
            opening,
            "from smoothapi.store import RunRecord; store.runs.begin(RunRecord('certify'))",
        )
        store = open_store()
        (run,) = store.runs.latest(9)
        assert (run.outcome, run.ended) == ("under way", "")
        store.close()

    # Answers

    def test_answers_survive_and_are_told_apart(self, open_store: Open) -> None:
        """What `put` returned from is found by whoever opens the store later."""
        store = open_store()
        rows = [StoredAnswer({"n": n}, _answer(f"label {n}"), f"{n:064x}") for n in range(20)]
        store.answers.put(*rows)
        store.answers.put(StoredAnswer({"n": 20}, PermanentError("too dark")))
        store.answers.put(StoredAnswer({"n": 3}, _answer("newer")))
        store.close()
        store = open_store()
        found = [store.answers.get(answer_key({"n": n})) for n in range(20)]
        failed = store.answers.get(answer_key({"n": 20}))
        row = store.answers.row(answer_key({"n": 7}))
        never = store.answers.get(answer_key({"n": 21}))
        keys = [answer_key({"n": n}) for n in (5, 20, 21)]
        together = store.answers.get_all(keys)
        store.close()
        assert found == [_answer("newer" if n == 3 else f"label {n}") for n in range(20)]
        assert isinstance(failed, PermanentError)
        assert str(failed) == "too dark"
        assert (row["asked"], row["payload"]) == ({"n": 7}, f"{7:064x}")
        assert never is None
        assert list(together) == keys[:2] or list(together) == keys[1::-1]
        assert together[keys[0]] == found[5]
        assert str(together[keys[1]]) == "too dark"

    def test_answers_can_be_looked_through(self, store: Store, other: Store) -> None:
        """All of them, to be exported or copied; those that are there already stay."""
        rows = [StoredAnswer({"n": n, "noise": f"key {n % 2}"}, _answer(f"{n}")) for n in range(5)]
        store.answers.put(*rows[:2], StoredAnswer({"n": "plain"}, _answer("plain")))
        changed = StoredAnswer(rows[1].asked, _answer("changed"), refreshes=3)
        assert other.answers.add([changed, *rows[2:], rows[2]]) == 3
        found = {key: row for key, row in store.answers.scan() if isinstance(row, dict)}
        asked = [*(row.asked for row in rows), {"n": "plain"}]
        assert {key: row["asked"] for key, row in found.items()} == {
            answer_key(each): each for each in asked
        }
        assert found[answer_key(rows[1].asked)]["answer"]["labels"][0][0] == "1"
        assert len(store.answers) == 6
        assert store.answers.noise_keys() == {"key 0": 3, "key 1": 2}
        assert store.answers.bytes() > 0
        assert store.answers.where
        assert store.answers.clear() == 6
        assert len(other.answers) == 0

    def test_notes_are_kept(self, open_store: Open) -> None:
        """By name; the last one counts."""
        store = open_store()
        store.keep_note("mixes", "first")
        store.keep_note("mixes", "second\n")
        store.close()
        store = open_store()
        found = store.note("mixes"), store.note("other")
        store.close()
        assert found == ("second\n", None)

    def test_answers_survive_kill_9(self, open_store: Open, opening: str) -> None:
        """An answer that was put a moment before is paid for."""
        step = 'store.answers.put(StoredAnswer({"n": 0}, Answer((Label("bus", 0.5),))))'
        _die(opening, step)
        store = open_store()
        found = store.answers.get(answer_key({"n": 0}))
        store.close()
        assert found == Answer((Label("bus", 0.5),))

    def test_what_is_given_up_is_asked_again(self, store: Store) -> None:
        """That retries were used up is no answer."""
        store.answers.give_up({"n": 0}, "busy")
        assert store.answers.get(answer_key({"n": 0})) is None

    def test_what_answers_held_is_seen(self, open_store: Open) -> None:
        """By provider and its whole identity: labels with their parents, apart from categories."""
        store = open_store()
        bus = Label("School Bus", 0.9, ("Bus", "Vehicle"), ("Transport",))
        store.answers.put(
            _of("p", "labels", 0, bus, Label("Weißkopf \N{EAGLE}", 0.2)),
            _of("p", "labels", 1, Label("Weapons", 0.9), model="another"),
            _of("q", "labels", 2, Label("Kite", 0.9)),
            StoredAnswer({"n": 3}, _answer("nobody's")),
            StoredAnswer({"provider": "p", "n": 4}, PermanentError("too dark")),
        )
        store.answers.put(_of("p", "labels", 0, Label("Van", 0.9)))  # in the place of the first
        store.close()
        store = open_store()
        one = {"model": "one", "operation": "labels"}  # in another order than it was kept
        seen = store.answers.seen("p", one)
        other = store.answers.seen("p", {**one, "model": "another"})
        never = store.answers.seen("r", one), store.answers.seen("p", {"operation": "labels"})
        store.close()
        named = frozenset({"School Bus", "Bus", "Vehicle", "Weißkopf \N{EAGLE}", "Van"})
        assert seen == Seen(named, frozenset({"Transport"}))
        assert other == Seen(frozenset({"Weapons"}))
        assert never == (Seen(), Seen())

    # Budgets

    def test_all_budgets_hold_at_once(self, store: Store) -> None:
        """The tightest decides; dollars are counted exactly."""
        budgets = [Budget(attempts=400), Budget(dollars=0.3, per="day"), Budget(dollars=1)]
        ledger = store.ledger(budgets, "p", DOLLAR)
        assert ledger.room() == 300
        block = ledger.reserve(300)
        with pytest.raises(BudgetExceededError, match="a day"):
            ledger.reserve(1)
        spent = ledger.settle(block, 300)
        assert (spent.attempts, spent.dollars) == (300, Decimal("0.3"))
        assert ledger.room() == 0

    def test_what_was_not_sent_is_given_back(self, store: Store) -> None:
        """At once what is released, and at rest what was set aside ahead."""
        ledger = store.ledger([Budget(attempts=5000, name="b")], "p", DOLLAR)
        first, second = ledger.reserve(3), ledger.reserve(2)
        ledger.settle(first, 3)
        ledger.release(second, 2)
        ledger.rest()
        assert ledger.room() == 4997
        [account] = store.accounts()
        assert (account.attempts, account.reserved, account.attempt_limit) == (3, 0, 5000)
        assert (account.dollars, account.attempts_left) == (Decimal("0.003"), 4997)

    def test_a_name_is_one_budget_everywhere(self, store: Store, other: Store) -> None:
        """And no name is a budget of its own, which leaves nothing behind."""
        named = [
            each.ledger([Budget(attempts=9, name="b")], "p", DOLLAR) for each in (store, other)
        ]
        _send(named[0], 4)
        named[0].rest()
        assert named[1].room() == 5
        own = [each.ledger([Budget(attempts=9)], "p", DOLLAR) for each in (store, other)]
        _send(own[0], 9)
        assert own[1].room() == 9
        for ledger in own:
            ledger.close()
        assert [account.name for account in other.accounts()] == ["b"]

    def test_a_reset_budget_begins_anew(self, store: Store) -> None:
        """What was reserved before belongs to the old account, and credits nothing to the new."""
        ledger = store.ledger([Budget(attempts=5000, name="b")], "p", DOLLAR)
        _send(ledger, 1)
        assert store.reset("b") == 1
        assert store.reset("never used") == 0
        new = store.ledger([Budget(attempts=5, name="b")], "p", DOLLAR)
        _send(new, 5)
        ledger.rest()
        assert new.room() == 0

    def test_another_price_draws_on_the_same_budgets(self, store: Store) -> None:
        """As where a wrapped client asks for more than the plain operation."""
        ledger = store.ledger([Budget(dollars=1)], "p", DOLLAR)
        dear = ledger.priced(Price(Decimal(100)))
        assert dear.settle(dear.reserve(4), 4).dollars == Decimal("0.4")
        dear.rest()
        assert ledger.room() == 600

    def test_the_free_tier_is_shared_by_all_runs(self, store: Store, other: Store) -> None:
        """The provider counts what it is sent in a month, whoever sends it."""
        price = Price(Decimal(1), free_per_month=100)
        first = store.ledger([], "p", price)
        _send(first, 90)
        first.rest()
        assert other.ledger([Budget(dollars="0.005")], "p", price).room() == 15
        assert other.ledger([Budget(dollars="0.005")], "another", price).room() == 105

    def test_threads_never_pass_a_budget(self, store: Store, other: Store) -> None:
        """Of two openings, with several threads each."""
        ledgers = [s.ledger([Budget(attempts=300, name="b")], "p", DOLLAR) for s in (store, other)]
        sent: list[int] = []

        def work(ledger: Ledger) -> None:
            try:
                while True:
                    ledger.settle(ledger.reserve(1), 1)
                    sent.append(1)
            except BudgetExceededError:
                pass

        workers = [
            threading.Thread(target=work, args=[ledger]) for ledger in ledgers * (_THREADS // 2)
        ]
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()
        assert len(sent) == 300

    def test_processes_never_pass_a_budget(self, opening: str) -> None:
        """Each with several threads: together they send exactly what is allowed."""
        script = _RESERVE_ALL.format(opening=opening, limit=200, threads=_THREADS)
        running = [
            subprocess.Popen(  # noqa: S603
                [sys.executable, "-c", script], stdout=subprocess.PIPE, text=True
            )
            for _ in range(2)
        ]
        sent = sum(process.communicate()[0].count("sent") for process in running)
        assert all(process.returncode == 0 for process in running)
        assert sent == 200

    def test_a_crash_between_reserving_and_settling_counts_as_spent(
        self, open_store: Open, opening: str
    ) -> None:
        """The attempts may have been billed; a person who knows better can release them."""
        budget = 'Budget(attempts=100, dollars=1, name="b")'
        _die(opening, f'store.ledger([{budget}], "p", Price(Decimal(1))).reserve(3)')
        store = open_store()
        [account] = store.accounts()
        assert account.reserved == account.attempts >= 3
        ledger = store.ledger([Budget(attempts=100, name="b")], "p", DOLLAR)
        assert ledger.room() == 100 - account.attempts
        assert store.release_abandoned(everywhere=True) == account.attempts
        assert ledger.room() == 100
        store.close()

    def test_what_is_in_use_is_not_abandoned(self, store: Store, other: Store) -> None:
        """A process that lives may be sending what it reserved."""
        ledger = store.ledger([Budget(attempts=100, name="b")], "p", DOLLAR)
        ledger.reserve(3)
        assert other.release_abandoned() == 0
        assert other.ledger([Budget(attempts=100, name="b")], "p", DOLLAR).room() == 97

    @pytest.mark.parametrize(("per", "later"), [("day", DAY), ("month", 31 * DAY)])
    def test_a_period_begins_anew(
        self, store: Store, advance: Advance, per: str, later: float
    ) -> None:
        """By the store's clock; what is set aside in one is not sent in the next."""
        budget = Budget(attempts=130, per=per, name="b")  # type: ignore[arg-type]
        ledger = store.ledger([budget], "p", DOLLAR)
        _send(ledger, 1)  # sets more aside
        advance(later)
        _send(ledger, 130)
        with pytest.raises(BudgetExceededError):
            ledger.reserve(1)
        ledger.rest()
        assert sorted(account.attempts for account in store.accounts()) == [1, 130]

    # Leases

    def test_a_lease_has_one_holder(self, store: Store, other: Store) -> None:
        """Also of two runs of one opening."""
        mine, theirs, third = store.leases(), other.leases(), store.leases()
        assert mine.take(["a", "b"]) == {"a", "b"}
        assert mine.take(["a"]) == {"a"}
        assert theirs.take(["b", "c"]) == {"c"}
        assert third.take(["a", "c", "d"]) == {"d"}
        theirs.drop(["a"])  # not theirs
        assert third.take(["a"]) == set()
        mine.drop(["a"])
        assert third.take(["a"]) == {"a"}
        mine.end()
        assert third.take(["b"]) == {"b"}
        assert theirs.take(["d"]) == set()

    def test_a_lease_ends_unless_it_is_renewed(
        self, store: Store, other: Store, advance: Advance
    ) -> None:
        """A term is a minute at least, as leases are renewed each half minute."""
        mine, theirs = store.leases(), other.leases()
        mine.take(["kept", "left"])
        for _ in range(20):
            advance(30.0)
            assert not theirs.take(["kept"])
            mine.renew(["kept"])
        assert theirs.take(["kept", "left"]) == {"left"}

    def test_a_dead_holder_blocks_nobody_for_long(
        self, open_store: Open, opening: str, advance: Advance
    ) -> None:
        """Where the store cannot see that it is dead, its leases end by themselves."""
        _die(opening, 'assert store.leases().take(["a"])')
        advance(600.0)
        store = open_store()
        taken = store.leases().take(["a"])
        store.close()
        assert taken == {"a"}

    def test_what_was_given_up_is_known_to_all(self, store: Store, other: Store) -> None:
        """So that a run which asks for nothing else does not take it for an outage."""
        store.leases().give_up("a")
        assert other.leases().given_up(["a", "b"]) == {"a"}
        assert other.leases().given_up([]) == set()

    # Pace

    def test_a_pace_is_shared(self, store: Store, other: Store, advance: Advance) -> None:
        """Of one provider, by all who ask it; another has its own."""
        mine, theirs = store.pace("p", 0.5), other.pace("p", 0.5)
        waits = [pace.take(1) for pace in [mine, theirs] * 20]
        assert 45.0 <= waits[-1] <= 90.0  # 78 less the time that this took; 38 of two paces
        assert other.pace("q", 0.5).take(1) == 0.0
        advance(200.0)
        assert theirs.take(1) == 0.0

    def test_throttling_slows_all_down(self, store: Store, other: Store) -> None:
        """A provider's Retry-After is waited for by everybody."""
        pace = store.pace("p", 100.0)
        pace.take(1)
        pace.throttled(90.0)
        assert 45.0 <= other.pace("p", 100.0).take(1) <= 91.0
        assert store.pace("unlimited", None).take(1) == 0.0

    # The secret

    def test_the_secret_is_one(self, store: Store, other: Store) -> None:
        """Whoever shares answers shares the noise, so that the answers fit."""
        keys = store.keys()
        assert keys == other.keys() == store.keys()
        assert len(keys.current) == 32
        assert len(set(keys.current)) > 8
        assert other.known_keys() == (keys.id,)


def _of(provider: str, operation: str, n: int, *labels: Label, model: str = "one") -> StoredAnswer:
    identity = {"operation": operation, "model": model}
    asked = {"provider": provider, "identity": identity, "n": n}
    return StoredAnswer(asked, Answer(labels))


def _answer(name: str) -> Answer:
    return Answer((Label(name, 0.75, ("parent",)),), "v1", "request")


def _send(ledger: Ledger, attempts: int) -> None:
    for _ in range(attempts):
        ledger.settle(ledger.reserve(1), 1)


def _die(opening: str, step: str) -> None:
    """Take a step in another process, which ends by kill -9 right after it."""
    script = _DIE.format(opening=textwrap.dedent(opening), step=step)
    done = subprocess.run(  # noqa: S603
        [sys.executable, "-c", script], check=False, capture_output=True, text=True
    )
    assert done.returncode < 0, done.stderr
