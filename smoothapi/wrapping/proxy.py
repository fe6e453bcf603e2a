"""`wrap`: a client that certifies what it labels, and is otherwise the client that it was."""

from __future__ import annotations

import asyncio
import functools
import weakref
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar, Unpack, cast

from smoothapi.asynchronous import Stop, ThreadEach, in_thread
from smoothapi.errors import UsageError
from smoothapi.options import CertifyOptions, keywords, resolve
from smoothapi.provider import refuse_async, refuse_unmade, registered
from smoothapi.store import Budget
from smoothapi.wiring import open_session
from smoothapi.wrapping.attached import attach as attach_to
from smoothapi.wrapping.attached import attach_parts
from smoothapi.wrapping.certifier import Certifier
from smoothapi.wrapping.finding import Finding
from smoothapi.wrapping.policy import CallOptions, CallPolicy
from smoothapi.wrapping.portal import Portal
from smoothapi.wrapping.protocol import AsyncWrapper, Call, Item, Passed, Remote

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from importlib.metadata import EntryPoint

    from smoothapi.certify.targets import Target
    from smoothapi.options import Classes
    from smoothapi.wrapping.certifier import CertifiedResponse
    from smoothapi.wrapping.policy import Otherwise, RemotePictures, Uncertified
    from smoothapi.wrapping.protocol import Wrapper

ClientT = TypeVar("ClientT")
GROUP = "smoothapi.wrappers"

_THREADS = ThreadEach("smoothapi-async-call")


