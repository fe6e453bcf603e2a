"""What has to be known of an SDK so that its clients can be wrapped.

A stranger's wrapper is a class with these members and one line in its pyproject.toml, whose name
is the module of the clients (or a package above it, or module and class)::

    [project.entry-points."smoothapi.wrappers"]
    "acme.vision" = "smoothapi_acme:AcmeWrapper"
"""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any, Protocol

from smoothapi.certify.labels import label_key
from smoothapi.errors import ProviderError
from smoothapi.provider import KeepsSecrets, Mask, masked

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping, Sequence

    from smoothapi.answer import Answer
    from smoothapi.certify.certificate import Certificate
    from smoothapi.provider import Adapter, Limits, Price

ANY_SCORE = 1e-9
"""As `Item.score`: every label that the service lists counts as present."""

_ANY_SIZE = 2**40


class Wrapper(Protocol):
    """How the clients of one SDK are wrapped. Made for one client, and shared by threads.

    The class is called with the client, and raises UsageError if it is one that cannot be wrapped.
    """

    @property
    def operations(self) -> Collection[str]:
        """Names of the methods that label pictures; all others are left alone."""

    def read(
        self, operation: str, arguments: tuple[Any, ...], keywords: Mapping[str, Any]
    ) -> Call | Remote | None:
        """Say what a call of one of them asks.

        Returns:
            What is to be certified; Remote if the picture is not in the call; None if the call has
            nothing to certify or would be refused: it is then made as it is. Whatever can be read
            only once, such as a stream, is read only where a Call is returned.
        """


@dataclass(frozen=True)
class Remote:
    """A call whose picture is somewhere else, where no noise can be added to it.

    Attributes:
        what: where the picture is, such as "an object in S3".
        instead: what the caller can do to have it certified.
    """

    what: str
    instead: str


@dataclass(frozen=True)
class Item:
    """One photo of a call, and how it is asked about.

    Attributes:
        photo: the encoded photo.
        own: the caller's own call.
        votes: asks the same operation about noisy copies. Its SDK's retries are off.
        score: least score of a label that counts as present, in (0, 1].
        write: (what `own` returned, verdict) -> the response with the labels that are left. May
            change what it is given.
    """

    photo: bytes = field(repr=False)
    own: OwnCall
    votes: Adapter
    score: float
    write: Callable[[Any, Verdict], Any]


@dataclass(frozen=True)
class Call:
    """A call that labels photos.

    Attributes:
        items: what it asks about; a function stands for a part that has nothing to certify, and
            makes it.
        join: the items' responses, in order -> the call's response; None if the call has one item
            and its response is the call's.
    """

    items: Sequence[Item | Callable[[], Any]]
    join: Callable[[list[Any]], Any] | None = None


class OwnCall:
    """The caller's own call as an adapter: one more query, in the budget like every other.

    Args:
        votes: the adapter that asks about noisy copies.
        send: makes the call once, with the SDK's retries off.
        read: response -> Answer; raises TransientError if it is malformed.
        price: if it is not that of `votes`.

    `send` raises smoothapi's ProviderErrors, each from (`__cause__`) the SDK's error.

    Attributes:
        response: what the SDK returned last; None before.
        error: what the call met last: the SDK's own error if there is one, else smoothapi's.
        refusal: for SDKs that return some errors in a response: that response, which is then
            returned if the call failed for good.
    """

    def __init__(
        self,
        votes: Adapter,
        send: Callable[[], Any],
        read: Callable[[Any], Answer],
        *,
        price: Price | None = None,
    ) -> None:
        self._votes = votes
        self._send = send
        self._read = read
        self._price = price
        self.response: Any = None
        self.error: BaseException | None = None
        self.refusal: Any = None

    @property
    def name(self) -> str:
        """The provider's name."""
        return self._votes.name

    @property
    def identity(self) -> Mapping[str, str | int | float | bool | None]:
        """Apart from the votes': the caller may ask for more."""
        return {**self._votes.identity, "own": True}

    @property
    def limits(self) -> Limits:
        """One picture of any size: what is too large the service will say."""
        return replace(self._votes.limits, batch=1, max_bytes=_ANY_SIZE, max_request_bytes=None)

    @property
    def price(self) -> Price:
        """What the service charges for the whole call."""
        return self._votes.price if self._price is None else self._price

    def mask(self) -> Mask:
        """Return what masks what the votes' adapter signs in with."""
        return self._votes.mask() if isinstance(self._votes, KeepsSecrets) else Mask([])

    @masked
    def ask(self, payloads: Sequence[bytes]) -> list[Answer | ProviderError]:
        """Make the call."""
        del payloads
        self.refusal = None
        try:
            self.response = self._send()
        except ProviderError as error:
            self.error = error.__cause__ or error
            self.mask().error(error)  # before the other, in which the request tells what to mask
            if self.error is not error:
                self.error = self.mask().scrub(self.error)
            raise
        except Exception as error:
            self.error = error
            raise
        try:
            return [self._read(self.response)]
        except ProviderError as error:
            self.error = error
            raise

    def close(self) -> None:
        """Nothing to release."""


@dataclass(frozen=True)
class Verdict:
    """What the votes say about the labels of one response.

    Attributes:
        certificate: the certificate.
        mark: whether labels that could not be certified stay, marked.
    """

    certificate: Certificate
    mark: bool

    def certified(self, name: str) -> bool:
        """Whether the label of that name is certified."""
        return label_key(name) in self._certified

    def keeps(self, name: str) -> bool:
        """Whether the label stays in the response."""
        return self.mark or self.certified(name)

    def share(self, name: str) -> float:
        """Return the share of the votes in which the label was present, in [0, 1]."""
        votes = self.certificate.total_votes
        return self._present[label_key(name)] / votes if votes else 0.0

    @cached_property
    def _certified(self) -> frozenset[str]:
        return frozenset(label_key(claim.label) for claim in self.certificate.claims)

    @cached_property
    def _present(self) -> Counter[str]:
        present: Counter[str] = Counter()
        for vote, count in self.certificate.tally.items():
            if vote is not None:
                names, _, _ = json.loads(vote)  # as `Presence.vote` writes it
                present.update(dict.fromkeys(map(label_key, names), count))
        return present
