"""Starlette and uvicorn in a thread, and what can go wrong on the line."""

from __future__ import annotations

import asyncio
import socket
import struct
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from email.utils import formatdate
from functools import partial
from io import BytesIO
from math import ceil
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl

import uvicorn
from starlette.applications import Starlette
from starlette.routing import Route

from smoothapi.hosts import listening
from smoothapi.http_protocol import (
    BACKLOG,
    PatientProtocol,
    TellsOfShortages,
    quiet_config,
    take_no_more,
)
from smoothapi.services.faults import Fault
from smoothapi.wires.wire import Question, Refusal, Reply, Request

if TYPE_CHECKING:
    from starlette.types import Receive, Scope, Send

    from smoothapi.services.service import Received, Service

_THREADS = 256  # the largest concurrency of a Smoother
_DROPS = 16
_PATIENCE = 4  # times the largest body are read before the line is cut
_GRACE = 3.0  # seconds that requests under way have when the service is closed
_TRANSPORT = "smoothapi.transport"
_FOREVER = 4_000.0  # seconds; no adapter waits longer than an hour
_UNMADE = Reply(200, b'{"' + b" " * 1000 + b'"}', (("content-type", "application/json"),))
_GARBAGE = Reply(
    200,
    b"<!DOCTYPE html><html><head><title>Proxy</title></head><body>Please sign in.</body></html>",
    (("content-type", "text/html; charset=utf-8"),),
)


def listen(service: Service, host: str, port: int) -> HttpTransport:
    """Serve HTTP on host:port in a thread; returns once connections are taken.

    Raises:
        OSError: the address cannot be listened on.
    """
    return HttpTransport(service, host, port)


class HttpTransport:
    """A uvicorn server in a thread."""

    def __init__(self, service: Service, host: str, port: int) -> None:
        taking = listening(host, port, backlog=BACKLOG)
        self.port: int = taking.getsockname()[1]
        # Labellers block; the loop must not.
        self._pool = ThreadPoolExecutor(_THREADS, thread_name_prefix=f"smoothapi-{service.name}")
        endpoint = _Endpoint(service, self._pool)
        self._server = _Server(quiet_config(endpoint.app(), _Protocol), endpoint)
        self._failures: list[BaseException] = []
        self._thread = threading.Thread(
            target=self._run, args=(taking,), name=f"smoothapi-{service.name}", daemon=True
        )
        self._thread.start()
        self._server.ready.wait()
        for failure in self._failures:
            self.stop()
            raise OSError(f"the web server did not start: {failure!r}") from failure

    def _run(self, taking: socket.socket) -> None:
        try:
            self._server.run(sockets=[taking])
        except BaseException as error:  # noqa: BLE001  whoever waits for it must hear of it
            self._failures.append(error)
        finally:
            taking.close()
            self._server.ready.set()

    def stop(self) -> None:
        """Stop the server and join its threads."""
        self._server.stop()
        self._thread.join()
        self._pool.shutdown(wait=True, cancel_futures=True)


