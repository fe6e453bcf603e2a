"""A provider that runs here: for trying smoothapi, and for testing with no account and no bill.

It behaves like a service: it takes encoded bytes only, decodes them, has limits, a price, a model
version and a latency, and answers with the best few labels.
"""

from __future__ import annotations

import io
import threading
import time
import uuid
from decimal import Decimal
from typing import TYPE_CHECKING, TypeAlias

import numpy as np
from PIL import Image, UnidentifiedImageError

from smoothapi.answer import Answer, Label
from smoothapi.dispatch import Limits, Price
from smoothapi.errors import PermanentError, UsageError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from numpy.typing import NDArray

Labels: TypeAlias = "Answer | str | Iterable[Label | tuple[str, float]]"
Labeller: TypeAlias = "Callable[[NDArray[np.uint8]], Labels]"
"""(H, W, 3) uint8 RGB -> an Answer, labels with scores, or one name."""

_FORMATS = {"png": "PNG", "jpeg": "JPEG"}


class MockAdapter:
    """A local stand-in for a vision API.

    Args:
        labeller: what sees the pictures; by default EfficientNet-Lite0 (extra "demo").
        labeller_id: what tells one labeller's answers from another's in the store. A callable
            without one gets a fresh id each time, since nothing shows that it answers as
            before: its answers are then not used by later runs.
        model_version: what answers carry; by default the labeller's id.
        price: dollars that 1,000 pictures would cost.
        latency: seconds that each request takes at least.
        limits: what it takes.
    """

    name = "mock"

    def __init__(
        self,
        labeller: Labeller | None = None,
        *,
        labeller_id: str | None = None,
        model_version: str | None = None,
        price: float | str | Decimal = "1.00",
        latency: float = 0.0,
        limits: Limits | None = None,
    ) -> None:
        latency = float(latency)  # a variable of the environment is text
        if latency < 0:
            raise UsageError(f"latency={latency}: a request cannot take less than no time.")
        if labeller is None:
            from smoothapi_adapters.efficientnet import EfficientNetLite0  # noqa: PLC0415

            labeller = EfficientNetLite0()
            labeller_id = labeller_id or labeller.model_version
        elif not callable(labeller):
            raise UsageError("labeller must be a callable (H, W, 3) uint8 -> labels.")
        self._labeller = labeller
        self._id = labeller_id or _fresh_id(labeller)
        self._model_version = self._id if model_version is None else model_version
        self._latency = latency
        self.limits = limits or Limits(batch=1, max_bytes=5 * 2**20)
        self.price = Price(per_thousand=Decimal(str(price)))
        self._lock = threading.Lock()
        self._requests = 0

    @property
    def identity(self) -> dict[str, str | int | float | bool | None]:
        """The labeller and the model version."""
        return {"operation": "label", "labeller": self._id}

    @property
    def requests(self) -> int:
        """Requests received so far: what a real provider would have billed."""
        with self._lock:
            return self._requests

    def ask(self, payloads: Sequence[bytes]) -> list[Answer | PermanentError]:
        """Label each payload as the service would."""
        with self._lock:
            self._requests += 1
            number = self._requests
        began = time.monotonic()
        if len(payloads) > self.limits.batch:
            raise PermanentError(
                f"{len(payloads)} pictures in one request; at most {self.limits.batch} are taken."
            )
        outcomes: list[Answer | PermanentError] = []
        for payload in payloads:
            try:
                outcomes.append(self._label(payload, request_id=f"mock-{number}"))
            except PermanentError as error:
                outcomes.append(error)
        time.sleep(max(0.0, self._latency - (time.monotonic() - began)))
        return outcomes

    def close(self) -> None:
        """Nothing to release."""

    def _label(self, payload: bytes, request_id: str) -> Answer:
        if len(payload) > self.limits.max_bytes:
            raise PermanentError(
                f"The picture has {len(payload):,} bytes; at most {self.limits.max_bytes:,} are "
                "taken."
            )
        labels = self._labeller(self._decode(payload))
        if isinstance(labels, Answer):
            return labels
        if isinstance(labels, str):
            labels = [(labels, 1.0)]
        return Answer(
            labels=tuple(
                label if isinstance(label, Label) else Label(label[0], float(label[1]))
                for label in labels
            ),
            model_version=self._model_version,
            request_id=request_id,
        )

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
            raise PermanentError(f"The payload is no {' or '.join(formats)} image.") from error


def _fresh_id(labeller: Labeller) -> str:
    kind = labeller if hasattr(labeller, "__qualname__") else type(labeller)
    return f"{kind.__module__}.{kind.__qualname__}-{uuid.uuid4().hex[:12]}"
