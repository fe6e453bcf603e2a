"""What has to be known of an SDK so that its clients can be wrapped.

A stranger's wrapper is a class with these members and one line in its pyproject.toml, whose name
is the module of the clients (or a package above it, or module and class)::

    [project.entry-points."smoothapi.wrappers"]
    "acme.vision" = "smoothapi_acme:AcmeWrapper"

For clients whose methods are awaited it is an `AsyncWrapper`.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any, NoReturn, Protocol, runtime_checkable

from smoothapi.certify.labels import label_key
from smoothapi.errors import ProviderError, TransientError
from smoothapi.provider import KeepsSecrets, Mask, masked

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping, Sequence

    from smoothapi.answer import Answer
    from smoothapi.provider import Adapter, Limits, Price
    from smoothapi.wrapping.finding import Finding
    from smoothapi.wrapping.policy import Otherwise
    from smoothapi.wrapping.portal import Portal

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


@runtime_checkable
class AsyncWrapper(Protocol):
    """How the clients of one SDK are wrapped whose methods are awaited. Made for one client.

    smoothapi's threads ask. The requests themselves are the client's own, made on the event loop
    of whoever awaits the call: `portal.call` makes one there and waits for it in the thread. The
    class is called with the client, and raises UsageError if it is one that cannot be wrapped.
    """

    @property
    def operations(self) -> Collection[str]:
        """Names of the methods that label pictures; all others are left alone."""

    def through(self, portal: Portal) -> Wrapper:
        """Return what reads one call; the requests of what it returns go through the portal."""

    async def enter(self) -> bool:
        """Enter the client, as `async with` does.

        Returns:
            Whether it was; False if whoever made it has, who will also leave it.
        """


@dataclass(frozen=True)
class Remote:
    """A call whose picture is somewhere else, where no noise can be added to it.

    Attributes:
        what: where the picture is, such as "an object in S3".
        instead: what the caller can do to have it certified.
        location: by which `smoothapi.photos` finds it, "" where it cannot.
    """

    what: str
    instead: str
    location: str = field(default="", repr=False)


@dataclass(frozen=True)
class Item:
    """One photo of a call, and how it is asked about.

    Attributes:
        photo: the encoded photo.
        own: the caller's own call.
        votes: asks the same operation about noisy copies. Its SDK's retries are off.
        score: least score of a label that the call itself asks for, in (0, 1]; None if it says
            none.
        write: (what `own` returned, verdict) -> the response with the labels that are left, and
            their scores. May change what it is given.
        also: response -> what is in it that users take for the response, too.
    """

    photo: bytes = field(repr=False)
    own: OwnCall
    votes: Adapter
    score: float | None
    write: Callable[[Any, Verdict], Any]
    also: Callable[[Any], Sequence[Any]] = lambda _: ()


@dataclass(frozen=True)
class Passed:
    """A part of a call that is made as it is.

    Attributes:
        send: makes it, and returns its response. Called before anything is certified.
        remote: where its picture is, if that is why; None if it has nothing to certify.
        refused: whether nothing is sent for it, and its response says why.
    """

    send: Callable[[], Any]
    remote: Remote | None = None
    refused: bool = False


@dataclass(frozen=True)
class Call:
    """A call that labels photos.

    Attributes:
        items: what it asks about.
        join: the items' responses, in order -> the call's response; None if the call has one item
            and its response is the call's.
        parts: joined response -> the items' parts of it, in order.
    """

    items: Sequence[Item | Passed]
    join: Callable[[list[Any]], Any] | None = None
    parts: Callable[[Any], Sequence[Any]] = lambda _: ()


class OwnCall:
    """The caller's own call as an adapter: one more query, in the budget like every other.

    Args:
        votes: the adapter that asks about noisy copies.
        send: makes the call once, with the SDK's retries off.
        read: response -> Answer; raises TransientError if it is malformed.
        price: if it is not that of `votes`.

    `send` raises smoothapi's ProviderErrors, each from (`__cause__`) the SDK's error.

    Attributes:
        response: what the SDK returned; None before, and where it raised.
        error: what the call met last: the SDK's own error if there is one, else smoothapi's; None
            if it was answered.
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
        self._turn = threading.Lock()  # held while the call is made
        self._withdrawn = False

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

    def ask(self, payloads: Sequence[bytes]) -> list[Answer | ProviderError]:
        """Make the call; TransientError if it was withdrawn."""
        with self._turn:
            if self._withdrawn:
                raise TransientError("the call was withdrawn", sent=False, provider=self.name)
            return self._made(payloads)

    def withdraw(self) -> None:
        """Have it asked no more, by a thread that may still be about to.

        If it is under way it is paid for: then this waits for what comes of it.
        """
        with self._turn:
            self._withdrawn = True

    @masked
    def _made(self, payloads: Sequence[bytes]) -> list[Answer | ProviderError]:
        del payloads
        self.response = self.error = self.refusal = None
        try:
            self.response = self._make()
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

    def _make(self) -> Any:
        """Make the call once. A subclass whose service refuses in a response notes that here.

        Noted by `send`, which would have to know this object, each would hold the other, and the
        photo, until Python next looks for such circles.
        """
        return self._send()

    def directly(self) -> Answer | None:
        """Make the call as if smoothapi were not there, unless it was answered already.

        None if the SDK returned its error in a response.

        Raises:
            Exception: what the SDK raised.
        """
        if self.response is not None:
            return self._read(self.response)
        try:
            answer = self._made([b""])[0]
        except ProviderError as error:
            if self.refusal is not None:
                return None
            raise self.sdk_error or error from None
        if isinstance(answer, ProviderError):
            raise answer
        return answer

    @property
    def sdk_error(self) -> BaseException | None:
        """The SDK's own error, if that is what the call met last."""
        return None if isinstance(self.error, ProviderError) else self.error

    def close(self) -> None:
        """Let go of the request, in which the photo is, and of what came of it.

        What an error met is held by its trace, and may hold this until Python next looks for
        objects that hold each other.
        """
        self._send = _closed
        self.response = self.error = None


def _closed() -> NoReturn:
    raise RuntimeError("this call has ended")


@dataclass(frozen=True)
class Verdict:
    """Which labels are left in one response, and with which scores.

    Attributes:
        finding: what the votes came to.
        keep: whether labels that could not be certified stay, with a score of 0.
        mark: whether each label that stays is marked as certified or not.
        otherwise: what is left of a response whose votes did not come to an end.
    """

    finding: Finding
    keep: bool
    mark: bool
    otherwise: Otherwise

    def certified(self, name: str) -> bool:
        """Whether the label of that name is certified."""
        return label_key(name) in self._scores

    def keeps(self, name: str) -> bool:
        """Whether the label stays in the response."""
        if self._plain:
            return True
        return self.certified(name) or (self.keep and not self.finding.ended)

    def score(self, name: str) -> float | None:
        """Return the score to show, in [0, 1]: the certified one; None for the provider's own."""
        return None if self._plain else self._scores.get(label_key(name), 0.0)

    @property
    def _plain(self) -> bool:
        return self.finding.ended != "" and self.otherwise == "plain"

    @cached_property
    def _scores(self) -> dict[str, float]:
        return {
            label_key(label.name): label.score for label in self.finding.labels if label.certified
        }
