"""Which labels answers held: by provider and identity, kept with them and lost with them alone."""

from __future__ import annotations

import json
import sqlite3

import diskcache
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from smoothapi.answer import Answer, Label
from smoothapi.store import Home, Seen, StoredAnswer, answer_key
from smoothapi.store.local import cache
from smoothapi.store.local.answers import AnswerStore
from smoothapi.store.local.cache import FILE, AnswerCache
from smoothapi.store.recording import header, to_line
from smoothapi.store.rows import names_in, names_in_row, to_text
from tests.conftest import invoke


def of(n, *names, provider="p", operation="labels"):
    identity = {"operation": operation} if operation else {}
    asked = {"provider": provider, "identity": identity, "n": n}
    return StoredAnswer(asked, Answer(tuple(Label(name, 0.5) for name in names)))


def seen(store, operation="labels"):
    return store.seen("p", {"operation": operation} if operation else {}).labels


@pytest.fixture
def reopened(store, tmp_path):
    """Closes the store and opens it again."""
    opened = []

    def reopen():
        store.close()
        opened.append(AnswerStore(tmp_path / "answers"))
        return opened[-1]

    yield reopen
    for each in opened:
        each.close()


def test_names_are_spelt_as_they_came(store):
    store.put(of(0, "School Bus", "Weißkopf", "<b>", "a\0b"), of(1, "school bus"))
    assert seen(store) == {"School Bus", "school bus", "Weißkopf", "<b>", "a\0b"}


def test_what_no_database_can_keep_is_left_out_and_loses_no_answer(store):
    store.put(of(0, "lone \ud800", "Bus"))
    assert seen(store) == {"Bus"}
    assert len(store) == 1


_NAMES = st.text(min_size=1, max_size=4)


@settings(deadline=None, max_examples=40)
@given(
    labels=st.lists(
        st.builds(
            Label, _NAMES, st.just(0.5), st.lists(_NAMES, max_size=2), st.lists(_NAMES, max_size=2)
        )
    )
)
def test_a_row_has_the_names_that_its_answer_had(labels):
    kept = StoredAnswer({"provider": "p", "identity": {}}, Answer(tuple(labels)))
    row = json.loads(json.dumps(kept.row()))
    assert names_in_row(row) == names_in(kept.asked, kept.outcome)


def test_an_empty_identity_is_one_of_its_own(store):
    store.put(of(0, "Bus", operation=None), of(1, "Kite"))
    assert seen(store, None) == {"Bus"}


def test_what_is_not_put_is_not_seen(store, monkeypatch):
    def full(*_):
        raise sqlite3.OperationalError("database is locked")

    monkeypatch.setattr("smoothapi.store.local.answers._PATIENCE", 0.0)
    with monkeypatch.context() as patch:
        patch.setattr(AnswerCache, "keep", full)
        with pytest.raises(Exception, match="could not be stored"):
            store.put(of(0, "Bus"))
    assert seen(store) == set()


def test_it_is_forgotten_with_the_answers(store):
    store.put(of(0, "Bus"))
    assert store.clear() == 1
    assert store.seen("p", {"operation": "labels"}) == Seen()
    store.put(of(0, "Van"))
    assert seen(store) == {"Van"}


def test_rows_that_are_imported_are_seen(store, tmp_path):
    store.put(of(0, "Bus"))
    lines = [header(), *(to_line(store.row(key)) for key in store.all_keys())]
    (tmp_path / "answers.jsonl").write_text("".join(lines))
    assert (
        invoke("cache", "import", tmp_path / "answers.jsonl", "--home", tmp_path / "b").exit_code
        == 0
    )
    with Home(tmp_path / "b") as home:
        assert seen(home.answers) == {"Bus"}


def test_a_store_of_before_learns_what_it_holds(store, reopened, tmp_path, monkeypatch):
    with monkeypatch.context() as before:
        before.setattr(AnswerCache, "_begin_to_see", lambda self: set())
        old = AnswerStore(tmp_path / "old")
        old.put(
            of(0, "Bus"), of(1, "Kite", operation="moderation"), StoredAnswer({"n": 2}, Answer(()))
        )
        old.close()
    now, other = AnswerStore(tmp_path / "old"), AnswerStore(tmp_path / "old")
    now.put(of(3, "Van"))
    assert not now._cache._sees()  # a large store is looked through when it is asked, not opened
    assert seen(other) == {"Bus", "Van"}
    now.put(of(4, "Tram"))
    assert seen(other) == {"Bus", "Van", "Tram"}
    other.close()
    assert seen(now) == {"Bus", "Van", "Tram"}
    assert seen(now, "moderation") == {"Kite"}
    now.close()
    again = AnswerStore(tmp_path / "old")
    assert len(again) == 5
    assert not list((tmp_path / "old").glob("damaged*"))
    again.close()


