"""What goes wrong between a caller and a provider, at will: by script, by rate, by seed.

A plan is text, so that it fits into a setting, a command line and a test's name::

    3x429, 2% timeout, 1% 500      the first three are throttled; of the rest 2 % and 1 % fail
    5xok, 1xreset, @100- quota     the sixth is cut off, all from the hundredth on have no quota

Terms are separated by commas. `NxFAULT` takes the next N requests, from the first on; `@N FAULT`,
`@N-M FAULT` and `@N- FAULT` take the N-th, the N-th to the M-th, and all from the N-th on (people
count from 1); `P% FAULT` befalls any other request with that chance. `ok` is no fault at all. No
request can be given two.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from decimal import Decimal
from enum import StrEnum
from itertools import pairwise
from typing import Self

from smoothapi.errors import UsageError
from smoothapi.services.seeded import BITS, bits
from smoothapi.wires.trouble import Trouble


class Fault(StrEnum):
    """One way for a request to fail. The value is its name in a plan."""

    throttled = "429"
    """Asked to slow down, with no word of how long."""
    throttled_wait = "429-wait"
    """Asked to slow down, with Retry-After in seconds."""
    throttled_date = "429-date"
    """Asked to slow down, with Retry-After as a date."""
    error = "500"
    """An internal error of the provider."""
    unavailable = "503"
    """The provider is overloaded or down."""
    reset = "reset"
    """The connection is reset before there is an answer."""
    timeout = "timeout"
    """Nothing comes until the caller gives up; no answer was made."""
    late = "late"
    """Labelled and billed, but the answer comes after the caller gave up."""
    half = "half"
    """The connection ends in the middle of the answer's body."""
    garbage = "garbage"
    """Status 200, and a body that is not what the protocol says (HTML of a proxy, say)."""
    inside = "inside"
    """Status 200, and in the body the provider's own word for an error."""
    slow = "slow"
    """A true answer that drips in, for longer than a caller with a deadline waits."""
    denied = "403"
    """The credentials are refused."""
    quota = "quota"
    """The quota of the month, or the free tier, is used up."""

    @property
    def billed(self) -> bool:
        """Whether the provider labels the pictures all the same, and has them paid for."""
        return self in (Fault.late, Fault.half, Fault.slow)

    @property
    def trouble(self) -> Trouble | None:
        """What the provider says in words of its own; None for what goes wrong on the line."""
        return _TROUBLES.get(self)

    @property
    def tells_to_wait(self) -> bool:
        """Whether the caller is told how long to wait."""
        return self in (Fault.throttled_wait, Fault.throttled_date)


_TROUBLES = {
    Fault.throttled: Trouble.throttled,
    Fault.throttled_wait: Trouble.throttled,
    Fault.throttled_date: Trouble.throttled,
    Fault.error: Trouble.error,
    Fault.unavailable: Trouble.unavailable,
    Fault.denied: Trouble.denied,
    Fault.quota: Trouble.quota,
}


@dataclass(frozen=True, slots=True)
class Span:
    """A fault for certain requests.

    Attributes:
        first: number of the first request, from 0.
        last: number of the last one, None for all that follow.
        fault: what befalls them, None for nothing.
    """

    first: int
    last: int | None
    fault: Fault | None


