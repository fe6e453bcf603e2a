"""The home: who may read it, what room there is, and whether what it holds can be used."""

from __future__ import annotations

import itertools
import os
import re
import shutil
import tempfile
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING

from smoothapi.doctor.result import CheckResult
from smoothapi.errors import StoreError
from smoothapi.files import shown_name
from smoothapi.store import Home

if TYPE_CHECKING:
    from collections.abc import Iterator

_MIB = 2**20
_LITTLE = 1024 * _MIB  # an answer takes about a KiB: of a million
_TOO_LITTLE = 16 * _MIB
_SAMPLE = 1_000
_REMOTE = frozenset({"nfs", "nfs4", "cifs", "smb3", "smbfs", "9p", "afs", "fuse.sshfs", "lustre"})
_OCTAL = re.compile(r"\\([0-7]{3})")
_MOUNTS = Path("/proc/self/mounts")


def examine(folder: Path) -> Iterator[CheckResult]:
    """Yield how the folder is, and the key, the answers and the ledger in it.

    What is not there yet is not made.

    Raises:
        StoreError: the key, the answers or the ledger cannot be used.
    """
    yield _rights(folder)
    yield _disk(folder)
    if not folder.is_dir():
        return
    with closing(Home(folder)) as home:
        if (folder / "noise.key").exists():
            home.secret()
            yield CheckResult("noise key", "ok", "only its owner can read it")
        if (folder / "answers").exists():
            yield _answers(home)
        if (folder / "ledger.db").exists():
            accounts = home.accounts()
            yield CheckResult("ledger", "ok", f"{len(accounts)} budget{'s' * (len(accounts) != 1)}")


def _rights(folder: Path) -> CheckResult:
    shown = shown_name(str(folder))
    nearest = _nearest(folder)
    try:
        # Asking by os.access would not know of read-only mounts, quotas or another machine's rules.
        with tempfile.TemporaryFile(dir=nearest):
            pass
    except OSError as error:
        return CheckResult(
            "home",
            "problem",
            f"{shown} cannot be written to ({error.strerror or type(error).__name__})",
            "Set SMOOTHAPI_HOME, or home in the settings, to a folder of yours that is kept.",
        )
    if nearest != folder:
        return CheckResult("home", "ok", f"{shown}, which the first run will make")
    kind = _file_system(folder)
    if kind in _REMOTE:
        return CheckResult(
            "home",
            "warning",
            f"{shown} is on {kind}, where the locks of SQLite are not reliable",
            "Choose a folder on a disk of this machine; one process at a time is safe at most.",
        )
    return CheckResult("home", "ok", shown)


def _disk(folder: Path) -> CheckResult:
    try:
        free = shutil.disk_usage(_nearest(folder)).free
    except OSError as error:
        return CheckResult("disk", "warning", f"its room is not known ({error.strerror})")
    said = f"{free / _MIB:,.0f} MiB free"
    advice = "Make room: an answer that was paid for must be kept before it counts."
    if free < _TOO_LITTLE:
        return CheckResult("disk", "problem", said, advice)
    return (
        CheckResult("disk", "warning", said, advice)
        if free < _LITTLE
        else CheckResult("disk", "ok", said)
    )


def _answers(home: Home) -> CheckResult:
    read = bad = 0
    for key in itertools.islice(home.answers.all_keys(), _SAMPLE):
        try:
            home.answers.row(key)
            read += 1
        except StoreError:
            bad += 1
    said = f"{len(home.answers):,} stored; of {read + bad:,} that were read, {bad:,} cannot be used"
    if bad:
        return CheckResult(
            "answers",
            "warning",
            said,
            "They are asked for again when they are needed. smoothapi cache verify names them all.",
        )
    return CheckResult("answers", "ok", said)


def _nearest(folder: Path) -> Path:
    """Return the folder, or the nearest one above it that exists."""
    return next((one for one in (folder, *folder.absolute().parents) if one.is_dir()), Path("/"))


def _file_system(folder: Path) -> str:
    """Return the kind of file system that a folder is on; "" where that is not known."""
    try:
        rows = [line.split() for line in _MOUNTS.read_text(errors="replace").splitlines()]
    except OSError:
        return ""
    place = os.path.realpath(folder)
    best = ("", "")
    for row in rows:
        point = _OCTAL.sub(lambda found: chr(int(found[1], 8)), row[1])  # a space is \040
        if os.path.commonpath([place, point]) == point and len(point) >= len(best[0]):
            best = (point, row[2])
    return best[1]
