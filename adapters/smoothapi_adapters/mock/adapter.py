"""A provider that runs here: for trying smoothapi, and for testing with no account and no bill.

It behaves like a service: it takes encoded bytes only, decodes them, has limits, a price, a model
version, a latency, a quota and faults, and answers with the best few labels. Every option may also
be text, as settings and variables of the environment are::

    [providers.mock]
    labeller = "probabilities:bus 97%, van 2%, none 1%"
    faults = "3x429, 2% timeout"
    latency = "lognormal 0.2 0.5"
"""

from __future__ import annotations

import io
import re
import sys
import threading
import time
from collections.abc import Mapping
from importlib import import_module
from typing import TYPE_CHECKING, Any, Self

import numpy as np
from PIL import Image, UnidentifiedImageError

from smoothapi.errors import (
    FatalError,
    PermanentError,
    ProviderError,
    UsageError,
)
from smoothapi.files import expanded
from smoothapi.provider import Limits, Price, SafeOptions, Vocabulary
from smoothapi.services.faults import Fault, Faults
from smoothapi.services.labellers import (
    Labeller,
    PayloadLabeller,
    Probabilities,
    Recorded,
    Table,
    to_answer,
)
from smoothapi.services.latency import Latency
from smoothapi.text import shortened
from smoothapi_adapters._common import options
from smoothapi_adapters.mock.errors import error_of_fault

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from decimal import Decimal

    from numpy.typing import NDArray

    from smoothapi.answer import Answer

_FORMATS = {"png": "PNG", "jpeg": "JPEG"}
_DEFAULT = "efficientnet"


