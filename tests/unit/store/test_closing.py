"""Nothing is left open: no file, no connection of any thread, no log beside a closed database."""

from __future__ import annotations

import gc
import subprocess
import sys
import textwrap
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from smoothapi import Smoother
from smoothapi.errors import StoreError, UsageError
from smoothapi.store import Budget, Home, StoredAnswer
from smoothapi.store.local.answers import AnswerStore
from tests.conftest import ScriptedAdapter, answer, invoke

OPEN = Path("/proc/self/fd")
OPTIONS = {"size": 8, "denoiser": "none", "radius": 0.2, "max_votes": 60}
PHOTO = np.zeros((8, 8, 3), np.uint8)

pytestmark = pytest.mark.skipif(not OPEN.is_dir(), reason="no list of open files here")


def left_open(folder):
    """Return the names of a folder's files that this process has open, and of logs beside them."""
    gc.collect()
    names = []
    for link in OPEN.iterdir():
        try:
            names.append(link.readlink())
        except OSError:  # the list's own
            continue
    inside = [str(name) for name in names if str(name).startswith(str(folder))]
    return inside + [str(log) for log in folder.rglob("*.db-*") if "damaged" not in log.name]


def certify(home):
    with Smoother(ScriptedAdapter(), home=home, budget=Budget(attempts=500), **OPTIONS) as smoother:
        smoother.certify(PHOTO)


def certify_in_threads(home):
    """Some of which are gone before it is closed, and some of which live on."""
    with (
        Smoother(ScriptedAdapter(), home=home, **OPTIONS) as smoother,
        ThreadPoolExecutor(3) as threads,
    ):
        list(threads.map(lambda _: smoother.certify(PHOTO), range(3)))
        passing = threading.Thread(target=smoother.certify, args=(PHOTO,))
        passing.start()
        passing.join()
    with Smoother(ScriptedAdapter(), home=home, **OPTIONS) as smoother:
        smoother.certify(PHOTO)


def record(home):
    with Smoother(
        ScriptedAdapter(), home=home, record=home / "recording.jsonl", **OPTIONS
    ) as smoother:
        smoother.certify(PHOTO)


def fail_half_way(home):
    with pytest.raises(StoreError, match="recording"):
        Smoother(ScriptedAdapter(), home=home, record=home, **OPTIONS)


def fail_at_the_ledger(home):
    home.mkdir(exist_ok=True)
    (home / "ledger.db").write_bytes(b"no ledger")
    with pytest.raises(StoreError):
        Smoother(ScriptedAdapter(), home=home, **OPTIONS)
    (home / "ledger.db").unlink()


def fail_at_the_answers(home):
    (home / "answers" / "cache.db").mkdir(parents=True)
    adapter = ScriptedAdapter()
    with pytest.raises(StoreError):
        Smoother(adapter, home=home, **OPTIONS)
    assert adapter.closed


def meet_damage(home):
    certify(home)
    file = home / "answers" / "cache.db"
    file.write_bytes(b"x" * 100 + file.read_bytes()[100:])
    certify(home)


def lose_the_files(home):
    store = AnswerStore(home / "answers")
    store.put(StoredAnswer({"n": 0}, answer()))
    for file in store.directory.glob("cache.db*"):
        file.unlink()
    store.put(StoredAnswer({"n": 1}, answer()))
    store.close()


def ask_a_home(home):
    with Home(home) as opened:
        opened.accounts()
        opened.answers.get("x")


def use_the_commands(home):
    certify(home)
    for arguments in (
        ["cache", "--home", home, "info"],
        ["cache", "--home", home, "verify"],
        ["cache", "--home", home, "export", home / "export"],
        ["cache", "--home", home, "import", home / "export"],
        ["budget", "--home", home],
        ["budget", "--home", home, "release"],
    ):
        assert invoke(*arguments).exit_code == 0, arguments


@pytest.mark.parametrize(
    "use",
    [
        certify,
        certify_in_threads,
        record,
        fail_half_way,
        fail_at_the_ledger,
        fail_at_the_answers,
        meet_damage,
        lose_the_files,
        ask_a_home,
        use_the_commands,
    ],
    ids=lambda use: use.__name__,
)
def test_nothing_is_left_open(tmp_path, use):
    use(tmp_path / "home")
    assert left_open(tmp_path / "home") == []


def test_threads_that_are_gone_hold_nothing_open(store):
    """A server has a thread a request, and one Smoother for months."""
    for number in range(20):
        thread = threading.Thread(target=store.get, args=(str(number),))
        thread.start()
        thread.join()
    assert len(store._cache._connections) <= 2


def test_a_closed_store_is_not_opened_again(store):
    store.close()
    store.close()
    for use in (lambda: store.get("x"), lambda: store.put(StoredAnswer({}, answer())), store.clear):
        with pytest.raises(UsageError, match="closed"):
            use()
    assert left_open(store.directory) == []


def test_warnings_as_errors_find_nothing(tmp_path):
    """From Python 3.13 on, a database that is dropped while it is open warns."""
    script = textwrap.dedent(
        f"""
        import gc
        import numpy as np
        from smoothapi import Smoother
        from smoothapi_adapters.mock import MockAdapter
        mock = MockAdapter({{"bus": 0.97, "van": 0.03}})
        with Smoother(mock, home={str(tmp_path)!r}, size=8, denoiser="none") as smoother:
            smoother.certify(np.zeros((8, 8, 3), np.uint8), radius=0.1)
        del smoother
        gc.collect()
        """
    )
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", script],
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert (done.returncode, done.stderr) == (0, "")
