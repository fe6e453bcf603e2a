"""scipy.special, imported when the first of its functions is needed: it takes a third of a second.

`from smoothapi import Smoother` and whatever does no statistics are spared it.
"""

from __future__ import annotations

from typing import Any

from smoothapi._lazy import later

special: Any = later("scipy.special")
"""Has the functions of scipy.special."""