@keywords(CertifyOptions)
def wrap(
    client: ClientT,
    *,
    budget: Budget | str | Sequence[Budget],
    score: float | None = None,
    target: Target | None = None,
    classes: Classes | None = None,
    otherwise: Otherwise = "raise",
    within: float | None = None,
    uncertified: Uncertified = "drop",
    remote: RemotePictures = "refuse",
    attach: bool = True,
    abandon_on_cancel: bool = False,
    **options: Unpack[CertifyOptions],
) -> ClientT:
    """Return `client` as one whose labels are certified.

    ::

        rekognition = smoothapi.wrap(boto3.client("rekognition"), budget="$20/day")
        response = rekognition.detect_labels(Image={"Bytes": photo}, MinConfidence=80)
        smoothapi.certificate_of(response).radius

    It has the same methods. Those that label pictures return the SDK's own response: boxes,
    parents, captions and order are the provider's, labels that are not certified are left out, and
    the score of each is its certified score, in the provider's unit: the largest that it is
    certified to keep, whatever threshold the caller compares it with. One that is left out is not
    certified to be absent: `target` names what must not be missed.
    `finding_of` reads the provider's own scores, shares of votes and the certificate from under
    `response["Smoothapi"]` (boto3; JSON) or `response.smoothapi`; `certificate_of` the last alone.
    One call costs hundreds of queries, which is why `budget` has no default; what each answer
    means and costs stands at the top of `smoothapi.wrapping`. Everything else goes to `client`
    untouched.

    What can be wrapped, and what is certified:

    - boto3 Rekognition clients: `detect_labels`, `detect_moderation_labels`,
      `detect_custom_labels`.
    - google.cloud.vision `ImageAnnotatorClient`: the label annotations of `label_detection`,
      `annotate_image` and `batch_annotate_images`.
    - azure.cognitiveservices `ComputerVisionClient` (3.2): the tags of `tag_image_in_stream`, the
      tags and categories of `analyze_image_in_stream`.
    - azure.ai.vision `ImageAnalysisClient` (4.0): the tags of `analyze`.
    - their asynchronous ones: aiobotocore's and aioboto3's Rekognition clients,
      `ImageAnnotatorAsyncClient`, and `ImageAnalysisClient` of azure.ai.vision's `aio`.
    - what is registered under the entry-point group `smoothapi.wrappers`.

    The methods of an asynchronous client are awaited as before, and never block the event loop:
    threads do the work, and the requests are the client's own, on its loop. When the task is
    cancelled, nothing more is sent; what is under way is awaited and kept, and the same call
    continues there.

    Arguments of a call are honoured: what it asks for (features, most labels, model version,
    language) decides its response. The SDK's retries are off for these calls, in favour of
    `retry`. `with_options` changes the options from `score` to `attach`, `radius` and `max_votes`
    for single calls, and gives each a `budget` of its own.

    Args:
        client: the SDK's client. It is not changed, and stays usable by itself.
        budget: hard limit, as for `Smoother`; one per run holds for the life of the wrapped
            client. The caller's own calls count, but with an `otherwise` that stays open they are
            made also where it is used up. `Budget()` has no limit.
        score: the least score that is acted on, in (0, 1]. Only labels that have it in the
            provider's own answer are asked about, and no smaller score is certified: set it to the
            smallest threshold that matters. By default the call's own least confidence (boto3:
            MinConfidence above 0, else the service's default for it), else 0.5.
        target: what is certified, instead of the scores of the answer's labels: `Scores`,
            `Presence` or `MostSpecific`. It is certified of every picture.
        classes: as for `Smoother`; labels that belong to none of the classes are not asked about.
        otherwise: what a call gives where budget, deadline, provider or this machine end it before
            the votes do: "raise" raises, "plain" gives the provider's own answer, "none" gives it
            without labels. Such a response says so (`finding_of`), and they are counted.
        within: seconds for a call. After that nothing more is sent, what is under way is kept, and
            `otherwise` says what it gives. Only the caller's own call may take longer.
        uncertified: "drop" leaves out labels that cannot be certified; "mark" keeps them, marked,
            with a score of 0: `Certified: False` (boto3), a property named "smoothapi" (Google),
            an attribute or key "certified" (Azure). With attach=False the score of 0 alone.
        remote: what becomes of calls whose picture is elsewhere (S3, a URL): "refuse" raises,
            "pass" makes them as they are, uncertified.
        attach: False leaves responses without what smoothapi adds; it is kept beside them, as long
            as they live, where `finding_of` and `certificate_of` look.
        abandon_on_cancel: of an asynchronous client: a call that is cancelled ends at once, and a
            thread awaits and keeps what is under way, as long as the event loop runs.
        sigma: noise level, as for `Smoother`, like all that follow.
        radius: the L2 radius to certify, or "largest": then of the score that decides.
        alpha: chance that any claim of one certificate is wrong.
        max_votes: most votes for one picture.
        final: promise that no picture is asked about with more votes or at another radius; fewer
            votes then suffice (`Smoother.certify`).
        size: of the working image.
        denoiser: "default", "small", "none", a file, a module or a callable.
        device: of the denoiser.
        codec: "png" or "jpeg".
        concurrency: most requests in flight; more than the client's connection pool (10 for boto3,
            unless it was made with more) opens connections anew.
        retry: when a variant, or the caller's own call, is tried again.
        refresh: ask again although answers are stored.
        home: folder of the noise key and of the answers, or "postgresql://user@host/database".
        noise_key_file: file of a deployment's noise key; a home in a database has no other.

    Raises:
        UsageError: such a client cannot be wrapped, or an option is out of range.

    The wrapped methods raise the SDK's errors for the caller's own call, and smoothapi's after it:

    - BudgetExceededError: the budget does not allow the next attempt.
    - StoppedError: the deadline passed.
    - ProviderError: the service failed for the noisy copies.
    - UsageError: the picture is elsewhere, or the client is closed.
    - ImageError: the service can read the picture and smoothapi cannot.

    Threads, or tasks, may share it. Threads and files that it holds are released by its `close`, at
    the end of a `with` (or `async with`) block, or when it is no longer used.
    """
    if issubclass(type(client), _Proxy):
        raise UsageError("This client is wrapped already: `with_options` changes its options.")
    refuse_unmade(client)
    if budget is None:
        raise UsageError(
            "A wrapped call costs hundreds of queries, so a budget must be given, such as "
            'budget="$2" or "$20/day"; Budget() is one without a limit.'
        )
    policy = CallPolicy().changed(
        score=score,
        target=target,
        classes=classes,
        otherwise=otherwise,
        within=within,
        uncertified=uncertified,
        remote=remote,
        attach=attach,
        abandon_on_cancel=abandon_on_cancel,
    )
    wrapper = _wrapper_of(client)
    if isinstance(budget, str):
        budget = Budget.parse(budget)
    resolve(None, options)  # the session is opened at the first call; what cannot work is said now
    opening = functools.partial(open_session, plain=False, budget=budget, **options)
    return cast("ClientT", _proxy_of(_Behind(client, wrapper, Certifier(opening), policy)))


