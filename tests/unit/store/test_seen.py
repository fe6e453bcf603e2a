"""Which labels answers held: by provider and operation, kept with them and lost with them alone."""

from __future__ import annotations

import json
import sqlite3

import diskcache
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from smoothapi.answer import Answer, Label
from smoothapi.store import Home, Seen, StoredAnswer
from smoothapi.store.local.answers import AnswerStore
from smoothapi.store.local.cache import FILE, AnswerCache
from smoothapi.store.recording import header, to_line
from smoothapi.store.rows import names_in, names_in_row
from tests.conftest import invoke


def of(n, *names, provider="p", operation="labels"):
    identity = {"operation": operation} if operation else {}
    asked = {"provider": provider, "identity": identity, "n": n}
    return StoredAnswer(asked, Answer(tuple(Label(name, 0.5) for name in names)))


def seen(store, operation="labels"):
    return store.seen("p", operation).labels


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


def test_an_identity_without_an_operation_has_one_of_its_own(store):
    store.put(of(0, "Bus", operation=None), of(1, "Kite"))
    assert seen(store, "") == {"Bus"}


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
    assert store.seen("p", "labels") == Seen()
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
        before.setattr(AnswerCache, "_begin_to_see", lambda self: None)
        old = AnswerStore(tmp_path / "old")
        old.put(
            of(0, "Bus"), of(1, "Kite", operation="moderation"), StoredAnswer({"n": 2}, Answer(()))
        )
        assert seen(old) == {"Bus"}  # looked for among the rows
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


def test_a_damaged_row_is_passed_over(tmp_path, monkeypatch, caplog):
    with monkeypatch.context() as before:
        before.setattr(AnswerCache, "_begin_to_see", lambda self: None)
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
