"""What must be shared and kept, as protocols of verbs; a `Store` opens them.

A store on one machine (`Home`) and one on a server keep the same promises, and pass the same tests
(`smoothapi.testing.StoreContract`):

- Answers: what `put` returned from is kept through kill -9, and never dropped to make room.
- Ledger: the sum of what is reserved never passes a budget, across threads, processes and
  machines; what a crash left reserved goes on counting as spent.
- Leases: one holder at a time; what a dead holder held is free again soon.
- Runs: history, on which nothing rests.
- GatewayRecords: who may call a gateway, and what it found.
- Time is the store's own: none of these takes a time from its caller.
"""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping, Sequence

    from smoothapi.answer import Answer
    from smoothapi.errors import PermanentError, StoreError
    from smoothapi.keyring import KeyRing
    from smoothapi.provider.price import Price
    from smoothapi.store.blocks import Block
    from smoothapi.store.budget import Budget
    from smoothapi.store.records import Record, Token
    from smoothapi.store.rows import Seen, StoredAnswer
    from smoothapi.store.runs import RunRecord


@dataclass(frozen=True, slots=True)
class Spent:
    """What was sent, reservations included."""

    attempts: int = 0
    dollars: Decimal = Decimal(0)


@dataclass(frozen=True, slots=True)
class Account:
    """How one budget stands.

    Attributes:
        name: the budget's name.
        period: "run", a day or a month.
        attempts: sent, or reserved to be.
        dollars: their price.
        reserved: of the attempts, those whose outcome is not known (yet).
        attempt_limit: most attempts, None for no limit; as it was last used.
        dollar_limit: most dollars, None for no limit.
    """

    name: str
    period: str
    attempts: int
    dollars: Decimal
    reserved: int
    attempt_limit: int | None
    dollar_limit: Decimal | None

    @property
    def attempts_left(self) -> int | None:
        """Attempts that may still be made, None for no limit."""
        return None if self.attempt_limit is None else max(0, self.attempt_limit - self.attempts)

    @property
    def dollars_left(self) -> Decimal | None:
        """Dollars that may still be spent, None for no limit."""
        return (
            None if self.dollar_limit is None else max(Decimal(0), self.dollar_limit - self.dollars)
        )


class Answers(Protocol):
    """Where answers come from and go to: the store, a recorder before it, or a replay."""

    def get(self, key: str) -> Answer | PermanentError | None:
        """Return what was answered for `key`, or None if it was never asked."""

    def get_all(self, keys: Sequence[str]) -> dict[str, Answer | PermanentError]:
        """Return what was answered for those of `keys` that were ever asked, in one look."""

    def put(self, *answers: StoredAnswer) -> None:
        """Keep answers: all of them, or none."""

    def give_up(self, asked: Mapping[str, object], why: str) -> None:
        """Take note that a variant was given up after its retries."""

    def row(self, key: str) -> dict[str, Any]:
        """Return an answer with what was asked, as JSON-ready values."""

    def seen(self, provider: str, identity: Mapping[str, object]) -> Seen:
        """Return what the answers hold that a provider gave with one identity.

        Args:
            provider: the adapter's name.
            identity: the adapter's own, whole: what another model of the provider said shows
                nothing of what this one can say.
        """

    def close(self) -> None:
        """Release files and connections."""


class KeptAnswers(Answers, Protocol):
    """All answers of a store, to be looked through, copied and deleted."""

    @property
    def where(self) -> str:
        """Where they are, to be shown."""

    def __len__(self) -> int: ...

    def bytes(self) -> int:
        """Return how much room they take up."""

    def noise_keys(self) -> dict[str, int]:
        """Return the public id of each noise key -> how many answers are about its noise."""

    def scan(self) -> Iterator[tuple[str, dict[str, Any] | StoreError]]:
        """Yield key and row of each answer, or why it cannot be read; flat in memory."""

    def add(self, answers: Sequence[StoredAnswer]) -> int:
        """Keep those that are not here yet, in one go; return how many these were."""

    def clear(self) -> int:
        """Delete all answers; return how many there were."""


class Ledger(Protocol):
    """The budgets in force for one provider, across threads, processes and crashes.

    An attempt is reserved durably before it is sent, and settled after. Both count as spent.
    """

    def room(self) -> int | None:
        """Return how many more attempts fit now, or None if there is no limit."""

    def reserve(self, attempts: int) -> Block:
        """Set attempts aside of the periods in which this returns; they are to be sent at once.

        Raises:
            BudgetExceededError: they do not fit; nothing was set aside.
            StoreError: the ledger cannot be written.
        """

    def settle(self, block: Block, attempts: int) -> Spent:
        """Note that attempts of a reservation were sent, whatever came of it; say their price."""

    def release(self, block: Block, attempts: int) -> None:
        """Give attempts of a reservation back: they were not sent."""

    def rest(self) -> None:
        """Write down what was settled, and give back what was reserved and not used."""

    @property
    def shared(self) -> Sequence[Budget]:
        """The budgets by the names of their accounts, to be held by other processes, too."""

    def priced(self, price: Price) -> Ledger:
        """Return a ledger of the same budgets, for attempts of another price."""

    def close(self) -> None:
        """Settle what is open, and forget the account that belonged to this object alone."""


