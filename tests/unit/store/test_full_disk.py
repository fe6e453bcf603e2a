"""A disk that is full: what was answered is kept, what is said is what happened."""

from __future__ import annotations

import sqlite3

import pytest

from smoothapi.errors import StoreError
from smoothapi.store import StoredAnswer, answer_key
from smoothapi.store.local.answers import AnswerStore
from smoothapi.store.local.cache import AnswerCache
from tests.conftest import ScriptedAdapter, answer
from tests.unit.dispatch.harness import run


@pytest.fixture
def full(store, monkeypatch):
    """Fill the disk: `left` rows fit, and all while nothing of the room that was set aside is gone."""
    store.put(StoredAnswer({"n": "first"}, answer()))
    spare, keep, disk = store.directory / "spare", AnswerCache.keep, {"left": 10**6}
    assert spare.stat().st_size > 0

    def fits(cache, rows, names):
        if spare.exists() or len(rows) > disk["left"]:
            error = sqlite3.OperationalError("database or disk is full")
            error.sqlite_errorcode = sqlite3.SQLITE_FULL
            raise error
        keep(cache, rows, names)
        disk["left"] -= len(rows)

    monkeypatch.setattr(AnswerCache, "keep", fits)
    return disk


def kept(store, numbers):
    return [n for n in numbers if store.get(answer_key({"n": n})) is not None]


def test_what_is_under_way_is_kept_in_the_room_set_aside(store, full):
    with pytest.raises(StoreError, match=r"is full.* way 20 were kept"):
        store.put(*(StoredAnswer({"n": n}, answer()) for n in range(20)))
    assert kept(store, range(20)) == list(range(20))


def test_where_that_is_too_little_as_many_as_fit_are_kept(store, full):
    full["left"] = 7
    with pytest.raises(StoreError, match=r"7 were kept, and 13 could not be"):
        store.put(*(StoredAnswer({"n": n}, answer()) for n in range(20)))
    assert kept(store, range(20)) == list(range(7))


@pytest.mark.parametrize("batch", [1, 16])
def test_a_run_ends_with_all_that_was_answered(store, full, batch):
    adapter = ScriptedAdapter(batch=batch)
    with pytest.raises(StoreError, match="full") as caught:
        run(adapter, store, count=10 * batch, lot=batch, concurrency=2)
    assert caught.value.attempts == adapter.sent > 0
    assert len(store) == 1 + adapter.sent


def test_room_is_set_aside_again_once_there_is_some(store, full, monkeypatch):
    with pytest.raises(StoreError, match="full"):
        store.put(StoredAnswer({"n": 0}, answer()))
    monkeypatch.undo()
    other = AnswerStore(store.directory)
    other.put(StoredAnswer({"n": 1}, answer()))
    assert (store.directory / "spare").exists()
    other.close()


def test_a_sound_store_is_opened_and_read_without_writing(store):
    """There may be no room for a byte."""
    store.put(StoredAnswer({"n": 0}, answer()))
    store.close()
    file = store.directory / "cache.db"
    before = file.read_bytes()
    other = AnswerStore(store.directory)
    assert other.get(answer_key({"n": 0})) == answer()
    assert not (store.directory / "cache.db-wal").stat().st_size
    other.close()
    assert file.read_bytes() == before
