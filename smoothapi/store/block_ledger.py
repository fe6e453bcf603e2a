"""A ledger that reserves in blocks, but for where these are written down."""

from __future__ import annotations

import os
import threading
import uuid
from abc import ABC, abstractmethod
from dataclasses import replace
from typing import TYPE_CHECKING, Self

from smoothapi.errors import BudgetExceededError
from smoothapi.events import Reserved, Settled
from smoothapi.store.blocks import Block, Blocks, is_large, size_for
from smoothapi.store.limits import BudgetStanding, Limit, refusal, room_of
from smoothapi.store.owners import owner, refuse_fork
from smoothapi.store.protocols import Spent
from smoothapi.telemetry import emit

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from smoothapi.provider.price import Price
    from smoothapi.store.blocks import Retired
    from smoothapi.store.budget import Budget


class BlockLedger(ABC):
    """Budgets for one provider; a `Ledger`. A subclass writes down what this decides.

    Attempts are reserved in blocks (`smoothapi.store.blocks`). A block that a crash leaves behind
    goes on counting, since its attempts may have been billed.

    Args:
        budgets: all hold at once.
        provider: whose price list counts.
        price: the price list.
        own: the account of budgets per run that have no name; a new one if "".
    """

    def __init__(
        self, budgets: Sequence[Budget], provider: str, price: Price, *, own: str = ""
    ) -> None:
        self._process = os.getpid()
        self._budgets = budgets
        self._provider = provider
        self._price = price
        # A budget without a name per run belongs to this object alone, and to those made of it.
        self._own = own or f"run {uuid.uuid4().hex} {owner()}"
        self._limits = [
            Limit(b, b.name or (self._own if b.per == "run" else "default")) for b in budgets
        ]
        self._blocks = Blocks()
        self._writing = threading.Lock()  # one block is set aside at a time

    @abstractmethod
    def priced(self, price: Price) -> Self:
        """Return a ledger of the same accounts, for attempts of another price."""

    @abstractmethod
    def _day(self) -> int:
        """Return the day it is by the store's clock, in days since the epoch (UTC)."""

    @abstractmethod
    def _write_down(self, retired: Sequence[Retired]) -> BudgetStanding:
        """Give back what retired blocks did not use; say how the budgets stand after that.

        If it is not known whether that was written, it is done again: what is given back is the
        difference to what the store says.
        """

    @abstractmethod
    def _set_aside(
        self, retired: Sequence[Retired], size_of: Callable[[int | None], int]
    ) -> Block | BudgetStanding:
        """Do as `_write_down`, and reserve a block, durably, in the same transaction.

        Args:
            retired: blocks that nothing more is taken of.
            size_of: returns for the room that is left how many attempts to reserve.

        Returns:
            The block, or how the budgets stand where none is to be reserved.
        """

    @abstractmethod
    def _forget_own(self) -> None:
        """Forget the account that belonged to this object alone."""

    @property
    def shared(self) -> tuple[Budget, ...]:
        """The budgets by the names of their accounts, to be held by other processes, too."""
        return tuple(replace(limit.budget, name=limit.name) for limit in self._limits)

    def room(self) -> int | None:
        """Return how many more attempts fit now, or None if there is no limit."""
        refuse_fork(self._process)
        with self._writing:
            self._blocks.retire_all()
            retired = self._blocks.retired()
            standing = self._write_down(retired)
            self._strike_off(retired)
        return room_of(self._limits, standing, self._price)

    def reserve(self, attempts: int) -> Block:
        """Set attempts aside, durably; see `Ledger.reserve`."""
        refuse_fork(self._process)
        while True:
            block = self._promise(attempts)
            if block.day == self._day():
                return block
            # Midnight passed while another process, or the disk, was waited for.
            self.release(block, attempts)

    def settle(self, block: Block, attempts: int) -> Spent:
        """Note that attempts of a block were sent, whatever came of it; say their price."""
        before = self._blocks.settle(block, attempts)
        return Spent(attempts, self._price.of(attempts, before))

    def release(self, block: Block, attempts: int) -> None:
        """Give attempts of a block back: they were not sent."""
        self._blocks.release(block, attempts)

    def rest(self) -> None:
        """Write down what was settled, and give back what was reserved and not used."""
        refuse_fork(self._process)
        with self._writing:
            self._blocks.retire_all()
            retired = self._blocks.retired()
            if not retired:
                return
            self._write_down(retired)
            self._strike_off(retired)

    def close(self) -> None:
        """Settle what is open, and forget the account that belonged to this object alone."""
        self.rest()
        self._forget_own()

    def _promise(self, attempts: int) -> Block:
        """Promise attempts of a block, which may be of a day that is over."""
        block = self._take(attempts)
        if block is None:
            with self._writing:
                block = self._take(attempts)  # another thread may have renewed it
                while block is None:
                    self._renew(attempts)
                    block = self._take(attempts)
        elif self._blocks.is_low(block) and self._writing.acquire(blocking=False):
            try:
                if self._blocks.is_low(block):
                    self._renew_ahead()
            except BaseException:
                self.release(block, attempts)
                raise
            finally:
                self._writing.release()
        return block

    def _take(self, attempts: int) -> Block | None:
        return self._blocks.take(attempts, self._day())

    def _renew(self, attempts: int) -> None:
        """Set a block aside for `attempts`, and more if there is room."""

        def size_of(room: int | None) -> int:
            return 0 if room is not None and attempts > room else size_for(attempts, room)

        self._blocks.retire_all()
        block = self._begin(size_of)
        if isinstance(block, BudgetStanding):
            raise BudgetExceededError(refusal(self._limits, block, self._price, attempts))

    def _renew_ahead(self) -> None:
        """Set the next block aside before it is needed, if it would be a large one."""

        def size_of(room: int | None) -> int:
            size = size_for(1, room) if room is None or room > 0 else 0
            return size if is_large(size) else 0

        self._begin(size_of)

    def _begin(self, size_of: Callable[[int | None], int]) -> Block | BudgetStanding:
        retired = self._blocks.retired()
        block = self._set_aside(retired, size_of)
        self._strike_off(retired)
        if isinstance(block, Block):
            emit(Reserved(self._provider, block.size))
            self._blocks.add(block)
        return block

    def _strike_off(self, retired: Iterable[Retired]) -> None:
        for one in retired:
            if one.settled:
                self._blocks.forget(one.block)
                emit(Settled(self._provider, one.block.settled))