class Pace(Protocol):
    """A rate limit of one provider, shared by all that use the store."""

    def take(self, pictures: int) -> float:
        """Take a place for `pictures` and return how many seconds to wait before sending them."""

    def throttled(self, retry_after: float | None) -> None:
        """Slow down, for all; with `retry_after`, pause for so many seconds first."""


class Leases(Protocol):
    """Which variants one run asks for, so that no other buys them too.

    Also which were given up after their retries while others were answered: where only such are
    left, that they fail says nothing of the service.
    """

    def take(self, keys: Sequence[str]) -> set[str]:
        """Lease those of `keys` that no other holds; return them."""

    def renew(self, keys: Collection[str]) -> None:
        """Hold `keys` for another full term."""

    def drop(self, keys: Collection[str]) -> None:
        """Give `keys` back."""

    def end(self) -> None:
        """Give back all that is held."""

    def give_up(self, key: str) -> None:
        """Note that a variant used up its attempts."""

    def given_up(self, keys: Sequence[str]) -> set[str]:
        """Return those of `keys` that were given up of late."""


class Runs(Protocol):
    """What was run, to be looked at later. Nothing rests on it, and no run waits for it."""

    def begin(self, run: RunRecord) -> RunRecord:
        """Keep a run that begins; return it with the id and the time that the store gave it."""

    def keep(self, run: RunRecord) -> RunRecord:
        """Keep a run in place of what was kept of it; return it with when it ended, if it did.

        Also one that was cleared meanwhile: what is under way is not past.
        """

    def latest(self, most: int) -> list[RunRecord]:
        """Return so many runs at most, the last one first; what cannot be read is left out."""

    def find(self, part: str) -> list[RunRecord]:
        """Return the runs whose id begins or ends so, the last one first; ten at most."""

    def older(self, days: float) -> int:
        """Return how many runs began more than so many days ago, by the store's clock."""

    def clear(self, days: float) -> int:
        """Forget the runs that began more than so many days ago; return how many."""


class GatewayRecords(Protocol):
    """What gateways keep: their callers' tokens, and what was found about pictures."""

    @property
    def shared(self) -> bool:
        """Whether they are on another machine, for which each look has to wait."""

    def add_token(self, token: Token) -> bool:
        """Keep a token, at a time of the store's own; False if the caller has one already."""

    def remove_token(self, name: str) -> bool:
        """Forget a caller's token; whether there was one."""

    def tokens(self) -> list[Token]:
        """Return all tokens, by the callers' names."""

    def token(self, identity: str) -> Token | None:
        """Return the token of an id, None if there is none."""

    def keep(self, record: Record) -> None:
        """Keep what was found about a picture, at a time of the store's own."""

    def record(self, identity: str) -> Record | None:
        """Return what is kept under an id, None if nothing is."""

    def latest(self, most: int) -> list[Record]:
        """Return so many records at most, the last one first."""

    def outcomes(self, seconds: float) -> dict[tuple[str, str, str], int]:
        """Return (provider, caller, outcome) -> how many records of the last so many seconds."""

    def forget(self, seconds: float) -> int:
        """Forget records that are older; return how many."""

    def close(self) -> None:
        """Release files."""


class Store(Protocol):
    """All that is shared and kept in one place."""

    @property
    def answers(self) -> KeptAnswers:
        """The answers."""

    def ledger(self, budgets: Sequence[Budget], provider: str, price: Price) -> Ledger:
        """Return a ledger of `budgets`, all of which hold at once, by the provider's price list."""

    def pace(self, provider: str, per_second: float | None) -> Pace:
        """Return the provider's pace; `per_second` is None where it states no limit."""

    def leases(self) -> Leases:
        """Return the leases of one run, which none other counts as its own."""

    @property
    def runs(self) -> Runs:
        """What was run. A store of before this was asked for may lack it."""

    @property
    def records(self) -> GatewayRecords:
        """What gateways keep. A store of before this was asked for may lack it."""

    def accounts(self) -> list[Account]:
        """Return how every budget stands; unnamed budgets of a run are left out."""

    def release_abandoned(self, *, everywhere: bool = False) -> int:
        """Give back what was reserved by processes that are gone; return how many attempts.

        Do this only when you know that those attempts were not billed: some of them were sent.

        Args:
            everywhere: whatever is reserved, also by processes that cannot be looked at from
                here (of another host or container). Only when none is running.
        """

    def reset(self, name: str) -> int:
        """Forget what was spent under a budget's name; return in how many periods."""

    def keys(self) -> KeyRing:
        """Return the secrets that noise is drawn from; the same for all that share the store.

        Raises:
            StoreError: there is no key, or another than the one that the store's answers need.
        """

    def known_keys(self) -> tuple[str, ...]:
        """Return the public ids of the noise keys in use and before; empty if there never was one.

        Neither makes a key nor needs one.
        """

    def admit_key(self, key_id: str) -> None:
        """Take a noise key of this public id besides those that are known."""

    def forget_key(self, key_id: str) -> None:
        """Know a noise key no more, one that was admitted by mistake.

        A store of before this was asked for may lack it.

        Raises:
            UsageError: it is not known, or answers are of its noise.
        """

    def note(self, name: str) -> str | None:
        """Return a text that is kept under a name; None if none is."""

    def keep_note(self, name: str, text: str) -> None:
        """Keep a text, in place of an earlier one of that name."""

    def close(self) -> None:
        """Release files and connections."""
