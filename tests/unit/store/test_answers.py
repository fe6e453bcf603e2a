"""The store: nothing lost, nothing foreign read, damage survived."""

from __future__ import annotations

import logging
import pickle
import sqlite3
import stat
import subprocess
import sys
import textwrap
import threading

import diskcache
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from smoothapi.answer import Answer, Label
from smoothapi.errors import PermanentError, StoreError, UsageError
from smoothapi.store import StoredAnswer, answer_key
from smoothapi.store.local.answers import AnswerStore
from tests.conftest import answer

ASKED = {"picture": 1}
KEY = answer_key(ASKED)
NAMES = st.text(min_size=1, max_size=20)
ANSWERS = st.builds(
    Answer,
    labels=st.lists(
        st.builds(Label, NAMES, st.floats(0, 1), st.lists(NAMES, max_size=2).map(tuple)),
        max_size=4,
    ).map(tuple),
    model_version=st.text(max_size=10),
    request_id=st.text(max_size=10),
)


@given(ANSWERS)
def test_an_answer_survives_the_way_to_a_dict_and_back(value):
    assert Answer.from_dict(value.to_dict()) == value


@settings(max_examples=30, deadline=None)
@given(ANSWERS)
def test_an_answer_survives_the_store(tmp_path_factory, value):
    store = AnswerStore(tmp_path_factory.mktemp("answers"))
    store.put(StoredAnswer(ASKED, value))
    assert store.get(KEY) == value
    store.close()


def test_a_permanent_failure_is_kept(store):
    store.put(StoredAnswer(ASKED, PermanentError("bad picture")))
    kept = store.get(KEY)
    assert isinstance(kept, PermanentError)
    assert str(kept) == "bad picture"


def test_what_was_never_asked_is_none(store):
    assert store.get(KEY) is None


def test_the_folder_is_private(store):
    assert stat.S_IMODE(store.directory.stat().st_mode) == 0o700


def test_a_pickled_row_is_refused_and_never_run(store):
    store.put(StoredAnswer(ASKED, answer()))
    database = sqlite3.connect(store.directory / "cache.db")
    evil = pickle.dumps(("would", "run"))
    with database:
        database.execute("UPDATE Cache SET mode = ?, value = ?", (diskcache.core.MODE_PICKLE, evil))
    database.close()
    with pytest.raises(StoreError, match="pickle"):
        store.get(KEY)


def test_a_row_that_points_to_a_file_is_refused(store):
    store.put(StoredAnswer(ASKED, answer()))
    database = sqlite3.connect(store.directory / "cache.db")
    with database:
        database.execute(
            "UPDATE Cache SET mode = ?, filename = '../../secret', value = NULL",
            (diskcache.core.MODE_TEXT,),
        )
    database.close()
    with pytest.raises(StoreError, match="did not write"):
        store.get(KEY)


@pytest.mark.parametrize(
    "text", ["not json", "[]", '{"schema": 2}', '{"schema": 1}', '{"schema":1,"answer":{}}']
)
def test_damaged_rows_are_asked_again(store, text):
    store._cache.set(KEY, text)
    assert store.get(KEY) is None
    with pytest.raises(StoreError, match="damaged"):
        store.row(KEY)
    store.put(StoredAnswer(ASKED, answer()))
    assert store.get(KEY) == answer()


def test_nothing_is_ever_evicted(tmp_path):
    """A cache once opened with eviction remembers it; the store must not."""
    diskcache.Cache(
        str(tmp_path), eviction_policy="least-recently-used", size_limit=1000, cull_limit=10
    ).close()
    store = AnswerStore(tmp_path)
    for index in range(200):
        store.put(StoredAnswer({"n": index}, answer("x" * 500)))
    assert len(store) == 200
    store.close()


def test_a_damaged_database_is_set_aside_and_said(tmp_path, caplog):
    directory = tmp_path / "answers"
    directory.mkdir()
    (directory / "cache.db").write_bytes(b"this is no database" * 100)
    with caplog.at_level(logging.WARNING, logger="smoothapi"):
        store = AnswerStore(directory)
    store.put(StoredAnswer(ASKED, answer()))
    assert store.get(KEY) == answer()
    assert "set aside" in caplog.text
    assert any(file.name.startswith("damaged-") for file in directory.iterdir())
    store.close()


def test_a_folder_that_cannot_be_made(tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(StoreError, match="SMOOTHAPI_HOME"):
        AnswerStore(tmp_path / "file" / "answers")


def test_answers_survive_kill_9(tmp_path):
    """What `put` returned for is there, though the process died at once."""
    script = textwrap.dedent(
        """
        import os, signal, sys
        from pathlib import Path
        from smoothapi.store import StoredAnswer
        from smoothapi.store.local.answers import AnswerStore
        from smoothapi.answer import Answer
        store = AnswerStore(Path(sys.argv[1]))
        for index in range(50):
            store.put(StoredAnswer({'n': index}, Answer(())))
        os.kill(os.getpid(), signal.SIGKILL)
        """
    )
    done = subprocess.run([sys.executable, "-c", script, str(tmp_path)], check=False)
    assert done.returncode == -9
    store = AnswerStore(tmp_path)
    assert all(store.get(answer_key({"n": index})) == Answer(()) for index in range(50))
    store.close()


def test_keys_depend_on_every_part_and_not_on_order():
    parts = {"provider": "aws", "index": 3, "sigma": 0.25, "identity": {"a": 1}}
    keys = {answer_key(parts)}
    for name, other in [("provider", "gcp"), ("index", 4), ("sigma", 0.5), ("identity", {"a": 2})]:
        keys.add(answer_key({**parts, name: other}))
    assert len(keys) == 5
    assert answer_key(dict(reversed(parts.items()))) in keys


@pytest.mark.parametrize("score", [-0.1, 1.1, float("nan")])
def test_scores_outside_0_1_are_refused(score):
    with pytest.raises(UsageError, match="scores are in"):
        Label("bus", score)


def test_a_nameless_label_is_refused():
    with pytest.raises(UsageError, match="name"):
        Label("", 0.5)


def test_when_storing_breaks_in_any_way_nobody_believes_it_worked(store, monkeypatch):
    """Several threads wait for one transaction; all must hear that it failed."""
    import threading

    def broken(*_, **__):
        raise MemoryError

    monkeypatch.setattr(store._cache, "keep", broken)
    failures = []

    def put(number):
        try:
            store.put(StoredAnswer({"n": number}, answer()))
        except StoreError:
            failures.append(number)

    threads = [threading.Thread(target=put, args=(n,)) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(failures) == list(range(8))


def test_a_store_that_a_stopped_process_holds_is_said_as_that(tmp_path, monkeypatch):
    def locked(_):
        error = sqlite3.OperationalError("database is locked")
        error.sqlite_errorcode = sqlite3.SQLITE_BUSY
        raise error

    monkeypatch.setattr("smoothapi.store.local.answers.AnswerCache", locked)
    with pytest.raises(StoreError, match=r"database is locked\. Another process has held it"):
        AnswerStore(tmp_path / "answers")


def test_each_of_many_threads_keeps_few_pages_of_the_database(tmp_path):
    """A gateway has a hundred threads, and SQLite's own bound is 2 MB for each."""
    store, kept = AnswerStore(tmp_path), []

    def look(store=store):
        store.get("a key")
        kept.append(store._cache._sql("PRAGMA cache_size").fetchone()[0])

    threads = [threading.Thread(target=look) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    look()
    store.close()
    assert kept == [-256] * 4
