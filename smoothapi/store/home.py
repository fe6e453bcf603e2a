"""A folder with all that an installation keeps. The one place that knows the names of its files."""

from __future__ import annotations

import os
import time
from contextlib import ExitStack, closing
from functools import cached_property
from typing import TYPE_CHECKING

from smoothapi.store.local import accounts
from smoothapi.store.local.answers import AnswerStore
from smoothapi.store.local.database import Database
from smoothapi.store.local.leases import LocalLeases
from smoothapi.store.local.ledger import LocalLedger
from smoothapi.store.local.pace import LocalPace
from smoothapi.store.local.secret import read_secret

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path
    from typing import Self

    from smoothapi.provider.price import Price
    from smoothapi.store.budget import Budget
    from smoothapi.store.protocols import Account


class Home:
    """The store of one machine: answers in diskcache, all else in SQLite; a `Store`.

    Nothing is made or opened before it is asked for. Threads and processes may share a folder;
    each process opens its own.

    Args:
        folder: where the files are.
        clock: seconds since the epoch, for all that has a time.

    Raises:
        StoreError: from each method, if a file of the folder cannot be used.
    """

    def __init__(self, folder: Path, *, clock: Callable[[], float] = time.time) -> None:
        self.folder = folder
        self._clock = clock
        self._opened = ExitStack()
        self._process = os.getpid()

    @cached_property
    def answers(self) -> AnswerStore:
        """The answers."""
        return self._opened.enter_context(closing(AnswerStore(self.folder / "answers")))

    @cached_property
    def database(self) -> Database:
        """What holds budgets, paces and leases."""
        database = Database(self.folder / "ledger.db", clock=self._clock)
        return self._opened.enter_context(closing(database))

    def secret(self) -> bytes:
        """Return the 32 secret bytes that noise is drawn from; made on the first call."""
        return read_secret(self.folder / "noise.key")

    @property
    def signing_key_file(self) -> Path:
        """The file of the key that certificates are signed with (`smoothapi.signing`)."""
        return self.folder / "signing.key"

    @property
    def mixes_file(self) -> Path:
        """The file of the mixes of shares that were learnt (`smoothapi.mixes`)."""
        return self.folder / "mixes.json"

    def ledger(self, budgets: Sequence[Budget], provider: str, price: Price) -> LocalLedger:
        """Return a ledger of `budgets`, all of which hold at once, by the provider's price list."""
        return LocalLedger(self.database, budgets, provider, price)

    def pace(self, provider: str, per_second: float | None) -> LocalPace:
        """Return the provider's pace; `per_second` is None where it states no limit."""
        return LocalPace(self.database, provider, per_second)

    def leases(self) -> LocalLeases:
        """Return the leases of one run, which none other counts as its own."""
        return LocalLeases(self.database)

    def accounts(self) -> list[Account]:
        """Return how every budget stands; unnamed budgets of a run are left out."""
        return accounts.accounts(self.database)

    def release_abandoned(self, *, everywhere: bool = False) -> int:
        """Give back what processes reserved that are gone; see `Store.release_abandoned`."""
        return accounts.release_abandoned(self.database, everywhere=everywhere)

    def reset(self, name: str) -> int:
        """Forget what was spent under a budget's name; return in how many periods."""
        return accounts.reset(self.database, name)

    def close(self) -> None:
        """Close what was opened; in a child of a fork, leave it to the parent."""
        if os.getpid() == self._process:
            self._opened.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
