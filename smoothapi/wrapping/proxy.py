"""`wrap`: a client that certifies what it labels, and is otherwise the client that it was."""

from __future__ import annotations

import functools
import weakref
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, NoReturn, TypeAlias, TypeVar, Unpack, cast

from smoothapi.certify.certificate import Certificate
from smoothapi.errors import UsageError
from smoothapi.options import CertifyOptions, keywords, resolve
from smoothapi.provider import refuse_async, registered
from smoothapi.store import Budget
from smoothapi.wiring import open_session
from smoothapi.wrapping.certifier import Certifier
from smoothapi.wrapping.protocol import Remote

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from importlib.metadata import EntryPoint

    from smoothapi.wrapping.protocol import Wrapper

ClientT = TypeVar("ClientT")
Uncertified: TypeAlias = Literal["drop", "mark"]
RemotePictures: TypeAlias = Literal["refuse", "pass"]

GROUP = "smoothapi.wrappers"
KEY = "Smoothapi"
ATTRIBUTE = "smoothapi"


@keywords(CertifyOptions)
def wrap(
    client: ClientT,
    *,
    budget: Budget | str | Sequence[Budget],
    uncertified: Uncertified = "drop",
    remote: RemotePictures = "refuse",
    **options: Unpack[CertifyOptions],
) -> ClientT:
    """Return `client` as one whose labels are certified.

    ::

        rekognition = smoothapi.wrap(boto3.client("rekognition"), budget="$20/day")
        response = rekognition.detect_labels(Image={"Bytes": photo}, MinConfidence=80)
        smoothapi.certificate_of(response).radius

    It has the same methods. Those that label pictures return the SDK's own type of response: with
    the certified labels, the share of votes as their score, and the certificate under
    `response["Smoothapi"]` (boto3; a dict, ready for JSON) or `response.smoothapi`;
    `certificate_of` reads either. One call then costs hundreds of queries, which is why `budget`
    has no default; what each answer means and costs stands at the top of `smoothapi.wrapping`.
    Everything else goes to `client` untouched.

    What can be wrapped, and what is certified:

    - boto3 Rekognition clients: `detect_labels`, `detect_moderation_labels`,
      `detect_custom_labels`.
    - google.cloud.vision `ImageAnnotatorClient`: the label annotations of `label_detection`,
      `annotate_image` and `batch_annotate_images`.
    - azure.cognitiveservices `ComputerVisionClient` (3.2): the tags of `tag_image_in_stream`, the
      tags and categories of `analyze_image_in_stream`.
    - azure.ai.vision `ImageAnalysisClient` (4.0): the tags of `analyze`.
    - what is registered under the entry-point group `smoothapi.wrappers`.

    Arguments of a call are honoured: what it asks for (features, most labels, model version,
    language) decides its response, its least confidence is what counts as present. The SDK's
    retries are off for these calls, in favour of `retry`.

    Args:
        client: the SDK's client. It is not changed, and stays usable by itself.
        budget: hard limit, as for `Smoother`; one per run holds for the life of the wrapped
            client. The caller's own calls count. `Budget()` has no limit.
        uncertified: "drop" leaves out labels that cannot be certified; "mark" keeps them, marked:
            `Certified: False` (boto3), a property named "smoothapi" (Google), an attribute or key
            "certified" (Azure).
        remote: what becomes of calls whose picture is elsewhere (S3, a URL): "refuse" raises,
            "pass" makes them as they are, uncertified.
        sigma: noise level, as for `Smoother`, like all that follow.
        radius: the L2 radius to certify, or "largest".
        alpha: chance that any claim of one certificate is wrong.
        max_votes: most votes for one picture.
        size: of the working image.
        denoiser: "default", "small", "none", a file, a module or a callable.
        device: of the denoiser.
        codec: "png" or "jpeg".
        concurrency: most requests in flight; more than the client's connection pool (10 for boto3,
            unless it was made with more) opens connections anew.
        retry: when a variant, or the caller's own call, is tried again.
        refresh: ask again although answers are stored.
        home: folder of the noise key and of the answers.

    Raises:
        UsageError: such a client cannot be wrapped, or an option is out of range.

    The wrapped methods raise the SDK's errors for the caller's own call, and smoothapi's after it:

    - BudgetExceededError: the budget does not allow the next attempt.
    - ProviderError: the service failed for the noisy copies.
    - UsageError: the picture is elsewhere, or the client is closed.
    - ImageError: the service can read the picture and smoothapi cannot.

    Threads may share it. Threads and files that it holds are released by its `close`, at the end of
    a `with` block, or when it is no longer used.
    """
    if type(client) is _Wrapped:
        raise UsageError("This client is wrapped already.")
    refuse_async(client)
    if uncertified not in ("drop", "mark"):
        raise UsageError(f'uncertified={uncertified!r}: choose "drop" or "mark".')
    if remote not in ("refuse", "pass"):
        raise UsageError(f'remote={remote!r}: choose "refuse" or "pass".')
    if budget is None:
        raise UsageError(
            "A wrapped call costs hundreds of queries, so a budget must be given, such as "
            'budget="$2" or "$20/day"; Budget() is one without a limit.'
        )
    wrapper = _wrapper_of(client)
    if isinstance(budget, str):
        budget = Budget.parse(budget)
    resolve(None, options)  # the session is opened at the first call; what cannot work is said now
    opening = functools.partial(open_session, plain=False, budget=budget, **options)
    certifier = Certifier(opening, mark=uncertified == "mark")
    return cast("ClientT", _Wrapped(_Behind(client, wrapper, certifier, remote)))


