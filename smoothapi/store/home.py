"""A folder with all that an installation keeps. The one place that knows the names of its files."""

from __future__ import annotations

import logging
import os
import time
from contextlib import ExitStack, closing
from functools import cached_property
from typing import TYPE_CHECKING

from smoothapi.errors import StoreError
from smoothapi.files import is_file, read_text, replacing
from smoothapi.keyring import KeyRing, own_keys
from smoothapi.store.local import accounts
from smoothapi.store.local.answers import AnswerStore
from smoothapi.store.local.database import Database
from smoothapi.store.local.leases import LocalLeases
from smoothapi.store.local.ledger import LocalLedger
from smoothapi.store.local.pace import LocalPace
from smoothapi.store.local.records import LocalRecords
from smoothapi.store.local.runs import LocalRuns

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path
    from typing import Self

    from smoothapi.provider.price import Price
    from smoothapi.store.budget import Budget
    from smoothapi.store.protocols import Account

_log = logging.getLogger("smoothapi")


class Home:
    """The store of one machine: answers in diskcache, all else in SQLite; a `Store`.

    Nothing is made or opened before it is asked for. Threads and processes may share a folder;
    each process opens its own.

    Args:
        folder: where the files are.
        noise_key_file: of the deployment, which replaces the home's own.
        clock: seconds since the epoch, for all that has a time.

    Raises:
        StoreError: from each method, if a file of the folder cannot be used.
    """

    def __init__(
        self,
        folder: Path,
        *,
        noise_key_file: Path | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.folder = folder
        self._noise_key_file = noise_key_file
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

    @property
    def noise_key_file(self) -> Path:
        """The file of the keys that noise is drawn from (`smoothapi.keyring`)."""
        return self._noise_key_file or self.folder / "noise.key"

    def keys(self) -> KeyRing:
        """Return the keys that noise is drawn from; the home's own are made on the first call."""
        if self._noise_key_file is not None:
            keys = KeyRing.read(self._noise_key_file, deployed=True)
        else:
            keys = own_keys(self.noise_key_file)
        self._compare(keys)
        return keys

    def _compare(self, keys: KeyRing) -> None:
        """Say so where the answers were brought here without the key that they need."""
        if not self._has_answers():
            return
        try:
            latest = self.answers.latest_noise_keys()
        except StoreError:  # whoever needs the answers is told
            return
        if latest and latest.isdisjoint((keys.id, *keys.former_ids)):
            _log.warning(
                "The noise key here is %s, and the last answers in %r are of %s: photos that were "
                "certified with that are asked about anew, and paid for. If that is not meant, "
                "give this home the file of that key (noise.key in it, or "
                "SMOOTHAPI_NOISE_KEY_FILE).",
                keys.id,
                self.answers.where,
                ", ".join(sorted(latest)),
            )

    def _has_answers(self) -> bool:
        return os.path.isdir(self.folder / "answers")  # noqa: PTH112  Path's own may raise

    @property
    def signing_key_file(self) -> Path:
        """The file of the key that certificates are signed with (`smoothapi.signing`)."""
        return self.folder / "signing.key"

    def known_keys(self) -> tuple[str, ...]:
        """Return the public ids of the keys in use and before; makes none."""
        if is_file(self.noise_key_file):
            keys = self.keys()
            return (keys.id, *keys.former_ids)
        # The deployment's key may not be at hand here: the answers say which it was.
        if not self._has_answers():
            return ()
        return tuple(self.answers.noise_keys())

    def admit_key(self, key_id: str) -> None:
        """Do nothing: whatever key is in the folder is taken."""

    def forget_key(self, key_id: str) -> None:
        """Do nothing: the folder knows its file of keys, and no more."""

    def note(self, name: str) -> str | None:
        """Return a text that is kept under a name (NAME.json), None if none is."""
        file = self.folder / f"{name}.json"
        try:
            return read_text(file)
        except (OSError, ValueError) as error:
            # What is wrong with the home itself is for the answers to say.
            if isinstance(error, FileNotFoundError) or not os.path.isdir(self.folder):  # noqa: PTH112  a name too long is no folder
                return None
            reason = error.strerror if isinstance(error, OSError) else error
            raise StoreError(
                f"{str(file)!r} cannot be read: {reason}. Mend it, or move it away."
            ) from error

    def keep_note(self, name: str, text: str) -> None:
        """Keep a text under a name (NAME.json), at once or not at all."""
        file = self.folder / f"{name}.json"
        try:
            file.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            with replacing(file) as stream:
                stream.write(text)
        except OSError as error:
            raise StoreError(f"{str(file)!r} cannot be written: {error.strerror}.") from error

    def ledger(self, budgets: Sequence[Budget], provider: str, price: Price) -> LocalLedger:
        """Return a ledger of `budgets`, all of which hold at once, by the provider's price list."""
        return LocalLedger(self.database, budgets, provider, price)

    def pace(self, provider: str, per_second: float | None) -> LocalPace:
        """Return the provider's pace; `per_second` is None where it states no limit."""
        return LocalPace(self.database, provider, per_second)

    def leases(self) -> LocalLeases:
        """Return the leases of one run, which none other counts as its own."""
        return LocalLeases(self.database)

    @cached_property
    def runs(self) -> LocalRuns:
        """What was run."""
        return LocalRuns(self.folder / "runs", self._clock)

    @cached_property
    def records(self) -> LocalRecords:
        """The tokens and certificates of a gateway."""
        records = LocalRecords(self.folder / "gateway.db", self._clock)
        return self._opened.enter_context(closing(records))

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
