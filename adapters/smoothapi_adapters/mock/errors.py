"""What a real adapter makes of each fault."""

from __future__ import annotations

import math

from smoothapi.errors import FatalError, ProviderError, ThrottledError, TransientError
from smoothapi.services.faults import Fault

_TRANSIENT = {
    Fault.error: "The mock had an internal error (500).",
    Fault.unavailable: "The mock is unavailable (503).",
    Fault.reset: "The connection to the mock was reset.",
    Fault.timeout: "The mock did not answer in time.",
    Fault.late: "The mock answered too late: it labelled and billed, and nobody heard.",
    Fault.slow: "The mock's answer dripped in, and was not there in time.",
    Fault.half: "The mock's answer was cut off.",
    Fault.garbage: "The mock's answer was not JSON.",
    Fault.inside: "The mock answered 200 with an error inside.",
}


def error_of_fault(fault: Fault, retry_after: float) -> ProviderError:
    """Return the error that a real adapter raises for a fault.

    Args:
        fault: what has gone wrong.
        retry_after: seconds that the caller is asked to wait, where the fault says so.
    """
    match fault:
        case Fault.throttled:
            return ThrottledError("The mock asks to slow down (429).")
        case Fault.throttled_wait:
            return ThrottledError("The mock asks to slow down (429).", retry_after=retry_after)
        case Fault.throttled_date:  # dates have whole seconds
            seconds = float(math.ceil(retry_after))
            return ThrottledError("The mock asks to slow down (429).", retry_after=seconds)
        case Fault.denied:
            return FatalError("The mock refuses these credentials (403), as its faults say.")
        case Fault.quota:
            return FatalError("The mock's quota for the month is used up.")
    return TransientError(_TRANSIENT[fault])