def certificate_of(response: object, picture: int = 0) -> Certificate:
    """Return the certificate that a wrapped client put into a response.

    Args:
        response: what it returned.
        picture: which, for a response about several pictures.

    Raises:
        UsageError: the response is not a wrapped client's, or nothing in the call was to be
            certified.
        CertificateError: what a dict holds in its place is not a certificate.
    """
    if type(response) is dict:
        found = response.get(KEY)
        if isinstance(found, dict):
            found = Certificate.from_dict(found)
    else:
        found = getattr(response, ATTRIBUTE, None)
    if isinstance(found, tuple) and 0 <= picture < len(found):
        found = found[picture]
    elif picture:
        found = None
    if not isinstance(found, Certificate):
        raise UsageError(
            "This response has no such certificate. Responses of a client from smoothapi.wrap do, "
            "if the call asked for labels and held the picture."
        )
    return found


def attach(response: Any, certificates: Certificate | tuple[Certificate | None, ...]) -> None:
    """Put certificates where `certificate_of` looks: a key of a dict, else an attribute.

    In a dict one certificate is a dict too, so that the response can be written as JSON as before.
    """
    if type(response) is dict:
        response[KEY] = (
            certificates.to_dict() if isinstance(certificates, Certificate) else certificates
        )
    else:
        # Past the __setattr__ of proto-plus, which takes only fields of the message.
        object.__setattr__(response, ATTRIBUTE, certificates)


@dataclass(frozen=True)
class _Behind:
    """What stands behind one wrapped client. Shared by threads.

    Attributes:
        client: the SDK's client.
        wrapper: reads the calls of its SDK.
        certifier: certifies them.
        remote: what becomes of calls whose picture is elsewhere.
    """

    client: Any
    wrapper: Wrapper
    certifier: Certifier
    remote: RemotePictures

    def call(
        self, operation: str, method: Callable[..., Any], args: tuple[Any, ...], kwargs: Any
    ) -> Any:
        """Make one call of a labelling operation."""
        self.certifier.check_open()
        call = self.wrapper.read(operation, args, kwargs)
        if isinstance(call, Remote):
            if self.remote == "refuse":
                raise UsageError(
                    f"{operation} is asked about {call.what}: smoothapi cannot add noise to what "
                    f"is not here. {call.instead}, or wrap the client with remote='pass' to make "
                    "such calls uncertified."
                )
            call = None
        if call is None:
            return method(*args, **kwargs)
        certified = self.certifier.certify(call)
        if call.join is not None:
            attach(certified.response, certified.certificates)
        elif (certificate := certified.certificates[0]) is not None:
            attach(certified.response, certificate)
        return certified.response


class _Wrapped:
    """A proxy: all of the client's attributes, and its class for `isinstance`."""

    __slots__ = ("__weakref__", "_smoothapi_behind")

    def __init__(self, behind: _Behind) -> None:
        object.__setattr__(self, "_smoothapi_behind", behind)
        weakref.finalize(self, behind.certifier.close)

    @property  # type: ignore[misc]  # as the mocks of unittest do
    def __class__(self) -> Any:
        return type(_behind(self).client)

    def __getattr__(self, name: str) -> Any:
        behind = _behind(self)
        if name == "close":
            return functools.partial(_close, self)
        value = getattr(behind.client, name)
        if name not in behind.wrapper.operations:
            return value
        this = self  # keeps the certifier open while a method of a dropped client is at work

        @functools.wraps(value)
        def certified(*args: Any, **kwargs: Any) -> Any:
            return _behind(this).call(name, value, args, kwargs)

        return certified

    def __setattr__(self, name: str, value: Any) -> None:
        setattr(_behind(self).client, name, value)

    def __delattr__(self, name: str) -> None:
        delattr(_behind(self).client, name)

    def __dir__(self) -> list[str]:
        return dir(_behind(self).client)

    def __repr__(self) -> str:
        return f"<{type(_behind(self).client).__name__} wrapped by smoothapi>"

    def __enter__(self) -> Any:
        enter = getattr(_behind(self).client, "__enter__", None)
        if enter is not None:
            enter()
        return self

    def __exit__(self, *error: object) -> Any:
        behind = _behind(self)
        behind.certifier.close()
        leave = getattr(behind.client, "__exit__", None)
        if leave is not None:
            return leave(*error)
        return _close(self)

    def __reduce_ex__(self, _: Any) -> NoReturn:
        raise TypeError("A wrapped client cannot be copied or pickled: wrap the copy.")


def _behind(wrapped: _Wrapped) -> _Behind:
    behind: _Behind = object.__getattribute__(wrapped, "_smoothapi_behind")
    return behind


def _close(wrapped: _Wrapped) -> None:
    """Close what smoothapi holds, and then the client as its own `close` does."""
    behind = _behind(wrapped)
    behind.certifier.close()
    close = getattr(behind.client, "close", None)
    if close is not None:
        close()


def _wrapper_of(client: object) -> Wrapper:
    """Load what is registered for the client's class, or for one that it inherits from."""
    points = registered(GROUP)
    for kind in type(client).__mro__:
        place = f"{kind.__module__}.{kind.__qualname__}"
        fitting = [name for name in points if f"{place}.".startswith(f"{name}.")]
        if fitting:
            return _made(points[max(fitting, key=len)], client)
    raise UsageError(
        f"A {type(client).__module__}.{type(client).__qualname__} cannot be wrapped. Clients from "
        f"these can: {', '.join(sorted(points)) or 'none is installed'}. For any other service, "
        "write an adapter and use Smoother."
    )


def _made(point: EntryPoint, client: object) -> Wrapper:
    make = cast("Callable[[object], Wrapper]", point.load())
    return make(client)
