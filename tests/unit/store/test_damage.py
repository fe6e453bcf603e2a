"""Damage of every kind: what can be read is kept, what cannot is a miss, no money is forgotten."""

from __future__ import annotations

import logging
import random
import re
import shutil
import sqlite3
from contextlib import suppress
from decimal import Decimal

import pytest

from smoothapi.errors import StoreError
from smoothapi.provider import Price
from smoothapi.store import Budget, Home, StoredAnswer, answer_key, rows
from smoothapi.store.local.answers import AnswerStore
from smoothapi.store.local.pages import log_is_damaged, texts
from tests.conftest import answer, invoke

COUNT = 100
LATE = 12
KEYS = [answer_key({"n": number}) for number in range(COUNT)]
PAGE = 4096


def kept(number):
    return answer(f"label {number}")


@pytest.fixture(scope="module")
def sound(tmp_path_factory):
    """A store with answers of all lengths, some of which need pages of their own; a folder."""
    folder = tmp_path_factory.mktemp("sound")
    store = AnswerStore(folder / "answers")
    for first in range(0, COUNT, 10):
        store.put(
            *(
                StoredAnswer({"n": n}, kept(n), payload="x" * (0 if n % 7 else 9000))
                for n in range(first, first + 10)
            )
        )
    store.close()
    return folder / "answers"


@pytest.fixture
def damaged(sound, tmp_path):
    shutil.copytree(sound, tmp_path / "answers")
    return tmp_path / "answers"


def found_in(store):
    """Return the numbers whose answers are found; each found is the right one."""
    found = {n: store.get(key) for n, key in enumerate(KEYS)}
    assert all(value in (None, kept(n)) for n, value in found.items())
    return {n for n, value in found.items() if value is not None}


def readable(file):
    """Return how many answers SQLite itself can read, row by row."""
    found = set()
    database = sqlite3.connect(f"file:{file}?mode=ro", uri=True)
    for number in range(1, COUNT + 1):
        try:
            key, text = database.execute(
                "SELECT key, value FROM Cache WHERE rowid = ?", (number,)
            ).fetchone()
            if rows.from_text(text)[0] == key:
                found.add(key)
        except (sqlite3.Error, TypeError, ValueError):
            pass
    database.close()
    return len(found)


def use_every_entry(folder, caplog):
    """Read, write and look after a damaged store; return what was found, and was said to be."""
    before = readable(folder / "cache.db")
    store = AnswerStore(folder)
    with caplog.at_level(logging.WARNING, logger="smoothapi"):
        found = found_in(store)
        store.put(*(StoredAnswer({"n": n}, kept(n)) for n in range(COUNT)))
        assert found_in(store) == set(range(COUNT)), "what was lost is kept once it is bought again"
        assert len(store) == len(list(store.all_keys()))
        store.bytes()
    store.close()
    said = re.findall(r"with the (\d+) answers", caplog.text)
    if said:
        assert int(said[0]) >= len(found)
    assert len(found) >= before - 1, "of a byte in the index one is not found, though it is there"
    return found, said


def pages(folder):
    data = (folder / "cache.db").read_bytes()
    return data, range(0, len(data), PAGE)


@pytest.mark.parametrize("fill", [b"\0", None])
@pytest.mark.parametrize("place", [0.0, 0.01, 0.1, 0.3, 0.8, 0.999])
def test_a_page_of_anything_loses_at_most_its_own_rows(damaged, caplog, fill, place):
    data, starts = pages(damaged)
    start = starts[int(place * len(starts))]
    noise = random.Random(start).randbytes(PAGE) if fill is None else fill * PAGE
    (damaged / "cache.db").write_bytes(data[:start] + noise + data[start + PAGE :])
    found, said = use_every_entry(damaged, caplog)
    assert len(found) >= COUNT - 12, "a page holds no more rows"
    if said:
        assert len(found) == int(said[0])
        assert list(damaged.glob("damaged-*.db"))


