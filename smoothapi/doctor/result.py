"""What came of one check."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

State = Literal["ok", "warning", "problem"]


@dataclass(frozen=True, slots=True)
class CheckResult:
    """One thing that was looked at.

    Attributes:
        name: what was looked at, such as "home".
        state: "ok"; "warning", if a run would work and should be looked at; or "problem", if a
            run would fail, or what it certifies would mean nothing.
        said: what was found. Never a secret.
        advice: what to do; "" where there is nothing to do.
    """

    name: str
    state: State
    said: str
    advice: str = ""
