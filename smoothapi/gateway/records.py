"""Who may call a gateway, and what it found: tokens made and looked up, certificates kept."""

from __future__ import annotations

import hashlib
import hmac
import logging
import re
import secrets
import threading
import time
from concurrent.futures import wait
from dataclasses import dataclass
from typing import TYPE_CHECKING

from smoothapi.asynchronous import ThreadEach
from smoothapi.errors import StoreError, UsageError
from smoothapi.gateway.config import ACCOUNTS, lasting_budget
from smoothapi.store import Record, Token
from smoothapi.store.ages import seconds_of

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from concurrent.futures import Future

    from smoothapi.store import Budget, GatewayRecords
    from smoothapi.wrapping import Finding

ANYONE = "anyone"
"""The caller's name where everybody is let in."""

FRESH = 2.0
"""Seconds for which tokens that are on another machine are believed without another look: after
that, one which was removed lets nobody in."""

WITHOUT = 60.0
"""Seconds for which they are believed while that machine cannot be reached: no caller is shut out
by a database that is being moved, and a token that was removed meanwhile lets in no longer."""

_AGAIN = 0.2  # seconds after a look before the next one, for a token that is not known or an error

_LOOK = 5.0  # seconds for which a caller waits until the tokens are read

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}", re.ASCII)
_TOKEN = re.compile(r"sgw_([0-9a-f]{16})_([0-9a-f]{48})", re.ASCII)
_ID = re.compile(r"[0-9a-f]{32}", re.ASCII)
_PRUNED = 500  # certificates are written between two looks for old ones

_THREADS = ThreadEach("smoothapi-tokens")
_log = logging.getLogger("smoothapi")


@dataclass(frozen=True, slots=True)
class GatewayCaller:
    """Who may call.

    Attributes:
        name: as the token was given it.
        budget: hard limit on what its calls send.
        per_second: most requests a second; None for no limit.
        operator: whether it may see everybody's certificates, the page and the metrics.
        made: seconds since the epoch at which the token was made.
    """

    name: str
    budget: Budget
    per_second: float | None = None
    operator: bool = False
    made: float = 0.0


def outcome_of(finding: Finding) -> str:
    """Return in a word what was found."""
    return finding.ended or ("certified" if finding.certified else "abstained")


