"""A local service: `serve` starts it, `Service` says where it is and what it received."""

from __future__ import annotations

import json
import logging
import os
import threading
import time
from collections import deque
from contextlib import suppress
from dataclasses import dataclass, field
from importlib import import_module
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Literal, Protocol, Self, TypeAlias

from smoothapi.errors import (
    FatalError,
    MissingExtraError,
    ProviderError,
    SmoothAPIError,
    ThrottledError,
    TransientError,
    UsageError,
)
from smoothapi.hosts import bracketed
from smoothapi.services.faults import Faults
from smoothapi.services.labellers import PayloadLabeller, to_answer
from smoothapi.services.latency import Latency
from smoothapi.wires.trouble import Trouble
from smoothapi.wires.wire import Picture, ProviderJson, Question, Refusal

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping
    from types import TracebackType

    from smoothapi.services.faults import Fault
    from smoothapi.services.labellers import Labeller
    from smoothapi.wires.wire import Outcome, Wire

_log = logging.getLogger("smoothapi")

Backend: TypeAlias = "Labeller | PayloadLabeller"
"""What sees the pictures: see `smoothapi.services.labellers`."""
Replies: TypeAlias = "Callable[[bytes], object | None]"
"""A picture's bytes -> the provider's own JSON (text, bytes or parsed), or None."""
ProviderName: TypeAlias = Literal["aws", "google", "google-grpc", "azure", "azure4", "clarifai"]

_WIRES = {
    "aws": ("smoothapi.wires.aws", "Aws"),
    "google": ("smoothapi.wires.google", "Google"),
    "google-grpc": ("smoothapi.wires.google", "Google"),
    "azure": ("smoothapi.wires.azure", "Azure"),
    "azure4": ("smoothapi.wires.azure4", "Azure4"),
    "clarifai": ("smoothapi.wires.clarifai", "Clarifai"),
}
PROVIDERS = tuple(_WIRES)
"""Names of the protocols that are spoken."""


@dataclass(frozen=True, slots=True)
class Received:
    """One request, as the service saw it. Holds no credentials and no image bytes.

    Attributes:
        number: from 0, in the order in which requests were complete.
        operation: the provider's name for what was asked, "" if it asked for nothing known.
        pictures: how many pictures it held that can be labelled.
        sizes: (width, height) of each of these.
        bytes: encoded size of each of these.
        digests: SHA-256 (hex) of each of these, as they were sent.
        parameters: what was asked besides the pictures, by the provider's names.
        headers_seen: names of the headers, lower case, sorted.
        body: bytes of the whole body.
        refused: the provider's code for why it took none of it, "" if it did.
        fault: what befell it by plan, None if nothing.
    """

    number: int
    operation: str
    pictures: int = 0
    sizes: tuple[tuple[int, int], ...] = ()
    bytes: tuple[int, ...] = ()
    digests: tuple[str, ...] = ()
    parameters: Mapping[str, Any] = field(default_factory=dict)
    headers_seen: tuple[str, ...] = ()
    body: int = 0
    refused: str = ""
    fault: Fault | None = None


class Transport(Protocol):
    """What carries the requests: it runs in threads of its own until it is stopped."""

    port: int

    def stop(self) -> None:
        """Stop listening, end what is under way, and join the threads."""


@dataclass(frozen=True, slots=True)
class Timing:
    """How long things take on purpose, in seconds.

    Attributes:
        latency: what each answer takes at least, by the number of its request.
        retry_after: what a throttled caller is told to wait.
        late: when a late answer is sent after all, if the caller still waits.
        drip: how long a slow answer takes to come in.
    """

    latency: Latency = field(default_factory=Latency)
    retry_after: float = 1.0
    late: float = 30.0
    drip: float = 1.0

    def __post_init__(self) -> None:
        for name in ("retry_after", "late", "drip"):
            if not 0 <= getattr(self, name) < 86_400:
                raise UsageError(
                    f"{name}={getattr(self, name)}: give seconds from 0 to less than a day."
                )