class MockAdapter:
    """A local stand-in for a vision API.

    Args:
        labeller: what sees the pictures: a callable (H, W, 3) uint8 -> labels; chances of labels
            ({"bus": 0.97, None: 0.03}); or text: "efficientnet" (EfficientNet-Lite0, extra "demo";
            the default), "probabilities:bus 97%, van 2%, none 1%", "table:FILE" (photo -> labels,
            JSON or TOML), "replay:FILE" (a recording), or "module:function".
        labeller_id: what tells one labeller's answers from another's in the store; by default its
            own attribute `labeller_id`. A callable without one gets a fresh id each time, since
            nothing shows that it answers as before: its answers are not used by later runs.
        seed: decides what chances, rates of faults and latencies draw.
        model_version: what answers carry; by default the labeller's id.
        model_changes: request number -> the version that answers carry from it on, or text: "v2
            after 300, v3 after 900".
        price: dollars that 1,000 pictures would cost, or a price list.
        latency: seconds that each request takes at least, or a distribution of them (`Latency`).
        limits: what it takes, as `Limits` or a table of some of its fields.
        faults: what goes wrong, as `Faults` or its text: "3x429, 2% timeout, 1% 500".
        retry_after: seconds that a throttled request is asked to wait, where the fault says so.
        timeout: seconds after which a caller gives up: what the faults timeout, late and slow take.
        quota: pictures that are answered in all; further ones are refused for good.

    Raises:
        UsageError: an option cannot work.
        MissingExtraError: EfficientNet-Lite0 is not installed.

    Threads may share one: requests are numbered in the order in which they arrive.
    """

    name = "mock"
    safe_options = SafeOptions(
        names=frozenset(
            {"labeller_id", "seed", "model_version", "model_changes", "price", "latency"}
            | {"limits", "faults", "retry_after", "timeout", "quota"}
        ),
        values={"labeller": lambda given: not isinstance(given, str) or _is_data(given)},
    )

    def __init__(
        self,
        labeller: Labeller | PayloadLabeller | Mapping[str | None, float] | str | None = None,
        *,
        labeller_id: str | None = None,
        seed: int | str = 0,
        model_version: str | None = None,
        model_changes: Mapping[int, str] | str | None = None,
        price: float | str | Decimal | Price = "1.00",
        latency: float | str | Latency = 0.0,
        limits: Limits | Mapping[str, Any] | None = None,
        faults: Faults | str | None = None,
        retry_after: float | str = 1.0,
        timeout: float | str = 0.0,
        quota: int | str | None = None,
    ) -> None:
        seed = options.integer("seed", seed)
        self._labeller = _labeller(labeller, seed)
        self._id = (
            labeller_id or getattr(self._labeller, "labeller_id", "") or options.fresh_id(labeller)
        )
        self._model_version = self._id if model_version is None else model_version
        self._changes = _model_changes(model_changes)
        self._latency = Latency.parse(latency, seed=seed)
        self._faults = (
            faults if isinstance(faults, Faults) else Faults.parse(faults or "", seed=seed)
        )
        self._retry_after = options.seconds("retry_after", retry_after)
        self._timeout = options.seconds("timeout", timeout)
        self._quota = None if quota is None else options.integer("quota", quota)
        self.limits = _limits(limits)
        self.price = price if isinstance(price, Price) else options.price(price)
        self._lock = threading.Lock()
        self._requests = self._billed = 0

    @property
    def identity(self) -> dict[str, str | int | float | bool | None]:
        """The labeller: of all options, it alone decides what a picture is called."""
        return {"operation": "label", "labeller": self._id}

    def vocabulary(self) -> Vocabulary:
        """Return what the labeller can say, where it has an attribute `vocabulary` that tells."""
        found = getattr(self._labeller, "vocabulary", None)
        return found if isinstance(found, Vocabulary) else Vocabulary()

    @property
    def requests(self) -> int:
        """Requests received so far, failed ones included."""
        with self._lock:
            return self._requests

    @property
    def billed(self) -> int:
        """Pictures labelled so far, even if the answer did not arrive: what a bill would say."""
        with self._lock:
            return self._billed

    def ask(self, payloads: Sequence[bytes]) -> Sequence[Answer | ProviderError]:
        """Label each payload as the service would, or fail as its faults say."""
        began = time.monotonic()
        with self._lock:
            number = self._requests
            self._requests += 1
        fault = self._faults.of(number)
        if fault is not None and not fault.billed:
            self._take(self._latency.seconds(number) if fault is not Fault.timeout else 0.0, began)
            return self._fail(fault, number, len(payloads))
        if len(payloads) > self.limits.batch:
            raise PermanentError(
                f"{len(payloads)} pictures in one request; at most {self.limits.batch} are taken.",
                request_id=_request_id(number),
            )
        self._charge(len(payloads), number)
        outcomes = [self._outcome(payload, number) for payload in payloads]
        self._take(self._latency.seconds(number), began)
        return outcomes if fault is None else self._fail(fault, number, len(payloads))

    def close(self) -> None:
        """Nothing to release."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<MockAdapter {self._id} requests={self.requests} billed={self.billed}>"

    def _take(self, seconds: float, began: float) -> None:
        time.sleep(max(0.0, seconds - (time.monotonic() - began)))

    def _fail(self, fault: Fault, number: int, pictures: int) -> list[ProviderError]:
        """Raise what a real adapter makes of the fault; an error inside a body is returned."""
        if fault in (Fault.timeout, Fault.late, Fault.slow):
            time.sleep(self._timeout)
        error = error_of_fault(fault, self._retry_after)
        error.request_id = _request_id(number)
        if fault is Fault.inside:
            return [error] * pictures
        raise error

    def _charge(self, pictures: int, number: int) -> None:
        with self._lock:
            if self._quota is not None and self._billed + pictures > self._quota:
                error = error_of_fault(Fault.quota, 0.0)
                error.request_id = _request_id(number)
                raise error
            self._billed += pictures

    def _outcome(self, payload: bytes, number: int) -> Answer | ProviderError:
        try:
            return self._label(payload, number)
        except ProviderError as error:
            with self._lock:
                self._billed -= 1  # what is refused is not paid for
            error.request_id = _request_id(number)
            if isinstance(error, FatalError):
                raise
            return error

    def _label(self, payload: bytes, number: int) -> Answer:
        if len(payload) > self.limits.max_bytes:
            raise PermanentError(
                f"The picture has {len(payload):,} bytes; at most {self.limits.max_bytes:,} are "
                "taken."
            )
        picture = self._decode(payload)
        if isinstance(self._labeller, PayloadLabeller):
            labels = self._labeller.label_payload(payload)
        else:
            labels = self._labeller(picture)
        try:
            return to_answer(
                labels, model_version=self._version(number), request_id=_request_id(number)
            )
        except UsageError as error:
            raise FatalError(str(error)) from error

    def _version(self, number: int) -> str:
        version = self._model_version
        for start, later in self._changes:
            if number >= start:
                version = later
        return version

    def _decode(self, payload: bytes) -> NDArray[np.uint8]:
        formats = [_FORMATS[name] for name in self.limits.formats]
        try:
            with Image.open(io.BytesIO(payload), formats=formats) as image:
                width, height = image.size
                shorter, longer = min(width, height), max(width, height)
                if shorter < self.limits.min_side or longer > self.limits.max_side:
                    raise PermanentError(
                        f"The picture is {width} x {height}; sides of {self.limits.min_side} to "
                        f"{self.limits.max_side} pixels are taken."
                    )
                return np.asarray(image.convert("RGB"))
        except (UnidentifiedImageError, OSError) as error:
            raise PermanentError(f"The payload is not a {' or '.join(formats)} image.") from error


def _labeller(given: Any, seed: int) -> Any:
    """Return the labeller that an option means."""
    if given is None or given == _DEFAULT:
        from smoothapi_adapters.mock.efficientnet import EfficientNetLite0  # noqa: PLC0415

        return EfficientNetLite0()
    if isinstance(given, Mapping):
        return Probabilities(given, seed=seed)
    if isinstance(given, str):
        kind, _, rest = given.partition(":")
        kinds: dict[str, Callable[[], Any]] = {
            "probabilities": lambda: Probabilities.parse(rest, seed=seed),
            "table": lambda: Table.read(expanded(rest)),
            "replay": lambda: Recorded(expanded(rest)),
        }
        return kinds.get(kind, lambda: _imported(given))()
    if not callable(given) and not isinstance(given, PayloadLabeller):
        raise UsageError(
            "labeller must be a callable (H, W, 3) uint8 -> labels, chances of labels, or text."
        )
    return given


def _is_data(text: str) -> bool:
    """Whether the text of a labeller names no code to import."""
    return text == _DEFAULT or text.partition(":")[0] in ("probabilities", "table", "replay")


def _imported(text: str) -> Any:
    if not re.fullmatch(r"[A-Za-z_][\w.]*:[A-Za-z_][\w.]*", text):
        raise UsageError(
            f"Unknown labeller {text!r}. Use 'efficientnet', 'probabilities:bus 97%, none 3%', "
            "'table:FILE', 'replay:FILE' or 'module:function'."
        )
    module, _, path = text.partition(":")
    try:
        found: Any = import_module(module)
        for name in path.split("."):
            found = getattr(found, name)
    except (ImportError, AttributeError) as error:
        raise UsageError(
            f"The labeller {text!r} cannot be imported: {error}. Python looks in {sys.path[0]!r} "
            "and where packages are installed."
        ) from error
    if not callable(found):
        raise UsageError(f"The labeller {text!r} cannot be called: name a function.")
    return found


def _model_changes(given: Mapping[int, str] | str | None) -> list[tuple[int, str]]:
    """Return (request number from 0, version that answers carry from it on), ascending."""
    if isinstance(given, str):
        changes: dict[int, str] = {}
        for term in given.split(","):
            match = re.fullmatch(r"\s*(\S+) after (\d+)(?: requests)?\s*", term)
            if match is None:
                raise UsageError(
                    f"model_changes: {term.strip()!r} cannot be read. Write 'v2 after 300, v3 "
                    "after 900'."
                )
            changes[int(match[2])] = match[1]
        given = changes
    try:
        return sorted((int(number), str(version)) for number, version in (given or {}).items())
    except (AttributeError, TypeError, ValueError, OverflowError):
        raise UsageError(
            f"model_changes={shortened(given)}: give {{300: 'v2'}}, the number of a request and "
            "the version that answers carry from it on."
        ) from None


def _limits(given: Limits | Mapping[str, Any] | None) -> Limits:
    if isinstance(given, Limits):
        return given
    fields = {"max_bytes": 5 * 2**20, **(given or {})}
    try:
        formats = fields.pop("formats", Limits().formats)
        names = formats.replace(",", " ").split() if isinstance(formats, str) else formats
        numbers = {
            name: float(value) if name in ("per_second", "least_score") else int(value)
            for name, value in fields.items()
        }
        limits = Limits(formats=tuple(names), **numbers)  # type: ignore[arg-type]
    except (TypeError, ValueError, OverflowError) as error:
        raise UsageError(f"limits cannot be read: {error}.") from error
    if limits.batch < 1 or not set(limits.formats) <= set(_FORMATS) or not limits.formats:
        raise UsageError("limits: give a batch from 1, and formats among png and jpeg.")
    return limits


def _request_id(number: int) -> str:
    return f"mock-{number + 1}"