@pytest.mark.parametrize("seed", range(12))
def test_a_byte_anywhere_costs_at_most_a_page(damaged, caplog, seed):
    data, _ = pages(damaged)
    at = random.Random(seed).randrange(len(data))
    changed = bytearray(data)
    changed[at] ^= 1 << seed % 8
    (damaged / "cache.db").write_bytes(changed)
    found, _ = use_every_entry(damaged, caplog)
    assert len(found) >= COUNT - 12


@pytest.mark.parametrize("length", [0, 1, 100, 4000, PAGE, 5 * PAGE, 20 * PAGE + 17])
def test_a_file_that_was_cut_off(damaged, caplog, length):
    data, _ = pages(damaged)
    (damaged / "cache.db").write_bytes(data[:length])
    use_every_entry(damaged, caplog)


HEADER = {
    "magic": 0,
    "page size": 16,
    "written by": 18,
    "read by": 19,
    "pages": 28,
    "free": 32,
    "schema format": 44,
    "encoding": 56,
    "mark": 68,
}


@pytest.mark.parametrize("field", HEADER)
@pytest.mark.parametrize("value", [0, 0xFF])
def test_a_header_that_is_damaged(damaged, caplog, field, value):
    data = bytearray(pages(damaged)[0])
    data[HEADER[field]] = value
    (damaged / "cache.db").write_bytes(data)
    found, _ = use_every_entry(damaged, caplog)
    assert len(found) == COUNT


@pytest.mark.parametrize(
    ("was", "becomes"),
    [
        (b"TABLE Cache", b"TABLE Cachf"),
        (b"CREATE TABLE Cache", b"CREATF TABLE Cache"),
        (b" value BLOB)", b" valve BLOB)"),
        (b"value = value + 1", b"value = value - 1"),
        (b"value = value + 1", b"valve = value + 1"),
        (b"AFTER INSERT ON Cache", b"AFTER INSERT ON Cachx"),
        (b"Cache(key, raw)", b"Cache(kez, raw)"),
        (b"key BLOB", b"key \xff\xfeOB"),
        (b"tableSettings", b"tableSettingz"),
    ],
)
def test_a_schema_text_that_is_damaged(damaged, caplog, was, becomes):
    data, _ = pages(damaged)
    assert was in data
    (damaged / "cache.db").write_bytes(data.replace(was, becomes, 1))
    found, _ = use_every_entry(damaged, caplog)
    assert len(found) == COUNT


@pytest.mark.parametrize(
    "change",
    [
        "UPDATE Cache SET value = NULL",
        "UPDATE Cache SET value = 7",
        "UPDATE Cache SET value = 0.5",
        "UPDATE Cache SET value = CAST(value AS BLOB)",
        "UPDATE Cache SET value = CAST(x'7bff7d' AS TEXT)",
        "UPDATE Cache SET value = replace(value, 'label ', 'labek ')",
        "UPDATE Cache SET value = replace(value, '0.9', '0.8')",
        "UPDATE Cache SET value = substr(value, 1, length(value) / 2)",
        "UPDATE Cache SET value = printf('%.*c', 100000, '[')",
        "UPDATE Cache SET value = '{\"schema\": ' || printf('%.*c', 5000, '9') || '}'",
        "UPDATE Cache SET value = (SELECT value FROM Cache WHERE rowid = 1) WHERE rowid > 1",
        "UPDATE Cache SET mode = NULL",
        "UPDATE Cache SET mode = 'x'",
        "UPDATE Cache SET mode = 4",
        "UPDATE Cache SET expire_time = 1.0",
        "UPDATE Cache SET expire_time = 'x', tag = 7, size = 'y'",
        "UPDATE Cache SET filename = CAST(x'ff' AS TEXT)",
        "UPDATE Cache SET raw = NULL",
        "UPDATE Cache SET key = NULL",
        "UPDATE Cache SET key = CAST(x'ff00' || rowid AS TEXT)",
        "UPDATE Settings SET value = NULL",
        "UPDATE Settings SET value = 'nonsense x'",
        "UPDATE Settings SET key = CAST(x'ff' || rowid AS TEXT)",
        "UPDATE Settings SET key = 'close' WHERE key = 'hits'",
        "DELETE FROM Settings",
        "DROP TABLE Settings",
        "DROP INDEX Cache_key_raw",
        "DROP TRIGGER Settings_count_insert",
        "ALTER TABLE Cache RENAME TO Other",
    ],
)
def test_what_a_row_or_a_table_may_hold(damaged, caplog, change):
    edit(damaged, change)
    use_every_entry(damaged, caplog)


