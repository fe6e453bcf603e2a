"""The gateway as an ASGI application: who is let in, how many at a time, and what they are told."""

from __future__ import annotations

import asyncio
import base64
import binascii
import json
import logging
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import TYPE_CHECKING, Any

from smoothapi.errors import SmoothAPIError, StoreError, UsageError
from smoothapi.events import Served
from smoothapi.gateway.access import Access
from smoothapi.gateway.config import GatewayConfig, read_config
from smoothapi.gateway.front import LONGEST_OPERATION
from smoothapi.gateway.gateway import (
    FAILED,
    REFUSED,
    Answered,
    Gateway,
    joined,
    refused,
)
from smoothapi.gateway.line import GoneError, Line
from smoothapi.gateway.metrics import OpenTelemetryMetrics, PrometheusMetrics
from smoothapi.gateway.rate import Rates
from smoothapi.gateway.records import GatewayCaller, anyone
from smoothapi.gateway.room import NoRoomError, Room, Users
from smoothapi.gateway.unforeseen import log_unforeseen
from smoothapi.hosts import is_loopback
from smoothapi.telemetry import emit
from smoothapi.wires.trouble import Trouble
from smoothapi.wires.wire import Reply, Request

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from concurrent.futures import Future
    from pathlib import Path

    from smoothapi.gateway.gateway import ServedProvider
    from smoothapi.gateway.line import Receive, Scope, Send
    from smoothapi.gateway.metrics import Counts
    from smoothapi.store import Account, Record

TOKEN_HEADER = "x-smoothapi-token"  # noqa: S105  its name
_CERTIFICATE, _OUTCOME = "x-smoothapi-certificate", "x-smoothapi-outcome"
_PREFIX = "/smoothapi/"
_JSON = ("content-type", "application/json; charset=utf-8")
_STRANGER = ("www-authenticate", 'Basic realm="smoothapi gateway", charset="UTF-8"')

_log = logging.getLogger("smoothapi")
_access = logging.getLogger("smoothapi.access")


def app(source: GatewayConfig | Path | str | Mapping[str, Any]) -> GatewayApp:
    """Return a gateway as an ASGI application, to be served or mounted in another.

    ::

        gateway = smoothapi.gateway.app("gateway.toml")
        main = Starlette(routes=[Mount("/vision", gateway)])

    Its `close` waits for calls under way and releases what it holds; where it is served by itself,
    the end of the server's lifespan does that. Host, port and TLS are the server's affair.

    Args:
        source: a TOML file, its tables, or a configuration that was read.

    Raises:
        UsageError: the configuration cannot work.
        MissingExtraError: a provider's packages are not installed.
        StoreError: the home, or the noise key, cannot be used.
    """
    config = source if isinstance(source, GatewayConfig) else read_config(source)
    return GatewayApp(config)


