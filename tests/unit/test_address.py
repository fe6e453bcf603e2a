"""Where a home is, as it is given and as it is shown."""

from __future__ import annotations

from pathlib import Path

import pytest

from smoothapi.address import DatabaseAddress, parse_home
from smoothapi.config import resolve
from smoothapi.errors import UsageError
from smoothapi.trust import _place


@pytest.mark.parametrize(
    ("given", "shown"),
    [
        ("postgresql://db/x", "postgresql://db/x"),
        ("postgres://u@db:5433,other:5434/x", "postgres://u@db:5433,other:5434/x"),
        ("POSTGRESQL://u:secret@db/x", "POSTGRESQL://u:***@db/x"),
        ("postgresql://u@[::1]:5432/x", "postgresql://u@[::1]:5432/x"),
        ("postgresql:///x?host=/run/pg", "postgresql:///x?host=/run/pg"),
        ("postgresql://u@db/x?password=s%20t&sslmode=require",
         "postgresql://u@db/x?password=***&sslmode=require"),
        ("postgresql://u:a%40b@db/x", "postgresql://u:***@db/x"),
    ],
)  # fmt: skip
def test_an_address_shows_no_password(given, shown):
    address = parse_home(given)
    assert isinstance(address, DatabaseAddress)
    assert address.url == given
    assert str(address) == shown
    assert repr(address) == f"DatabaseAddress({shown!r})"


def test_what_of_an_address_is_secret_is_known_in_both_its_forms():
    assert set(parse_home("postgresql://u:a%40b@db/x?password=c").secrets) == {"a%40b", "a@b", "c"}
    assert parse_home("postgresql://u@db/x").secrets == ()


@pytest.mark.parametrize("given", ["/a/b", "a b", "~/x", "a:b", "C:/x", "postgresql", "x@y"])
def test_all_else_is_a_folder(given):
    assert parse_home(given) == Path(given).expanduser()


@pytest.mark.parametrize(
    "given",
    [
        "postgresql:/db/x", "postgres:db", "mysql://db/x", "redis://db", "https://db/x",
        "postgresql://u:a@b@db/x", "postgresql://u:a/b@db/x", "postgresql://u:1?b@db/x",
        "postgresql://u:a b@db/x", "postgresql://db:port/x", "postgresql://u@db/x?ssl",
        "postgresql://u@db/x\n", "postgresql://u:1?b=2@db/x",
    ],
)  # fmt: skip
def test_what_cannot_be_an_address_is_refused_without_repeating_it(given, monkeypatch):
    with pytest.raises(UsageError) as caught:
        parse_home(given)
    assert given.strip() not in str(caught.value)
    with pytest.raises(UsageError, match=r"home \(from SMOOTHAPI_HOME\)") as caught:
        monkeypatch.setenv("SMOOTHAPI_HOME", given)
        resolve()
    assert given.strip() not in str(caught.value)


def test_an_address_given_as_a_path_is_refused():
    with pytest.raises(UsageError, match="not as a Path"):
        parse_home(Path("postgresql://db/x"))


def test_consent_is_not_kept_in_a_folder_named_like_a_database(monkeypatch):
    monkeypatch.setenv("SMOOTHAPI_HOME", "postgresql://db/x")
    assert "postgresql" not in str(_place())