def edit(folder, change):
    database = sqlite3.connect(folder / "cache.db")
    with database:
        database.execute(change)
    database.close()


@pytest.mark.parametrize(
    "change",
    [
        "UPDATE Cache SET value = NULL",
        "UPDATE Cache SET value = CAST(x'7bff7d' AS TEXT), filename = CAST(x'ff' AS TEXT)",
        "DROP TABLE Settings",
        "DROP INDEX Cache_key_raw",
        "ALTER TABLE Cache RENAME TO Other",
    ],
)
def test_damage_under_a_store_that_is_open(damaged, change):
    store = AnswerStore(damaged)
    edit(damaged, change)
    found = found_in(store)
    store.put(*(StoredAnswer({"n": n}, kept(n)) for n in range(COUNT)))
    assert found_in(store) == set(range(COUNT)) >= found
    store.close()


def with_log(folder, change):
    """Leave a store as a killed process does, with all answers of late in its log, damaged."""
    store = AnswerStore(folder)
    for n in range(COUNT, COUNT + LATE):
        store.put(StoredAnswer({"n": n}, kept(n)))
    copy = folder.with_name("killed")
    copy.mkdir()
    for name in ("cache.db", "cache.db-wal"):
        shutil.copy(folder / name, copy / name)
    store.close()
    log = bytearray((copy / "cache.db-wal").read_bytes())
    change(log)
    (copy / "cache.db-wal").write_bytes(log)
    return copy


def zero(start, length=PAGE):
    def change(log):
        log[start : start + length] = bytes(min(length, len(log) - start))

    return change


@pytest.mark.parametrize("start", [0, 8, 40, 12_384, 50_000])
@pytest.mark.parametrize("length", [1, PAGE])
def test_a_damaged_log_costs_what_was_damaged_and_no_more(damaged, start, length):
    """SQLite passes over all that comes behind, without a word."""
    copy = with_log(damaged, zero(start, length))
    store = AnswerStore(copy)
    found = [n for n in range(COUNT + LATE) if store.get(answer_key({"n": n})) == kept(n)]
    assert len(found) >= COUNT + LATE - 3
    store.close()


@pytest.mark.parametrize("cut", [1, 10, 4120, 20_000])
def test_a_log_whose_end_was_never_written_is_no_damage(damaged, cut):
    def change(log):
        del log[-cut:]

    copy = with_log(damaged, change)
    assert not log_is_damaged(copy / "cache.db-wal")
    store = AnswerStore(copy)
    assert len(found_in(store)) == COUNT
    store.close()
    assert not list(copy.glob("damaged-*"))


def test_a_database_that_is_gone_while_its_log_is_there(damaged):
    copy = with_log(damaged, lambda log: None)
    (copy / "cache.db").unlink()
    store = AnswerStore(copy)
    assert all(store.get(answer_key({"n": n})) == kept(n) for n in range(COUNT, COUNT + LATE))
    store.close()


def test_pages_say_what_sqlite_says(sound):
    """The texts of all rows, also of those that reach over several pages."""
    with sqlite3.connect(sound / "cache.db") as database:
        stored = {value.encode() for (value,) in database.execute("SELECT value FROM Cache")}
    database.close()
    assert any(len(text) > PAGE for text in stored)
    assert stored <= set(texts(sound / "cache.db"))


