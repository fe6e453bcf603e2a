"""The secret of an installation, that noise is drawn from: 32 bytes in a file of its own."""

from __future__ import annotations

import os
import secrets
from contextlib import suppress
from typing import TYPE_CHECKING

from smoothapi.errors import StoreError
from smoothapi.files import create

if TYPE_CHECKING:
    from pathlib import Path

_BYTES = 32


def read_secret(path: Path) -> bytes:
    """Read the secret at `path`; on the first call, make it (mode 0600).

    Raises:
        StoreError: the file is readable by others, damaged, or cannot be made.
    """
    try:
        if not path.exists():
            _create(path)
        if os.name == "posix" and path.stat().st_mode & 0o077:
            raise StoreError(
                f"The noise key {str(path)!r} can be read by others, which voids the "
                "guarantee: whoever can predict the noise can defeat it. Delete it and the "
                "answers beside it, or, if nobody read it, run chmod 600 on it."
            )
        secret = path.read_bytes()
    except OSError as error:
        raise StoreError(
            f"The noise key {str(path)!r} cannot be read or made: {error.strerror}. Set "
            "SMOOTHAPI_HOME to a folder that you can write to."
        ) from error
    if len(secret) != _BYTES:
        raise StoreError(
            f"The noise key {str(path)!r} is damaged ({len(secret)} bytes instead of "
            f"{_BYTES}). Delete it to get a new one; stored answers then no longer fit."
        )
    return secret


def _create(path: Path) -> None:
    """Make the key file in one step, so that two first runs at once agree on one key."""
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    with suppress(FileExistsError):
        create(path, secrets.token_bytes(_BYTES), mode=0o600)