class Service:
    """A running local service. Leave its `with` block, or call `close`, to end it.

    Attributes:
        name: the protocol that it speaks, as in `PROVIDERS`.
        host: the address it listens on.
        port: the port it listens on.
    """

    def __init__(
        self,
        name: str,
        wire: Wire,
        backend: Backend | None,
        *,
        faults: Faults,
        replies: Replies | None,
        host: str,
        timing: Timing,
        on_done: Callable[[Received, str, float], None] | None,
        keep: int | None,
    ) -> None:
        self.name = name
        self.host = host
        self.port = 0
        self.wire = wire
        self.timing = timing
        self.faults = faults
        self._process = os.getpid()
        self._backend = backend
        self._replies = replies
        self._on_done = on_done
        self._lock = threading.Lock()
        self._requests = 0
        self._received: deque[Received] = deque(maxlen=keep)
        self._billed = 0
        self._transport: Transport | None = None

    @property
    def address(self) -> str:
        """HOST:PORT."""
        return f"{bracketed(self.host)}:{self.port}"

    @property
    def url(self) -> str:
        """http://HOST:PORT."""
        return f"http://{self.address}"

    @property
    def received(self) -> tuple[Received, ...]:
        """The requests so far, in order, those that were refused included."""
        with self._lock:
            return tuple(sorted(self._received, key=lambda received: received.number))

    @property
    def requests(self) -> int:
        """How many requests there were so far."""
        with self._lock:
            return self._requests

    @property
    def billed(self) -> int:
        """Pictures labelled so far: what the real provider would charge for."""
        with self._lock:
            return self._billed

    def start(self, transport: Transport) -> None:
        """Say which transport carries the requests."""
        self._transport = transport
        self.port = transport.port

    def close(self) -> None:
        """Stop listening, end what is under way, and join the threads; twice does no harm.

        In a process that was forked meanwhile it goes on: the threads are the parent's.
        """
        if os.getpid() != self._process:
            return
        if self._transport is not None:
            self._transport.stop()
            self._transport = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<Service {self.name} at {self.address}>"

    def receive(
        self, read: Callable[[], Question], *, operation: str, headers: Iterable[str], body: int
    ) -> tuple[Received, Question | None, Refusal | None]:
        """Count a request, and read it with `read`; a refusal is returned, not raised."""
        with self._lock:
            number = self._requests
            self._requests += 1
        question: Question | None = None
        refusal: Refusal | None = None
        try:
            question = read()
        except Refusal as refused:
            refusal = refused
        except Exception:  # noqa: BLE001  a request that nobody foresaw must not bring the service down
            _log.exception("The local %s service could not read a request.", self.name)
            refusal = self.wire.trouble(Trouble.error)
        pictures = [p for p in question.pictures if isinstance(p, Picture)] if question else []
        received = Received(
            number=number,
            operation=question.operation if question else operation,
            pictures=len(pictures),
            sizes=tuple(picture.size for picture in pictures),
            bytes=tuple(len(picture.data) for picture in pictures),
            digests=tuple(picture.digest for picture in pictures),
            parameters=MappingProxyType(dict(question.parameters) if question else {}),
            headers_seen=tuple(sorted(headers)),
            body=body,
            refused=refusal.code if refusal else "",
            fault=self.faults.of(number),
        )
        with self._lock:
            self._received.append(received)
        return received, question, refusal

    def label(self, question: Question) -> list[Outcome]:
        """Ask the backend about each picture, and bill those that it labels.

        Raises:
            Refusal: the backend cannot answer now, which is so for the whole request.
        """
        outcomes = [
            picture if isinstance(picture, Refusal) else self._label(picture)
            for picture in question.pictures
        ]
        with self._lock:
            self._billed += sum(not isinstance(outcome, Refusal) for outcome in outcomes)
        return outcomes

    def broken(self, error: Exception) -> Refusal:
        """Return the provider's internal error for an answer that could not be put in words."""
        _log.warning(
            "The local %s service could not put an answer into words (%s): its caller gets an "
            "internal error. Recorded replies must be the provider's own JSON.",
            self.name,
            type(error).__name__,
        )
        return self.wire.trouble(Trouble.error)

    def done(self, received: Received, status: str, began: float) -> None:
        """Tell who looks on that a request has ended; `began` is on the monotonic clock."""
        if self._on_done is None:
            return
        try:
            self._on_done(received, status, time.monotonic() - began)
        except Exception:  # noqa: BLE001  whoever looks on must not cost the caller its answer
            _log.exception("on_done of the local %s service failed.", self.name)

    def _label(self, picture: Picture) -> Outcome:
        try:
            if self._replies is not None and (raw := self._replies(picture.data)) is not None:
                return ProviderJson(_bytes(raw))
            if self._backend is None:
                return self.wire.unanswerable("No answer is recorded for this picture.")
            if isinstance(self._backend, PayloadLabeller):
                return to_answer(self._backend.label_payload(picture.data))
            return to_answer(self._backend(picture.pixels))
        except ThrottledError:
            raise self.wire.trouble(Trouble.throttled) from None
        except TransientError:
            raise self.wire.trouble(Trouble.unavailable) from None
        except FatalError:
            raise self.wire.trouble(Trouble.denied) from None
        except ProviderError as error:
            return self.wire.unanswerable(str(error))
        except Exception as error:
            _log.warning(
                "The backend of the local %s service failed with %s on a picture of %d x %d: its "
                "caller gets an internal error.",
                self.name,
                f"{type(error).__name__}: {error}"
                if isinstance(error, SmoothAPIError)
                else type(error).__name__,
                *picture.size,
            )
            raise self.wire.trouble(Trouble.error) from error


