"""The certifier: the labels in a call's response, certified. It knows no SDK."""

from __future__ import annotations

import contextvars
import logging
import os
import threading
from collections import Counter
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any

from smoothapi.certify.arithmetic import ceil_to
from smoothapi.dispatch import Totals
from smoothapi.errors import (
    BudgetExceededError,
    ImageError,
    ModelChangedError,
    ProviderError,
    SmoothAPIError,
    StoppedError,
    StoreError,
    UsageError,
    let_go,
)
from smoothapi.events import Uncertified
from smoothapi.history import RunLog
from smoothapi.image import load_image
from smoothapi.many import Crew
from smoothapi.telemetry import emit
from smoothapi.wrapping.deadline import Deadline, Left
from smoothapi.wrapping.finding import Finding
from smoothapi.wrapping.labels import certify_labels, check_labels
from smoothapi.wrapping.policy import CallPolicy
from smoothapi.wrapping.protocol import Item, Passed, Verdict

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from smoothapi.answer import Answer
    from smoothapi.asynchronous import Stop
    from smoothapi.certify.certificate import Certificate
    from smoothapi.image import WorkingImage
    from smoothapi.provider import Adapter
    from smoothapi.session import Session
    from smoothapi.wrapping.deadline import Steps
    from smoothapi.wrapping.protocol import Call, OwnCall

_DECIMALS = 6
_AT_ONCE = 4  # pictures of a batch: the deadline leaves no more than so many of them half done
_log = logging.getLogger("smoothapi")


@dataclass(frozen=True)
class CertifiedResponse:
    """A call's response, and what was found about it.

    Attributes:
        response: with the labels that are left.
        findings: one for each item of the call; None where there was nothing to certify, or where
            the response says that the call failed.
    """

    response: Any
    findings: tuple[Finding | None, ...]