@keywords(CallOptions)
def with_options(client: ClientT, **options: Unpack[CallOptions]) -> ClientT:
    """Return a wrapped client with other options for what a call gives; all else is shared.

    ::

        smoothapi.with_options(rekognition, score=0.9, within=2.0).detect_labels(...)

    It is made in no time and holds nothing of its own: budget, store and threads are the wrapped
    client's, and either is closed with the other.

    Args:
        client: what `wrap` returned.
        score: as for `wrap`, like all that follow; what is left out stays as it is.
        radius: the L2 radius to certify.
        max_votes: most votes for one picture.
        target: what is certified.
        classes: which labels are asked about.
        budget: what each single call may spend at most, all its pictures and the call itself
            included: so many attempts or dollars ("300", "$0.10"). The wrapped client's own
            budgets hold besides.
        otherwise: what a call gives that ends before its votes do.
        within: seconds for a call.
        uncertified: what becomes of labels that cannot be certified.
        remote: what becomes of calls whose picture is elsewhere.
        attach: whether the response carries what was found.
        abandon_on_cancel: whether a cancelled call leaves what is under way to a thread.

    Raises:
        UsageError: `client` is not wrapped, or an option is out of range.
    """
    if not issubclass(type(client), _Proxy):
        raise UsageError("This client is not wrapped: make it one by smoothapi.wrap first.")
    behind = _behind(cast("_Proxy", client))
    other = replace(behind, policy=behind.policy.changed(**options))
    return cast("ClientT", _proxy_of(other, keeps=client))


@dataclass(frozen=True)
class _Behind:
    """What stands behind one wrapped client. Shared by threads.

    Attributes:
        client: the SDK's client.
        wrapper: reads the calls of its SDK.
        certifier: certifies them.
        policy: what they are to give.
    """

    client: Any
    wrapper: Wrapper | AsyncWrapper
    certifier: Certifier
    policy: CallPolicy

    def call(
        self, operation: str, method: Callable[..., Any], args: tuple[Any, ...], kwargs: Any
    ) -> Any:
        """Make one call of a labelling operation."""
        self.certifier.check_open()
        wrapper = cast("Wrapper", self.wrapper)
        call = self._taken(operation, wrapper.read(operation, args, kwargs))
        if isinstance(call, Call):
            return self._given(call, self.certifier.certify(call, self.policy))
        return self._passed(method(*args, **kwargs), call)

    async def call_async(
        self, operation: str, method: Callable[..., Any], args: tuple[Any, ...], kwargs: Any
    ) -> Any:
        """Make one call of a labelling operation, in a thread but for its requests."""
        self.certifier.check_open()
        cancel = Stop()
        wrapper = cast("AsyncWrapper", self.wrapper).through(Portal(cancel))
        read = functools.partial(wrapper.read, operation, args, kwargs)
        call = self._taken(operation, await in_thread(read, cancel, executor=_THREADS))
        if isinstance(call, Call):
            certify = functools.partial(self.certifier.certify, call, self.policy, cancel)
            abandon = self.policy.abandon_on_cancel
            certified = await in_thread(
                certify, cancel, abandon_on_cancel=abandon, executor=_THREADS
            )
            return self._given(call, certified)
        return self._passed(await method(*args, **kwargs), call)

    async def close_async(self) -> None:
        """Close what smoothapi holds. Requests under way, which need the loop, are awaited."""
        await in_thread(self.certifier.close, Stop(), executor=_THREADS)

    def _taken(self, operation: str, call: Call | Remote | None) -> Call | Remote | None:
        """Return what was read of a call; refuse pictures that are elsewhere, if that is chosen."""
        remote: Remote | None = call if isinstance(call, Remote) else None
        if isinstance(call, Call):
            passed = (item.remote for item in call.items if isinstance(item, Passed))
            remote = next(filter(None, passed), None)
        if remote is not None and self.policy.remote == "refuse":
            raise UsageError(
                f"{operation} is asked about {remote.what}: smoothapi cannot add noise to what "
                f"is not here. {remote.instead}, or wrap the client with remote='pass' to make "
                "such calls uncertified."
            )
        return call

    def _passed(self, response: Any, remote: Call | Remote | None) -> Any:
        """Return the response of a call that was made as it is."""
        if not isinstance(remote, Remote):
            return response
        return attach_to(response, Finding.elsewhere(remote.what), inside=self.policy.attach)

    def _given(self, call: Call, certified: CertifiedResponse) -> Any:
        """Return the response of a call that was certified."""
        inside = self.policy.attach
        response, findings = certified.response, certified.findings
        if call.join is not None:
            attach_parts(call.parts(response), findings, inside=inside)
            return attach_to(response, findings, inside=inside)
        [finding], [item] = findings, call.items
        if finding is None:
            return response
        if isinstance(item, Item):
            for other in item.also(response):
                attach_to(other, finding, inside=inside)
        return attach_to(response, finding, inside=inside)


