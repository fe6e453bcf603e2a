"""Stores, each with one defect; `test_the_store_contract_catches` says which test notices it."""

from __future__ import annotations

from decimal import Decimal
from functools import cached_property

import pytest

from smoothapi.errors import BudgetExceededError
from smoothapi.store import Home
from smoothapi.store.blocks import Block
from smoothapi.store.local.records import LocalRecords
from smoothapi.store.local.runs import LocalRuns
from smoothapi.store.protocols import Spent
from smoothapi.testing import StoreContract
from tests.conftest import Clock


class Base(StoreContract):
    """Runs the contract against `Store`, given by a subclass as a class of this module."""

    Store: type = Home

    @pytest.fixture
    def clock(self):
        return Clock()

    @pytest.fixture
    def advance(self, clock):
        def advance(seconds):
            clock.now += seconds

        return advance

    @pytest.fixture
    def open_store(self, tmp_path, clock):
        return lambda: self.Store(tmp_path, clock=clock)

    @pytest.fixture
    def opening(self, tmp_path):
        name = self.Store.__name__
        return (
            "from pathlib import Path\n"
            f"from {self.Store.__module__} import {name}\n"
            f"store = {name}(Path({str(tmp_path)!r}))"
        )


class TestSound(Base):
    pass


class Forgetful(Home):
    """Puts answers only where the process finds them again."""

    @property
    def answers(self):
        return self.__dict__.setdefault("memory", _Memory(super().answers))


class _Memory:
    def __init__(self, answers):
        self._answers, self._kept = answers, {}

    def put(self, *answers):
        self._kept.update({one.key or _key(one): one for one in answers})

    def get(self, key):
        return self._kept[key].outcome if key in self._kept else None

    def get_all(self, keys):
        return {key: self.get(key) for key in keys if key in self._kept}

    def row(self, key):
        return self._kept[key].row()

    def seen(self, provider, identity):
        return self._answers.seen(provider, identity)

    def give_up(self, asked, why):
        pass


def _key(one):
    from smoothapi.store import answer_key

    return answer_key(one.asked)


class Remembering(Home):
    """Takes what was given up for an answer."""

    @property
    def answers(self):
        answers = super().answers

        def give_up(asked, why):
            from smoothapi.errors import PermanentError
            from smoothapi.store import StoredAnswer

            answers.put(StoredAnswer(asked, PermanentError(why)))

        answers.give_up = give_up
        return answers


class Blind(Home):
    """Sees what any model of a provider said that does the same."""

    @property
    def answers(self):
        answers = super().answers
        seen = type(answers).seen
        answers.seen = lambda provider, identity: seen(
            answers, provider, {"operation": identity["operation"], "model": "one"}
        )
        return answers


class _Unlocked:
    """A ledger that looks, then counts: two threads may both find room for one."""

    def __init__(self, home, budgets, price):
        self._home, self._budgets, self._price, self._spent = home, budgets, price, 0

    def room(self):
        limits = [b.attempts - self._spent for b in self._budgets if b.attempts is not None]
        if self._price.per_thousand:
            dollars = [b.dollars for b in self._budgets if b.dollars is not None]
            limits += [int(d * 1000 / self._price.per_thousand) - self._spent for d in dollars]
        return min(limits, default=None)

    def reserve(self, attempts):
        room = self.room()
        if room is not None and attempts > room:
            raise BudgetExceededError("not a day more")
        return Block(0, 0, (0, 0), attempts)

    def settle(self, block, attempts):
        self._spent += attempts
        return Spent(attempts, self._price.of(attempts))

    def release(self, block, attempts):
        pass

    def rest(self):
        pass

    def priced(self, price):
        return _Unlocked(self._home, self._budgets, price)

    def close(self):
        pass


class OfItsOwn(Home):
    """Keeps budgets in the memory of each process."""

    def ledger(self, budgets, provider, price):
        return _Unlocked(self, budgets, price)


class Lender(Home):
    """Leases what others hold."""

    def leases(self):
        leases = super().leases()
        leases.take = set
        leases.given_up = lambda keys: set()
        return leases


class Eternal(Home):
    """Leases for ever."""

    def leases(self):
        leases = super().leases()
        leases._seconds = 10 * 365 * 86_400.0
        return leases


class Brief(Home):
    """Leases for less than the time between two renewals."""

    def leases(self):
        leases = super().leases()
        leases._seconds = 20.0
        return leases


class Hasty(Home):
    """Paces each opening for itself."""

    def pace(self, provider, per_second):
        return super().pace(f"{provider} {id(self)}", per_second)


class Stopped(Home):
    """Has a clock that stands still."""

    def __init__(self, folder, *, clock=None):
        super().__init__(folder, clock=lambda: 1_800_000_000.0)


class Greedy(Home):
    """Releases what is in use."""

    def release_abandoned(self, *, everywhere=False):
        return super().release_abandoned(everywhere=True)


class Fresh(Home):
    """Draws another secret at each opening."""

    def keys(self):
        from smoothapi.keyring import KeyRing

        return self.__dict__.setdefault("drawn", KeyRing.generate())