def test_cleared_answers_do_not_come_back(damaged):
    store = AnswerStore(damaged)
    assert store.clear() == COUNT
    store.close()
    file = damaged / "cache.db"
    file.write_bytes(b"x" * 100 + file.read_bytes()[100:])
    store = AnswerStore(damaged)
    assert len(store) == 0
    store.close()


def test_what_cannot_be_rebuilt_is_left_as_it_is(damaged, monkeypatch):
    """A full disk, say: the next run finds what this one found."""
    file = damaged / "cache.db"
    file.write_bytes(b"x" * 100 + file.read_bytes()[100:])

    def full(*_):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch, pytest.raises(StoreError, match="No space left"):
        patch.setattr("smoothapi.store.local.rebuild._answers", full)
        AnswerStore(damaged)
    assert sorted(path.name for path in damaged.glob("*.db")) == ["cache.db"]
    store = AnswerStore(damaged)
    assert len(found_in(store)) == COUNT
    store.close()


def test_the_commands_get_along_with_damage(damaged):
    with sqlite3.connect(damaged / "cache.db") as database:
        database.execute("UPDATE Cache SET value = NULL WHERE rowid = 5")
    database.close()
    home = damaged.parent
    assert "100 answers" in invoke("cache", "--home", home, "info").stdout
    done = invoke("cache", "--home", home, "verify")
    assert (done.exit_code, done.stdout) == (2, "99 answers can be used, 1 cannot.\n")
    done = invoke("cache", "--home", home, "export", home / "file")
    assert "Exported 99 answers" in done.stderr
    assert "1 cannot be read" in done.stderr
    (damaged / "cache.db").write_bytes(b"nothing")
    assert invoke("cache", "--home", home, "info").stdout.startswith("0 answers")


# The ledger


@pytest.fixture(scope="module")
def ledger(tmp_path_factory):
    """A home in which 70 attempts of 100 were made, and one process died."""
    home = Home(tmp_path_factory.mktemp("home"))
    book = home.ledger([Budget(attempts=100, name="study")], "aws", Price(Decimal(1)))
    book.settle(book.reserve(70), 70)
    book.close()
    home.close()
    return home.folder


@pytest.fixture
def folder(ledger, tmp_path):
    shutil.copytree(ledger, tmp_path / "home")
    return tmp_path / "home"


def room(folder):
    """Return what is left of the budget, None if the ledger is refused in words."""
    with Home(folder) as home:
        try:
            return home.ledger(
                [Budget(attempts=100, name="study")], "aws", Price(Decimal(1))
            ).room()
        except StoreError as error:
            said = str(error)
    assert "cannot be used" in said or "later smoothapi" in said
    return None


@pytest.mark.parametrize("page", range(8))
@pytest.mark.parametrize("fill", [b"\0", b"\x0d"])
def test_a_damaged_page_of_the_ledger_forgets_no_money(folder, page, fill):
    data = (folder / "ledger.db").read_bytes()
    assert len(data) >= 8 * PAGE
    (folder / "ledger.db").write_bytes(
        data[: page * PAGE] + fill * PAGE + data[(page + 1) * PAGE :]
    )
    assert room(folder) in (None, 30)
    assert invoke("budget", "--home", folder).exit_code in (0, 2)


@pytest.mark.parametrize("length", [0, 1, 100, PAGE, 2 * PAGE, 5 * PAGE])
def test_a_ledger_that_was_cut_off_forgets_no_money(folder, length):
    data = (folder / "ledger.db").read_bytes()
    (folder / "ledger.db").write_bytes(data[:length])
    assert room(folder) is None


