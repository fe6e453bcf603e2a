"""Numbers that take special functions to work out, held from one command to the next.

A certificate whose votes are all stored rests on a few dozen numbers: boundaries, levels, a bound.
Working them out again takes 0.3 s to import scipy, and as much to calculate. They are values of
pure functions, so that whether one is held decides about time alone, and nothing is held but where
`held` says so: `smoothapi certify` does, and keeps them in the home (`smoothapi.numbers`).
"""

from __future__ import annotations

from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING, TypeAlias, TypeVar, cast

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

Number: TypeAlias = "float | int | list[int]"
_N = TypeVar("_N", float, int, "list[int]")

_HELD: ContextVar[dict[str, Number] | None] = ContextVar("smoothapi_worked_out", default=None)


def worked_out(what: str, given: tuple[float | int | str, ...], work: Callable[[], _N]) -> _N:
    """Return what `work` returns, from what is held where it is.

    Args:
        what: name of the function that it is a value of.
        given: all that decides the value.
        work: works it out.
    """
    held = _HELD.get()
    if held is None:
        return work()
    name = f"{what} {' '.join(map(repr, given))}"
    if name not in held:
        held[name] = work()
    return cast("_N", held[name])


@contextmanager
def held(numbers: dict[str, Number]) -> Iterator[None]:
    """Look numbers up in a table, and add to it what it lacks; in this thread or task alone."""
    before = _HELD.set(numbers)
    try:
        yield
    finally:
        _HELD.reset(before)