def serve(
    provider: ProviderName | str,
    backend: Backend | None = None,
    *,
    faults: Faults | str | None = None,
    replies: Replies | None = None,
    host: str = "127.0.0.1",
    port: int = 0,
    key: str | None = None,
    latency: Latency | str | float = 0.0,
    retry_after: float = 1.0,
    late: float = 30.0,
    drip: float = 1.0,
    on_done: Callable[[Received, str, float], None] | None = None,
    keep: int | None = None,
) -> Service:
    """Start a local service that speaks a provider's wire protocol.

    ::

        with serve("aws", by_colour, faults="2x429") as service:
            client = boto3.client("rekognition", endpoint_url=service.url, ...)

    It runs in threads of this process until it is closed.

    Args:
        provider: which protocol; see `PROVIDERS`.
        backend: what sees the pictures: (H, W, 3) uint8 RGB -> an Answer, labels with scores, one
            name, or None. Called from many threads at once. A `ProviderError` that it raises
            becomes the provider's own.
        faults: what goes wrong on purpose, or its text, such as "3x429, 2% timeout". A fault with
            words of its own comes before any check of the request.
        replies: recorded answers: a picture's bytes -> the provider's own JSON, served as it is,
            or None, for the backend to answer.
        host: address to listen on; anything but loopback lets others in.
        port: port to listen on, 0 for any that is free.
        key: the only key (or access key id) that is let in; any, if None.
        latency: seconds that each answer takes at least, or a distribution as text.
        retry_after: seconds that a throttled caller is told to wait, where it is told.
        late: seconds after which a late answer is sent, if the caller still waits.
        drip: seconds in which a slow answer comes in.
        on_done: called with each request that has ended, its status and its seconds.
        keep: how many of the latest requests `received` tells of; None for all of them.

    Raises:
        UsageError: the provider is unknown, or the address cannot be listened on.
        MissingExtraError: Starlette and uvicorn (or grpcio and google-cloud-vision) are missing.
    """
    if provider not in _WIRES:
        raise UsageError(
            f"Unknown protocol provider={provider!r}. Choose from {', '.join(PROVIDERS)}."
        )
    plan = Faults.parse(faults) if isinstance(faults, str) else faults or Faults()
    module, name = _WIRES[provider]
    service = Service(
        provider,
        getattr(import_module(module), name)(key),
        backend,
        faults=plan,
        replies=replies,
        host=host,
        timing=Timing(Latency.parse(latency), retry_after, late, drip),
        on_done=on_done,
        keep=keep,
    )
    carrier = "grpc_server" if provider == "google-grpc" else "http_server"
    try:
        listen = import_module(f"smoothapi.services.{carrier}").listen
    except ImportError as error:
        extra = "google" if provider == "google-grpc" else "emulate"
        raise MissingExtraError(
            f"A local {provider} service needs a package that is not installed ({error.name}). "
            f"Install it with: pip install 'smoothapi-vision[{extra}]'"
        ) from error
    try:
        service.start(listen(service, host, port))
    except (OSError, OverflowError) as error:
        raise UsageError(
            f"Cannot listen on {host}, port {port}: {getattr(error, 'strerror', None) or error}. "
            "Another program may use the port; port=0 takes one that is free."
        ) from error
    return service


def _bytes(raw: object) -> bytes:
    if isinstance(raw, bytes):
        return raw
    if isinstance(raw, str):
        return raw.encode()
    with suppress(TypeError, ValueError):
        return json.dumps(raw).encode()
    raise UsageError("A recorded reply is JSON: text, bytes, or what json.loads gives.")
