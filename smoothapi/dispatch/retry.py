"""When the same variant is tried again, and after how long. The one layer that retries."""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import TYPE_CHECKING

from smoothapi.errors import TransientError, UsageError
from smoothapi.events import Retried
from smoothapi.telemetry import emit

if TYPE_CHECKING:
    import threading
    from collections.abc import Callable

    import tenacity


_MOST_DOUBLINGS = 64  # beyond any cap; floats would overflow at 1,024


@dataclass(frozen=True, slots=True)
class Retry:
    """Capped exponential back-off with full jitter; the provider's Retry-After is obeyed.

    Attributes:
        attempts: most sends of one variant, the first included.
        base: upper bound of the first wait, in seconds; doubles with each attempt. Waits are
            uniform from 0 to it.
        cap: longest wait of our own choice, in seconds.
        deadline: seconds after which a variant is not tried again, and the longest that one
            attempt is waited for: then it counts as spent, and its variant has no answer. Nobody
            answered in that time: the run ends. 0 tries nothing again, and bounds no attempt.
    """

    attempts: int = 5
    base: float = 0.5
    cap: float = 30.0
    deadline: float = 300.0

    def __post_init__(self) -> None:
        if self.attempts < 1:
            raise UsageError(f"attempts={self.attempts}: a variant is sent at least once.")
        for name in ("base", "cap", "deadline"):
            if not getattr(self, name) >= 0.0:
                raise UsageError(f"{name}={getattr(self, name)!r}: seconds are 0 or more.")

    def loop(
        self, wait: Callable[[float], None], stop: threading.Event, provider: str = ""
    ) -> tenacity.Retrying:
        """Return the loop for one request; `wait` waits, and `stop` ends its attempts."""
        import tenacity  # noqa: PLC0415  only where something is sent

        return tenacity.Retrying(
            retry=tenacity.retry_if_exception_type(TransientError),
            stop=lambda state: (
                stop.is_set() or state.attempt_number >= self.attempts or self._past_deadline(state)
            ),
            wait=self._wait,
            sleep=wait,
            before_sleep=lambda state: emit(
                Retried(provider, state.attempt_number + 1, round(state.upcoming_sleep, 3))
            ),
            reraise=True,
        )

    def _wait(self, state: tenacity.RetryCallState) -> float:
        ceiling = min(self.cap, self.base * 2.0 ** min(state.attempt_number - 1, _MOST_DOUBLINGS))
        jitter = random.uniform(0.0, ceiling)  # noqa: S311  spreads load, guards no secret
        return max(jitter, _retry_after(state))

    def _past_deadline(self, state: tenacity.RetryCallState) -> bool:
        """Stop where the wait that the provider asks for would end after the deadline."""
        return (state.seconds_since_start or 0.0) + _retry_after(state) >= self.deadline


def _retry_after(state: tenacity.RetryCallState) -> float:
    error = state.outcome.exception() if state.outcome else None
    return (error.retry_after or 0.0) if isinstance(error, TransientError) else 0.0