class _Protocol(PatientProtocol):
    """Lets the application see its connection, which ASGI does not: to reset it, say."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        app = self.app

        async def with_transport(scope: Any, receive: Any, send: Any) -> None:
            scope[_TRANSPORT] = self.transport
            await app(scope, receive, send)

        self.app = with_transport


class _Server(uvicorn.Server):
    """A uvicorn server that says when it is ready and stops at once.

    uvicorn looks ten times a second whether it should stop, and waits another tenth before it
    looks whether it has: too long for tests that start hundreds.
    """

    def __init__(self, config: uvicorn.Config, endpoint: _Endpoint) -> None:
        super().__init__(config)
        self.ready = threading.Event()
        self._endpoint = endpoint
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stopping: asyncio.Event | None = None

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        self._loop = asyncio.get_running_loop()
        self._loop.set_exception_handler(TellsOfShortages())
        self._stopping = self._endpoint.stopping = asyncio.Event()
        await super().startup(sockets)
        await self.on_tick(0)  # the first Date header
        self.ready.set()

    async def main_loop(self) -> None:
        assert self._stopping is not None  # noqa: S101  startup came first
        while not await self.on_tick(0):
            with suppress(TimeoutError):
                await asyncio.wait_for(self._stopping.wait(), 1.0)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        await take_no_more(self.servers)
        for server in self.servers:
            server.close()
        for listener in sockets or []:
            listener.close()
        for connection in list(self.server_state.connections):
            connection.shutdown()
        deadline = time.monotonic() + _GRACE
        while self.server_state.tasks or self.server_state.connections:
            if time.monotonic() > deadline:
                for task in self.server_state.tasks:
                    task.cancel()
                for connection in list(self.server_state.connections):
                    if connection.transport is not None:
                        connection.transport.abort()
                break
            await asyncio.sleep(0.002)
        if self.server_state.tasks:
            await asyncio.wait(set(self.server_state.tasks), timeout=_GRACE)
        await asyncio.sleep(0)  # let transports tell that they were closed

    def stop(self) -> None:
        def set_stopping() -> None:
            self.should_exit = True
            if self._stopping is not None:
                self._stopping.set()

        if self._loop is not None:
            with suppress(RuntimeError):  # it has ended by itself
                self._loop.call_soon_threadsafe(set_stopping)


class _Endpoint:
    """The ASGI application behind every path: the same for all providers."""

    def __init__(self, service: Service, pool: ThreadPoolExecutor) -> None:
        self._service = service
        self._wire = service.wire
        self._pool = pool
        self.stopping = asyncio.Event()

    def app(self) -> Starlette:
        """Return the application: the wire's paths, and what says that there are no others."""
        app = Starlette(routes=[Route(path, _Path(self, path)) for path in self._wire.paths])
        app.router.redirect_slashes = False
        app.router.default = _Path(self, "")  # a pattern would miss paths with a line break
        return app

    async def answer(self, route: str, scope: Scope, receive: Receive, send: Send) -> None:
        """Read one request, and answer it or fail as planned."""
        began = time.monotonic()
        taken = await self._body(receive)
        if taken is None:
            return
        body, endless = taken
        request = _request(route, scope, body)
        received, question, refusal = await self._run(
            partial(
                self._service.receive,
                partial(self._read, request),
                operation=self._wire.operation(request),
                headers=request.headers,
                body=len(body),
            )
        )
        status = "gone"
        line = _Line(scope, receive, send, self.stopping)
        try:
            status = await self._carry(line, received, question, refusal, began)
            if endless:
                await line.close()
        except asyncio.CancelledError:
            if not self.stopping.is_set():
                raise
            await line.cut()  # the service closes, and has waited for the backend long enough
        finally:
            self._service.done(received, status, began)

    async def _carry(
        self,
        line: _Line,
        received: Received,
        question: Question | None,
        refusal: Refusal | None,
        began: float,
    ) -> str:
        """Send what is to be sent; return in a word what it was."""
        fault, timing = received.fault, self._service.timing
        if fault is Fault.timeout:
            await line.wait(_FOREVER)
            await line.cut()
            return "no answer"
        if fault is not None and fault.trouble is not None:
            retry_after = timing.retry_after if fault.tells_to_wait else None
            refusal = self._wire.trouble(fault.trouble, retry_after=retry_after)
            reply = self._refuse(refusal, as_date=fault is Fault.throttled_date)
        elif fault is Fault.garbage:
            reply = _GARBAGE
        elif fault is Fault.inside:
            reply = self._wire.inside(question)
        elif question is None:
            reply, fault = self._refuse(refusal or self._wire.too_large()), None
        elif fault in {Fault.reset, Fault.half}:
            reply = _UNMADE
        else:
            reply = await self._run(partial(self._reply, question))
        least = timing.latency.seconds(received.number)
        if (rest := least - (time.monotonic() - began)) > 0:
            await line.wait(rest)
        return await self._send(line, reply, fault)

    async def _send(self, line: _Line, reply: Reply, fault: Fault | None) -> str:
        timing = self._service.timing
        match fault:
            case Fault.reset:
                await line.cut(reset=True)
                return "reset"
            case Fault.half:
                await line.send(reply, whole=False)
                return "half an answer"
            case Fault.late if await line.wait(timing.late):
                await line.cut()
                return "too late"
            case Fault.slow:
                await line.send(reply, seconds=timing.drip)
            case _:
                await line.send(reply)
        return str(reply.status)

    def _read(self, request: Request) -> Question:
        if len(request.body) > self._wire.max_body:
            raise self._wire.too_large()
        return self._wire.read(request)

    def _reply(self, question: Question) -> Reply:
        try:
            return self._wire.answer(question, self._service.label(question))
        except Refusal as refusal:
            return self._refuse(refusal)
        except Exception as error:  # noqa: BLE001  a recorded reply can be anything
            return self._refuse(self._service.broken(error))

    def _refuse(self, refusal: Refusal, *, as_date: bool = False) -> Reply:
        reply = self._wire.refuse(refusal)
        seconds = refusal.retry_after
        if seconds is None:
            return reply
        value = f"{seconds:g}"
        if as_date:
            value = formatdate(ceil(time.time() + seconds), usegmt=True)
        return Reply(reply.status, reply.body, (*reply.headers, ("retry-after", value)))

    async def _body(self, receive: Receive) -> tuple[bytes, bool] | None:
        """Return the body, and whether its caller still sends; None if the caller left.

        Of a body over the limit there is one byte more than that.
        """
        most = self._wire.max_body + 1
        whole = BytesIO()
        seen = 0
        while True:
            message = await receive()
            if message["type"] == "http.disconnect":
                return None
            chunk = message.get("body", b"")
            seen += len(chunk)
            whole.write(chunk[: max(0, most - whole.tell())])
            # Callers read no answer while they send, so a little more than is taken is read.
            if not message.get("more_body") or seen > _PATIENCE * most:
                return whole.getvalue(), bool(message.get("more_body"))

    async def _run(self, work: Any) -> Any:
        return await asyncio.get_running_loop().run_in_executor(self._pool, work)


