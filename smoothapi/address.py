"""Where a home is: a folder of this machine, or a database that many machines share."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypeAlias
from urllib.parse import parse_qsl, quote, unquote, urlencode

from smoothapi.errors import UsageError
from smoothapi.files import expanded

if TYPE_CHECKING:
    from pathlib import Path

HomeAddress: TypeAlias = "Path | DatabaseAddress"

_SCHEMES = ("postgresql", "postgres")
_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+")
_HOST = re.compile(r"(\[[0-9A-Fa-f:.%]+\]|[^:\[\]]*)(:[0-9]*)?")
_UNPRINTABLE = re.compile(r"[\s\x00-\x1f]")
_SECRET = ("password", "sslpassword", "oauth_client_secret")
_MASK = "***"


@dataclass(frozen=True, slots=True)
class DatabaseAddress:
    """The address of a PostgreSQL database: postgresql://user@host:port/database?option=value.

    As text and in a repr it shows no password.

    Attributes:
        url: as libpq takes it, with whatever password it holds.
    """

    url: str = field(repr=False)

    def __post_init__(self) -> None:
        before, _, options = self.url.partition("://")[2].partition("?")
        login_and_hosts, _, rest = before.partition("/")
        login, _, hosts = login_and_hosts.rpartition("@")
        if (
            "@" in login
            or "@" in rest + options
            or _UNPRINTABLE.search(self.url)
            or not all(map(_HOST.fullmatch, hosts.split(",")))
            or (options and not all("=" in pair for pair in options.split("&")))
        ):
            # Not shown, nor left to libpq: what looks wrong might be a part of a password.
            raise UsageError(
                "The address of the database cannot be read; expected "
                "postgresql://user@host:port/database. Characters such as @ / ? # and spaces of a "
                "password are written as %40 %2F %3F %23 %20; better, leave the password out, and "
                "give it in PGPASSWORD or ~/.pgpass."
            )

    def __str__(self) -> str:
        before, sign, options = self.url.partition("?")
        scheme, _, rest = before.partition("://")
        login, at, place = rest.rpartition("@")
        user, colon, _ = login.partition(":")
        shown = f"{scheme}://{user}{f':{_MASK}' if colon else ''}{at}{place}"
        pairs = [
            (name, _MASK if name in _SECRET else value)
            for name, value in parse_qsl(options, keep_blank_values=True)
        ]
        return f"{shown}{sign}{urlencode(pairs, safe='*/:,', quote_via=quote)}"

    def __repr__(self) -> str:
        return f"DatabaseAddress({str(self)!r})"

    @property
    def without_secrets(self) -> DatabaseAddress:
        """The same address, to be completed by passwords from where libpq finds them."""
        before, sign, options = self.url.partition("?")
        scheme, _, rest = before.partition("://")
        login, at, place = rest.rpartition("@")
        kept = [
            pair for pair in options.split("&") if unquote(pair.partition("=")[0]) not in _SECRET
        ]
        sign = sign if any(kept) else ""
        login = login.partition(":")[0]
        return DatabaseAddress(f"{scheme}://{login}{at}{place}{sign}{'&'.join(kept)}")

    @property
    def secrets(self) -> tuple[str, ...]:
        """What of it must not be shown."""
        before, _, options = self.url.partition("?")
        login = before.partition("://")[2].rpartition("@")[0]
        found = [login.partition(":")[2]]
        found += [value for name, value in parse_qsl(options) if name in _SECRET]
        return tuple({form for text in found for form in (text, unquote(text)) if form})


def parse_home(given: str | Path) -> HomeAddress:
    """Return the home that is meant.

    Args:
        given: a folder, or postgresql://...

    Raises:
        UsageError: it is the address of something else, or cannot be read. The address is not
            repeated, since it may hold a password.
    """
    scheme, sign, _ = (text := str(given)).partition("://")
    if sign and scheme.lower() in _SCHEMES:
        return DatabaseAddress(text)
    if text.startswith(tuple(f"{each}:" for each in _SCHEMES)):
        raise UsageError(
            "The home looks like the address of a database, without its two slashes: give "
            "postgresql://user@host/database, as text and not as a Path."
        )
    if sign and _SCHEME.fullmatch(scheme):
        raise UsageError(
            "A home is a folder, or the address of a PostgreSQL database "
            f"(postgresql://user@host/database); {scheme}:// is neither."
        )
    return expanded(given)


def is_database(given: str) -> bool:
    """Whether a home is the address of a database, readable or not."""
    return given.partition("://")[0].lower() in _SCHEMES
