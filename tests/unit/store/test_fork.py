"""A child of a fork and the files that its parent has open: SQLite would lose what it writes."""

from __future__ import annotations

import os
import signal
import sqlite3
import traceback
import warnings

import pytest

from smoothapi.errors import UsageError
from smoothapi.store import Home

pytestmark = [
    pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here"),
    pytest.mark.timeout(60),
]


def in_a_child(act):
    """Run `act` in a child of a fork; return the exit code, 0 if nothing was raised."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # Python's own, of forks with threads
        child = os.fork()
    if child:
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
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
