"""The budget that a user states: a hard limit on attempts and dollars."""

from __future__ import annotations

import re
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation
from typing import Literal, TypeAlias

from smoothapi import notebook
from smoothapi.errors import UsageError
from smoothapi.text import shortened

Period: TypeAlias = Literal["run", "day", "month"]

MOST = 10**9
"""More attempts, and more dollars, than anyone spends."""


_DOLLARS = re.compile(r"\$(?P<before>.+)|(?P<behind>[^$]+?) ?usd", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Budget:
    """The most that may be sent. Every attempt counts, answered or not.

    Attributes:
        attempts: most requests for a picture, retries included, or None for no limit.
        dollars: most money by the provider's price list, or None. A float means the decimal
            number that it prints as.
        per: "run" limits the life of one `Smoother`; "day" and "month" (UTC) limit all that is
            sent with the same `name` and the same home in that time, by any process.
        name: budgets of one name are one budget. A named budget per "run" is shared by all
            Smoothers that use it, until it is reset.
    """

    attempts: int | None = None
    dollars: Decimal | float | str | None = None
    per: Period = "run"
    name: str = ""

    def __post_init__(self) -> None:
        if self.attempts is not None and (
            not isinstance(self.attempts, int)
            or isinstance(self.attempts, bool)
            or not 0 <= self.attempts <= MOST
        ):
            raise UsageError(
                f"A budget of {shortened(self.attempts)} attempts makes no sense: give an int "
                f"up to {MOST:,}."
            )
        if self.per not in ("run", "day", "month"):
            raise UsageError(f"per={self.per!r}: a budget is per run, day or month.")
        if self.dollars is not None:
            object.__setattr__(self, "dollars", _dollars(self.dollars))

    @classmethod
    def parse(cls, text: str) -> Budget:
        """Read "500" (attempts), "$2", "$0.50" or "2usd" (dollars), or both: "500,$2".

        "/day" or "/month" behind it makes it a limit of that period: "$20/month".

        Raises:
            UsageError: the text cannot be read so.
        """
        amount, _, per = text.partition("/")
        attempts: int | None = None
        dollars: Decimal | None = None
        if re.fullmatch(r"0*", amount.strip()):
            raise UsageError(
                f"The budget {text!r} allows nothing. In a shell an unquoted $20 becomes 0, and $2 "
                "nothing at all: put it in single quotes ('$20'), or write 20usd. To send nothing "
                "on purpose, use Budget(attempts=0) from Python, or --dry-run."
            )
        for part in (part.strip() for part in amount.split(",")):
            if (given := _DOLLARS.fullmatch(part)) and dollars is None:
                dollars = _dollars(given["before"] or given["behind"])
            elif re.fullmatch(r"[0-9]+(_[0-9]+)*", part) and attempts is None:
                attempts = int(Decimal(part))  # int() itself refuses thousands of digits
            else:
                raise UsageError(
                    f"Cannot read the budget {text!r}. Write attempts (500), dollars ($2.50 or "
                    "2.50usd) or both (500,$2.50), with /day or /month for a limit of that period."
                )
        return cls(attempts=attempts, dollars=dollars, per=per.strip() or "run")  # type: ignore[arg-type]

    def _repr_html_(self) -> str:
        """Return a small table for notebooks."""
        rows = [
            ("Most attempts", "no limit" if self.attempts is None else f"{self.attempts:,}"),
            ("Most dollars", "no limit" if self.dollars is None else f"${self.dollars}"),
            ("Per", self.per),
            ("Name", self.name or "none"),
        ]
        return notebook.facts(rows)

    def __str__(self) -> str:
        parts = [] if self.attempts is None else [f"{self.attempts:,} attempts"]
        if self.dollars is not None:
            parts.append(f"${self.dollars:f}")
        amount = " and ".join(parts) or "unlimited"
        return f"{amount} a {self.per}" + (f", {self.name!r}" if self.name else "")


def _dollars(value: Decimal | float | str) -> Decimal:
    try:
        amount = Decimal(str(value))
    except (InvalidOperation, ValueError) as error:
        raise UsageError(
            f"{shortened(value)} is not an amount of dollars; write for example 2 or 0.50."
        ) from error
    if not amount.is_finite() or not 0 <= amount <= MOST:
        raise UsageError(
            f"A budget of {shortened(value)} dollars makes no sense: give 0 or more, up to "
            f"{MOST:,}."
        )
    return amount
