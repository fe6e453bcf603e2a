"""A child of a fork and the files that its parent has open: SQLite would lose what it writes."""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
import threading
import traceback
import warnings

import pytest

from smoothapi.errors import UsageError
from smoothapi.store import Home

pytestmark = [
    pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here"),
    pytest.mark.timeout(120),
]


def in_a_child(act):
    """Run `act` in a child of a fork; return the exit code, 0 if nothing was raised."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # Python's own, of forks with threads
        child = os.fork()
    if child:
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    signal.signal(signal.SIGALRM, signal.SIG_DFL)  # not that of the time limit of tests
    signal.alarm(30)  # ends what hangs
    try:
        act()
    except UsageError as error:
        os._exit(3 if "before the fork" in str(error) else 4)
    except BaseException:  # noqa: BLE001  the child must not go on with the tests
        traceback.print_exc()
        os._exit(5)
    os._exit(0)


def test_why(tmp_path):
    """If this fails, SQLite has changed, and a child may be let open what its parent has open."""
    file = tmp_path / "x.db"
    parent = sqlite3.connect(file, isolation_level=None)
    parent.execute("PRAGMA journal_mode = WAL")
    parent.execute("CREATE TABLE t (a)")
    ready, go = os.pipe(), os.pipe()

    def act():
        child = sqlite3.connect(file, isolation_level=None)
        child.execute("INSERT INTO t VALUES (1)")
        os.write(ready[1], b".")
        os.read(go[0], 1)
        child.execute("INSERT INTO t VALUES (2)")

    if not (child := os.fork()):
        signal.alarm(30)
        act()
        os._exit(0)
    os.read(ready[0], 1)
    parent.close()
    os.write(go[1], b".")
    assert os.waitpid(child, 0)[1] == 0
    again = sqlite3.connect(file)
    assert again.execute("SELECT a FROM t").fetchall() == [(1,)]
    again.close()
    for end in (*ready, *go):
        os.close(end)


def test_why_a_child_closes_nothing(tmp_path):
    """SQLite's lock of a connection that a thread was using at the fork is never free in a child."""
    connection = sqlite3.connect(tmp_path / "x.db", check_same_thread=False)
    inside, go = threading.Event(), threading.Event()

    def wait():
        inside.set()
        go.wait(30)

    connection.create_function("wait", 0, wait)
    thread = threading.Thread(target=lambda: connection.execute("SELECT wait()").fetchall())
    thread.start()
    assert inside.wait(30)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # Python's own, of forks with threads
        child = os.fork()
    if not child:
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        signal.alarm(2)
        connection.close()
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGALRM
    go.set()
    thread.join()
    connection.close()


WHILE_ANOTHER_THREAD_WRITES = """
import os, signal, sqlite3, sys, threading, time
from pathlib import Path
from smoothapi.store.local.forking import about_to_open

class Holder: pass

file, holder = Path(sys.argv[1]), Holder()
about_to_open(holder, file)  # without it, 131 of 150 children waited for ever

def opened():
    connection = sqlite3.connect(file, check_same_thread=False, isolation_level=None)
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("PRAGMA synchronous = OFF")
    return connection

busy, idle = opened(), opened()
busy.execute("CREATE TABLE t (a)")
over = threading.Event()

def work():
    while not over.is_set():
        busy.execute("INSERT INTO t VALUES (?)", ["x" * 200])

thread = threading.Thread(target=work)
thread.start()
children = []
for _ in range(40):
    if not (child := os.fork()):
        signal.alarm(30)  # ends what hangs
        del idle
        sys.exit(0)
    children.append(child)
    time.sleep(0.001)
over.set()
thread.join()
print({os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children})
"""


def test_children_end_whatever_another_thread_was_at_within_sqlite(tmp_path):
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", WHILE_ANOTHER_THREAD_WRITES, tmp_path / "x.db"],
        check=False, capture_output=True, text=True, timeout=100,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout == "{0}\n"


USES = {
    "answers": lambda home: home.answers,
    "ledger": lambda home: home.database,
}


@pytest.mark.parametrize("opened", USES)
@pytest.mark.parametrize("wanted", USES)
def test_a_child_opens_nothing_that_its_parent_has_open(opened, wanted, tmp_path):
    with Home(tmp_path) as first:  # made
        assert USES["answers"](first) is not None
        assert USES["ledger"](first) is not None

    def act():
        with Home(tmp_path) as home:
            USES[wanted](home)

    with Home(tmp_path) as home:
        USES[opened](home)
        assert in_a_child(act) == (3 if opened == wanted else 0)
    assert in_a_child(act) == 0


def test_a_child_of_a_child_is_refused_likewise(tmp_path):
    def act():
        with Home(tmp_path) as home:
            USES["ledger"](home)

    with Home(tmp_path) as home:
        USES["ledger"](home)
        assert in_a_child(lambda: os._exit(in_a_child(act))) == 3
    assert in_a_child(lambda: os._exit(in_a_child(act))) == 0
