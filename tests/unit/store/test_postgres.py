"""What many machines may rely on: whatever dies, money is counted and what was paid for is kept."""

from __future__ import annotations

import json
import logging
import math
import os
import signal
import subprocess
import sys
import threading
import time
import traceback
import warnings
from contextlib import closing, contextmanager
from dataclasses import replace
from decimal import Decimal
from itertools import count
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from smoothapi import Smoother
from smoothapi.address import DatabaseAddress
from smoothapi.answer import Answer, Label
from smoothapi.certificates import verify
from smoothapi.config import resolve
from smoothapi.errors import BudgetExceededError, CertificateError, StoreError, UsageError
from smoothapi.keyring import KeyRing
from smoothapi.provider import Price
from smoothapi.store import Budget, Home, RunRecord, StoredAnswer, Token, answer_key, open_home
from smoothapi.store.postgres.outage import Outage
from smoothapi.store.postgres.schema import LATEST
from smoothapi.store.postgres.server import ServerClock
from smoothapi.variants import asked_of
from tests.conftest import ScriptedAdapter, Ticks, answer, invoke
from tests.postgres import Postgres, Proxy

psycopg = pytest.importorskip("psycopg")

from smoothapi.store.postgres import PostgresHome  # noqa: E402  an extra

pytestmark = pytest.mark.timeout(120)

DOLLAR = Price(Decimal(1))
ROOT = Path(__file__).parents[3]
PHOTO = np.random.default_rng(0).integers(0, 256, (12, 12, 3), dtype=np.uint8)


@pytest.fixture
def open_here(database):
    """Opens the database, each time anew; all are closed at the end."""
    opened = []

    def open_one(url=database, **options):
        opened.append(PostgresHome(DatabaseAddress(url), **options))
        return opened[-1]

    yield open_one
    for one in opened:
        one.close()


@pytest.fixture(scope="module")
def calm(tmp_path_factory):
    """The certificate of a run that nothing disturbs, with the same noise."""
    home = tmp_path_factory.mktemp("calm")
    (home / "noise.key").write_bytes(bytes(range(32)))
    (home / "noise.key").chmod(0o600)
    with Smoother(ScriptedAdapter(), denoiser="none", size=12, radius=0.3, home=home) as s:
        return s.certify(PHOTO)


@pytest.fixture
def store(open_here):
    return open_here()


@contextmanager
def outcomes_lost(monkeypatch, which):
    """Have the connection break behind every statement of which `which(text)` is true, once."""
    execute = psycopg.Connection.execute
    lost = []

    def breaking(self, statement, *rest, **options):
        done = execute(self, statement, *rest, **options)
        if which(str(statement)) and len(lost) % 2 == 0:
            lost.append(statement)
            self.close()
            raise psycopg.OperationalError("the connection is closed")
        if which(str(statement)):
            lost.append(None)
        return done

    with monkeypatch.context() as patch:
        patch.setattr(psycopg.Connection, "execute", breaking)
        yield lost
    assert lost, "nothing was lost"


def through(proxy, url):
    """Return the address of a database by way of a proxy."""
    name = url.partition("?")[0].rpartition("/")[2]
    return f"postgresql://tester@127.0.0.1:{proxy.port}/{name}"


def smoother(url, key, adapter, **options):
    options = {"denoiser": "none", "size": 12, "radius": 0.1, "home": url, **options}
    return Smoother(adapter, noise_key_file=key, **options)


# Budgets


def test_a_reservation_of_unknown_outcome_is_made_once(store, monkeypatch):
    ledger = store.ledger([Budget(attempts=10_000, name="b")], "p", DOLLAR)
    with outcomes_lost(monkeypatch, lambda text: "smoothapi.book" in text):
        block = ledger.reserve(1)
    [account] = store.accounts()
    assert account.attempts == account.reserved == block.size
    with outcomes_lost(monkeypatch, lambda text: "smoothapi.book" in text):
        ledger.settle(block, 1)
        ledger.rest()
    [account] = store.accounts()
    assert (account.attempts, account.reserved) == (1, 0)


def test_what_may_have_been_reserved_counts_as_spent(open_here, monkeypatch):
    store = open_here(patience=0.0)
    ledger = store.ledger([Budget(attempts=100, name="b")], "p", DOLLAR)
    ledger.room()
    with outcomes_lost(monkeypatch, lambda text: "smoothapi.book" in text):
        with pytest.raises(StoreError, match="counts as spent"):
            ledger.reserve(3)
    other = open_here()
    assert other.ledger([Budget(attempts=100, name="b")], "p", DOLLAR).room() == 97


