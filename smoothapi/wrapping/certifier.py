"""The certifier: the labels in a call's response, certified. It knows no SDK."""

from __future__ import annotations

import os
import threading
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from smoothapi.certify.arithmetic import ceil_to
from smoothapi.errors import (
    ImageError,
    ModelChangedError,
    ProviderError,
    SmoothAPIError,
    UsageError,
)
from smoothapi.image import WorkingImage, load_image
from smoothapi.wrapping.labels import certify_labels, check_labels
from smoothapi.wrapping.protocol import Item, Verdict

if TYPE_CHECKING:
    from collections.abc import Callable

    from smoothapi.answer import Answer
    from smoothapi.certify.certificate import Certificate
    from smoothapi.dispatch import Totals
    from smoothapi.provider import Adapter
    from smoothapi.session import Session
    from smoothapi.wrapping.protocol import Call

_DECIMALS = 6


@dataclass(frozen=True)
class CertifiedResponse:
    """A call's response, and what is certified of it.

    Attributes:
        response: with the labels that are left.
        certificates: one for each item of the call; None where there was nothing to certify, or
            where the response says that the call failed.
    """

    response: Any
    certificates: tuple[Certificate | None, ...]


class Certifier:
    """Makes calls of one provider and certifies their labels. Shared by threads.

    What a certified response means stands at the top of `smoothapi.wrapping`. Session and threads
    are opened at the first call, and released by `close`.

    Args:
        open_session: opens the session, given the adapter of the first call.
        mark: whether labels that could not be certified stay in a response, marked.
    """

    def __init__(self, open_session: Callable[[Adapter], Session], *, mark: bool) -> None:
        self._open_session = open_session
        self._mark = mark
        self._locks: dict[int, threading.Lock] = {}
        self._session: Session | None = None
        self._closed = False

    @property
    def _lock(self) -> threading.Lock:
        """One a process: a client may be wrapped before a server forks its workers."""
        return self._locks.setdefault(os.getpid(), threading.Lock())

    @property
    def session(self) -> Session | None:
        """Budgets, store and threads of all calls; None before the first."""
        return self._session

    def certify(self, call: Call) -> CertifiedResponse:
        """Make a call, and put the labels in its response to the vote.

        Raises:
            BudgetExceededError: the budget does not allow the next query.
            ProviderError: the service failed for the noisy copies.
            UsageError: the certifier is closed.
            ImageError: the service can read the photo and smoothapi cannot.
            Exception: what the SDK raised for the caller's own call.
        """
        done = [self._done(item) for item in call.items]
        certificates = tuple(certificate for _, certificate in done)
        if call.join is None:
            [(response, _)] = done
        else:
            response = call.join([part for part, _ in done])
        return CertifiedResponse(response, certificates)

    def close(self) -> None:
        """Wait for requests under way, and release what the session holds.

        In a process that was forked meanwhile nothing is released: it is the parent's.
        """
        with self._lock:
            self._closed = True
            session, self._session = self._session, None
        if session is not None:
            session.close()

    def check_open(self) -> None:
        """Raise UsageError if this certifier is closed."""
        if self._closed:
            raise UsageError("This wrapped client is closed. Wrap the client again.")

    def _done(self, item: Item | Callable[[], Any]) -> tuple[Any, Certificate | None]:
        if not isinstance(item, Item):
            return item(), None
        try:
            return self._certify(item)
        except RuntimeError:
            self.check_open()  # closed by another thread in the middle of it
            raise
        finally:
            item.votes.close()

    def _certify(self, item: Item) -> tuple[Any, Certificate | None]:
        session = self._opened(item.votes)
        image: WorkingImage | ImageError
        try:
            image = load_image(item.photo, size=session.size)
        except ImageError as error:  # the service may say something else about it
            image = error
        else:
            check_labels(session.through(item.votes), image, score=item.score)
        own = _own_answer(session, item)
        if own is None:
            return item.own.refusal, None
        answer, spent = own
        try:
            if isinstance(image, ImageError):
                raise image
            certificate = _put_to_the_vote(session, item, image, answer)
        except SmoothAPIError as error:
            error.attempts += spent.attempts
            error.cost += float(spent.dollars)
            raise
        certificate = replace(
            certificate,
            queries=certificate.queries + spent.queries,
            attempts=certificate.attempts + spent.attempts,
            cost=ceil_to(certificate.cost + float(spent.dollars), _DECIMALS),
        )
        verdict = Verdict(certificate, self._mark)
        return item.write(item.own.response, verdict), certificate

    def _opened(self, adapter: Adapter) -> Session:
        with self._lock:
            self.check_open()
            if self._session is None:
                self._session = self._open_session(adapter)
            return self._session


def _own_answer(session: Session, item: Item) -> tuple[Answer, Totals] | None:
    """Make the caller's own call; whatever the SDK raised in the end is raised.

    None if the SDK returned its error in a response.
    """
    own = item.own
    try:
        answer, spent = session.through(own).ask(item.photo)
    except ProviderError:
        if own.refusal is not None:
            return None
        if own.error is None or isinstance(own.error, ProviderError):
            raise
        raise own.error from None
    if answer is not None:
        return answer, spent
    if own.refusal is not None:
        return None
    raise own.error or ProviderError("The call failed for good.", provider=own.name)


def _put_to_the_vote(
    session: Session, item: Item, image: WorkingImage, answer: Answer
) -> Certificate:
    """Certify the labels of the caller's own answer, by votes of the model that gave it."""
    for refresh in (False, True):
        try:
            through = session.through(item.votes, refresh=refresh)
            certificate = certify_labels(through, image, answer, score=item.score)
        except ModelChangedError:
            if refresh:
                raise
            continue
        # Stored votes can be an earlier model's; the caller was answered by the one that serves.
        if certificate.model_version in ("", answer.model_version):
            break
    return certificate
