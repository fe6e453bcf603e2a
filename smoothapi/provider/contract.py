"""What an adapter is: the one seam between smoothapi and a provider.

A stranger's adapter is a class with these members and one line in its pyproject.toml::

    [project.entry-points."smoothapi.adapters"]
    acme = "smoothapi_acme:AcmeAdapter"
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol, runtime_checkable

from smoothapi.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from smoothapi.answer import Answer
    from smoothapi.errors import ProviderError
    from smoothapi.provider.price import Price


@dataclass(frozen=True, slots=True)
class Limits:
    """What a provider takes.

    Attributes:
        batch: most payloads in one request.
        max_bytes: largest payload.
        max_request_bytes: most bytes of payloads in one request, None if only `batch` limits it.
        min_side: shortest side in pixels; smaller pictures are enlarged before they are sent.
        max_side: longest side in pixels.
        formats: codecs it takes, preferred first.
        per_second: most pictures a second that the provider allows, None if it does not say.
        least_score: labels with a lower score are left out of its answers, so that nothing can be
            said of their absence.

    Raises:
        UsageError: a value is out of range.
    """

    batch: int = 1
    max_bytes: int = 4_000_000
    max_request_bytes: int | None = None
    min_side: int = 1
    max_side: int = 10_000
    formats: tuple[str, ...] = ("png", "jpeg")
    per_second: float | None = None
    least_score: float = 0.0

    def __post_init__(self) -> None:
        counts = (self.batch, self.max_bytes, self.min_side, self.max_side)
        if min(counts) < 1 or (self.max_request_bytes or 1) < 1 or not self.formats:
            raise UsageError(f"Limits are counts from 1 up, with a format or more: {self}.")
        if self.per_second is not None and not self.per_second > 0.0:
            raise UsageError(f"per_second={self.per_second!r}: a pace is above 0, or None.")
        if not 0.0 <= self.least_score <= 1.0:
            raise UsageError(f"least_score={self.least_score!r}: a score is in [0, 1].")


@dataclass(frozen=True, slots=True)
class Credentials:
    """Whether an adapter could sign in, found out without sending anything.

    Attributes:
        found: whether there is something to sign in with; it may still be refused.
        where: in words, where it was found, or where it was looked for. Never the secret.
    """

    found: bool
    where: str


@runtime_checkable
class NeedsCredentials(Protocol):
    """What an adapter also has if its provider asks who is calling."""

    def credentials(self) -> Credentials:
        """Look where the provider's own users keep them; send nothing."""


@runtime_checkable
class HasEndpoint(Protocol):
    """What an adapter also has if its provider is reached over a network."""

    def endpoint(self) -> str:
        """Scheme, host and port of where requests go; "" if that is not known. Sends nothing."""


@runtime_checkable
class Adapter(Protocol):
    """A provider, seen from smoothapi. Instances are shared by threads.

    `ask` makes exactly one request: the SDK's own retries are off, so that each attempt is
    counted and paid for once, here.
    """

    @property
    def name(self) -> str:
        """The provider's short name, as on the command line."""

    @property
    def identity(self) -> Mapping[str, str | int | float | bool | None]:
        """All that decides an answer besides the picture: operation, options, model pin.

        It is part of the cache key and is shown in certificates: no secrets.
        """

    @property
    def limits(self) -> Limits:
        """What the provider takes."""

    @property
    def price(self) -> Price:
        """What the provider charges."""

    def ask(self, payloads: Sequence[bytes]) -> Sequence[Answer | ProviderError]:
        """Send 1 to `limits.batch` encoded pictures in one request.

        Returns:
            For each payload, in order, its answer, or the error that it alone met.

        Raises:
            TransientError: worth sending again, unchanged.
            ThrottledError: the same, after slowing down.
            PermanentError: this request will never be answered.
            FatalError: none will be.
        """

    def close(self) -> None:
        """Release connections. Called once; `ask` is not called after it."""
