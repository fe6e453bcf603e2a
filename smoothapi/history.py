"""A run as it is written down: begun, counted, ended.

History must not cost what it tells of: where a record cannot be kept that is logged, once, and the
run goes on. While it is under way it is written again every few seconds, so that of one that was
killed it is known how far it came; in a thread of its own, since a store may take long to answer.
"""

from __future__ import annotations

import getpass
import logging
import platform
import threading
import time
from collections import Counter
from concurrent.futures import wait
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Self

from smoothapi.errors import SmoothAPIError
from smoothapi.store.runs import DONE, RunRecord
from smoothapi.text import printable

if TYPE_CHECKING:
    from concurrent.futures import Future

    from smoothapi.certify.certificate import Certificate
    from smoothapi.session import Session

_MOST_PHOTOS = 100  # that a record names
_EVERY = 10.0  # seconds between two writes of a run that is under way
_LONGEST = 500  # characters of what ended it
_log = logging.getLogger("smoothapi")


class RunLog:
    """Writes down one run, in a `with` statement. Safe for threads.

    Args:
        session: who is asked, and whose store keeps the record.
        command: what runs, in one word.
        line: the command line, without what opens a door.
        by: who runs it; by default the user and the machine.
        asked: what decided besides the session's settings, ready for JSON.
    """

    def __init__(
        self,
        session: Session,
        command: str,
        *,
        line: str = "",
        by: str = "",
        asked: dict[str, Any] | None = None,
    ) -> None:
        settings = {**settings_of(session), **(asked or {})}
        self._runs = getattr(session.store, "runs", None)
        self._run = RunRecord(
            command,
            line=line,
            by=by or user(),
            provider=session.adapter.name,
            settings=settings,
        )
        self._lock = threading.Lock()
        self._counts: Counter[str] = Counter()
        self._photos: list[dict[str, Any]] = []
        self._spent = [0, 0, 0.0]  # attempts, cached, dollars
        self._written = 0.0
        self._writing: Future[None] | None = None
        self._ended = False

    @property
    def record(self) -> RunRecord:
        """The run as it stands."""
        return replace(
            self._run,
            counts=dict(self._counts),
            attempts=int(self._spent[0]),
            cached=int(self._spent[1]),
            dollars=round(self._spent[2], 6),
            photos=tuple(self._photos),
        )

    def begin(self) -> Self:
        """Keep that it began."""
        self._keep("begin")
        return self

    def certificate(self, photo: str, certificate: Certificate) -> None:
        """Count a photo that was certified, or not.

        Args:
            photo: what it is called.
            certificate: what it came to.
        """
        outcome = "abstained" if certificate.abstained else "certified"
        self.photo(
            photo,
            outcome,
            label=certificate.label,
            radius=certificate.radius,
            reason=certificate.reason,
            votes=certificate.total_votes,
            attempts=certificate.attempts,
            cached=certificate.cached,
            dollars=certificate.cost,
        )

    def failure(self, photo: str, error: SmoothAPIError) -> None:
        """Count a photo that an error ended."""
        said = f"{type(error).__name__}: {error}"[:_LONGEST]
        self.photo(photo, "failed", error=said, attempts=error.attempts, dollars=error.cost)

    def photo(
        self,
        photo: str,
        outcome: str,
        *,
        attempts: int = 0,
        cached: int = 0,
        dollars: float = 0.0,
        **more: Any,
    ) -> None:
        """Count a photo, and name it if it is one of the first."""
        with self._lock:
            self._counts[outcome] += 1
            self._add(attempts, cached, dollars)
            if len(self._photos) < _MOST_PHOTOS:
                row = {"photo": printable(photo), "outcome": outcome, "dollars": dollars, **more}
                self._photos.append(row)
            due = time.monotonic() - self._written > _EVERY and not self._ended
            if due and (self._writing is None or self._writing.done()):
                from smoothapi.asynchronous import ThreadEach  # noqa: PLC0415  seldom needed

                self._written = time.monotonic()
                self._writing = ThreadEach("smoothapi-history").submit(self._keep, "keep")

    def result(self, counts: dict[str, int], attempts: int, cached: int, dollars: float) -> None:
        """Count photos that were worked on together."""
        with self._lock:
            self._counts.update(counts)
            self._add(attempts, cached, dollars)

    def spent(self, attempts: int, cached: int, dollars: float) -> None:
        """Take what all photos came to, those that an error of all ended included."""
        with self._lock:
            so_far = zip(self._spent, (attempts, cached, dollars), strict=True)
            self._spent = [max(pair) for pair in so_far]

    def end(self, outcome: str = DONE) -> None:
        """Keep that it ended, and how."""
        with self._lock:
            if self._ended:
                return
            self._ended = True
            self._run = replace(self._run, outcome=printable(outcome)[:_LONGEST])
        if self._writing is not None:
            wait([self._writing])
        self._keep("keep")

    def end_by(self, error: SmoothAPIError) -> None:
        """Keep that an error ended it."""
        self.end(f"{type(error).__name__}: {error}")

    def __enter__(self) -> Self:
        return self.begin()

    def __exit__(self, _: object, error: BaseException | None, __: object) -> None:
        if error is None:
            self.end()
        elif isinstance(error, SmoothAPIError):
            self.end_by(error)
        else:  # of another's error only the kind: what it says may be anything
            self.end(
                "interrupted" if isinstance(error, KeyboardInterrupt) else type(error).__name__
            )

    def _add(self, attempts: int, cached: int, dollars: float) -> None:
        for place, value in enumerate((attempts, cached, dollars)):
            self._spent[place] += value

    def _keep(self, verb: str) -> None:
        if self._runs is None:
            return
        with self._lock:
            self._written = time.monotonic()
            record = self.record
        try:
            kept = getattr(self._runs, verb)(record)
        except (SmoothAPIError, OSError) as error:
            self._runs = None
            _log.warning("This run is not written down: %s", error)
        else:
            with self._lock:
                self._run = replace(self._run, id=kept.id, began=kept.began, ended=kept.ended)


def settings_of(session: Session) -> dict[str, Any]:
    """Return what decides what a session's runs come to, ready for JSON; no secret is in it."""
    settings, variants = session.settings, session.variants
    ledger = session.dispatcher.route.ledger
    return {
        "identity": {key: str(value) for key, value in session.adapter.identity.items()},
        "denoiser": variants.denoiser.name,
        "fingerprint": variants.denoiser.fingerprint,
        "sigma": session.sigma,
        "radius": settings.radius,
        "alpha": settings.alpha,
        "max_votes": settings.max_votes,
        "budget": "; ".join(str(replace(budget, name="")) for budget in ledger.shared) or None,
        "size": session.size,
        "codec": settings.codec,
        "refresh": session.refresh,
    }


def user() -> str:
    """Return who runs this process, and on which machine."""
    try:
        name = getpass.getuser()
    except (OSError, KeyError, ImportError):  # a container's user may have no name
        name = "?"
    return printable(f"{name}@{platform.node() or '?'}")
