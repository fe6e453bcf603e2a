"""Whether an installation is ready: `smoothapi doctor`. It is free, as no picture is sent.

`examine` looks at what a run would use and yields what it found, each with what to do about it.
"""

from __future__ import annotations

from smoothapi.doctor.examination import examine
from smoothapi.doctor.result import CheckResult, State

__all__ = ["CheckResult", "State", "examine"]
