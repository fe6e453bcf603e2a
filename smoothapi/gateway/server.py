"""uvicorn around a gateway: it listens, takes up a new configuration, and ends in good order."""

from __future__ import annotations

import asyncio
import logging
import signal
import threading
from contextlib import closing, contextmanager, suppress
from typing import TYPE_CHECKING, Any, Self

import uvicorn

from smoothapi.errors import MissingExtraError, SmoothAPIError, UsageError
from smoothapi.gateway.asgi import GatewayApp, app
from smoothapi.gateway.config import SETTLING
from smoothapi.hosts import bracketed, is_loopback, listening
from smoothapi.http_protocol import (
    BACKLOG,
    PatientProtocol,
    TellsOfShortages,
    quiet_config,
    take_no_more,
)
from smoothapi.text import printable

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable, Iterator

    from smoothapi.gateway.config import GatewayConfig, GatewayTable
    from smoothapi.gateway.grpc_server import GrpcServer

_ENDING = ("SIGINT", "SIGTERM")

_log = logging.getLogger("smoothapi")


def check(config: GatewayConfig) -> None:
    """Make sure that a configuration can be served; does not listen, so one may run beside it.

    Args:
        config: from `read_config`.

    Raises:
        SmoothAPIError: it cannot; says why.
    """
    with closing(app(config)) as application:
        _settled(application, config.gateway)
        if config.gateway.grpc_port is not None:
            _grpc_server()
        application.gateway.warm_up()


class GatewayServer:
    """A gateway that listens on the address of its configuration.

    `run` serves in this thread until a signal, or `stop`, ends it; as a context manager it serves
    in a thread of its own.

    Args:
        config: from `read_config`.
        configure: returns the configuration that a SIGHUP asks to be read again.

    Raises:
        UsageError: the address cannot be listened on, or the configuration cannot work.

    Attributes:
        app: what answers.
        cut: calls that were under way when the grace was over, or nobody wanted to wait for them.
        port: that it listens on.
        grpc_port: that it listens on for Google's gRPC, once it serves; None if for none.
    """

    def __init__(
        self, config: GatewayConfig, *, configure: Callable[[], GatewayConfig] | None = None
    ) -> None:
        table = config.gateway
        self._configure = configure
        self._host = table.host
        self.app: GatewayApp = app(config)
        try:
            made = _settled(self.app, table)
            self._listener = _listening(table)
        except BaseException:
            self.app.close()
            raise
        self.cut = 0
        self.port: int = self._listener.getsockname()[1]
        self.grpc_port: int | None = None
        self._grpc: GrpcServer | None = None
        self._table = table
        self._tls = table.tls_certificate is not None
        self._server = _Server(made, self)
        self._thread: threading.Thread | None = None

    @property
    def address(self) -> str:
        """HOST:PORT."""
        return f"{bracketed(self._host)}:{self.port}"

    @property
    def url(self) -> str:
        """Where it is."""
        return f"{'https' if self._tls else 'http'}://{self.address}"

    def run(self, ready: Callable[[], object] = lambda: None) -> None:
        """Serve until it is asked to stop; then end what is under way, and close the gateway.

        SIGTERM and Ctrl-C stop it, SIGHUP has it read its configuration again.

        Args:
            ready: called when connections are taken.
        """
        self._server.on_ready = ready
        try:
            self._server.run(sockets=[self._listener])
        finally:
            self.close()

    def listen_to_grpc(self, loop: asyncio.AbstractEventLoop) -> None:
        """Serve gRPC, too, if the configuration says where.

        Raises:
            UsageError: the address cannot be listened on.
            MissingExtraError: grpcio or google-cloud-vision are not installed.
        """
        if self._table.grpc_port is None:
            return
        self._grpc = _grpc_server()(self.app, self._table, loop)
        self.grpc_port = self._grpc.port

    @property
    def grace(self) -> float:
        """Seconds that calls under way have, once it is to stop."""
        return self.app.gateway.config.gateway.grace

    def stop_grpc(self) -> None:
        """End what is under way over gRPC, and listen no longer."""
        if self._grpc is not None:
            self._grpc.stop(self.grace)

    def close(self) -> None:
        """Listen no longer, and release what is held; twice does no harm."""
        self._listener.close()
        self.app.close()

    def stop(self) -> None:
        """Have `run` end; from any thread."""
        self.app.stop()
        self._server.wake()

    def reload(self) -> None:
        """Read the configuration again; what is wrong with it is logged, and changes nothing."""
        if self._configure is None:
            return
        try:
            config = self._configure()
            self._check_callers(config)
            self.app.reload(config)
        except SmoothAPIError as error:
            _log.error("The configuration was not taken up, and the former one stays: %s", error)
        else:
            self._server.give(self.grace)
            _log.warning("The configuration was read again. Address and TLS stay as they were.")

    def _check_callers(self, config: GatewayConfig) -> None:
        """Refuse what was checked with another address than the one that is listened on."""
        if config.gateway.callers == "anyone" and not is_loopback(self._host):
            raise UsageError(
                f'callers = "anyone" would let whoever reaches {self._host} spend your money: this '
                "gateway listens there until it is started again."
            )

    def __enter__(self) -> Self:
        started = threading.Event()
        failures: list[BaseException] = []

        def serve() -> None:
            try:
                self.run(started.set)
            except BaseException as error:  # noqa: BLE001  whoever waits must hear of it
                failures.append(error)
            finally:
                started.set()

        self._thread = threading.Thread(target=serve, name="smoothapi-gateway", daemon=True)
        self._thread.start()
        started.wait()
        for failure in failures:
            raise failure
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()
        if self._thread is not None:
            self._thread.join()