class Certifier:
    """Makes calls of one provider and certifies their labels. Shared by threads.

    What a certified response means stands at the top of `smoothapi.wrapping`. Session and threads
    are opened at the first call, and released by `close`.

    Args:
        open_session: opens the session, given the adapter of the first call.
        command: what makes the calls, as its run is written down (`smoothapi runs`).
        by: whose calls they are; "" for the user's.
    """

    def __init__(
        self, open_session: Callable[[Adapter], Session], command: str = "wrap", *, by: str = ""
    ) -> None:
        self._open_session = open_session
        self._command = command
        self._by = by
        self._log: RunLog | None = None
        self._locks: dict[int, tuple[threading.Lock, threading.Lock]] = {}
        self._left = Left()
        self._session: Session | None = None
        self._closed = False
        self._uncertified: Counter[str] = Counter()
        self._told: set[tuple[str, str]] = set()  # causes, and what was given for them

    @property
    def _lock(self) -> threading.Lock:
        """Held for a moment."""
        return self._own_locks()[0]

    @property
    def _opening(self) -> threading.Lock:
        """Held while the session is opened, which may wait for a store."""
        return self._own_locks()[1]

    def _own_locks(self) -> tuple[threading.Lock, threading.Lock]:
        """Return those of this process: a client may be wrapped before a server forks."""
        return self._locks.setdefault(os.getpid(), (threading.Lock(), threading.Lock()))

    @property
    def session(self) -> Session | None:
        """Budgets, store and threads of all calls; None before the first."""
        return self._session

    @property
    def uncertified(self) -> Mapping[str, int]:
        """How many pictures were left uncertified, by what ended it: `Finding.ended`."""
        with self._lock:
            return dict(self._uncertified)

    def certify(
        self,
        call: Call,
        policy: CallPolicy | None = None,
        cancel: Stop | None = None,
        *,
        waited: float = 0.0,
    ) -> CertifiedResponse:
        """Make a call, and put the labels in its response to the vote.

        Args:
            call: what is asked.
            policy: what it is to give. With otherwise="raise", as by default, whatever ends the
                votes first is raised; else the response is returned all the same.
            cancel: once it is stopped nothing more is sent, and StoppedError is raised whatever
                the policy.
            waited: seconds of the policy's `within` that have passed already.

        Raises:
            BudgetExceededError: the budget does not allow the next query.
            StoppedError: the deadline passed, or the call was cancelled.
            ProviderError: the service failed for the noisy copies.
            UsageError: the certifier is closed.
            ImageError: the service can read the photo and smoothapi cannot.
            Exception: what the SDK raised for the caller's own call.
        """
        policy = (policy or CallPolicy()).of_one_call()
        items = list(enumerate(call.items))
        done: dict[int, tuple[Any, Finding | None]] = {}
        with Deadline(policy.within, cancel, self._left, waited=waited) as deadline:
            # What is not to be certified comes first: if it fails, no votes were bought in vain.
            for number, item in items:
                if isinstance(item, Passed):
                    deadline.check_cancelled()
                    done[number] = item.send(), _elsewhere(item)
            pictures = [(number, item) for number, item in items if isinstance(item, Item)]
            done.update(self._pictures(pictures, policy, deadline))
        parts, findings = zip(*(done[number] for number in sorted(done)), strict=True)
        response = parts[0] if call.join is None else call.join(list(parts))
        return CertifiedResponse(response, findings)

    def close(self) -> None:
        """Wait for requests under way, and release what the session holds.

        In a process that was forked meanwhile nothing is released: it is the parent's.
        """
        self._closed = True
        with self._opening:
            session, self._session = self._session, None
            log, self._log = self._log, None
        if session is not None:
            if log is not None and os.getpid() == session.resources.process:
                log.end()
            session.close()

    def check_open(self) -> None:
        """Raise UsageError if this certifier is closed."""
        if self._closed:
            raise UsageError("This wrapped client is closed. Wrap the client again.")

    def _pictures(
        self, pictures: Sequence[tuple[int, Item]], policy: CallPolicy, deadline: Deadline
    ) -> Iterator[tuple[int, tuple[Any, Finding | None]]]:
        """Certify the pictures of a call, several at once; the first error ends all of them."""
        if not pictures:
            return
        certify: Callable[[Item], tuple[Any, Finding | None]]
        first = deadline.steps()
        try:
            session, at_once = first.take(partial(self._begun, pictures, policy))
        except (StoppedError, StoreError) as error:
            if policy.otherwise == "raise" or deadline.cancelled:
                raise
            at_once = min(len(pictures), _AT_ONCE)  # which share no budget
            certify = partial(
                self._unbegun, why=error, policy=policy, deadline=deadline, mine=first
            )
            let_go(error)  # its trace holds this frame
        else:
            certify = partial(self._picture, session=session, policy=policy, deadline=deadline)
        if at_once <= 1:
            for number, item in pictures:
                yield number, certify(item)
            return
        context = contextvars.copy_context()

        def work(picture: tuple[int, Item]) -> tuple[Any, Finding | None]:
            return context.copy().run(certify, picture[1])

        crew = Crew(work, at_once)
        # As they end: what one of them met is not to wait for the votes of those before it.
        for (number, _), found in crew.run(pictures, in_order=False, on_cut=deadline.stop):
            yield number, found

    def _begun(
        self, pictures: Sequence[tuple[int, Item]], policy: CallPolicy
    ) -> tuple[Session, int]:
        """Return the session for the pictures of a call, and how many are under way at once."""
        session = policy.applied(self._opened(pictures[0][1].votes))
        at_once = _at_once(pictures, session)
        return (session.for_many() if at_once > 1 else session), at_once

    def _unbegun(
        self,
        item: Item,
        *,
        why: SmoothAPIError,
        policy: CallPolicy,
        deadline: Deadline,
        mine: Steps,
    ) -> tuple[Any, Finding | None]:
        """Give what `otherwise` says of a picture where no session was to be had, or none in time.

        The caller's own call is made as without smoothapi, and counts for no budget.
        """
        try:
            self.check_open()
            deadline.check_cancelled()
            answer = _answer_after(why, item.own, in_any_case=True)
            if answer is None:
                return item.own.refusal, None
            return self._given_uncertified(item, answer, why, policy)
        finally:
            mine.afterwards(item.votes.close)

    def _picture(
        self, item: Item, *, session: Session, policy: CallPolicy, deadline: Deadline
    ) -> tuple[Any, Finding | None]:
        mine = deadline.steps()
        try:
            self.check_open()
            deadline.check_cancelled()
            watched = replace(session, on_run=deadline.watch)
            return self._certify(item, watched, policy, deadline, mine)
        except RuntimeError:
            self.check_open()  # closed by another thread in the middle of it
            raise
        finally:
            mine.afterwards(item.votes.close)
            mine.afterwards(item.own.close)

    def _certify(
        self,
        item: Item,
        session: Session,
        policy: CallPolicy,
        deadline: Deadline,
        mine: Steps,
    ) -> tuple[Any, Finding | None]:
        least = policy.least(item.score)
        stays_open = policy.otherwise != "raise"
        image: WorkingImage | SmoothAPIError
        try:
            image = mine.take(partial(_checked, item, session, policy, least))
        except ImageError as error:  # the service may say something else about it
            image = error
        except (BudgetExceededError, StoreError, StoppedError) as error:
            if not stays_open:
                raise
            image = error
        own = _own_answer(session, item, deadline, mine, stays_open=stays_open)
        if own is None:
            if isinstance(image, SmoothAPIError):
                let_go(image)
            del image  # whose trace holds this frame
            return item.own.refusal, None
        answer, spent = own
        try:
            if isinstance(image, SmoothAPIError):
                raise image
            ask = partial(certify_labels, image=image, answer=answer, policy=policy, least=least)
            certificate = mine.take(partial(_put_to_the_vote, session, item.votes, answer, ask))
        except SmoothAPIError as error:
            deadline.totals.tell(error)
            self._write_down(getattr(image, "name", ""), error)
            del image  # which may be that error, whose trace holds this frame
            if not stays_open or deadline.cancelled or _is_misuse(error):
                raise
            self.check_open()
            found = self._given_uncertified(item, answer, error, policy)
            let_go(error)
            return found
        certificate = replace(
            certificate,
            queries=certificate.queries + spent.queries,
            attempts=certificate.attempts + spent.attempts,
            cost=ceil_to(certificate.cost + float(spent.dollars), _DECIMALS),
        )
        self._write_down(certificate.image.name, certificate)
        return _written(item, Finding.of(certificate, answer), policy)

    def _given_uncertified(
        self, item: Item, answer: Answer, why: SmoothAPIError, policy: CallPolicy
    ) -> tuple[Any, Finding]:
        finding = Finding.without(why, answer)
        self._note(finding, policy, item.votes.name)
        return _written(item, finding, policy)

    def _note(self, finding: Finding, policy: CallPolicy, provider: str) -> None:
        """Count a picture that was left uncertified; say once for each cause what it is given."""
        emit(Uncertified(provider, finding.ended))
        with self._lock:
            self._uncertified[finding.ended] += 1
            known = (finding.ended, policy.otherwise) in self._told
            self._told.add((finding.ended, policy.otherwise))
        if not known:
            given = "the provider's own answer" if policy.otherwise == "plain" else "no labels"
            _log.warning(
                "A call was given %s, uncertified, as otherwise=%r says: %s Each such response "
                "says so; from now on they are counted, and no longer logged.",
                given,
                policy.otherwise,
                finding.why,
            )

    def _write_down(self, photo: str, end: Certificate | SmoothAPIError) -> None:
        log = self._log
        if log is None:  # closed meanwhile
            return
        if isinstance(end, SmoothAPIError):
            log.failure(photo, end)
        else:
            log.certificate(photo, end)

    def _opened(self, adapter: Adapter) -> Session:
        with self._opening:
            self.check_open()
            if self._session is None:
                self._session = self._open_session(adapter)
                self._log = RunLog(self._session, self._command, by=self._by).begin()
            return self._session


