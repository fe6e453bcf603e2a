"""What has to be known of a provider's protocol so that the gateway can stand in front of it.

A stranger's front is a class with these members and one line in its pyproject.toml, whose name is
the provider's::

    [project.entry-points."smoothapi.fronts"]
    acme = "smoothapi_acme:AcmeFront"
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Literal, Protocol, TypeAlias, cast

from smoothapi.errors import MissingExtraError, UsageError
from smoothapi.provider import registered

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from smoothapi.wires.wire import Refusal, Reply, Request, Wire
    from smoothapi.wrapping import Call, Remote

GROUP = "smoothapi.fronts"

LONGEST_OPERATION = 100
"""Characters of an operation that are told: callers can name one as they like."""

SignedBy: TypeAlias = Literal["gateway", "caller"]
"""Whose credentials sign what is sent to the provider."""


_OF_THE_BODY = frozenset({"content-digest", "content-md5", "digest", "repr-digest"})


@dataclass(frozen=True, slots=True)
class Incoming:
    """A request as it came in.

    Attributes:
        request: as the wires read it.
        target: path and query, as the caller wrote them.
        headers: names and values in their order, as the caller wrote them.
        fetch: a picture that is elsewhere -> its bytes; None if the call is to be made as it is.
            Raises UsageError where the operator has not named the place, an ImageError where the
            picture cannot be fetched; both say so to the caller.
        not_passed: why a part that asks for no labels is refused; "" where the operator lets it
            pass.
    """

    request: Request
    target: str
    headers: tuple[tuple[str, str], ...] = field(repr=False)
    fetch: Callable[[Remote], bytes | None] = field(default=lambda _: None, repr=False)
    not_passed: str = ""

    def fetch_of_batch(self, remote: Remote | None, *, alone: bool) -> tuple[bytes | None, str]:
        """Fetch the picture of one row of a batch: what refuses it must not refuse the others.

        Args:
            remote: where it is; None if it came with the request.
            alone: whether the batch has no other.

        Returns:
            Its bytes, or None if the row is to be sent as it is; and why it is refused, or "".

        Raises:
            UsageError: it may not be fetched, or cannot, and is alone.
        """
        if remote is None:
            return None, ""
        try:
            return self.fetch(remote), ""
        except UsageError as error:
            if alone:
                raise
            return None, str(error)

    def with_body(self, body: bytes, content_type: str | None = None) -> Incoming:
        """Return the request with another body, and of another type where one is given."""
        stale = _OF_THE_BODY if content_type is None else {*_OF_THE_BODY, "content-type"}
        written = tuple(pair for pair in self.headers if pair[0].lower() not in stale)
        if content_type is not None:
            written = (*written, ("content-type", content_type))
        read = {name.lower(): value for name, value in written}
        request = replace(self.request, headers=read, body=body)
        return replace(self, request=request, headers=written)


class Front(Protocol):
    """One provider's protocol, as the gateway speaks it to callers and to the provider.

    The class is called with `options` (a mapping) and `signed_by`. It raises UsageError where an
    option is unknown or out of range, and where callers' credentials cannot be handed on. Threads
    share it.
    """

    name: str
    """The provider's, as for `Smoother`."""
    wire: Wire
    """How the provider words errors, and the most bytes of a body."""

    def owns(self, request: Request) -> bool:
        """Whether a request is in this protocol, by its path and headers."""

    def operation(self, request: Request) -> str:
        """Return the provider's name for what is asked, such as "DetectLabels"."""

    def shown(self, request: Request) -> str:
        """Return what the caller shows where its SDK puts the key, "" if nothing."""

    def stranger(self, shown: str) -> Refusal:
        """Return how the provider refuses a caller who shows nothing, or nothing that it knows."""

    def read(self, incoming: Incoming) -> Call | Remote | None:
        """Say what a request asks; see `smoothapi.wrapping.Wrapper.read`.

        The call's response is a `Reply`. None stands for what asks for no labels: it is sent on
        where the operator lets it pass. A picture that is elsewhere is fetched by
        `incoming.fetch`, and the caller's own call then carries its bytes: what is labelled is what
        is certified, whoever changes the place meanwhile.

        Raises:
            ProviderError: the provider cannot be asked: credentials are missing, say.
            UsageError: the provider could answer with labels that cannot be certified: it is
                another version's call, say, or cannot be read. Or a picture is elsewhere, and is
                not to be fetched or cannot be. It is refused, whatever passes.
        """

    def relay(self, incoming: Incoming) -> Reply:
        """Send a request on as it is, and return what is answered.

        Raises:
            ProviderError: the provider could not be reached.
        """

    def close(self) -> None:
        """Close the connections."""


def make_front(name: str, options: Mapping[str, Any], signed_by: SignedBy) -> Front:
    """Load the front that is registered under a provider's name, and make one.

    Raises:
        UsageError: nothing is registered under it, or an option is unknown or out of range.
        MissingExtraError: the provider's packages are not installed.
    """
    points = registered(GROUP)
    if name not in points:
        raise UsageError(
            f"The gateway does not speak the protocol of {name!r}. It speaks: "
            f"{', '.join(sorted(points)) or 'none'}."
        )
    try:
        factory = points[name].load()
    except ImportError as error:
        raise MissingExtraError(
            f"A gateway for {name} needs a package that is not installed ({error.name}). Install "
            f"it with: pip install 'smoothapi-vision[serve,{name.rstrip('4')}]'"
        ) from error
    return cast("Front", factory(options, signed_by))