class _Server(uvicorn.Server):
    """A uvicorn server that leaves signals to the gateway, and stops at once."""

    def __init__(self, config: uvicorn.Config, owner: GatewayServer) -> None:
        super().__init__(config)
        self.give(owner.grace)
        self.on_ready: Callable[[], object] = lambda: None
        self._owner = owner
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stopping = asyncio.Event()

    def give(self, grace: float) -> None:
        """Give calls under way so many seconds to end, once it is to stop."""
        self.config.timeout_graceful_shutdown = int(grace + SETTLING)

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        # uvicorn would raise the signal once more when it has stopped.
        yield

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        self._loop = asyncio.get_running_loop()
        self._loop.set_exception_handler(TellsOfShortages())
        if threading.current_thread() is threading.main_thread():
            for name in _ENDING:
                self._loop.add_signal_handler(getattr(signal, name), self._owner.stop)
            self._loop.add_signal_handler(signal.SIGHUP, self._read_again)
        await super().startup(sockets)
        await self.on_tick(0)  # the first Date header
        self._owner.listen_to_grpc(self._loop)
        self.on_ready()

    async def main_loop(self) -> None:
        while not await self.on_tick(0):
            with suppress(TimeoutError):
                await asyncio.wait_for(self._stopping.wait(), 1.0)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        await take_no_more(self.servers)
        cutting = asyncio.ensure_future(self._cut_short())
        await asyncio.gather(super().shutdown(sockets), asyncio.to_thread(self._owner.stop_grpc))
        cutting.cancel()
        if self.force_exit:
            self._owner.cut = self._owner.app.under_way
        if self._loop is not None and threading.current_thread() is threading.main_thread():
            for name in (*_ENDING, "SIGHUP"):
                self._loop.remove_signal_handler(getattr(signal, name))

    async def _cut_short(self) -> None:
        """Have calls end whose grace is over: callers are told to send them again."""
        await asyncio.sleep(self._owner.grace)
        self._owner.cut = self._owner.app.under_way
        await asyncio.to_thread(self._owner.app.gateway.stop)

    def wake(self) -> None:
        """Have the server stop; from any thread."""

        def stop() -> None:
            self.force_exit = self.should_exit  # whoever asks twice does not want to wait
            self.should_exit = True
            self._stopping.set()

        if self._loop is None:
            self.should_exit = True
            return
        with suppress(RuntimeError):  # it has ended by itself
            self._loop.call_soon_threadsafe(stop)

    def _read_again(self) -> None:
        # Fronts may look for credentials, which can take a while: not in the loop.
        task: Any = asyncio.ensure_future(asyncio.to_thread(self._owner.reload))
        task.add_done_callback(_told)


def _settled(application: GatewayApp, table: GatewayTable) -> uvicorn.Config:
    """Return what uvicorn needs to know, with the files for TLS read."""
    made = quiet_config(
        application,
        PatientProtocol,
        proxy_headers=False,
        ssl_certfile=table.tls_certificate,
        ssl_keyfile=table.tls_key,
    )
    try:
        made.load()
    except OSError as error:
        raise UsageError(
            f"TLS cannot be spoken with tls_certificate = {str(table.tls_certificate)!r} and "
            f"tls_key = {str(table.tls_key)!r}: {error.strerror or error}."
        ) from error
    return made


def _listening(table: GatewayTable) -> socket.socket:
    try:
        return listening(table.host, table.port, backlog=BACKLOG)
    except OSError as error:
        raise UsageError(
            f"Cannot listen on {table.host}, port {table.port}: {error.strerror or error}. Another "
            "program may use the port; port = 0 takes one that is free."
        ) from error


def _grpc_server() -> type[GrpcServer]:
    try:
        from smoothapi.gateway.grpc_server import GrpcServer  # noqa: PLC0415
    except ImportError as error:
        raise MissingExtraError(
            f"grpc_port needs a package that is not installed ({error.name}). Install it with: "
            "pip install 'smoothapi-vision[serve,google]'"
        ) from error
    return GrpcServer


def _told(task: Any) -> None:
    error = task.exception()
    if error is not None:
        _log.error("The configuration was not taken up: %s", printable(repr(error)))