@pytest.mark.parametrize(
    "change",
    [
        "UPDATE accounts SET queries = NULL",
        "UPDATE accounts SET queries = 'x'",
        "UPDATE accounts SET queries = -5",
        "UPDATE accounts SET name = CAST(x'ff' AS TEXT)",
        "UPDATE accounts SET name = 'studz'",
        "UPDATE accounts SET period = NULL",
        "DELETE FROM accounts",
        "DROP TABLE accounts",
        "ALTER TABLE accounts RENAME TO acccunts",
        "DROP INDEX leases_until",
        "UPDATE usage SET queries = 1.5",
        "INSERT INTO reservations VALUES (9, 'x', 'y', 'aws', '2026-11', 'no json', 5, 5)",
        "INSERT INTO reservations VALUES (9, 'x', 1, 'aws', '2026-11', '[[1]]', 5, 5)",
        "INSERT INTO leases VALUES (NULL, 'x', 'y')",
        "INSERT INTO paces VALUES ('aws', 'x', 'y', 'z')",
        "PRAGMA user_version = 0",
        "PRAGMA user_version = 77",
    ],
)
def test_what_a_ledger_may_hold(folder, change):
    """All that uses it goes on, or refuses in words; what is edited on purpose is not told apart."""
    database = sqlite3.connect(folder / "ledger.db")
    try:
        with database:
            database.execute(change)
    except sqlite3.IntegrityError:
        return
    finally:
        database.close()
    room(folder)
    for step in (
        lambda home: home.accounts(),
        lambda home: home.release_abandoned(everywhere=True),
        lambda home: home.pace("aws", 5.0).take(1),
        lambda home: home.pace("aws", 5.0).throttled(1.0),
        lambda home: home.leases().take(["a"]),
        lambda home: home.leases().given_up(["a"]),
        lambda home: home.reset("other"),
    ):
        home = Home(folder)
        with suppress(StoreError), home:
            step(home)
    assert invoke("budget", "--home", folder).exit_code in (0, 2)


@pytest.mark.parametrize("start", [0, 8, 40, 5000, 8300])
def test_a_damaged_log_of_the_ledger_is_said(folder, start):
    home = Home(folder)
    book = home.ledger([Budget(attempts=100, name="study")], "aws", Price(Decimal(1)))
    for _ in range(20):
        book.settle(book.reserve(1), 1)
        book.rest()
    copy = folder.with_name("killed")
    copy.mkdir()
    for name in ("ledger.db", "ledger.db-wal"):
        shutil.copy(folder / name, copy / name)
    home.close()
    sound = folder.with_name("sound")
    shutil.copytree(copy, sound)
    assert room(sound) == 10
    log = bytearray((copy / "ledger.db-wal").read_bytes())
    log[start] ^= 1
    (copy / "ledger.db-wal").write_bytes(log)
    assert room(copy) is None
    (copy / "ledger.db").unlink()
    assert room(copy) is None


@pytest.mark.parametrize("seed", range(40))
def test_a_byte_of_the_ledger_forgets_no_money(folder, seed):
    data = bytearray((folder / "ledger.db").read_bytes())
    used = [at for at, byte in enumerate(data) if byte]
    data[random.Random(seed).choice(used)] ^= 1 << seed % 8
    (folder / "ledger.db").write_bytes(data)
    assert room(folder) in (None, 30)


def test_a_ledger_that_its_owner_looked_after_is_no_other(folder):
    database = sqlite3.connect(folder / "ledger.db")
    database.executescript("VACUUM; ANALYZE; REINDEX;")
    database.close()
    assert room(folder) == 30


def test_a_second_home_does_not_take_the_locks_of_the_first(folder):
    """Where a file is closed, the system drops all locks that the process has on it."""
    import subprocess
    import sys

    first = Home(folder)
    first.accounts()
    second = Home(folder)
    second.accounts()
    script = (
        "import sqlite3, sys; c = sqlite3.connect(sys.argv[1]); "
        "c.execute('SELECT * FROM accounts').fetchall(); c.close()"
    )
    subprocess.run([sys.executable, "-c", script, str(folder / "ledger.db")], check=True)
    assert (folder / "ledger.db-wal").exists(), "it took itself for the last that uses the file"
    second.close()
    first.close()
