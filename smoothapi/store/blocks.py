"""Attempts that are reserved many at once, and given out one request at a time.

Only arithmetic: where a block is written down is a ledger's affair. Far from a limit a block is
large, and the next is at hand before the last is used up, so that senders seldom wait; near it
blocks are small, so that few attempts lie idle in one process while another is refused.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass

LARGEST = 32
"""Most attempts reserved at once, unless one request has more."""

SHARE = 64
"""Of the room that is left, the part that one block may take."""


@dataclass(slots=True)
class Block:
    """Attempts that were set aside together, and what became of them.

    Attributes:
        number: its name in the store.
        day: when they may be made (days since the epoch, UTC).
        before: the fewest and the most attempts of that month that may come before them, for the
            price: what others have reserved may yet be given back.
        size: how many were set aside.
        taken: of these, promised to senders.
        settled: of these, sent.
    """

    number: int
    day: int
    before: tuple[int, int]
    size: int
    taken: int = 0
    settled: int = 0


@dataclass(frozen=True, slots=True)
class Retired:
    """A block that nothing more is taken of: what was unused may be given back.

    Attributes:
        block: the block.
        used: what was taken of it in all.
        settled: whether all of that was sent, so that it is done with.
    """

    block: Block
    used: int
    settled: bool


class Blocks:
    """The blocks of one ledger. Safe for threads; no method waits for more than a moment."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._current: Block | None = None  # the only one that is taken from
        self._next: Block | None = None
        self._old: list[Block] = []

    def take(self, attempts: int, day: int) -> Block | None:
        """Promise `attempts` of the current block, or of the next; None if they are not there."""
        with self._lock:
            for block in (self._current, self._next):
                # What is sent in a new day is not to be paid from the last one's budget.
                if block is not None and block.day == day and block.size - block.taken >= attempts:
                    if block is not self._current:
                        self._turn_over()
                    block.taken += attempts
                    return block
        return None

    def is_low(self, block: Block) -> bool:
        """Whether the block under way is half used, and was large, and no other is at hand."""
        with self._lock:
            return (
                block is self._current
                and self._next is None
                and is_large(block.size)
                and block.size - block.taken <= block.size // 2
            )

    def add(self, block: Block) -> None:
        """Have a block at hand, to be taken from when the current one is used up."""
        with self._lock:
            self._next = block

    def settle(self, block: Block, attempts: int) -> int:
        """Note that `attempts` were sent; return the most that came before them in the month."""
        with self._lock:
            before = block.before[1] + block.settled
            block.settled += attempts
        return before

    def release(self, block: Block, attempts: int) -> None:
        """Note that `attempts` that were taken are not sent."""
        with self._lock:
            block.taken -= attempts

    def retire_all(self) -> None:
        """Take no more of any block, so that what is unused may be given back."""
        with self._lock:
            self._turn_over()  # the current one
            self._turn_over()  # the next

    def retired(self) -> list[Retired]:
        """Return the blocks of which nothing more is taken."""
        with self._lock:
            # What is unused of them stays so.
            return [Retired(b, b.taken, settled=b.settled == b.taken) for b in self._old]

    def forget(self, block: Block) -> None:
        """Forget a retired block, now that it is settled in the store too."""
        with self._lock:
            self._old.remove(block)

    def _turn_over(self) -> None:
        if self._current is not None:
            self._old.append(self._current)
        self._current, self._next = self._next, None


def size_for(attempts: int, room: int | None) -> int:
    """Return how many to set aside where `attempts` are needed and `room` is left."""
    return max(attempts, LARGEST if room is None else min(LARGEST, room // SHARE))


def is_large(size: int) -> bool:
    """Whether a block is worth being followed up before it is used up."""
    return size >= LARGEST // 2
