"""Who reserves and leases: a process, named so that others can tell whether it is gone."""

from __future__ import annotations

import os
import re
import socket
from pathlib import Path

from smoothapi.errors import UsageError

FORKED = (
    "This Smoother was made before the process was forked: its threads and its connections stayed "
    "behind. Close it before the fork, and make one in each process (they share answers, pace and "
    "named budgets by the home), or start processes by spawn."
)


def refuse_fork(process: int) -> None:
    """Refuse to go on in a process that was forked off the one of this number.

    To be called before any lock is taken: a thread that stayed behind may hold it for ever.

    Raises:
        UsageError: it was.
    """
    if os.getpid() != process:
        raise UsageError(FORKED)


def owner() -> str:
    """Return who reserves: host, and process as number, name space and birth.

    Numbers of processes are given again to others, and mean nothing in another container.
    """
    return f"{socket.gethostname()}:{os.getpid()}@{_birth(os.getpid())}"


def owner_is_dead(name: str) -> bool:
    """Whether the owner was a process of this host that is gone; False where that is unknown."""
    host, _, process = name.rpartition(":")
    number, _, birth = process.partition("@")
    if host != socket.gethostname() or not re.fullmatch("[0-9]{1,9}", number):
        return False
    if os.name != "posix":  # elsewhere signal 0 is one that kills
        return False
    space, now = birth.partition("/")[0], _birth(os.getpid())
    if birth and now and space != now.partition("/")[0]:
        return False
    try:
        os.kill(int(number), 0)
    except ProcessLookupError:
        return True
    except OSError:
        pass  # it is another user's
    found = _birth(int(number))
    return bool(birth and now and found) and found != birth


def _birth(process: int) -> str:
    """Return name space and start of a process, "" where they cannot be read; a zombie has none."""
    try:
        # Its second field is the program's name in brackets, and may hold anything.
        text = Path(f"/proc/{process}/stat").read_text(errors="replace").rpartition(")")[2]
        space = Path("/proc/self/ns/pid").stat().st_ino
        state, start = text.split()[0], text.split()[19]
    except (OSError, IndexError):
        return ""
    return "ended" if state in "ZX" else f"{space}/{start}"