@dataclass(frozen=True, slots=True)
class Faults:
    """A plan of faults: which request meets which.

    `str(faults)` is its text, which `parse` reads back.

    Attributes:
        script: spans of requests, ascending; they do not overlap.
        rates: chance in percent of each fault, for requests that the script does not name.
        seed: picks the requests that the rates befall.

    Raises:
        UsageError: spans overlap or are empty, or rates are not percentages.
    """

    script: tuple[Span, ...] = ()
    rates: tuple[tuple[Fault, Decimal], ...] = ()
    seed: int = 0

    def __post_init__(self) -> None:
        spans = _merged(sorted(self.script, key=lambda span: span.first))
        for span in spans:
            if span.first < 0 or (span.last is not None and span.last < span.first):
                raise UsageError(f"Faults are given to no request: {_words(span)}.")
        for one, two in pairwise(spans):
            if one.last is None or two.first <= one.last:
                raise UsageError(
                    f"Request {two.first + 1} is given two faults: {_words(one)} and {_words(two)}."
                )
        if len({fault for fault, _ in self.rates}) < len(self.rates):
            raise UsageError("A fault is given two rates. Write their sum.")
        for fault, rate in self.rates:
            if not 0 <= rate <= 100:
                raise UsageError(f"{rate}% {fault}: a rate is from 0% to 100%.")
        if (total := sum(rate for _, rate in self.rates)) > 100:
            raise UsageError(f"The rates add up to {total}%, and no request has two faults.")
        object.__setattr__(self, "script", spans)

    @classmethod
    def parse(cls, text: str, *, seed: int = 0) -> Self:
        """Read a plan; "" is the plan without faults.

        Raises:
            UsageError: a term says nothing that can be done; the message names it.
        """
        script: list[Span] = []
        rates: list[tuple[Fault, Decimal]] = []
        ahead = 0
        for term in (term.strip() for term in text.split(",") if term.strip()):
            match = _TERM.fullmatch(term)
            if match is None:
                raise UsageError(
                    f"{term!r} is not a fault. Write '3x429' (the next three requests), '@5 reset' "
                    "(the fifth), '@5-8 503', '@100- quota' (from the hundredth on) or "
                    "'2% timeout', separated by commas."
                )
            count, first, dash, last, rate, name = match.groups()
            fault = _fault(name, term)
            if rate is not None:
                if fault is None:
                    raise UsageError(f"{term!r}: what the rates leave over is 'ok' by itself.")
                rates.append((fault, Decimal(rate)))
            elif count is not None:
                if not int(count):
                    raise UsageError(f"{term!r} names 0 requests: write 1 or more.")
                script.append(Span(ahead, ahead + int(count) - 1, fault))
                ahead += int(count)
            else:
                if not int(first):
                    raise UsageError(f"{term!r}: the first request is number 1.")
                end = int(last) if last else None if dash else int(first)
                script.append(Span(int(first) - 1, None if end is None else end - 1, fault))
        return cls(tuple(script), tuple(rates), seed)

    def of(self, number: int) -> Fault | None:
        """Return what befalls request `number`, counted from 0: always the same."""
        for span in self.script:
            if span.first <= number and (span.last is None or number <= span.last):
                return span.fault
        drawn = bits("fault", self.seed, number)
        ahead = Decimal(0)
        for fault, rate in self.rates:
            ahead += rate
            if drawn * 100 < ahead * 2**BITS:
                return fault
        return None

    def __str__(self) -> str:
        terms = []
        ahead = 0
        for span in self.script:
            if span.first == ahead and span.last is not None:
                terms.append(f"{span.last - span.first + 1}x{_name(span.fault)}")
                ahead = span.last + 1
            else:
                terms.append(_words(span))
        terms += [f"{rate:f}% {fault}" for fault, rate in self.rates]
        return ", ".join(terms)

    def __bool__(self) -> bool:
        return bool(self.script or self.rates)


_TERM = re.compile(
    r"(?:(\d{1,12})\s*x\s*|@(\d{1,12})(?:\s*(-)\s*(\d{1,12})?)?\s+|(\d{1,12}(?:\.\d{1,12})?)\s*%\s*)"
    r"([a-z0-9-]+)",
    re.IGNORECASE | re.ASCII,
)


def _fault(name: str, term: str) -> Fault | None:
    if name.lower() == "ok":
        return None
    try:
        return Fault(name.lower())
    except ValueError:
        raise UsageError(
            f"{term!r}: no fault is called {name!r}. There are {', '.join(Fault)} and ok."
        ) from None


def _name(fault: Fault | None) -> str:
    return "ok" if fault is None else fault.value


def _words(span: Span) -> str:
    last = "-" if span.last is None else "" if span.last == span.first else f"-{span.last + 1}"
    return f"@{span.first + 1}{last} {_name(span.fault)}"


def _merged(spans: list[Span]) -> tuple[Span, ...]:
    """Join neighbours with the same fault, so that equal plans are equal values."""
    merged: list[Span] = []
    for span in spans:
        if merged and merged[-1].fault == span.fault and merged[-1].last == span.first - 1:
            merged[-1] = Span(merged[-1].first, span.last, span.fault)
        else:
            merged.append(span)
    return tuple(merged)