class _Proxy:
    """All of the client's attributes, and its class for `isinstance`."""

    __slots__ = ("__weakref__", "_smoothapi_behind", "_smoothapi_entered", "_smoothapi_keeps")

    def __init__(self, behind: _Behind, keeps: object = None) -> None:
        object.__setattr__(self, "_smoothapi_behind", behind)
        object.__setattr__(self, "_smoothapi_entered", False)
        object.__setattr__(self, "_smoothapi_keeps", keeps)  # else it would be closed meanwhile
        if keeps is None:
            weakref.finalize(self, _close_dropped, behind.certifier)

    @property  # type: ignore[misc]  # as the mocks of unittest do
    def __class__(self) -> Any:
        return type(_behind(self).client)

    def __setattr__(self, name: str, value: Any) -> None:
        setattr(_behind(self).client, name, value)

    def __delattr__(self, name: str) -> None:
        delattr(_behind(self).client, name)

    def __dir__(self) -> list[str]:
        return dir(_behind(self).client)

    def __repr__(self) -> str:
        return f"<{type(_behind(self).client).__name__} wrapped by smoothapi>"

    def __reduce_ex__(self, _: Any) -> NoReturn:
        raise TypeError("A wrapped client cannot be copied or pickled: wrap the copy.")


class _Wrapped(_Proxy):
    """A client whose methods return."""

    __slots__ = ()

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


class _AsyncWrapped(_Proxy):
    """A client whose methods are awaited."""

    __slots__ = ()

    def __getattr__(self, name: str) -> Any:
        behind = _behind(self)
        if name == "close":
            return functools.partial(_close_async, self)
        value = getattr(behind.client, name)
        if name not in behind.wrapper.operations:
            return value
        this = self  # as above

        @functools.wraps(value)
        async def certified(*args: Any, **kwargs: Any) -> Any:
            return await _behind(this).call_async(name, value, args, kwargs)

        return certified

    async def __aenter__(self) -> Any:
        entered = await cast("AsyncWrapper", _behind(self).wrapper).enter()
        object.__setattr__(self, "_smoothapi_entered", entered)
        return self

    async def __aexit__(self, *error: object) -> Any:
        behind = _behind(self)
        try:
            await behind.close_async()
        finally:
            left = None
            if object.__getattribute__(self, "_smoothapi_entered"):
                left = await behind.client.__aexit__(*error)
        return left


def _behind(wrapped: _Proxy) -> _Behind:
    behind: _Behind = object.__getattribute__(wrapped, "_smoothapi_behind")
    return behind


def _close(wrapped: _Wrapped) -> None:
    """Close what smoothapi holds, and then the client as its own `close` does."""
    behind = _behind(wrapped)
    behind.certifier.close()
    close = getattr(behind.client, "close", None)
    if close is not None:
        close()


async def _close_async(wrapped: _AsyncWrapped) -> None:
    behind = _behind(wrapped)
    try:
        await behind.close_async()
    finally:
        close = getattr(behind.client, "close", None)
        if close is not None:
            await close()


def _close_dropped(certifier: Certifier) -> None:
    """Close what a client held that is no longer used.

    On an event loop that is left to a thread: what is under way may need the loop to end.
    """
    if asyncio._get_running_loop() is None:  # noqa: SLF001  the documented one raises
        certifier.close()
    else:
        _THREADS.submit(certifier.close)


def _wrapper_of(client: object) -> Wrapper | AsyncWrapper:
    """Load what is registered for the client's class, or for one that it inherits from."""
    points = registered(GROUP)
    for kind in type(client).__mro__:
        place = f"{kind.__module__}.{kind.__qualname__}"
        fitting = [name for name in points if f"{place}.".startswith(f"{name}.")]
        if fitting:
            return _made(points[max(fitting, key=len)], client)
    refuse_async(client)
    raise UsageError(
        f"A {type(client).__module__}.{type(client).__qualname__} cannot be wrapped. Clients from "
        f"these can: {', '.join(sorted(points)) or 'none is installed'}. For any other service, "
        "write an adapter and use Smoother."
    )


def _made(point: EntryPoint, client: object) -> Wrapper | AsyncWrapper:
    make = cast("Callable[[object], Wrapper | AsyncWrapper]", point.load())
    wrapper = make(client)
    if not isinstance(wrapper, AsyncWrapper):
        refuse_async(client, *wrapper.operations)
    return wrapper


def _proxy_of(behind: _Behind, keeps: object = None) -> Any:
    """Return the proxy for a client, by whether its methods are awaited.

    Raises:
        UsageError: an option is for those alone that are.
    """
    if isinstance(behind.wrapper, AsyncWrapper):
        return _AsyncWrapped(behind, keeps)
    if behind.policy.abandon_on_cancel:
        raise UsageError(
            "abandon_on_cancel is for asynchronous clients: calls of this one are not awaited, "
            "and cannot be cancelled. within= gives them a deadline."
        )
    return _Wrapped(behind, keeps)
