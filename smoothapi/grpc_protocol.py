"""gRPC as what listens here speaks it: with an end to how long callers take and how many they are.

Imported where a server is started, and nowhere else: it needs grpc.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import grpc

if TYPE_CHECKING:
    from collections.abc import Callable
    from concurrent.futures import ThreadPoolExecutor

_WITHIN = 60.0  # seconds that a caller has to begin with HTTP/2, or to answer a ping
_CONNECTIONS = 512  # at once; below the usual limit on a process's open files


def patient_server(
    pool: ThreadPoolExecutor,
    answer: Callable[..., Any],
    *,
    service: str,
    method: str,
    most: int,
    more: tuple[tuple[str, int], ...] = (),
) -> grpc.Server:
    """Return a server of one method, which listens nowhere yet.

    Args:
        pool: threads that answer.
        answer: takes the bytes of a message and gRPC's context, and returns the reply's bytes. So
            a bad message is read where it can be counted and refused.
        service: full name of the service.
        method: its method.
        most: bytes of the longest message.
        more: options of the server besides.
    """
    handler = grpc.unary_unary_rpc_method_handler(answer)
    milliseconds = int(1000 * _WITHIN)
    return grpc.server(
        pool,
        handlers=[grpc.method_handlers_generic_handler(service, {method: handler})],
        options=[
            ("grpc.max_receive_message_length", most),
            ("grpc.so_reuseport", 0),
            ("grpc.server_handshake_timeout_ms", milliseconds),
            ("grpc.keepalive_time_ms", milliseconds),
            ("grpc.keepalive_timeout_ms", milliseconds),
            ("grpc.max_allowed_incoming_connections", _CONNECTIONS),
            *more,
        ],
    )
