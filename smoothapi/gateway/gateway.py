"""The gateway without a socket: a request in, a reply out, with what was found about it.

It is the certifier of `smoothapi.wrap`: what a certified response means, and what it costs, stands
at the top of `smoothapi.wrapping`.
"""

from __future__ import annotations

import logging
import threading
import time
from contextlib import ExitStack, closing
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TYPE_CHECKING, cast

import numpy as np

from smoothapi.denoise.gathering import Gathering
from smoothapi.errors import (
    BudgetExceededError,
    ImageError,
    SmoothAPIError,
    StoppedError,
    StoreError,
    ThrottledError,
    TooManyFailuresError,
    TransientError,
    UsageError,
    let_go,
)
from smoothapi.gateway.certifiers import Certifiers
from smoothapi.gateway.config import ACCOUNTS
from smoothapi.gateway.elsewhere import Elsewhere
from smoothapi.gateway.front import LONGEST_OPERATION, make_front
from smoothapi.gateway.records import Records, outcome_of
from smoothapi.gateway.unforeseen import log_unforeseen
from smoothapi.options import resolve
from smoothapi.parts import choose_denoiser
from smoothapi.store import kept_records, open_home
from smoothapi.wires.trouble import Trouble
from smoothapi.wiring import open_session
from smoothapi.wrapping import Certifier, Passed, Remote
from smoothapi.wrapping.deadline import Deadline, Left
from smoothapi.wrapping.finding import what_ended

if TYPE_CHECKING:
    from collections.abc import Sequence
    from contextlib import AbstractContextManager

    from smoothapi.denoise import DenoiserRuntime
    from smoothapi.gateway.config import GatewayConfig, ProviderTable
    from smoothapi.gateway.front import Front, Incoming
    from smoothapi.gateway.records import GatewayCaller
    from smoothapi.options import SmootherOptions
    from smoothapi.store import Account
    from smoothapi.wires.wire import Refusal, Reply, Request
    from smoothapi.wrapping import CallPolicy, Finding, Item

PASSED = "passed"
REFUSED = "refused"
FAILED = "failed"
STOPPED = "stopped"

_FOR_RECORDS = 4.0  # seconds; with those of a call less than most SDKs wait
_log = logging.getLogger("smoothapi")


@dataclass(frozen=True, slots=True)
class Answered:
    """A reply, and what it rests on.

    Attributes:
        reply: for the caller.
        outcomes: one for each picture: "certified", "abstained", or what ended its votes; for
            what was not to be certified "passed" or "refused"; for a call that came to nothing
            one of "refused", "stopped" and "failed".
        certificates: an id for each picture about which something was found, else "".
        findings: what was found, in the same order.
    """

    reply: Reply
    outcomes: tuple[str, ...]
    certificates: tuple[str, ...] = ()
    findings: tuple[Finding, ...] = field(default=(), repr=False)


@dataclass(frozen=True)
class ServedProvider:
    """One provider, as the gateway serves it.

    Attributes:
        front: its protocol.
        table: its configuration.
        policy: what each call is to give.
        elsewhere: the pictures that calls may name.
    """

    front: Front
    table: ProviderTable
    policy: CallPolicy
    elsewhere: Elsewhere


