"""The home that a command is about, opened."""

from __future__ import annotations

from contextlib import closing, contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

    from smoothapi.settings import Settings
    from smoothapi.store import Store


def home_settings(home: str | None) -> Settings:
    """Return the settings, whose home is that of an option, if it was given.

    Raises:
        UsageError: the home needs consent and has none.
    """
    from smoothapi.config import resolve  # noqa: PLC0415  keeps --help light

    resolved = resolve(home=home)
    resolved.require_trust(("home", "noise_key_file"))
    return resolved.settings


@contextmanager
def opened_home(home: str | None) -> Iterator[Store]:
    """Open the store of a home, and close it."""
    from smoothapi.store import open_home  # noqa: PLC0415

    settings = home_settings(home)
    with closing(open_home(settings.home, settings.noise_key_file)) as store:
        yield store