class _Path:
    """One path of the application."""

    def __init__(self, endpoint: _Endpoint, route: str) -> None:
        self._endpoint = endpoint
        self._route = route

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self._endpoint.answer(self._route, scope, receive, send)


class _Line:
    """One caller's connection, while its request is answered."""

    def __init__(self, scope: Scope, receive: Receive, send: Send, stopping: asyncio.Event) -> None:
        self._transport: asyncio.Transport = scope[_TRANSPORT]
        self._receive = receive
        self._send = send
        self._stopping = stopping

    async def wait(self, seconds: float) -> bool:
        """Wait, but not for a caller who left or when the service stops; True if so."""
        watched = [
            asyncio.ensure_future(self._left()),
            asyncio.ensure_future(self._stopping.wait()),
        ]
        done, _ = await asyncio.wait(watched, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
        for task in watched:
            task.cancel()
        await asyncio.gather(*watched, return_exceptions=True)
        return bool(done)

    async def _left(self) -> None:
        while (await self._receive())["type"] != "http.disconnect":
            pass

    async def send(self, reply: Reply, *, whole: bool = True, seconds: float = 0.0) -> None:
        """Send a reply: half of it, or in drops over so many seconds, if so wished."""
        headers = [(name.encode(), value.encode("latin-1")) for name, value in reply.headers]
        headers.append((b"content-length", str(len(reply.body)).encode()))
        await self._send(
            {"type": "http.response.start", "status": reply.status, "headers": headers}
        )
        if not whole:
            await self._body(reply.body[: len(reply.body) // 2], more=True)
            self._transport.close()
            await self.wait(_GRACE)
            return
        if seconds and reply.body:
            size = max(1, -(-len(reply.body) // _DROPS))
            drops = [reply.body[at : at + size] for at in range(0, len(reply.body), size)]
            for drop in drops[:-1]:
                await self._body(drop, more=True)
                if await self.wait(seconds / len(drops)):
                    await self.cut()
                    return
            reply = Reply(reply.status, drops[-1])
        await self._body(reply.body, more=False)

    async def _body(self, part: bytes, *, more: bool) -> None:
        await self._send({"type": "http.response.body", "body": part, "more_body": more})

    async def close(self) -> None:
        """End the connection after what was sent: the caller may send on, nobody listens."""
        self._transport.close()
        await asyncio.sleep(0)

    async def cut(self, *, reset: bool = False) -> None:
        """End the connection with nothing said; with `reset`, the caller sees ECONNRESET."""
        if reset and (sock := self._transport.get_extra_info("socket")) is not None:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self._transport.abort()
        await asyncio.wait({asyncio.ensure_future(self._left())}, timeout=_GRACE)


def _request(route: str, scope: Scope, body: bytes) -> Request:
    query = parse_qsl(scope["query_string"].decode("latin-1"), keep_blank_values=True)
    headers = [
        (name.decode("latin-1"), value.decode("latin-1")) for name, value in scope["headers"]
    ]
    return Request(
        method=scope["method"],
        path=scope["path"],
        route=route,
        names=scope.get("path_params", {}),
        query=dict(query),
        headers=dict(headers),
        body=body,
    )