_BEFORE = (
    "CREATE TABLE Seen (provider TEXT, operation TEXT, kind TEXT, name TEXT, "
    "PRIMARY KEY (provider, operation, kind, name)) WITHOUT ROWID"
)


@pytest.fixture
def by_operation(tmp_path, monkeypatch):
    """A store that kept names by operation, as an earlier smoothapi did, and what it had."""
    with monkeypatch.context() as before:
        before.setattr("smoothapi.store.local.cache._SEEN", _BEFORE)
        old = AnswerStore(tmp_path / "old")
        old._cache.keep(
            [(one.key or answer_key(one.asked), to_text(one.row())) for one in (of(0, "Bus"),)],
            [("p", "labels", "label", "Bus"), ("p", "labels", "label", "another model's")],
        )
        old.close()
    now = AnswerStore(tmp_path / "old")
    yield now
    now.close()


def test_names_that_were_kept_by_operation_are_collected_anew(by_operation, tmp_path):
    by_operation.put(of(1, "Van"))
    assert seen(by_operation) == {"Bus", "Van"}
    by_operation.put(of(2, "Tram"))
    assert seen(by_operation) == {"Bus", "Van", "Tram"}
    names = by_operation._cache._sql("SELECT name FROM Seen").fetchall()
    assert sorted(names) == [("Bus",), ("Tram",), ("Van",)]
    again = AnswerStore(tmp_path / "old")
    assert len(again) == 3
    assert not list((tmp_path / "old").glob("damaged*"))
    again.close()


def test_names_that_were_kept_by_operation_are_forgotten_too(by_operation):
    by_operation.clear()
    assert by_operation._cache._sql("SELECT * FROM Seen").fetchall() == []


@pytest.fixture
def meanwhile(tmp_path, monkeypatch):
    """Opens a store of before, and has a step taken once its first page was looked through."""
    with monkeypatch.context() as before:
        before.setattr(AnswerCache, "_begin_to_see", lambda self: set())
        old = AnswerStore(tmp_path / "old")
        old.put(*(of(n, f"label {n}") for n in range(4)))
        old.close()
    monkeypatch.setattr("smoothapi.store.local.cache._UNDER_WAY", 0.0)
    opened = [AnswerStore(tmp_path / "old"), AnswerStore(tmp_path / "old")]
    now, other = opened
    steps = []
    look = cache._names_in

    def looking(texts):
        found = look(texts)
        if steps:
            steps.pop()(other)
        return found

    def store_in_which(step):
        steps.append(step)
        monkeypatch.setattr(cache, "_names_in", looking)
        return now

    yield store_in_which
    for each in opened:
        each.close()


def test_others_can_write_while_a_large_store_is_looked_through(meanwhile, monkeypatch):
    monkeypatch.setattr("smoothapi.store.local.answers._PATIENCE", 0.0)
    anew = of(1, "Van")  # in the place of a row that was looked through
    now = meanwhile(lambda other: other.put(anew, of(4, "Tram")))
    everything = {"label 0", "label 1", "label 2", "label 3", "Van", "Tram"}
    assert seen(now) == everything
    assert seen(now) == everything  # from the table


def test_what_is_erased_while_a_store_is_looked_through_is_not_seen(meanwhile):
    def erase(other):
        other.clear()
        other.put(of(7, "Kite"))

    now = meanwhile(erase)
    assert seen(now) == {"Kite"}
    assert seen(now) == {"Kite"}


def test_a_damaged_row_is_passed_over(tmp_path, monkeypatch, caplog):
    with monkeypatch.context() as before:
        before.setattr(AnswerCache, "_begin_to_see", lambda self: set())
        old = AnswerStore(tmp_path / "old")
        old.put(of(0, "Bus"), of(1, "Kite"))
        old._cache._sql("UPDATE Cache SET value = '{' WHERE rowid = 1")
        old.close()
    now = AnswerStore(tmp_path / "old")
    assert seen(now) == {"Kite"}
    now.close()


def test_where_no_table_can_be_made_the_rows_are_looked_through(tmp_path, monkeypatch):
    def locked(self):
        raise diskcache.Timeout

    with monkeypatch.context() as busy:
        busy.setattr(AnswerCache, "transact", locked)
        store = AnswerStore(tmp_path / "answers")
    store.put(of(0, "Bus"))
    assert seen(store) == {"Bus"}
    assert len(store) == 1
    assert store.clear() == 1
    store.close()


def test_it_is_found_again_in_a_store_that_was_damaged(store, reopened, tmp_path):
    store.put(of(0, "Bus"), *(of(n, f"label {n}") for n in range(1, 200)))
    store.close()
    file = tmp_path / "answers" / FILE
    data = bytearray(file.read_bytes())
    data[0:16] = b"\0" * 16
    file.write_bytes(data)
    assert "Bus" in seen(reopened())
