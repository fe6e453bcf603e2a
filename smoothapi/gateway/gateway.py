"""The gateway without a socket: a request in, a reply out, with what was found about it.

It is the certifier of `smoothapi.wrap`: what a certified response means, and what it costs, stands
at the top of `smoothapi.wrapping`.
"""

from __future__ import annotations

import logging
import threading
import time
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
)
from smoothapi.gateway.config import ACCOUNTS
from smoothapi.gateway.elsewhere import Elsewhere
from smoothapi.gateway.front import make_front
from smoothapi.gateway.records import Records, outcome_of
from smoothapi.options import resolve
from smoothapi.parts import choose_denoiser
from smoothapi.store import open_home
from smoothapi.wires.wire import Refusal, Reply, Trouble
from smoothapi.wiring import open_session
from smoothapi.wrapping import Certifier, Remote
from smoothapi.wrapping.finding import what_ended

if TYPE_CHECKING:
    from collections.abc import Sequence

    from smoothapi.denoise import DenoiserRuntime
    from smoothapi.gateway.config import GatewayConfig, ProviderTable
    from smoothapi.gateway.front import Front, Incoming
    from smoothapi.gateway.records import GatewayCaller
    from smoothapi.options import SmootherOptions
    from smoothapi.store import Account
    from smoothapi.wires.wire import Request
    from smoothapi.wrapping import CallPolicy, Finding

PASSED = "passed"
REFUSED = "refused"
FAILED = "failed"
STOPPED = "stopped"

_log = logging.getLogger("smoothapi")


@dataclass(frozen=True, slots=True)
class Answered:
    """A reply, and what it rests on.

    Attributes:
        reply: for the caller.
        outcomes: one for each picture: "certified", "abstained", or what ended its votes; for
            what was no certified call one of "passed", "refused", "stopped" and
            "failed".
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

    Sessions, and the threads in them, are opened at a caller's first call to a provider; all share
    answers, budgets, pace, noise key and one denoiser, whose batches are filled across calls.

    Args:
        config: from `read_config`.
        records: tokens and certificates; its own, in the home of the configuration, by default.

    Raises:
        UsageError: an option cannot work.
        MissingExtraError: a provider's packages are not installed.
        StoreError: the home cannot be used.
    """

    def __init__(self, config: GatewayConfig, records: Records | None = None) -> None:
        self.config = config
        self.records = records or Records(config.records_file, keep_days=config.gateway.keep_days)
        self._own_records = records is None
        self.served: dict[str, ServedProvider] = {}
        self._certifiers: dict[tuple[str, str, str], Certifier] = {}
        self._denoisers: dict[tuple[str, str], DenoiserRuntime] = {}
        self._home = open_home(config.settings.home, config.settings.noise_key_file)
        self._lock = threading.Lock()
        self._stopped = False
        try:
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
        except Exception as error:  # noqa: BLE001  one call that nobody foresaw must not end all
            # Its words and its trace could hold a key or a picture.
            _log.error("The gateway could not answer a request: %s", type(error).__name__)
            _log.debug("It was raised at:", exc_info=True)
            refusal, outcome = front.wire.trouble(Trouble.error), FAILED
        return Answered(refused(front, refusal), (outcome,))

    def _answer(
        self, served: ServedProvider, caller: GatewayCaller, incoming: Incoming, waited: float
    ) -> Answered:
        front, policy, began = served.front, served.policy, time.monotonic()
        operation = front.operation(incoming.request)
        call = front.read(replace(incoming, fetch=served.elsewhere.of_one_call()))
        if call is None or isinstance(call, Remote):
            if isinstance(call, Remote) and policy.remote == "pass":
                return Answered(front.relay(incoming), ("elsewhere",))
            if call is None and served.table.passes(operation):
                return Answered(front.relay(incoming), (PASSED,))
            why = served.elsewhere.why_not(call) if call is not None else _why_not(operation)
            refusal = front.wire.unanswerable(why)
            return Answered(refused(front, refusal), (REFUSED,))
        if policy.within is not None:
            left = policy.within - waited - (time.monotonic() - began)
            if left <= 0.0:
                raise StoppedError("The call's deadline passed before anything was sent for it.")
            policy = replace(policy, within=left)
        done = self._certifier(served, caller).certify(call, policy)
        reply: Reply = done.response
        found = [finding for finding in done.findings if finding is not None]
        if not found:  # the provider's own refusal
            return Answered(reply, (REFUSED,))
        certificates = tuple(
            "" if one is None else self._kept(caller, front, operation, one)
            for one in done.findings
        )
        outcomes = tuple("" if one is None else outcome_of(one) for one in done.findings)
        return Answered(reply, outcomes, certificates, tuple(found))

    def _kept(self, caller: GatewayCaller, front: Front, operation: str, finding: Finding) -> str:
        """Keep what was found, and return its id; "" where it cannot be kept."""
        try:
            return self.records.keep(caller.name, front.name, operation, finding)
        except StoreError as error:  # the response is paid for, whether its record is kept or not
            _log.warning("A certificate was not kept: %s", error)
            return ""

    def stop(self) -> None:
        """Have calls under way end: what was sent is awaited and kept, and nothing more is sent."""
        with self._lock:
            self._stopped = True
            certifiers, self._certifiers = list(self._certifiers.values()), {}
        for certifier in certifiers:
            certifier.close()

    def close(self) -> None:
        """Stop, and release all that is held."""
        self.stop()
        for one in self.served.values():
            one.front.close()
        self._home.close()
        if self._own_records:
            self.records.close()

    def accounts(self) -> list[Account]:
        """Return how the budgets of this gateway stand, the earlier periods first."""
        return [one for one in self._home.accounts() if one.name.startswith(ACCOUNTS)]

    def _certifier(self, served: ServedProvider, caller: GatewayCaller) -> Certifier:
        provider = served.front.name
        key = provider, caller.name, str(caller.budget)  # a token made anew may have another
        with self._lock:
            if self._stopped:
                raise StoppedError("The gateway is stopping.")
            if key not in self._certifiers:
                options = cast("SmootherOptions", dict(self.config.certified(provider).session))
                options["plain"] = False
                options["budget"] = [*self.config.budgets(provider), caller.budget]
                options["denoiser"] = self._denoiser(provider)
                opening = partial(open_session, **options)
                self._certifiers[key] = Certifier(opening, "serve", by=caller.name)
            return self._certifiers[key]

    def warm_up(self) -> None:
        """Load the denoisers, so that no caller waits for that."""
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
        if self._stopped:
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


def _why_not(operation: str) -> str:
    return (
        f"This gateway certifies labels. {operation[:100] or 'This request'} asks for none, or "
        "cannot be read, and is not among the operations that its operator lets pass "
        "(passthrough)."
    )