class Gateway:
    """Certifies the calls of many callers to some providers. Threads share it.

    Sessions, and the threads in them, are opened at a caller's first call to a provider, and closed
    when many others have come since (`Certifiers`); all share answers, budgets, pace, noise key and
    one denoiser, whose batches are filled across calls.

    Args:
        config: from `read_config`.

    Raises:
        UsageError: an option cannot work.
        MissingExtraError: a provider's packages are not installed.
        StoreError: the home, or the noise key, cannot be used.
    """

    def __init__(self, config: GatewayConfig) -> None:
        self.config = config
        self.served: dict[str, ServedProvider] = {}
        self._certifiers = Certifiers()
        self._denoisers: dict[tuple[str, str], DenoiserRuntime] = {}
        self._opened = ExitStack()
        self._lock = threading.Lock()
        self._unkept = Left()
        try:
            home = open_home(config.settings.home, config.settings.noise_key_file)
            self._home = self._opened.enter_context(closing(home))
            home.keys()  # which every certificate asks for
            kept = kept_records(home, config.gateway.records)
            self.records = Records(kept, keep_days=config.gateway.keep_days)
            self._opened.callback(self.records.close)
            for name, table in config.providers.items():
                front = make_front(name, table.options, table.signed_by)
                policy = config.certified(name).policy
                elsewhere = Elsewhere(
                    name,
                    table.fetch,
                    policy.remote,
                    most_bytes=front.wire.max_body,
                    within=policy.within,
                )
                self.served[name] = ServedProvider(front, table, policy, elsewhere)
        except BaseException:
            self.close()
            raise

    def served_to(self, request: Request) -> ServedProvider | None:
        """Return the provider whose protocol a request is in, None if it is in none."""
        if _leads_elsewhere(request.path):
            return None
        return next((one for one in self.served.values() if one.front.owns(request)), None)

    def most_bytes(self) -> int:
        """Return the longest body that any provider takes."""
        return max(one.front.wire.max_body for one in self.served.values())

    def answer(
        self,
        served: ServedProvider,
        caller: GatewayCaller,
        incoming: Incoming,
        *,
        waited: float = 0.0,
    ) -> Answered:
        """Certify the labels that a request asks for, or pass it on.

        Nothing is raised for what callers or providers do: they are answered in the provider's own
        words.

        Args:
            served: the provider.
            caller: who asks.
            incoming: what.
            waited: seconds that the request has waited already; they count towards its deadline.
        """
        front = served.front
        try:
            return self._answer(served, caller, incoming, waited)
        except SmoothAPIError as error:
            refusal, outcome = self._refusal(served, error)
            let_go(error)
        except Exception as error:  # noqa: BLE001  one call that nobody foresaw must not end all
            log_unforeseen(error)
            let_go(error)
            refusal, outcome = front.wire.trouble(Trouble.error), FAILED
        return Answered(refused(front, refusal), (outcome,))

    def _answer(
        self, served: ServedProvider, caller: GatewayCaller, incoming: Incoming, waited: float
    ) -> Answered:
        front, policy, began = served.front, served.policy, time.monotonic()
        operation = front.operation(incoming.request)
        passes = served.table.passes(operation)
        not_passed = "" if passes else _why_not(operation)
        fetch = served.elsewhere.of_one_call()
        call = front.read(replace(incoming, fetch=fetch, not_passed=not_passed))
        if call is None or isinstance(call, Remote):
            if isinstance(call, Remote) and policy.remote == "pass":
                return Answered(front.relay(incoming), ("elsewhere",))
            if call is None and passes:
                return Answered(front.relay(incoming), (PASSED,))
            why = served.elsewhere.why_not(call) if call is not None else not_passed
            refusal = front.wire.unanswerable(why)
            return Answered(refused(front, refusal), (REFUSED,))
        waited += time.monotonic() - began
        with self._certifier(served, caller) as certifier:
            done = certifier.certify(call, policy, waited=waited)
        reply: Reply = done.response
        found = [finding for finding in done.findings if finding is not None]
        missing = ("",) * len(done.findings)
        certificates = self._kept(caller, front, operation, done.findings) if found else missing
        outcomes = tuple(
            _outcome(item) if one is None else outcome_of(one)
            for item, one in zip(call.items, done.findings, strict=True)
        )
        return Answered(reply, outcomes, certificates, tuple(found))

    def _kept(
        self,
        caller: GatewayCaller,
        front: Front,
        operation: str,
        findings: Sequence[Finding | None],
    ) -> tuple[str, ...]:
        """Keep what was found about each picture; return the ids, "" where there is none.

        The response is paid for, whether its records are kept or not: it waits a little for them.
        """
        kept = ["" for _ in findings]

        def keep() -> None:
            for number, finding in enumerate(findings):
                if finding is not None:
                    kept[number] = self.records.keep(caller.name, front.name, operation, finding)

        with Deadline(_FOR_RECORDS, left=self._unkept) as deadline:
            try:
                deadline.steps().take(keep)
            except StoppedError:
                _log.warning(
                    "A response was given without the ids of its certificates: the home, where "
                    "they are kept, has not answered for %g s.",
                    _FOR_RECORDS,
                )
            except StoreError as error:
                _log.warning("A certificate was not kept: %s", error)
        return tuple(kept)

    def stop(self) -> None:
        """Have calls under way end: what was sent is awaited and kept, and nothing more is sent."""
        self._certifiers.close()

    def close(self) -> None:
        """Stop, and release all that is held."""
        self.stop()
        for one in self.served.values():
            one.front.close()
        self._opened.close()

    def accounts(self) -> list[Account]:
        """Return how the budgets of this gateway stand, the earlier periods first."""
        return [one for one in self._home.accounts() if one.name.startswith(ACCOUNTS)]

    def _certifier(
        self, served: ServedProvider, caller: GatewayCaller
    ) -> AbstractContextManager[Certifier]:
        key = served.front.name, caller.name, str(caller.budget)  # a new token may have another
        return self._certifiers.using(key, partial(self._new_certifier, served.front.name, caller))

    def _new_certifier(self, provider: str, caller: GatewayCaller) -> Certifier:
        options = cast("SmootherOptions", dict(self.config.certified(provider).session))
        options["plain"] = False
        options["budget"] = [*self.config.budgets(provider), caller.budget]
        with self._lock:
            options["denoiser"] = self._denoiser(provider)
        opening = partial(open_session, store=self._home, **options)
        return Certifier(opening, "serve", by=caller.name)

    def warm_up(self) -> None:
        """Load the denoisers, so that no caller waits for that.

        Raises:
            SmoothAPIError: one cannot be loaded.
        """
        with self._lock:
            for provider in self.served:
                self._denoiser(provider).variants(np.full((1, 64, 64, 3), 0.5), 0.25)

    def _denoiser(self, provider: str) -> DenoiserRuntime:
        """Return the denoiser that all calls with the same settings share."""
        settings = resolve(None, self.config.certified(provider).session).settings
        key = settings.denoiser, settings.device
        if key not in self._denoisers:
            self._denoisers[key] = Gathering(choose_denoiser(*key))
        return self._denoisers[key]

    def _refusal(self, served: ServedProvider, error: SmoothAPIError) -> tuple[Refusal, str]:
        """Return how the provider would word an error, and what ended the call in a word."""
        wire, ended = served.front.wire, what_ended(error)
        wait = self.config.gateway.retry_after
        if self._certifiers.closed:
            return wire.trouble(Trouble.unavailable, retry_after=wait), STOPPED
        if isinstance(error, UsageError):
            is_of_picture = isinstance(error, ImageError)
            return wire.unanswerable(str(error)), ended if is_of_picture else REFUSED
        if isinstance(error, BudgetExceededError):
            return wire.trouble(Trouble.quota), ended
        if isinstance(error, ThrottledError):
            return wire.trouble(Trouble.throttled, retry_after=error.retry_after or wait), ended
        if isinstance(error, (StoppedError, TransientError, TooManyFailuresError)):
            return wire.trouble(Trouble.unavailable, retry_after=wait), ended
        # What is left concerns the operator: credentials, the store, the denoiser, the model.
        _log.error("The gateway could not answer a request to %s: %s", served.front.name, error)
        return wire.trouble(Trouble.error), ended


def refused(front: Front, refusal: Refusal) -> Reply:
    """Return a refusal as the provider words it, with Retry-After where it says how long."""
    reply = front.wire.refuse(refusal)
    if refusal.retry_after is None:
        return reply
    seconds = f"{max(1, round(refusal.retry_after))}"
    return replace(reply, headers=(*reply.headers, ("retry-after", seconds)))


def joined(values: Sequence[str]) -> str:
    """Return one value for each picture as the text of a header."""
    return ",".join(value or "-" for value in values)


def _leads_elsewhere(path: str) -> bool:
    """Whether servers read a path in several ways, some of which lead to what nobody let pass."""
    parts = path.replace("\\", "/").split("/")
    return "." in parts or ".." in parts or "?" in path or "#" in path


def _outcome(item: Item | Passed) -> str:
    """Return the outcome of a part of a call about which nothing was found."""
    if isinstance(item, Passed) and not item.refused:
        return PASSED
    return REFUSED  # by this gateway, or by the provider


def _why_not(operation: str) -> str:
    what = operation[:LONGEST_OPERATION] or "This request"
    return (
        f"This gateway certifies labels. {what} asks here for none, and is not among the "
        "operations that its operator lets pass (passthrough)."
    )