class Records:
    """Tokens and certificates of a gateway. Threads share it.

    Of a token only the SHA-256 is kept: it is 192 random bits, so that nobody can find it from
    that, and it is compared in constant time.

    Args:
        kept: where they are kept.
        keep_days: for which certificates are.
        clock: seconds that only count on.
    """

    def __init__(
        self,
        kept: GatewayRecords,
        *,
        keep_days: float = 30.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.kept = kept
        self._keep = seconds_of(keep_days)
        self._written = 0
        self._known = _Known(kept, clock)

    def add_token(
        self,
        name: str,
        *,
        budget: str = "",
        per_second: float | None = None,
        operator: bool = False,
    ) -> str:
        """Make a token for a caller, and return it: it cannot be shown again.

        Args:
            name: of the caller.
            budget: such as "$50/month"; "" for none of its own.
            per_second: most requests a second.
            operator: whether it may see what all callers did.

        Raises:
            UsageError: the name is taken, or a value is out of range.
        """
        if not _NAME.fullmatch(name) or name == ANYONE:
            raise UsageError(
                f"{name!r} cannot be a caller's name: use up to 64 letters, digits, dots, - and _."
            )
        lasting_budget(budget, _account(name))
        if per_second is not None and not 0.0 < per_second < float("inf"):
            raise UsageError(f"per_second={per_second!r}: give a number above 0.")
        identity, secret = secrets.token_hex(8), secrets.token_hex(24)
        made = Token(identity, name, _digest(secret), budget, per_second, operator)
        if not self.kept.add_token(made):
            raise UsageError(
                f"There is a token for {name!r} already. Remove it first (`smoothapi serve token "
                f"remove {name}`), or choose another name."
            )
        return f"sgw_{identity}_{secret}"

    def remove_token(self, name: str) -> bool:
        """Forget a caller's token; whether there was one. What it spent stays counted."""
        return _NAME.fullmatch(name) is not None and self.kept.remove_token(name)

    def callers(self) -> list[GatewayCaller]:
        """Return who has a token, by name."""
        return [_caller(token) for token in self.kept.tokens()]

    def caller(self, token: str, *, look: bool = True) -> GatewayCaller | None:
        """Return whose token it is; None if nobody's.

        Args:
            token: as it was shown.
            look: whether another machine may be asked; if not, what it said last is taken, which
                is for who asked `waits_for` just now.

        Raises:
            StoreError: that cannot be looked up now.
        """
        found = _TOKEN.fullmatch(token)
        if found is None:
            return None
        kept = self._known.token(found[1], look=look)
        digest = b"\0" * 32 if kept is None else kept.digest
        if not hmac.compare_digest(digest, _digest(found[2])) or kept is None:
            return None
        return _caller(kept)

    def waits_for(self, token: str) -> bool:
        """Whether `caller` would wait for another machine to say whose token it is."""
        found = _TOKEN.fullmatch(token)
        return found is not None and self._known.waits_for(found[1])

    def keep(self, caller: str, provider: str, operation: str, finding: Finding) -> str:
        """Keep what was found about a picture; return its id."""
        identity = secrets.token_hex(16)
        self.kept.keep(
            Record(
                identity,
                caller,
                provider,
                _writable(operation),
                outcome_of(finding),
                _writable(finding.why),
                finding.to_dict(),
            )
        )
        self._written += 1
        if self._written % _PRUNED == 1:
            self._prune()
        return identity

    def _prune(self) -> None:
        try:
            self.kept.forget(self._keep)
        except StoreError as error:  # what was kept just now is kept all the same
            _log.warning("Certificates that are old enough were not forgotten: %s", error)

    def record(self, identity: str) -> Record | None:
        """Return what is kept under an id."""
        return self.kept.record(identity) if _ID.fullmatch(identity) else None

    def close(self) -> None:
        """Release what holds them."""
        self.kept.close()


class _Known:
    """The tokens, as they were when they were last looked for.

    Those on this machine are looked for each time. Of those on another one all are read, a few
    times a second at most whoever calls: strangers with made-up tokens are answered from memory.
    While it cannot be reached, those that were known let in for a while longer.
    """

    def __init__(self, kept: GatewayRecords, clock: Callable[[], float]) -> None:
        self._kept, self._clock = kept, clock
        self._lock = threading.Lock()
        self._read: tuple[float, Mapping[str, Token]] = (float("-inf"), {})
        self._failed: tuple[float, str] = (float("-inf"), "")
        self._reading: tuple[float, Future[list[Token]]] | None = None

    def waits_for(self, identity: str) -> bool:
        return self._kept.shared and not self._is_fresh(identity)

    def token(self, identity: str, *, look: bool) -> Token | None:
        if not self._kept.shared:
            return self._kept.token(identity)
        if look and not self._is_fresh(identity):
            self._look_for(identity)
        return self._read[1].get(identity)

    def _is_fresh(self, identity: str) -> bool:
        at, tokens = self._read
        return self._clock() - at < (FRESH if identity in tokens else _AGAIN)

    def _look_for(self, identity: str) -> None:
        # While the machine is away, one waits for it, and the others for nobody.
        if not self._lock.acquire(blocking=not self._is_away()):
            self._believe(identity, self._failed[1])
            return
        try:  # whoever waited for it finds what the first one read
            if not self._is_fresh(identity):
                self._look()
        except StoreError as error:
            self._believe(identity, str(error))
        finally:
            self._lock.release()

    def _is_away(self) -> bool:
        return self._failed[0] > self._read[0]

    def _believe(self, identity: str, said: str) -> None:
        """Raise StoreError unless a token was there the last time, and that is not long ago."""
        at, tokens = self._read
        if identity not in tokens or self._clock() - at >= WITHOUT:
            raise StoreError(said)

    def _look(self) -> None:
        at, said = self._failed
        if self._clock() - at < _AGAIN:
            raise StoreError(said)
        try:
            self._read = self._read_now()
        except StoreError as error:
            self._failed = self._clock(), str(error)
            raise

    def _read_now(self) -> tuple[float, Mapping[str, Token]]:
        """Return when the tokens were asked for, and what they were; one look at a time.

        A database may keep a statement for ever, and that must not keep a caller.
        """
        if self._reading is None or self._reading[1].done():  # then it was given up, and is old
            self._reading = self._clock(), _THREADS.submit(self._kept.tokens)
        began, reading = self._reading
        wait([reading], _LOOK)
        if not reading.done():
            raise StoreError(
                f"Who may call cannot be looked up: the home has not answered for {_LOOK:g} s."
            )
        self._reading = None
        return began, {token.id: token for token in reading.result()}


def anyone() -> GatewayCaller:
    """Return the caller that everybody is where no token is asked for."""
    return GatewayCaller(ANYONE, lasting_budget("", _account(ANYONE)), operator=True)


def _account(name: str) -> str:
    return f"{ACCOUNTS}caller-{name}"


def _digest(secret: str) -> bytes:
    return hashlib.sha256(secret.encode()).digest()


def _caller(token: Token) -> GatewayCaller:
    budget = lasting_budget(token.budget, _account(token.name))
    return GatewayCaller(token.name, budget, token.per_second, token.operator, token.made)


def _writable(text: str) -> str:
    """Return a text as every store takes it: providers and callers can send half characters."""
    return text.encode("utf-8", "replace").decode().replace("\0", "\N{REPLACEMENT CHARACTER}")