class Overwriting(Home):
    """Adds answers in place of those that are there."""

    @property
    def answers(self):
        answers = super().answers

        def add(given):
            answers.put(*given)
            return len(given)

        answers.add = add
        return answers


class OfOneMind(Home):
    """Keeps the first note of a name."""

    def keep_note(self, name, text):
        if self.note(name) is None:
            super().keep_note(name, text)


class OfThisProcess(Home):
    """Keeps runs where no other opening looks."""

    @property
    def runs(self):
        return LocalRuns(self.folder / f"runs-{id(self)}", self._clock)


class OfThisGateway(Home):
    """Keeps tokens and certificates where no other opening looks."""

    @property
    def records(self):
        return self.__dict__.setdefault(
            "own", LocalRecords(self.folder / f"gateway-{id(self)}.db", self._clock)
        )

    def close(self):
        self.records.close()
        super().close()


class Trusting(Home):
    """Lets a caller in whose token was removed, and counts what is older than was asked."""

    @property
    def records(self):
        records = super().records
        records.remove_token = lambda name: any(one.name == name for one in records.tokens())
        outcomes = type(records).outcomes
        records.outcomes = lambda seconds: outcomes(records, seconds + 600.0)
        return records


class Hoarder(Home):
    """Forgets no run."""

    @cached_property
    def runs(self):
        runs = super().runs
        runs.clear = runs.older
        return runs


class Final(Home):
    """Forgets for good what was cleared while it was under way."""

    @cached_property
    def runs(self):
        runs = super().runs
        keep = runs.keep
        runs.keep = lambda run: keep(run) if runs.find(run.id) else run
        return runs


class Cheap(Home):
    """Counts another price as nothing."""

    def ledger(self, budgets, provider, price):
        ledger = super().ledger(budgets, provider, price)
        priced = ledger.priced
        ledger.priced = lambda price: priced(type(price)(Decimal(0)))
        return ledger


class Unforgiving(Home):
    """Resets nothing."""

    def reset(self, name):
        return int(name == "b")


_BUDGETS = {
    "test_all_budgets_hold_at_once",
    "test_what_was_not_sent_is_given_back",
    "test_a_name_is_one_budget_everywhere",
    "test_a_reset_budget_begins_anew",
    "test_another_price_draws_on_the_same_budgets",
    "test_the_free_tier_is_shared_by_all_runs",
    "test_processes_never_pass_a_budget",
    "test_a_crash_between_reserving_and_settling_counts_as_spent",
    "test_what_is_in_use_is_not_abandoned",
    "test_a_period_begins_anew",
    "test_threads_never_pass_a_budget",
}

_RECORDS = {
    "test_a_token_lets_in_everywhere_until_it_is_removed_anywhere",
    "test_what_gateways_found_is_seen_by_all_the_last_one_first",
    "test_what_gateways_found_is_forgotten_by_the_stores_time",
}

CAUGHT_BY = {
    Forgetful: {
        "test_answers_survive_and_are_told_apart",
        "test_answers_survive_kill_9",
        "test_answers_can_be_looked_through",
        "test_what_answers_held_is_seen",
    },
    Blind: {"test_what_answers_held_is_seen"},
    Overwriting: {"test_answers_can_be_looked_through"},
    OfOneMind: {"test_notes_are_kept"},
    Remembering: {"test_what_is_given_up_is_asked_again"},
    OfItsOwn: _BUDGETS,
    Lender: {"test_a_lease_has_one_holder", "test_a_lease_ends_unless_it_is_renewed", "test_what_was_given_up_is_known_to_all"},
    Eternal: {"test_a_lease_ends_unless_it_is_renewed"},
    Brief: {"test_a_lease_ends_unless_it_is_renewed"},
    Hasty: {"test_a_pace_is_shared", "test_throttling_slows_all_down"},
    Stopped: {"test_a_period_begins_anew", "test_a_lease_ends_unless_it_is_renewed", "test_a_pace_is_shared",
              "test_of_many_runs_the_latest_are_shown", "test_runs_are_forgotten_by_their_age",
              "test_what_gateways_found_is_forgotten_by_the_stores_time"},
    Greedy: {"test_what_is_in_use_is_not_abandoned"},
    Fresh: {"test_the_secret_is_one"},
    Hoarder: {"test_runs_are_forgotten_by_their_age",
              "test_a_run_that_is_cleared_while_it_is_under_way_is_kept_again"},
    Final: {"test_a_run_that_is_cleared_while_it_is_under_way_is_kept_again"},
    OfThisProcess: {"test_runs_are_seen_by_all_openings_the_last_one_first"},
    OfThisGateway: _RECORDS,
    Trusting: {"test_a_token_lets_in_everywhere_until_it_is_removed_anywhere",
               "test_what_gateways_found_is_forgotten_by_the_stores_time"},
    Cheap: {"test_another_price_draws_on_the_same_budgets"},
    Unforgiving: {"test_a_reset_budget_begins_anew"},
}  # fmt: skip

for _mutant in CAUGHT_BY:
    globals()[f"Test{_mutant.__name__}"] = type(
        f"Test{_mutant.__name__}", (Base,), {"Store": _mutant}
    )