@given(
    st.lists(
        st.sampled_from(["reserve", "many", "other", "settle", "release", "rest", "lose"]),
        max_size=40,
    ),
    st.integers(1, 400) | st.integers(2_000, 5_000),
    st.sampled_from([DOLLAR, Price(Decimal(3), free_per_month=50, steps=((90, Decimal(1)),))]),
)
@settings(
    max_examples=8,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
def test_the_account_is_what_was_sent_or_may_be(postgres, steps, limit, price):
    """Of two machines that share a budget, in any order of events and of lost connections."""
    url = postgres.empty()
    budgets = [Budget(attempts=limit, name="x"), Budget(dollars=5, per="month", name="x")]
    homes = [PostgresHome(DatabaseAddress(url)) for _ in range(2)]
    books = [home.ledger(budgets, "a", price) for home in homes]
    mine, under_way = 0, []
    with pytest.MonkeyPatch.context() as patch:
        for step in steps:
            book = books[step == "other"]
            if step in ("reserve", "many", "other"):
                many = 7 if step == "many" else 1
                try:
                    under_way.append((book, book.reserve(many), many))
                    mine += many
                except BudgetExceededError:
                    assert mine + many > limit - 2 * 2 * limit // 64 - 2
            elif step == "rest":
                book.rest()
            elif step == "lose":
                patch.undo()
                lose_next(patch)
            elif under_way:
                of, reservation, many = under_way.pop(0)
                if step == "settle":
                    of.settle(reservation, many)
                else:
                    of.release(reservation, many)
                    mine -= many
            accounts = homes[0].accounts()
            assert mine <= sum(a.attempts for a in accounts if a.period == "run") <= limit
            assert sum(a.dollars for a in accounts if a.period != "run") <= 5
    for book in books:
        book.rest()
    run = [account for account in homes[0].accounts() if account.period == "run"]
    assert sum(account.attempts for account in run) == mine
    for home in homes:
        home.close()


def lose_next(patch):
    execute, lost = psycopg.Connection.execute, []

    def breaking(self, statement, *rest, **options):
        done = execute(self, statement, *rest, **options)
        if "smoothapi.book" in str(statement) and not lost:
            lost.append(statement)
            self.close()
            raise psycopg.OperationalError("the connection is closed")
        return done

    patch.setattr(psycopg.Connection, "execute", breaking)


def test_an_owner_that_was_cut_off_sends_nothing_of_what_others_may_have_given_back(
    postgres, database, open_here
):
    ticks = Ticks()
    store, other = open_here(tick=ticks), open_here()
    ledger = store.ledger([Budget(attempts=5000, name="b")], "p", DOLLAR)
    block = ledger.reserve(1)
    ledger.settle(block, 1)
    assert other.release_abandoned() == 0
    ticks.passed += 600.0  # no sign of life meanwhile
    postgres.set_clock(database, ticks.passed)
    released = other.release_abandoned()
    assert released == block.size > 1
    again = ledger.reserve(1)
    assert again.number != block.number
    assert other.accounts()[0].attempts == again.size


def test_an_owner_goes_on_giving_signs_of_life(store, monkeypatch):
    monkeypatch.setattr("smoothapi.store.postgres.owners._RENEW", 0.01)
    before = time.monotonic()
    store.ledger([Budget(attempts=5000, name="b")], "p", DOLLAR).reserve(1)
    first = store._owner._until
    while store._owner._until == first and time.monotonic() < before + 60:
        time.sleep(0.01)
    assert store._owner._until > first


_WORK = """
import os, signal, sys, time, threading
from decimal import Decimal
from smoothapi.address import DatabaseAddress
from smoothapi.errors import BudgetExceededError
from smoothapi.provider import Price
from smoothapi.store import Budget, open_home
import smoothapi.store.postgres
real = time.time
begun, begin = os.pipe()
for offset in (300.0, 0.0, -3600.0, 0.0):  # four machines, whose clocks differ
    if os.fork():
        continue
    killed = offset == 300.0  # on its way, or at its end if the others were faster
    time.time = lambda: real() + offset
    store = open_home(DatabaseAddress(sys.argv[1]))
    ledger = store.ledger([Budget(attempts=400, per="day", name="b")], "p", Price(Decimal(1)))
    def work():
        try:
            for number in range(400):
                block = ledger.reserve(1)
                os.write(1, b"%d\\n" % os.getpid())
                if killed and number == 10:
                    os.kill(os.getpid(), signal.SIGKILL)
                ledger.settle(block, 1)
                if killed and number == 0:
                    os.write(begin, b"...")  # it has something set aside
        except BudgetExceededError:
            pass
    threads = [threading.Thread(target=work) for _ in range(3)]
    if not killed:
        os.read(begun, 1)
    for thread in threads: thread.start()
    for thread in threads: thread.join()
    if killed:
        os.kill(os.getpid(), signal.SIGKILL)
    ledger.close()
    store.close()
    os._exit(0)
ended = [os.waitstatus_to_exitcode(os.wait()[1]) for _ in range(4)]
os.write(1, b"ended %s\\n" % str(sorted(ended)).encode())
"""


def test_machines_whose_clocks_differ_share_one_day(database, store):
    """Four, one five minutes fast and one an hour slow; one of them is killed on its way."""
    machines = subprocess.run(
        [sys.executable, "-c", _WORK, database], stdout=subprocess.PIPE, text=True, check=True
    )
    *sent, ended = machines.stdout.splitlines()
    assert ended == "ended [-9, 0, 0, 0]"
    [account] = store.accounts()
    # What the killed one had reserved counts as spent; no other gave anything away.
    assert len(sent) <= account.attempts <= 400
    assert len(sent) >= 400 - account.reserved
    assert account.reserved <= 64


# Time


class Fake:
    """A server's clock, and one of this machine that counts as it."""

    def __init__(self, now):
        self.now, self.asked, self.way = now, 0, 0.0

    def ask(self):
        self.asked += 1
        self.now += self.way / 2
        told = self.now
        self.now += self.way / 2
        return told


def test_the_day_is_the_servers_and_seldom_asked_for(monkeypatch):
    fake = Fake(1_700_000_000.0)
    clock = ServerClock(fake.ask, lambda: fake.now - 5_000.0)
    # This machine's own time is not looked at.
    monkeypatch.setattr("smoothapi.store.postgres.server.time", None)
    for _ in range(100):
        assert clock.day() == int(fake.now // 86_400)
        fake.now += 0.25
    assert fake.asked == 1
    fake.now += 3_600.0
    clock.day()
    assert fake.asked == 2


def test_around_midnight_the_server_is_asked_until_it_is_sure():
    midnight = 19_676 * 86_400.0
    fake = Fake(midnight - 1.0)
    fake.way = 0.4
    clock = ServerClock(fake.ask, lambda: fake.now)
    days = []
    while fake.now < midnight + 1.0:
        before = fake.now
        days.append(day := clock.day())
        assert int(before // 86_400) <= day <= int(fake.now // 86_400)
        fake.now += 0.05
    assert days[0] == 19_675
    assert days[-1] == 19_676


# Answers


def put(store, n, **more):
    one = StoredAnswer({"n": n, **more}, Answer((Label(f"label {n}", 0.5),)))
    store.answers.put(one)
    return answer_key(one.asked)


def test_an_answer_is_kept_though_the_connection_breaks_behind_it(store, monkeypatch):
    with outcomes_lost(monkeypatch, lambda text: "INSERT INTO smoothapi.answers" in text):
        key = put(store, 1)
    assert store.answers.get(key).labels[0].name == "label 1"


def test_what_cannot_be_kept_is_written_to_a_file_to_be_imported(
    open_here, monkeypatch, tmp_path, postgres, database
):
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    proxy = Proxy(postgres.socket)
    store = open_here(through(proxy, database), patience=0.1)
    proxy.refusing = True
    proxy.cut()
    monkeypatch.setattr("smoothapi.store.postgres.server._WAIT", 0.1)
    asked = asked_of(
        provider="p", identity={}, image="0" * 64, size=(9, 9), codec="png", sigma=0.25,
        noise="0" * 16, denoiser="none",
    )(3)  # fmt: skip
    with pytest.raises(StoreError, match="cache import") as caught:
        store.answers.put(StoredAnswer(asked, answer("bus")))
    proxy.close()
    [file] = (tmp_path / "data" / "smoothapi").glob("rescued-*.jsonl")
    assert repr(str(file)) in str(caught.value)
    assert file.stat().st_mode & 0o077 == 0
    result = invoke("cache", "import", str(file), "--home", str(tmp_path / "home"))
    assert result.exit_code == 0, result.output
    with Home(tmp_path / "home") as home:
        assert home.answers.get(answer_key(asked)) == answer("bus")


@pytest.mark.parametrize(
    "line", ["", "{", '{"schema": 1}', "\\x80", json.dumps({"schema": 1, "asked": {"n": 2}})]
)
def test_a_row_that_was_damaged_or_planted_is_asked_again(store, postgres, database, line, caplog):
    key = put(store, 1)
    whole = store._server.run("SELECT line FROM smoothapi.answers")[0][0]
    postgres.sql(f"UPDATE smoothapi.answers SET line = $${line}$$", database)
    assert store.answers.get(key) is None
    assert "asked again" in caplog.text
    with pytest.raises(StoreError, match="damaged"):
        store.answers.row(key)
    [(found, why)] = store.answers.scan()
    assert (found, type(why)) == (key, StoreError)
    again = StoredAnswer({"n": 1}, Answer((Label("again", 0.5),)))
    assert store.answers.add([again]) == 1
    assert store.answers.get(key).labels[0].name == "again"
    assert "again" not in whole


def test_a_certificate_of_stored_answers_is_read_in_few_statements(database, noise_key_file):
    adapter = ScriptedAdapter()
    options = {"radius": "largest", "max_votes": 300, "plain": False}
    with smoother(database, noise_key_file, adapter, **options) as s:
        bought = s.certify(PHOTO)
        server = s.session.dispatcher.store._server
        run, made = server.run, []
        server.run = lambda *given: (made.append(given[0]), run(*given))[1]
        stored = s.certify(PHOTO)
    assert stored == bought
    assert stored.cached == 300
    assert adapter.sent == 300
    assert len(made) <= 15, made


def test_two_machines_with_one_photo_pay_once(database, noise_key_file):
    adapters = [ScriptedAdapter(delay=0.003) for _ in range(2)]
    begun, found = threading.Barrier(2), []

    def certify(adapter):
        with smoother(database, noise_key_file, adapter, concurrency=3) as s:
            begun.wait()
            found.append(s.certify(PHOTO))

    threads = [threading.Thread(target=certify, args=[adapter]) for adapter in adapters]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found[0] == found[1]
    paid = adapters[0].attempts + adapters[1].attempts
    assert set(paid.values()) == {1}
    assert len(paid) == found[0].total_votes + 1  # and the plain label


# What breaks: the server, the way to it, the worker


def test_a_run_goes_on_through_a_crash_of_the_server(noise_key_file, calm):
    """It has a server of its own, which ends at once and is started again, twice."""
    server = Postgres()
    try:
        url = server.new_database()
        crashes, one_at_a_time = [5, 30], threading.Lock()

        def script(payload, attempt):
            with one_at_a_time:
                if crashes and len(adapter.attempts) >= crashes[0]:
                    crashes.pop(0)
                    server.stop(signal.SIGQUIT)
                    server.start()
            return answer()

        adapter = ScriptedAdapter(script)
        with smoother(url, noise_key_file, adapter, radius=0.3, concurrency=2) as s:
            found = s.certify(PHOTO)
        assert found == calm
        assert not crashes
        assert set(adapter.attempts.values()) == {1}
        kept = PostgresHome(DatabaseAddress(url))
        with closing(kept):
            assert len(kept.answers) == len(adapter.attempts)
            assert kept.release_abandoned(everywhere=True) == 0
    finally:
        server.close()


def test_a_run_goes_on_through_cuts_of_the_network(postgres, database, noise_key_file, calm):
    proxy = Proxy(postgres.socket)
    asked = count(1)

    def script(payload, attempt):
        if next(asked) % 5 == 0:
            proxy.cut()
        return answer()

    adapter = ScriptedAdapter(script)
    with smoother(
        through(proxy, database), noise_key_file, adapter, radius=0.3, concurrency=3
    ) as s:
        found = s.certify(PHOTO)
    proxy.close()
    assert found == calm
    assert proxy.cuts > 3
    assert set(adapter.attempts.values()) == {1}


def test_back_is_not_told_before_lost_whatever_thread_is_faster(monkeypatch):
    """Nor does anybody wait for who listens."""
    outage, told = Outage("db", 60.0), []
    listening, go = threading.Event(), threading.Event()

    def listen(event):
        if event.name == "database_lost":
            listening.set()
            assert go.wait(30)
        told.append(event.name)

    monkeypatch.setattr("smoothapi.telemetry.HOOKS", (listen,))
    since = time.monotonic()
    slow = threading.Thread(target=lambda: outage.failed("cut", since=since, again=True))
    slow.start()
    assert listening.wait(30)
    outage.answered()
    before = list(told)
    go.set()
    slow.join()
    assert before == []
    assert told == ["database_lost", "database_back"]


def test_a_statement_that_fails_late_begins_no_outage_if_another_was_answered_meanwhile(
    caplog, monkeypatch
):
    monkeypatch.setattr("smoothapi.store.postgres.outage._SAID_AFTER", 60.0)
    caplog.set_level(logging.DEBUG, "smoothapi")
    outage = Outage("db", 60.0)
    began = time.monotonic()
    outage.failed("cut", since=began, again=True)
    outage.answered()
    outage.failed("cut", since=began, again=True)
    assert [r.smoothapi["event"] for r in caplog.records] == ["database_lost", "database_back"]
    outage.failed("cut", since=math.inf, again=True)
    assert [r.smoothapi["event"] for r in caplog.records][2:] == ["database_lost"]


def test_a_database_that_is_away_is_told_of_once_and_when_it_is_back(
    open_here, postgres, database, caplog, monkeypatch
):
    """By an event for all threads that wait for it; by words only where it takes long."""
    monkeypatch.setattr("smoothapi.store.postgres.server._WAIT", 2.0)
    caplog.set_level(logging.DEBUG, "smoothapi")
    proxy = Proxy(postgres.socket)
    url = through(proxy, database).replace("tester@", f"tester:{SECRET}@")
    store = open_here(url)
    for words in (False, True):
        monkeypatch.setattr("smoothapi.store.postgres.outage._SAID_AFTER", 0.0 if words else 60.0)
        caplog.clear()
        proxy.refusing = True
        proxy.cut()
        reads = [threading.Thread(target=store.accounts) for _ in range(6)]
        for thread in reads:
            thread.start()
        while not any(r.getMessage().startswith("database_lost") for r in caplog.records):
            time.sleep(0.01)
        proxy.refusing = False
        for thread in reads:
            thread.join()
        told = [r.smoothapi for r in caplog.records if hasattr(r, "smoothapi")]
        assert [event["event"] for event in told] == ["database_lost", "database_back"]
        assert told[1]["repeated"] >= 1
        assert told[1]["seconds"] > 0.0
        said = [message for name, level, message in caplog.record_tuples
                if (name, level) == ("smoothapi", logging.WARNING)]  # fmt: skip
        assert len(said) == 2 * words
        if words:
            assert "has not answered for" in said[0]
            assert "answers again, after" in said[1]
    assert SECRET not in caplog.text
    proxy.close()


def test_a_statement_that_the_server_asks_to_repeat_is_no_outage(store, monkeypatch, caplog):
    caplog.set_level(logging.DEBUG, "smoothapi")
    execute, asked = psycopg.Connection.execute, []

    def deadlocked(self, statement, *rest, **options):
        if not asked:
            asked.append(statement)
            raise psycopg.errors.DeadlockDetected("deadlock detected")
        return execute(self, statement, *rest, **options)

    monkeypatch.setattr(psycopg.Connection, "execute", deadlocked)
    assert store.accounts() == []
    assert asked
    assert "database_" not in caplog.text


_BUY = """
import os, sys, time
import numpy as np
from decimal import Decimal
from smoothapi import Answer, Label, Limits, Price, Smoother
class Adapter:
    name, identity = "scripted", {"operation": "label"}
    limits, price = Limits(), Price(Decimal(1))
    def ask(self, payloads):
        time.sleep(0.02)
        os.write(1, b"sent\\n")
        return [Answer((Label("bus", 0.9),), "v1") for _ in payloads]
    def close(self): pass
photo = np.random.default_rng(0).integers(0, 256, (12, 12, 3), dtype=np.uint8)
with Smoother(Adapter(), home=sys.argv[1], noise_key_file=sys.argv[2], denoiser="none", size=12,
              radius=0.3, concurrency=2) as s:
    s.certify(photo)
"""


def test_after_kill_9_of_a_worker_no_more_is_lost_than_was_under_way(
    database, noise_key_file, calm, store, postgres
):
    worker = subprocess.Popen(
        [sys.executable, "-c", _BUY, f"{database}&application_name=killed", str(noise_key_file)],
        stdout=subprocess.PIPE, text=True, cwd=ROOT,
    )  # fmt: skip
    for _ in range(12):
        assert worker.stdout.readline() == "sent\n"
    worker.kill()
    sent = 12 + worker.communicate()[0].count("sent")
    left = "SELECT pid FROM pg_stat_activity WHERE application_name = 'killed'"
    while postgres.sql(left):  # what it said last may not have been heard yet
        time.sleep(0.02)
    kept = len(store.answers)
    assert sent - 3 <= kept <= sent  # one request of each thread that sends: 1.5 x concurrency
    postgres.set_clock(database, 150.0)  # its leases end, by the server's clock
    adapter = ScriptedAdapter()
    with smoother(database, noise_key_file, adapter, radius=0.3) as s:
        found = s.certify(PHOTO)
    assert found == calm
    assert found.cached >= kept - 1  # all but the plain label are votes


def test_what_comes_late_takes_nothing_back(store):
    """A statement may be long on its way, and come after a later one about the same block."""
    ledger = store.ledger([Budget(attempts=1000, name="b")], "p", DOLLAR)
    block = ledger.reserve(10)
    for used in (3, 7, 3):
        store._server.run("SELECT smoothapi.reduce(%s, %s, %s)::text", block.number, used, used)
        [account] = store.accounts()
        assert account.attempts == account.reserved == 3


def test_a_closed_store_says_so(open_here):
    store = open_here()
    store.close()
    with pytest.raises(UsageError, match="closed"):
        store.answers.get("0" * 64)


# Forks


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork")
def test_a_child_of_a_fork_leaves_the_connections_to_its_parent(store):
    key = put(store, 1)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of threads; the child only ends
        child = os.fork()
    if child == 0:
        code = 1
        try:
            store.answers.get(key)
        except UsageError:
            store.close()
            code = 0
        finally:
            os._exit(code)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert store.answers.get(key) is not None


# The noise key of a deployment


def test_without_a_key_it_is_said_how_to_give_one(database):
    with pytest.raises(StoreError, match=r"key new --noise FILE.*SMOOTHAPI_NOISE_KEY_FILE"):
        Smoother("mock", denoiser="none", home=database)


def test_two_machines_with_different_keys_are_told(database, tmp_path, noise_key_file, caplog):
    first = open_home(DatabaseAddress(database), noise_key_file)
    other, lost = tmp_path / "other.key", tmp_path / "lost.key"
    KeyRing.generate().write(other)
    with closing(first):
        keys = first.keys()
        with pytest.raises(StoreError, match="paid for twice") as caught:
            smoother(database, other, ScriptedAdapter())
        told = str(caught.value)
        assert keys.id in told
        assert (made := KeyRing.read(other).id) in told
        assert first.known_keys() == (keys.id,)
        # A key that replaced it is known at once, and whoever has only the old one hears of it.
        KeyRing.read(noise_key_file).rotated().write(lost)
        with closing(open_home(DatabaseAddress(database), lost)) as rotated:
            new = rotated.keys()
        assert not caplog.text
        assert first.keys() == keys
        assert new.id in caplog.text
        assert first.known_keys() == (new.id, keys.id)
        assert invoke("key", "admit", made, "--home", database).exit_code == 0
        with smoother(database, other, ScriptedAdapter()):
            pass


def bought_with(key_file, home):
    """Certify with a key in a home; return the key's id."""
    with smoother(home, key_file, ScriptedAdapter()) as s:
        return s.certify(PHOTO).noise_key


def made_key(path):
    KeyRing.generate().write(path)
    return path


def copied(old, database, tmp_path):
    done = invoke("cache", "copy", old, database)
    assert done.exit_code == 0, done.output


def imported(old, database, tmp_path):
    file = tmp_path / "answers.jsonl"
    assert invoke("--home", old, "cache", "export", file).exit_code == 0
    done = invoke("--home", database, "cache", "import", file)
    assert done.exit_code == 0, done.output


@pytest.mark.parametrize("brought", [copied, imported])
def test_answers_that_were_brought_bring_the_keys_that_they_need(
    brought, database, tmp_path, caplog
):
    """A machine with another key than theirs would pay for all of them again."""
    old, mine = tmp_path / "old", made_key(tmp_path / "mine.key")
    first = bought_with(mine, old)
    KeyRing.read(mine).rotated().write(mine, replace=True)
    second = bought_with(mine, old)
    brought(old, database, tmp_path)
    with closing(open_home(DatabaseAddress(database))) as store:
        assert set(store.known_keys()) == {first, second}
    adapter = ScriptedAdapter()
    with pytest.raises(StoreError, match="paid for twice") as caught:
        smoother(database, made_key(tmp_path / "other.key"), adapter)
    assert first in str(caught.value)
    assert second in str(caught.value)
    assert adapter.sent == 0
    with smoother(database, mine, adapter) as s:
        assert s.certify(PHOTO).cached > 1
    assert adapter.sent == 0
    assert not caplog.text
    with closing(open_home(DatabaseAddress(database))) as store:
        assert store.known_keys() == (second, first)


def test_of_two_keys_that_came_with_answers_each_hears_of_the_other(database, tmp_path, caplog):
    """Which one is the latest, nobody knows: but photos are asked about anew with the other."""
    old, one, two = tmp_path / "old", made_key(tmp_path / "1"), made_key(tmp_path / "2")
    ids = [bought_with(key, old) for key in (one, two)]
    assert caplog.text.count("WARNING") == 1  # in the folder, too
    caplog.clear()
    copied(old, database, tmp_path)
    for key, other in ((one, ids[1]), (two, ids[0])):
        with smoother(database, key, ScriptedAdapter()):
            pass
        [record] = caplog.records
        assert f"answers of {other}" in record.getMessage()
        caplog.clear()


def test_a_key_that_was_admitted_replaces_the_others_once_a_machine_has_it(
    database, tmp_path, noise_key_file, caplog
):
    new = made_key(tmp_path / "new")
    old = bought_with(noise_key_file, database)
    made = KeyRing.read(new).id
    assert invoke("key", "admit", made, "--home", database).exit_code == 0
    with closing(open_home(DatabaseAddress(database), noise_key_file)) as store:
        store.keys()
        assert store.known_keys() == (old, made)
    assert not caplog.text  # nobody has it yet
    bought_with(new, database)
    caplog.clear()
    bought_with(noise_key_file, database)
    assert f"was replaced by {made}" in caplog.text


def test_a_key_that_was_admitted_by_mistake_can_be_forgotten(
    database, noise_key_file, caplog, monkeypatch
):
    mine, nobodys = bought_with(noise_key_file, database), "0123456789abcdef"
    assert invoke("key", "admit", nobodys, "--home", database).exit_code == 0
    monkeypatch.setenv("SMOOTHAPI_NOISE_KEY_FILE", str(noise_key_file))
    doctor = invoke("doctor", "--home", database)
    assert nobodys not in doctor.output
    assert nobodys not in caplog.text
    done = invoke("key", "forget", nobodys, "--home", database)
    assert (done.exit_code, done.output) == (0, f"Forgot {nobodys}.\n")
    with closing(open_home(DatabaseAddress(database))) as store:
        assert store.known_keys() == (mine,)
    again = invoke("key", "forget", nobodys, "--home", database)
    assert again.exit_code == 2
    assert "does not know" in again.output


def test_a_key_that_is_in_use_is_not_forgotten(database, noise_key_file, tmp_path, monkeypatch):
    mine = bought_with(noise_key_file, database)
    done = invoke("key", "forget", mine, "--home", database)
    assert done.exit_code == 2
    assert "answers" in done.output
    # Nor one of this machine, which has bought nothing yet.
    other = made_key(tmp_path / "other")
    assert invoke("key", "admit", KeyRing.read(other).id, "--home", database).exit_code == 0
    monkeypatch.setenv("SMOOTHAPI_NOISE_KEY_FILE", str(other))
    done = invoke("key", "forget", KeyRing.read(other).id, "--home", database)
    assert done.exit_code == 2
    assert "this machine" in done.output
    with closing(open_home(DatabaseAddress(database))) as store:
        assert set(store.known_keys()) == {mine, KeyRing.read(other).id}


def test_after_a_rotation_old_certificates_are_still_compared(
    database, noise_key_file, monkeypatch
):
    adapter = ScriptedAdapter()
    with smoother(database, noise_key_file, adapter) as s:
        old = s.certify(PHOTO)
    monkeypatch.setenv("SMOOTHAPI_NOISE_KEY_FILE", str(noise_key_file))
    shown = json.loads(invoke("key", "rotate", "--json").output)
    assert shown["former"] == [old.noise_key]
    assert json.loads(invoke("key", "show-id", "--json").output)["id"] == shown["id"]
    with smoother(database, noise_key_file, adapter) as s:
        new = s.certify(PHOTO)
    assert new.noise_key == shown["id"]
    assert new.cached == 1  # the plain label is of no noise
    for certificate in (old, new):
        assert "the home's noise key" in verify(certificate, PHOTO, home=database)
    facts = json.loads(invoke("cache", "info", "--json", "--home", database).output)
    assert set(facts["noise_keys"]) == {old.noise_key, new.noise_key}


def test_a_certificate_of_another_installation_is_refused(database, noise_key_file, tmp_path):
    with smoother(database, noise_key_file, ScriptedAdapter()):
        pass
    other = tmp_path / "home"
    with Smoother(ScriptedAdapter(), denoiser="none", size=12, radius=0.1, home=other) as s:
        certificate = s.certify(PHOTO)
    with pytest.raises(CertificateError, match="Another installation"):
        verify(certificate, PHOTO, home=database)


def test_a_folder_does_not_choose_the_noise_key(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "smoothapi.toml").write_text('noise_key_file = "mine.key"')
    with pytest.raises(UsageError, match="nobody vouches"):
        Smoother("mock", denoiser="none")


def test_a_home_in_a_folder_takes_a_deployed_key_too(tmp_path, noise_key_file):
    home = tmp_path / "home"
    with Smoother("mock", denoiser="none", home=home, noise_key_file=noise_key_file) as s:
        assert s.session.variants.noise_key == KeyRing.read(noise_key_file).id
    assert not (home / "noise.key").exists()


@pytest.mark.parametrize(
    ("found", "given", "do"),
    [
        ("tester@/", "nobody-here@/", "CREATE ROLE"),
        ("/postgres?", "/no-such-one?", "CREATE DATABASE"),
    ],
)
def test_a_wrong_role_or_database_is_said_with_what_to_do(postgres, found, given, do):
    url = postgres.url().replace(found, given)
    done = invoke("budget", "--home", url)
    assert done.exit_code == 2
    told = " ".join(done.output.split())
    assert "does not exist" in told
    assert do in told
    assert "Look whether it runs" not in told
    assert "reserved" not in told  # before there was a connection, nothing was


def test_what_another_command_needs_is_shown_whole_in_80_columns(store, database):
    name = "gateway-caller-of-the-radiology-department"
    budgets = [Budget(attempts=1_000_000, dollars=20_000, per="day", name=name)]
    store.ledger(budgets, "p", DOLLAR).reserve(1)
    shown = invoke("budget", "--home", database).output
    assert "…" not in shown
    assert max(map(len, shown.splitlines())) <= 80
    first = [line.split()[0] for line in shown.splitlines() if line.strip()]
    assert name in "".join(first)
    [account] = store.accounts()
    assert account.period in shown
    why = "The provider refused the credentials: they are of another account, and expired."
    kept = store.runs.begin(RunRecord("certify", by="somebody@a-machine", provider="aws"))
    store.runs.keep(replace(kept, outcome=why))
    shown = invoke("runs", "--home", database).output
    assert "…" not in shown
    assert kept.id in shown
    assert "expired" in shown


# Where it is, and that no password is shown

SECRET = "hunter2-of-the-hospital"


@pytest.mark.parametrize(
    "url",
    [
        f"postgresql://tester:{SECRET}@127.0.0.1:1/x",
        f"postgresql://tester@127.0.0.1:1/x?password={SECRET}",
        f"postgresql://tester:{SECRET}%40%2F@127.0.0.1:1/x",
        f"postgresql://tester:{SECRET}@127.0.0.1:1/x?no_such_option=1",
        f"postgresql://tester:p@{SECRET}@127.0.0.1:1/x",
        f"postgresql://tester:p/{SECRET}@127.0.0.1/x",
        f"postgresql://tester:1?{SECRET}@127.0.0.1/x",
        f"postgresql://tester:1?{SECRET}=2@127.0.0.1:x/x",
        f"postgresql://tester:a b{SECRET}@127.0.0.1/x",
        f"mysql://tester:{SECRET}@127.0.0.1/x",
        f"postgresql:/tester:{SECRET}@127.0.0.1/x",
    ],
)
def test_a_password_is_never_shown(url, monkeypatch, caplog):
    monkeypatch.setenv("SMOOTHAPI_HOME", url)
    shown = [repr(invoke("config").output), repr(invoke("config", "--json").output)]
    with caplog.at_level(logging.DEBUG):
        for arguments in (
            ["budget"],
            ["cache", "info", "--json"],
            ["cache", "copy", url, "/tmp/x"],
        ):
            result = invoke(*arguments)
            assert result.exit_code == 2, result.output
            shown.append(result.output)
    try:
        settings = resolve().settings
        shown += [repr(settings), str(settings.home)]
        open_home(settings.home)
        pytest.fail("it was opened")
    except (UsageError, StoreError) as error:
        shown.append("".join(traceback.format_exception(error)))
        shown.append(repr(error.__context__))
    for text in (*shown, caplog.text):
        assert SECRET not in text
        assert "hunter2" not in text


def test_a_wrong_password_is_said_in_words(postgres):
    hba = postgres.folder / "data" / "pg_hba.conf"
    before = hba.read_text()
    postgres.sql("CREATE ROLE locked LOGIN PASSWORD 'right'")
    hba.write_text(f"local all locked scram-sha-256\n{before}")
    postgres.sql("SELECT pg_reload_conf()")
    url = postgres.url("postgres").replace("tester@", f"locked:{SECRET}@")
    try:
        until = time.monotonic() + 60.0
        while True:  # until the server has read its file
            with pytest.raises(StoreError) as caught:
                open_home(DatabaseAddress(url))
            if "authentication" in str(caught.value) or time.monotonic() > until:
                break
            time.sleep(0.02)
        assert "PGPASSWORD" in str(caught.value)
        assert SECRET not in "".join(traceback.format_exception(caught.value))
    finally:
        hba.write_text(before)
        postgres.sql("SELECT pg_reload_conf()")


def test_a_role_without_rights_is_told_which(postgres):
    url = postgres.new_database()
    postgres.sql("CREATE ROLE guest LOGIN")
    with pytest.raises(StoreError, match="GRANT CREATE"):
        open_home(DatabaseAddress(url.replace("tester@", "guest@")))
    # An administrator may make the schema for it instead.
    postgres.sql("CREATE SCHEMA smoothapi AUTHORIZATION guest", url)
    with closing(open_home(DatabaseAddress(url.replace("tester@", "guest@")))) as store:
        assert store.accounts() == []


def test_a_server_that_is_being_started_is_waited_for(postgres, database):
    """What stands before it closes connections meanwhile."""
    proxy = Proxy(postgres.socket)
    proxy.refusing = True

    def has_started():
        assert proxy.refused.wait(30)
        proxy.refusing = False

    starting = threading.Thread(target=has_started)
    starting.start()
    with closing(open_home(DatabaseAddress(through(proxy, database)))) as store:
        assert store.accounts() == []
    starting.join()
    proxy.close()


def test_a_later_schema_is_left_alone(postgres):
    url = postgres.new_database()
    open_home(DatabaseAddress(url)).close()
    postgres.sql("UPDATE smoothapi.about SET version = 99", url)
    with pytest.raises(StoreError, match="later smoothapi"):
        open_home(DatabaseAddress(url))
    assert postgres.sql("SELECT version FROM smoothapi.about", url) == [(99,)]


def test_many_that_begin_at_once_make_one_schema(postgres):
    url = postgres.new_database()
    failed = []

    def begin():
        try:
            open_home(DatabaseAddress(url)).close()
        except StoreError as error:
            failed.append(error)

    threads = [threading.Thread(target=begin) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failed == []
    assert postgres.sql("SELECT version FROM smoothapi.about", url) == [(LATEST,)]


@pytest.mark.parametrize("schema", range(1, LATEST))
def test_a_database_of_an_earlier_schema_takes_what_came_since_and_keeps_what_it_has(
    schema, postgres, monkeypatch
):
    url = postgres.new_database()
    with monkeypatch.context() as patch:
        patch.setattr("smoothapi.store.postgres.server.LATEST", schema)
        with closing(open_home(DatabaseAddress(url))) as store:
            store.keep_note("mixes", "{}")
    assert postgres.sql("SELECT version FROM smoothapi.about", url) == [(schema,)]
    with closing(open_home(DatabaseAddress(url))) as store:
        assert store.note("mixes") == "{}"
        assert store.runs.latest(5) == []
        begun = store.runs.begin(RunRecord("certify"))
        assert store.runs.latest(5) == [begun]
        assert store.records.tokens() == []
        assert store.records.add_token(Token("0" * 16, "anna", bytes(32)))
        assert [token.name for token in store.records.tokens()] == ["anna"]
    assert postgres.sql("SELECT version FROM smoothapi.about", url) == [(LATEST,)]


# The commands


def test_answers_go_from_home_to_home_and_back(database, tmp_path, noise_key_file):
    folder, back = tmp_path / "home", tmp_path / "back"
    with Smoother(
        adapter := ScriptedAdapter(), denoiser="none", size=12, radius=0.1, home=folder,
        noise_key_file=noise_key_file,
    ) as s:  # fmt: skip
        bought = s.certify(PHOTO)
    copied = invoke("cache", "copy", str(folder), database)
    assert copied.exit_code == 0, copied.output
    assert f"Copied {adapter.sent:,} answers; 0 were there already." in copied.output
    assert (
        f"Copied 0 answers; {adapter.sent:,}"
        in invoke("cache", "copy", str(folder), database).output
    )
    with smoother(database, noise_key_file, adapter) as s:
        assert s.certify(PHOTO) == bought
    assert adapter.sent == bought.attempts
    info = json.loads(invoke("cache", "info", "--json", "--home", database).output)
    assert info["answers"] == adapter.sent
    assert info["noise_keys"] == {bought.noise_key: bought.total_votes}
    assert "0 cannot" in invoke("cache", "verify", "--home", database).output
    invoke("cache", "export", str(tmp_path / "all.jsonl"), "--home", database)
    assert invoke("cache", "clear", "--yes", "--home", database).exit_code == 0
    imported = invoke("cache", "import", str(tmp_path / "all.jsonl"), "--home", database)
    assert f"Imported {adapter.sent:,}" in imported.output
    assert invoke("cache", "copy", database, str(back)).exit_code == 0
    with Home(folder) as first, Home(back) as second:
        rows = [
            {key: {**row, "stored": 0, "refreshes": 0} for key, row in home.answers.scan()}
            for home in (first, second)
        ]
    assert rows[0] == rows[1]


def test_budgets_are_shown_released_and_reset(database, store):
    ledger = store.ledger([Budget(attempts=5000, per="day", name="ward 3")], "p", DOLLAR)
    ledger.reserve(1)
    shown = json.loads(invoke("budget", "--json", "--home", database).output)
    assert [row["name"] for row in shown] == ["ward 3"]
    assert shown[0]["reserved"] == shown[0]["attempts"] > 0
    assert "0 attempts" in invoke("budget", "--home", database, "release").output
    everywhere = invoke("budget", "--home", database, "release", "--everywhere")
    assert f"Released {shown[0]['reserved']}" in everywhere.output
    assert "Reset 1" in invoke("budget", "--home", database, "reset", "ward 3").output


def test_psycopg_is_loaded_only_where_it_is_needed(tmp_path):
    script = (
        "import sys\n"
        "from pathlib import Path\n"
        "from smoothapi.store import open_home\n"
        "open_home(Path(sys.argv[1])).close()\n"
        "assert not [name for name in sys.modules if name.startswith('psycopg')]\n"
        "sys.modules['psycopg'] = None\n"
        "from smoothapi.address import DatabaseAddress\n"
        "try: open_home(DatabaseAddress('postgresql://x'))\n"
        "except ImportError as error: print(type(error).__name__, error)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, str(tmp_path)], capture_output=True, text=True, check=False
    )
    assert "MissingExtraError" in done.stdout, done.stderr
    assert "smoothapi-vision[postgres]" in done.stdout


def test_lost_connections_are_not_printed_where_no_logging_is_set_up():
    program = (
        "import logging, smoothapi.store.postgres.server\n"
        "logging.getLogger('psycopg.pool').warning('discarding closed connection')"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert done.stderr == ""
