"""Consent: the settings files of folders that their user vouches for (`smoothapi config trust`).

A folder that was downloaded may bring a smoothapi.toml along. What it says counts, but for what
could send a credential elsewhere, run code, or forge a result: that needs the user's consent,
which is for one file at one place with one content. It is kept where no folder can reach: in the
user's own data folder, or in SMOOTHAPI_HOME.
"""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import platformdirs

from smoothapi.address import is_database
from smoothapi.errors import UsageError

SCHEMA = "smoothapi.trust/1"
_LIST = "trusted.json"


@dataclass(frozen=True, slots=True)
class SettingsFile:
    """A settings file, as it was read.

    Attributes:
        path: absolute, with no symbolic link in it.
        digest: SHA-256 of its content, in hexadecimal.
        trusted: whether the user vouches for just this content at this place.
    """

    path: Path
    digest: str
    trusted: bool


def examined(path: Path, content: bytes, *, named: bool = False) -> SettingsFile:
    """Return a settings file with whether it is trusted.

    Args:
        path: of the file.
        content: what was read of it, so that just that is judged.
        named: whether the user named the file, which is consent.
    """
    real = Path(os.path.realpath(path))
    digest = hashlib.sha256(content).hexdigest()
    return SettingsFile(real, digest, named or _kept().get(str(real)) == digest)


def vouch(file: SettingsFile) -> None:
    """Record that the user vouches for a file as it is now.

    Raises:
        UsageError: it cannot be recorded.
    """
    _keep({**_kept(), str(file.path): file.digest})


def revoke(file: SettingsFile) -> None:
    """Forget that the user vouches for a file.

    Raises:
        UsageError: it cannot be recorded.
    """
    _keep({path: digest for path, digest in _kept().items() if path != str(file.path)})


def _place() -> Path | None:
    """Return the list's path; None where there is no place that only the user decides.

    A relative one, as SMOOTHAPI_HOME may be and as platformdirs gives where there is no home,
    would be in the very folder that is in question.
    """
    named = os.environ.get("SMOOTHAPI_HOME")
    if named and is_database(named):
        named = None
    for folder in (named, platformdirs.user_data_dir("smoothapi")):
        if folder and (place := Path(folder).expanduser()).is_absolute():
            return place / _LIST
    return None


def _kept() -> dict[str, str]:
    """Return path -> digest of what is trusted; nothing is where the list cannot be read."""
    place = _place()
    if place is None:
        return {}
    try:
        data: Any = json.loads(place.read_bytes())
        files = data["files"] if data["schema"] == SCHEMA else {}
        return {str(path): str(digest) for path, digest in files.items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return {}


def _keep(files: dict[str, str]) -> None:
    place = _place()
    if place is None:
        raise UsageError(
            "There is no folder of yours to keep the consent in. Set HOME, or SMOOTHAPI_HOME to "
            "an absolute path."
        )
    text = json.dumps({"schema": SCHEMA, "files": files}, indent=1, sort_keys=True)
    try:
        place.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        handle, beside = tempfile.mkstemp(dir=place.parent, prefix=_LIST)  # mode 0600
        try:
            with os.fdopen(handle, "w", encoding="utf-8") as stream:
                stream.write(text)
            Path(beside).replace(place)
        except BaseException:
            with suppress(OSError):
                Path(beside).unlink()
            raise
    except (OSError, ValueError) as error:  # a ValueError: a path that is no UTF-8
        raise UsageError(
            f"The consent cannot be kept in {place}: {error}. Set SMOOTHAPI_HOME to a folder "
            "that you can write to."
        ) from error
