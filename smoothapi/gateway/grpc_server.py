"""Google's gRPC in front of the gateway: a call becomes REST's request, and its reply a message.

So both are let in, certified, counted and worded by the same code. What the installed package of
Google's does not know is not carried over.
"""

from __future__ import annotations

import asyncio
import json
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, NoReturn

import grpc
from grpc_status import rpc_status

from smoothapi.errors import UsageError
from smoothapi.gateway.config import SETTLING
from smoothapi.grpc_protocol import patient_server
from smoothapi.hosts import bracketed
from smoothapi.provider import retry_after_seconds
from smoothapi.wires.google import MAX_BODY
from smoothapi.wires.google_grpc import (
    METHOD,
    SERVICE,
    error_of_rest,
    to_message,
    to_rest,
    to_status,
)
from smoothapi.wires.wire import Refusal

if TYPE_CHECKING:
    from collections.abc import MutableMapping

    from smoothapi.gateway.asgi import GatewayApp
    from smoothapi.gateway.config import GatewayTable

_PATH = "/v1/images:annotate"
_OF_GRPC = frozenset({"content-type", "grpc-accept-encoding", "te", "user-agent"})


class GrpcServer:
    """Serves BatchAnnotateImages beside the HTTP server of a gateway, and in its event loop.

    Args:
        app: what answers.
        table: where to listen, and TLS.
        loop: of the HTTP server; it runs already.

    Raises:
        UsageError: the address cannot be listened on.

    Attributes:
        port: that it listens on.
    """

    def __init__(
        self, app: GatewayApp, table: GatewayTable, loop: asyncio.AbstractEventLoop
    ) -> None:
        self._app, self._loop = app, loop
        threads = table.workers + table.queue + 8  # some more, to say that the queue is full
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="smoothapi-gateway-grpc")
        self._server = patient_server(
            self._pool, self._answer, service=SERVICE, method=METHOD, most=MAX_BODY
        )
        address = f"{bracketed(table.host)}:{table.grpc_port}"
        try:
            if table.tls_certificate is None or table.tls_key is None:
                self.port: int = self._server.add_insecure_port(address)
            else:
                pair = table.tls_key.read_bytes(), table.tls_certificate.read_bytes()
                self.port = self._server.add_secure_port(
                    address, grpc.ssl_server_credentials([pair])
                )
        except (RuntimeError, OSError) as error:
            self._pool.shutdown()
            raise UsageError(
                f"Cannot listen on {table.host}, grpc_port {table.grpc_port}. Another program may "
                "use the port; grpc_port = 0 takes one that is free."
            ) from error
        self._server.start()

    def stop(self, grace: float) -> None:
        """Listen no longer, and await what is under way for so many seconds, and what it left."""
        self._server.stop(grace=grace + SETTLING).wait()
        self._pool.shutdown(wait=True, cancel_futures=True)

    def _answer(self, message: bytes, context: grpc.ServicerContext) -> bytes:
        """Return a serialized BatchAnnotateImagesResponse, or abort."""
        metadata = {
            str(name): value
            for name, value in context.invocation_metadata()
            if isinstance(value, str) and str(name) not in _OF_GRPC
        }
        try:
            body = json.dumps(to_rest(message)).encode()
        except Refusal as refused:
            _refuse(context, to_status(refused))
        asked = asyncio.run_coroutine_threadsafe(self._ask(metadata, body), self._loop)
        status, headers, told = asked.result()
        context.set_trailing_metadata(
            tuple((n, v) for n, v in headers.items() if n.startswith("x-smoothapi-"))
        )
        try:
            data = json.loads(told)
            if status == 200:
                return to_message(data["responses"])
        except (ValueError, KeyError, TypeError):
            data = {"error": {"status": "INTERNAL", "message": "The answer cannot be read."}}
        wait = retry_after_seconds(headers.get("retry-after"))
        return _refuse(context, error_of_rest(data, retry_after=wait))

    async def _ask(
        self, metadata: dict[str, str], body: bytes
    ) -> tuple[int, dict[str, str], bytes]:
        """Have the application answer the request that REST would have made."""
        parts = [{"type": "http.request", "body": body, "more_body": False}]
        told: list[MutableMapping[str, Any]] = []

        async def receive() -> MutableMapping[str, Any]:
            if parts:
                return parts.pop()
            await asyncio.Event().wait()  # a caller who leaves is noticed when it is told
            raise AssertionError

        async def send(message: MutableMapping[str, Any]) -> None:
            told.append(message)

        headers = {**metadata, "content-type": "application/json"}
        scope = {
            "type": "http",
            "method": "POST",
            "path": _PATH,
            "raw_path": _PATH.encode(),
            "query_string": b"",
            "headers": [(n.encode("latin-1"), v.encode("latin-1")) for n, v in headers.items()],
        }
        await self._app(scope, receive, send)
        start, *rest = told
        found = {name.decode("latin-1"): v.decode("latin-1") for name, v in start["headers"]}
        return start["status"], found, b"".join(one.get("body", b"") for one in rest)


def _refuse(context: grpc.ServicerContext, status: Any) -> NoReturn:
    context.abort_with_status(rpc_status.to_status(status))
    raise AssertionError  # abort_with_status always raises