class GatewayApp:
    """An ASGI application; made by `app`.

    Attributes:
        gateway: what answers; another one after `reload`.
    """

    def __init__(self, config: GatewayConfig) -> None:
        self.gateway = Gateway(config)
        self._room = Room(config)
        self._users = Users()
        self._rates = Rates()
        self._metrics = self._of_prometheus()
        self._counts: list[Counts] = [
            one for one in (self._metrics, self._of_opentelemetry()) if one
        ]
        self._pool = ThreadPoolExecutor(256, thread_name_prefix="smoothapi-gateway")
        self._stopping = False
        self._closed = threading.Lock()
        self._is_closed = False

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request, or the server's lifespan."""
        if scope["type"] == "lifespan":
            await self._lifespan(receive, send)
            return
        if scope["type"] != "http":
            return
        line = Line(scope, receive, send)
        try:
            await self._respond(line)
        except Exception as error:  # noqa: BLE001  a server would print it whole
            log_unforeseen(error)
            if not line.replied:
                await line.reply(_told(500, "The gateway failed; its log says more."))

    async def _respond(self, line: Line) -> None:
        request = line.request
        own = request.path.startswith(_PREFIX) or request.path in _OWN_PATHS
        if own and request.method in {"GET", "HEAD"}:
            await self._own(line, request)
            return
        with self._users.using(self._current) as gateway:
            served = gateway.served_to(request)
            if served is not None:
                await self._serve(gateway, served, line, request)
                return
            most = gateway.most_bytes()
        await line.drain(most)
        await line.reply(_told(404, "No provider of this gateway has such a path."))

    def _current(self) -> Gateway:
        return self.gateway

    @property
    def under_way(self) -> int:
        """How many calls are inside now, at work or waiting for their turn."""
        return self._room.inside

    def stop(self) -> None:
        """Say that nothing more should be sent here: /readyz is 503 from now on."""
        self._stopping = True

    def reload(self, config: GatewayConfig) -> None:
        """Take up another configuration; calls under way end by the one that they began with.

        Address and TLS stay as they are until the gateway is started again. So does the home, and a
        configuration with another one is refused: tokens and what budgets have spent are in it.

        Raises:
            UsageError: it cannot work, or names another home. Whatever is raised, the former
                configuration stays.
            MissingExtraError: a provider's packages are not installed.
            StoreError: the home, or the noise key, cannot be used.
            DenoiserError: a denoiser cannot be loaded.
        """
        here, there = (str(one.settings.home) for one in (self.gateway.config, config))
        if there != here:  # as text: a database's password may be another
            raise UsageError(
                f"The home is {there!r} now, and this gateway began with {here!r}, where its "
                "tokens are and what its budgets have spent. Start it again to change the home."
            )
        gateway = Gateway(config)
        try:
            gateway.warm_up()
        except BaseException:
            gateway.close()
            raise
        before, self.gateway = self.gateway, gateway
        self._room.limits(config)
        self._users.when_left(before, before.close)

    def close(self) -> None:
        """Wait for calls under way, and release what is held; twice does no harm."""
        with self._closed:
            if self._is_closed:
                return
            self._is_closed = True
        self.gateway.stop()
        self._pool.shutdown(wait=True)
        self.gateway.close()

    async def _serve(
        self, gateway: Gateway, served: ServedProvider, line: Line, request: Request
    ) -> None:
        front = served.front
        came = time.monotonic()
        caller = await self._caller(gateway, served, request)
        line.let_in = time.monotonic() - came
        answered = caller if isinstance(caller, Answered) else self._kept_out(served, caller)
        if answered is not None:
            await line.drain(front.wire.max_body)
        elif isinstance(caller, GatewayCaller):
            try:
                answered = await self._in_turn(gateway, served, caller, line)
            finally:
                self._room.leave(line.held)
        if answered is None:  # the caller has left
            return
        # Before the reply: who has it finds its request in the log and the metrics.
        self._tell(
            Access(
                caller.name if isinstance(caller, GatewayCaller) else "",
                front.name,
                front.operation(request)[:LONGEST_OPERATION],
                answered.reply.status,
                answered.outcomes,
                answered.certificates,
                line.held,
                time.monotonic() - line.began,
                line.queued,
            ),
            answered,
        )
        await line.reply(answered.reply, _headers(answered))

    def _kept_out(self, served: ServedProvider, caller: GatewayCaller) -> Answered | None:
        """Return what is said to a caller who comes too often, or while the queue is full.

        None for one who may come in: then there is a place less.
        """
        if not self._rates.take(caller):
            return self._throttled(served, "throttled")
        return None if self._room.enter() else self._throttled(served, "full")

    def _throttled(self, served: ServedProvider, outcome: str) -> Answered:
        wait = self.gateway.config.gateway.retry_after
        refusal = served.front.wire.trouble(Trouble.throttled, retry_after=wait)
        return Answered(refused(served.front, refusal), (outcome,))

    async def _in_turn(
        self, gateway: Gateway, served: ServedProvider, caller: GatewayCaller, line: Line
    ) -> Answered | None:
        """Read a request, wait for its turn, and answer it; None if its caller has left."""
        front = served.front
        try:
            body = await line.body(front.wire.max_body, self._room)
            if body is None:
                return Answered(refused(front, front.wire.too_large()), (REFUSED,))
            async with self._room.turn() as line.queued:
                if line.queued and await line.gone():  # nothing has been paid for yet
                    return None
                waited = line.let_in + line.queued
                work = partial(gateway.answer, served, caller, line.incoming(body), waited=waited)
                return await self._worked(work)
        except GoneError:
            return None
        except NoRoomError:
            await line.drain(front.wire.max_body)
            return self._throttled(served, "full")

    async def _worked(self, work: Callable[[], Answered]) -> Answered:
        """Have a thread do some work, and return what comes of it.

        It is done to its end also when nobody waits for it any longer: what is under way is paid
        for.
        """
        loop = asyncio.get_running_loop()
        done: asyncio.Future[Answered] = loop.create_future()

        def tell(worked: Future[Answered]) -> None:
            if done.done():
                return
            error = worked.exception()
            if error is None:
                done.set_result(worked.result())
            elif isinstance(error, Exception):
                done.set_exception(error)
            else:  # such as SystemExit, which would end the server
                done.set_exception(RuntimeError(type(error).__name__))

        worked = self._pool.submit(work)
        worked.add_done_callback(lambda ended: loop.call_soon_threadsafe(tell, ended))
        return await done

    def _tell(self, access: Access, answered: Answered) -> None:
        """Tell the log, the metrics, and who listens to events, of a request."""
        _access.info("%s", access)
        outcome = joined(access.outcomes)
        emit(Served(access.provider, access.operation, outcome, access.status, access.seconds))
        for counts in self._counts:
            try:
                counts.count(access, answered.findings)
            except Exception as error:  # noqa: BLE001  an exporter's: the answer is paid for
                _log.warning("A request could not be counted: %r", error)

    def _of_prometheus(self) -> PrometheusMetrics | None:
        """Return Prometheus's metrics; None where prometheus-client is not installed."""
        try:
            return PrometheusMetrics(self._room, self._accounts)
        except ImportError:
            return None

    def _of_opentelemetry(self) -> OpenTelemetryMetrics | None:
        """Return OpenTelemetry's metrics; None where its API is not installed."""
        try:
            return OpenTelemetryMetrics(self._room)
        except ImportError:
            return None

    def _accounts(self) -> Sequence[Account]:
        return self.gateway.accounts()

    def _shown(self, served: ServedProvider, request: Request) -> str:
        own = request.headers.get(TOKEN_HEADER)
        if own is not None:
            return own.strip()
        return "" if served.table.signed_by == "caller" else served.front.shown(request)

    async def _caller(
        self, gateway: Gateway, served: ServedProvider, request: Request
    ) -> GatewayCaller | Answered:
        """Return who calls, or what is said to a stranger."""
        if gateway.config.gateway.callers == "anyone":
            if "origin" not in request.headers:
                return anyone()
            # A page of somebody else's, in a browser on this machine, may not spend its money.
            return Answered(_told(403, "Pages in a browser are not let in."), (REFUSED,))
        shown, front = self._shown(served, request), served.front
        records = gateway.records
        try:
            if records.waits_for(shown):
                caller = await asyncio.to_thread(records.caller, shown)
            else:  # in the loop, which never waits for another machine
                caller = records.caller(shown, look=False)
        except SmoothAPIError as error:
            _log.warning("%s", error)
            return Answered(refused(front, front.wire.trouble(Trouble.error)), (FAILED,))
        return caller or Answered(refused(front, front.stranger(shown)), (REFUSED,))

    async def _own(self, line: Line, request: Request) -> None:
        """Answer for a page of the gateway itself."""
        if request.path in _STATES:
            await line.drain(0)
            await line.reply(self._state(request))
            return
        try:  # in a thread: the records are on disk, and budgets may be on another machine
            reply = await asyncio.to_thread(self._own_reply, request, mounted=line.mounted)
        except StoreError as error:
            _log.warning("%s", error)
            reply = _told(500, "The gateway's records cannot be read; its log says why.")
        await line.drain(0)
        await line.reply(reply)

    def _state(self, request: Request) -> Reply:
        fine = request.path == "/healthz" or not self._stopping
        return _told(200 if fine else 503, "fine" if fine else "stopping")

    def _own_reply(self, request: Request, *, mounted: bool) -> Reply:
        caller = self._visitor(request, mounted=mounted)
        if caller is None:
            reply = _told(401, "Show a token of this gateway, as Bearer or as a password.")
            return Reply(reply.status, reply.body, (*reply.headers, _STRANGER))
        if request.path.startswith("/smoothapi/certificates/"):
            return self._certificate(request, caller)
        if request.path not in {"/metrics", _PREFIX}:
            return _told(404, "There is no such page.")
        if not caller.operator:
            return _told(403, "This is for operators: smoothapi serve token add NAME --operator.")
        return self._metrics_reply() if request.path == "/metrics" else self._page()

    def _page(self) -> Reply:
        try:
            from smoothapi.gateway.page import most_looked_at, page  # noqa: PLC0415
        except ImportError:
            return _told(404, "The page needs jinja2: pip install 'smoothapi-vision[serve]'")
        records, room, now = self.gateway.records.kept, self._room, time.time()
        html, policy = page(
            providers=list(self.gateway.served),
            hour=records.outcomes(3600.0),
            latest=records.latest(most_looked_at()),
            accounts=self._accounts(),
            load={
                "working": room.working,
                "waiting": room.inside - room.working,
                "held": room.held,
            },
            now=now,
        )
        headers = (
            ("content-type", "text/html; charset=utf-8"),
            ("content-security-policy", policy),
            ("cache-control", "no-store"),
            ("referrer-policy", "no-referrer"),
            ("x-content-type-options", "nosniff"),
        )
        return Reply(200, html, headers)

    def _metrics_reply(self) -> Reply:
        if self._metrics is None:
            return _told(
                404, "Metrics need prometheus-client: pip install 'smoothapi-vision[serve]'"
            )
        return Reply(200, self._metrics.text(), (("content-type", self._metrics.content_type),))

    def _certificate(self, request: Request, caller: GatewayCaller) -> Reply:
        record = self.gateway.records.record(request.path.rpartition("/")[2])
        if record is None or not (caller.operator or record.caller == caller.name):
            return _told(404, "There is no such certificate, or it is another caller's.")
        return _json(200, _record(record))

    def _visitor(self, request: Request, *, mounted: bool) -> GatewayCaller | None:
        """Return who looks at a page of the gateway: by bearer token or as a password."""
        if self.gateway.config.gateway.callers == "anyone":
            # Another name that leads here is that of a page which wants to read this one.
            return anyone() if mounted or _is_own_host(request.headers.get("host", "")) else None
        token = request.headers.get(TOKEN_HEADER, "").strip()
        scheme, _, said = request.headers.get("authorization", "").partition(" ")
        if not token and scheme.lower() == "bearer":
            token = said.strip()
        elif not token and scheme.lower() == "basic":
            try:
                token = base64.b64decode(said, validate=True).decode().partition(":")[2]
            except (binascii.Error, ValueError):
                token = ""
        return self.gateway.records.caller(token)

    async def _lifespan(self, receive: Receive, send: Send) -> None:
        while True:
            message = await receive()
            if message["type"] == "lifespan.startup":
                await send({"type": "lifespan.startup.complete"})
            elif message["type"] == "lifespan.shutdown":
                await asyncio.to_thread(self.close)
                await send({"type": "lifespan.shutdown.complete"})
                return


_STATES = frozenset({"/healthz", "/readyz"})
_OWN_PATHS = _STATES | {"/metrics"}


def _is_own_host(host: str) -> bool:
    name = host.rpartition(":")[0] if host.rpartition(":")[2].isdigit() else host
    return is_loopback(name.strip("[]"))


def _headers(answered: Answered) -> tuple[tuple[str, str], ...]:
    outcome = (_OUTCOME, joined(answered.outcomes))
    if any(answered.certificates):
        return (outcome, (_CERTIFICATE, joined(answered.certificates)))
    return (outcome,)


def _told(status: int, text: str) -> Reply:
    return _json(status, {"message": text})


def _json(status: int, data: object) -> Reply:
    body = json.dumps(data, allow_nan=False).encode()
    return Reply(status, body, (_JSON, ("cache-control", "no-store")))


def _record(record: Record) -> dict[str, Any]:
    return {
        "id": record.id,
        "at": record.at,
        "caller": record.caller,
        "provider": record.provider,
        "operation": record.operation,
        "outcome": record.outcome,
        **record.finding,
    }