def _checked(item: Item, session: Session, policy: CallPolicy, least: float) -> WorkingImage:
    """Return an item's working image; refuse, before it is paid for, what can come to nothing."""
    image = load_image(item.photo, size=session.size)
    check_labels(session.through(item.votes), image, policy, least=least)
    return image


def _written(item: Item, finding: Finding, policy: CallPolicy) -> tuple[Any, Finding]:
    """Return the response to an item, with what was found written into it."""
    keep = policy.uncertified == "mark"
    verdict = Verdict(finding, keep, keep and policy.attach, policy.otherwise)
    return item.write(item.own.response, verdict), finding


def _at_once(pictures: Sequence[tuple[int, Item]], session: Session) -> int:
    """Return how many pictures of a call are under way at once.

    Those that are share what is left of the budget. One after another, it goes into whole
    certificates: so it is where it may not pay for all votes of several, or cannot be read.
    """
    if len(pictures) == 1:
        return 1
    try:
        room = session.through(pictures[0][1].votes).dispatcher.room()
    except StoreError:  # each picture meets it once more, where `otherwise` says what it is given
        return 1
    most = min(len(pictures), _AT_ONCE)
    return most if room is None else min(most, room // (session.settings.max_votes + 1))


def _elsewhere(item: Passed) -> Finding | None:
    """Return what is found about a part that is made as it is."""
    return None if item.remote is None else Finding.elsewhere(item.remote.what)


def _is_misuse(error: SmoothAPIError) -> bool:
    """Whether an error says that the options cannot work: that is never answered for."""
    return isinstance(error, UsageError) and not isinstance(error, ImageError)


def _own_answer(
    session: Session, item: Item, deadline: Deadline, mine: Steps, *, stays_open: bool
) -> tuple[Answer, Totals] | None:
    """Make the caller's own call; whatever the SDK raised in the end is raised.

    None if the SDK returned its error in a response.

    Args:
        session: through which it is made, as one more query.
        item: what is asked.
        deadline: of the call. If it passes first, and it `stays_open`, a call that is under way is
            awaited, as no other is to be paid for.
        mine: the steps that are taken for the item.
        stays_open: whether it is made, as without smoothapi, also where that is not allowed one.
    """
    own = item.own
    try:
        answer, spent = mine.take(partial(session.through(own).ask, item.photo))
    except (ProviderError, BudgetExceededError, StoppedError, StoreError) as error:
        if session.resources.closed:
            raise
        in_any_case = stays_open and not deadline.cancelled
        if in_any_case and isinstance(error, StoppedError):
            own.withdraw()
        answer, spent = _answer_after(error, own, in_any_case=in_any_case), Totals()
        let_go(error)
    if own.refusal is not None:
        return None
    if answer is None:
        raise own.error or ProviderError("The call failed for good.", provider=own.name)
    return answer, spent


def _answer_after(error: SmoothAPIError, own: OwnCall, *, in_any_case: bool) -> Answer | None:
    """Return what the caller's own call gives after the query for it met an error."""
    if own.refusal is not None:
        return None
    if own.sdk_error is not None and (in_any_case or isinstance(error, ProviderError)):
        raise own.sdk_error from None
    if not in_any_case or own.error is not None:
        raise error
    return own.directly()


def _put_to_the_vote(
    session: Session, votes: Adapter, answer: Answer, ask: Callable[[Session], Certificate]
) -> Certificate:
    """Certify the labels of the caller's own answer, by votes of the model that gave it."""
    for refresh in (False, True):
        try:
            certificate = ask(session.through(votes, refresh=refresh))
        except ModelChangedError:
            if refresh:
                raise
            continue
        # Stored votes can be an earlier model's; the caller was answered by the one that serves.
        if certificate.model_version in ("", answer.model_version):
            break
    return certificate
