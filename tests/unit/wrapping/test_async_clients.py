"""wrap, awaited: three real SDKs' asynchronous clients, each before a server that counts."""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import gc
import gzip
import inspect
import threading
import time
import zlib
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest

import smoothapi
from smoothapi import (
    Budget,
    BudgetExceededError,
    FatalError,
    ImageError,
    StoppedError,
    TransientError,
    UsageError,
    certificate_of,
    finding_of,
    verify,
    with_options,
    wrap,
)
from smoothapi.asynchronous import Stop
from smoothapi.services import serve
from smoothapi.wrapping import Call, CallPolicy, Certifier, Passed, Portal
from smoothapi.wrapping import certifier as certifier_module
from smoothapi.wrapping.proxy import _behind
from smoothapi_adapters._common.aio import _BoundedBody
from smoothapi_adapters._common.bounds import MOST_BYTES, BodyTooLongError
from tests.unit.wrapping.conftest import (
    FAST,
    PATIENT,
    PHOTO,
    PIXELS,
    SECRET,
    Gate,
    give_up_soon,
    labeller,
    png,
)

pytestmark = pytest.mark.timeout(60)


@dataclass(frozen=True)
class AsyncKit:
    """One SDK: how to open its client, to label, and to read the answer."""

    service: str
    open: Any
    label: Any
    scores: Any
    url: Any


def _aws(service):
    from aiobotocore.session import get_session

    return get_session().create_client(
        "rekognition",
        endpoint_url=service.url,
        region_name="us-east-1",
        aws_access_key_id="AKIAIOSFODNN7EXAMPLE",
        aws_secret_access_key=SECRET,
    )


def _google(service):
    import grpc
    from google.cloud import vision
    from google.cloud.vision_v1.services.image_annotator.transports import (
        ImageAnnotatorGrpcAsyncIOTransport,
    )

    channel = grpc.aio.insecure_channel(service.address)
    return vision.ImageAnnotatorAsyncClient(
        transport=ImageAnnotatorGrpcAsyncIOTransport(channel=channel)
    )


def _azure4(service):
    from azure.ai.vision.imageanalysis.aio import ImageAnalysisClient
    from azure.core.credentials import AzureKeyCredential

    return ImageAnalysisClient(service.url, AzureKeyCredential(SECRET))


LABELS = [{"type_": 4}]


async def _google_label(client, photo=PHOTO):
    request = {"image": {"content": photo}, "features": LABELS}
    return await client.batch_annotate_images(requests=[request])


def _google_url(client):
    image = {"source": {"image_uri": "http://127.0.0.1:9/x.png"}}
    return client.batch_annotate_images(requests=[{"image": image, "features": LABELS}])


KITS = {
    "aws": AsyncKit(
        "aws",
        _aws,
        lambda client, photo=PHOTO: client.detect_labels(Image={"Bytes": photo}),
        lambda response: {row["Name"]: row["Confidence"] / 100 for row in response["Labels"]},
        lambda client: client.detect_labels(Image={"S3Object": {"Bucket": "abc", "Name": "x"}}),
    ),
    "google": AsyncKit(
        "google-grpc",
        _google,
        _google_label,
        lambda response: {
            a.description: pytest.approx(a.score, abs=1e-6)
            for a in response.responses[0].label_annotations
        },
        _google_url,
    ),
    "azure4": AsyncKit(
        "azure4",
        _azure4,
        lambda client, photo=PHOTO: client.analyze(photo, ["tags"]),
        lambda response: {tag.name: tag.confidence for tag in response.tags.list},
        lambda client: client.analyze_from_url("http://127.0.0.1:9/x.png", ["tags"]),
    ),
}
aws = pytest.mark.parametrize("kit", [KITS["aws"]], ids=["aws"])
google = pytest.mark.parametrize("kit", [KITS["google"]], ids=["google"])


@pytest.fixture(params=KITS)
def kit(request):
    return KITS[request.param]


@contextlib.asynccontextmanager
async def opened(kit, service, **options):
    """Give the SDK's client and the wrapped one, and close both."""
    options = {"budget": "$5", **FAST, **options}
    async with kit.open(service) as client, wrap(client, **options) as wrapped:
        yield client, wrapped


def asked(service):
    return sum(max(1, received.pictures) for received in service.received)


async def reached(gate):
    """Wait until the gate holds something up."""
    await until(lambda: gate.begun.acquire(blocking=False))


async def until(condition):
    """Let the loop go on until something is so in a thread."""
    while not condition():  # noqa: ASYNC110  threads set no events of asyncio
        await asyncio.sleep(0.005)


def alive(name):
    return [thread for thread in threading.enumerate() if thread.name == name]


# The same as for the synchronous client


def test_the_same_type_with_certified_labels_and_a_certificate_that_verifies(kit):
    async def main():
        async with opened(kit, service) as (client, wrapped):
            plain = await kit.label(client)
            before = asked(service)
            response = await kit.label(wrapped)
            again = await kit.label(wrapped)
            assert type(wrapped) is not type(client)
            assert isinstance(wrapped, type(client))
            assert set(dir(client)) == set(dir(wrapped))
            return plain, before, response, again

    with serve(kit.service, labeller) as service:
        plain, before, response, again = asyncio.run(main())
    assert type(response) is type(plain)
    own = kit.scores(plain)
    assert set(own) == {"Bus", "Vehicle", "Van"}
    assert kit.scores(response) == {"Bus": own["Bus"], "Vehicle": own["Vehicle"]}
    first, second = certificate_of(response), certificate_of(again)
    assert "the photo's size and digest" in verify(first, PHOTO)
    assert second.claims == first.claims
    assert second.queries == 1  # its own call; the votes are kept
    assert asked(service) == before + first.attempts + second.attempts


def test_faults_are_retried_by_us_alone_and_change_nothing(kit):
    async def main(service, **options):
        async with opened(kit, service, **options) as (_, wrapped):
            return certificate_of(await kit.label(wrapped))

    with serve(kit.service, labeller) as calm:
        expected = asyncio.run(main(calm))
    with serve(kit.service, labeller, faults="@1 503, @3 reset, @5-6 429, @8 garbage") as stormy:
        certificate = asyncio.run(main(stormy, refresh=True, retry=PATIENT))
    assert certificate.claims == expected.claims
    assert certificate.votes == expected.votes
    assert certificate.attempts > certificate.queries
    if kit.service != "google-grpc":  # whose reset request the server does not see
        assert asked(stormy) == certificate.attempts


@pytest.mark.parametrize("otherwise", ["raise", "plain"])
def test_the_callers_own_call_raises_the_sdks_errors_and_is_not_repeated(otherwise, kit):
    async def main():
        async with opened(kit, service, otherwise=otherwise) as (client, wrapped):
            for one in (client, wrapped):
                with pytest.raises(Exception) as caught:
                    await kit.label(one)
                yield caught.value

    async def errors():
        return [error async for error in main()]

    with serve(kit.service, labeller, faults="@1- 403") as service:
        plain, ours = asyncio.run(errors())
    assert type(plain) is type(ours)
    assert not isinstance(ours, smoothapi.SmoothAPIError)
    assert SECRET not in repr(ours)
    assert len(service.received) == 2


def test_after_it_smoothapis_errors_say_what_was_spent(kit):
    async def main():
        async with opened(kit, service) as (_, wrapped):
            with pytest.raises(FatalError) as caught:
                await kit.label(wrapped)
            return caught.value

    with serve(kit.service, labeller, faults="@2- 403") as service:
        error = asyncio.run(main())
    assert error.attempts == asked(service)
    assert SECRET not in str(error)


def test_a_service_that_is_not_reached_costs_no_attempt(kit, monkeypatch):
    """What made no connection was not sent: the budget is not charged for it."""
    give_up_soon(monkeypatch)

    async def main():
        async with opened(kit, service, budget=Budget(attempts=30)) as (_, wrapped):
            response = await kit.label(wrapped)
            service.close()
            with pytest.raises(Exception) as caught:
                await kit.label(wrapped, png(PIXELS[:, 5:]))
            assert not isinstance(caught.value, smoothapi.SmoothAPIError)
            room = _behind(wrapped).certifier.session.dispatcher.room()
            assert room == 30 - certificate_of(response).attempts

    service = serve(kit.service, labeller)
    asyncio.run(main())


@google
def test_one_budget_for_all_tasks(kit):
    async def main():
        async with opened(kit, service, budget=Budget(attempts=35)) as (_, wrapped):
            photos = [png(PIXELS[:, : 90 + i]) for i in range(4)]
            calls = (kit.label(wrapped, photo) for photo in photos)
            return await asyncio.gather(*calls, return_exceptions=True)

    with serve(kit.service, labeller) as service:
        outcomes = asyncio.run(main())
    ended = [outcome for outcome in outcomes if isinstance(outcome, Exception)]
    assert ended
    assert all(isinstance(error, BudgetExceededError) for error in ended)
    assert asked(service) <= 35


def test_pictures_elsewhere_are_refused_or_passed(kit):
    async def main():
        async with opened(kit, service) as (client, wrapped):
            with pytest.raises(UsageError, match=r"Fetch it.*remote='pass'"):
                await kit.url(wrapped)
            assert not service.received
            for one in (client, with_options(wrapped, remote="pass")):
                with contextlib.suppress(Exception):  # the local service has no such picture
                    await kit.url(one)
            assert _behind(wrapped).certifier.session is None

    with serve(kit.service, labeller) as service:
        asyncio.run(main())
    assert len(service.received) == 2


@aws
def test_otherwise_holds_per_call_and_says_so(kit):
    async def main():
        async with opened(kit, service, budget=Budget(attempts=3)) as (_, wrapped):
            with pytest.raises(BudgetExceededError):
                await kit.label(wrapped)
            plain = await kit.label(with_options(wrapped, otherwise="plain"))
            none = await kit.label(with_options(wrapped, otherwise="none", attach=False))
            assert _behind(wrapped).certifier.uncertified == {"budget": 2}
            return plain, none

    with serve(kit.service, labeller) as service:
        plain, none = asyncio.run(main())
    assert set(kit.scores(plain)) == {"Bus", "Vehicle", "Van"}
    assert kit.scores(none) == {}
    assert "Smoothapi" not in none
    assert finding_of(plain).ended == finding_of(none).ended == "budget"


@aws
def test_after_the_deadline_what_is_under_way_is_kept(kit, passing_when):
    async def main():
        async with opened(kit, service, otherwise="plain") as (_, wrapped):
            with passing_when(gate.begun):
                late = await kit.label(with_options(wrapped, within=60.0))
            gate.open.set()
            await until(lambda: not alive("smoothapi-call"))
            asked_then = asked(service)  # one under way may have been on its way then
            return finding_of(late), asked_then, certificate_of(await kit.label(wrapped))

    gate = Gate()
    with serve(kit.service, gate) as service:
        finding, asked_then, certificate = asyncio.run(main())
    assert finding.ended == "deadline"
    assert 1 < asked_then <= 1 + FAST["concurrency"]
    assert certificate.cached == asked_then - 1


# The event loop


class Ticking:
    """A task of the loop, and what a thread calls to find that the task goes on meanwhile."""

    def __init__(self):
        self._ticks, self._over = 0, False
        self.waited, self.blocked = set(), set()

    async def run(self):
        try:
            while True:
                self._ticks += 1
                await asyncio.sleep(0.001)
        finally:
            self._over = True

    def while_in(self, stage):
        seen, ends = self._ticks, time.monotonic() + 20
        while self._ticks < seen + 3 and not self._over:
            if time.monotonic() > ends:
                self.blocked.add(stage)
                return
            time.sleep(0.001)
        self.waited.add(stage)


@pytest.mark.parametrize("kit", [KITS["aws"], KITS["google"]], ids=["aws", "google"])
def test_the_event_loop_goes_on_in_every_stage_of_a_call(kit, monkeypatch):
    ticking = Ticking()

    def denoise(pictures, sigma):
        ticking.while_in("denoiser")
        return pictures

    denoise.fingerprint = "as-it-was"

    def backend(pixels):
        ticking.while_in("service")
        return labeller(pixels)

    def through(owner, name, stage):
        real = getattr(owner, name)

        def slowly(*args, **kwargs):
            ticking.while_in(stage)
            return real(*args, **kwargs)

        monkeypatch.setattr(owner, name, slowly)

    through(certifier_module, "load_image", "photo")
    through(certifier_module, "certify_labels", "votes")
    through(certifier_module.Certifier, "_opened", "opening")
    through(certifier_module.Certifier, "close", "closing")

    async def main():
        task = asyncio.create_task(ticking.run())
        async with opened(kit, service, denoiser=denoise) as (_, wrapped):
            read = type(_behind(wrapped).wrapper.through(Portal()))
            through(read, "read", "arguments")
            assert certificate_of(await kit.label(wrapped)).claims
        task.cancel()

    with serve(kit.service, backend) as service:
        asyncio.run(main())
    stages = {"arguments", "opening", "photo", "votes", "denoiser", "service", "closing"}
    assert not ticking.blocked
    assert ticking.waited == stages


@aws
def test_calls_do_not_take_the_loops_own_threads(kit):
    """The loop looks up hosts there: calls that waited in them would keep all from being sent."""

    async def main():
        loop = asyncio.get_running_loop()
        loop.set_default_executor(ThreadPoolExecutor(1))
        busy = threading.Event()
        taken = loop.run_in_executor(None, busy.wait, 50)
        async with kit.open(service) as client:
            busy.set()
            await taken
            await kit.label(client)  # has made its connections' TLS context there
            busy.clear()
            taken = loop.run_in_executor(None, busy.wait, 50)
            async with wrap(client, budget="$5", **FAST) as wrapped:
                photos = [png(PIXELS[:, : 90 + i]) for i in range(3)]
                await asyncio.gather(*(kit.label(wrapped, photo) for photo in photos))
            assert not taken.done()
            busy.set()
            await taken

    with serve(kit.service, labeller) as service:
        asyncio.run(main())


def test_a_cancelled_call_sends_no_more_and_keeps_what_is_under_way(kit):
    async def main():
        async with opened(kit, service, otherwise="plain") as (_, wrapped):
            task = asyncio.create_task(kit.label(wrapped))
            await reached(gate)
            for _ in range(3):  # as often as it is asked for
                task.cancel()
                await asyncio.sleep(0.02)
            assert not task.done(), "what is under way is awaited"
            gate.open.set()
            with pytest.raises(asyncio.CancelledError):
                await task
            sent = asked(service)
            certificate = certificate_of(await kit.label(wrapped))
            return sent, certificate

    gate = Gate()
    with serve(kit.service, gate) as service:
        sent, certificate = asyncio.run(main())
    pictures = FAST["concurrency"] * (16 if kit.service == "google-grpc" else 1)
    assert 1 < sent <= 1 + pictures
    assert certificate.cached == sent - 1  # all but the caller's own


@aws
def test_a_timeout_of_asyncio_is_such_a_cancellation(kit):
    async def passing(limit):
        """Have the time limit pass when votes are under way, however busy the machine is."""
        await reached(gate)
        limit.reschedule(asyncio.get_running_loop().time())
        asyncio.get_running_loop().call_later(0.2, gate.open.set)

    async def main():
        async with opened(kit, service) as (_, wrapped):
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(None) as limit, asyncio.TaskGroup() as group:
                    group.create_task(passing(limit))
                    await kit.label(wrapped)
            return asked(service), certificate_of(await kit.label(wrapped))

    gate = Gate()
    with serve(kit.service, gate) as service:
        sent, certificate = asyncio.run(main())
    assert certificate.cached == sent - 1


@aws
def test_an_abandoned_call_ends_at_once_and_its_answers_are_kept(kit):
    async def main():
        async with opened(kit, service) as (_, wrapped):
            leaving = with_options(wrapped, abandon_on_cancel=True)
            task = asyncio.create_task(kit.label(leaving))
            await reached(gate)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            assert not gate.open.is_set()
            gate.open.set()
            await until(lambda: not alive("smoothapi-async-call"))
            sent = asked(service)
            return sent, certificate_of(await kit.label(wrapped))

    gate = Gate()
    with serve(kit.service, gate) as service:
        sent, certificate = asyncio.run(main())
    assert certificate.cached == sent - 1


@aws
def test_after_a_deadline_closing_the_client_keeps_what_is_under_way(kit, passing_when):
    """As the error says; the loop cancels what it still awaits when it ends."""

    async def late():
        async with opened(kit, service) as (_, wrapped):
            with pytest.raises(StoppedError, match="deadline") as caught:
                await kit.label(with_options(wrapped, within=60.0))
            asyncio.get_running_loop().call_later(0.05, gate.open.set)
        return str(caught.value)

    async def again():
        async with opened(kit, service) as (_, wrapped):
            return certificate_of(await kit.label(wrapped))

    gate = Gate()
    with serve(kit.service, gate) as service:
        with passing_when(gate.begun):
            said = asyncio.run(late())
        asked_then = asked(service)
        certificate = asyncio.run(again())
    assert "kept, if the wrapped client is closed before its event loop ends" in said
    assert certificate.cached == asked_then - 1 > 0


def test_a_loop_that_ends_in_the_middle_ends_its_calls(kit):
    """asyncio.run cancels what is left: no thread is left behind, and nothing more is sent."""

    async def main():
        async with kit.open(service) as client:
            wrapped = wrap(client, budget="$5", **FAST)
            left = asyncio.create_task(kit.label(with_options(wrapped, abandon_on_cancel=True)))
            await reached(gate)
            left.cancel()
        return wrapped

    gate = Gate()
    with serve(kit.service, gate) as service:
        wrapped = asyncio.run(main())
        gate.open.set()
        for thread in alive("smoothapi-async-call"):
            thread.join(20)
            assert not thread.is_alive()
        # The call's own, and what was in flight; some of it reaches the server only now.
        assert len(service.received) <= 1 + FAST["concurrency"]
        _behind(wrapped).certifier.close()


# Opening and closing


def test_it_is_closed_by_async_with_and_by_close(kit):
    async def main():
        async with kit.open(service) as client:
            async with wrap(client, budget="$5", **FAST) as wrapped:
                await kit.label(wrapped)
                session = _behind(wrapped).certifier.session
            assert session.resources.closed
            with pytest.raises(UsageError, match="closed"):
                await kit.label(wrapped)
        async with kit.open(service) as client:
            wrapped = wrap(client, budget="$5", **FAST)
            await kit.label(wrapped)
            session = _behind(wrapped).certifier.session
            await wrapped.close()
            assert session.resources.closed
            assert not hasattr(wrapped, "__enter__")

    with serve(kit.service, labeller) as service:
        asyncio.run(main())


@aws
def test_a_client_that_is_dropped_with_requests_under_way_does_not_block_the_loop(
    kit, passing_when
):
    async def main():
        async with kit.open(service) as client:
            wrapped = wrap(client, budget="$5", otherwise="plain", within=60.0, **FAST)
            with passing_when(gate.begun):
                assert finding_of(await kit.label(wrapped)).ended == "deadline"
            session = _behind(wrapped).certifier.session
            del wrapped
            gc.collect()
            gate.open.set()  # the loop has got here
            await until(lambda: session.resources.closed)

    gate = Gate()
    with serve(kit.service, gate) as service:
        asyncio.run(main())


def test_what_a_wrapped_method_is(kit):
    async def main():
        async with opened(kit, service) as (client, wrapped):
            [name, *_] = sorted(_behind(wrapped).wrapper.operations & set(dir(client)))
            method = getattr(wrapped, name)
            assert inspect.iscoroutinefunction(method)
            assert method.__name__ == name
            assert inspect.signature(method) == inspect.signature(getattr(client, name))
            assert "wrapped by smoothapi" in repr(wrapped)
            assert SECRET not in repr(_behind(wrapped))
            with pytest.raises(UsageError, match="already"):
                wrap(wrapped, budget="$1")

    with serve(kit.service, labeller) as service:
        asyncio.run(main())


# What cannot work is said


@aws
def test_what_makes_a_client_is_not_one_yet(kit):
    with serve(kit.service, labeller) as service:
        maker = kit.open(service)
        with pytest.raises(UsageError, match=r"no client yet.*async with .* as client"):
            wrap(maker, budget="$1")
        maker._coro.close()  # or Python would say that nobody awaited it


def test_a_client_of_another_service_is_refused():
    from aiobotocore.session import get_session
    from google.auth.credentials import AnonymousCredentials
    from google.cloud import vision

    async def main():
        keys = {"aws_access_key_id": "x", "aws_secret_access_key": "x"}
        async with get_session().create_client("s3", region_name="us-east-1", **keys) as client:
            with pytest.raises(UsageError, match=r"aiobotocore client for 's3'"):
                wrap(client, budget="$1")
        other = vision.ProductSearchAsyncClient(credentials=AnonymousCredentials())
        with pytest.raises(UsageError, match="ImageAnnotator"):
            wrap(other, budget="$1")
        await other.transport.close()

    asyncio.run(main())


def test_abandon_on_cancel_is_for_clients_that_are_awaited():
    import boto3

    client = boto3.client("rekognition", region_name="us-east-1")
    with pytest.raises(UsageError, match="asynchronous"):
        wrap(client, budget="$1", abandon_on_cancel=True)
    with wrap(client, budget="$1") as wrapped:
        with pytest.raises(UsageError, match="asynchronous"):
            with_options(wrapped, abandon_on_cancel=True)
        with pytest.raises(UsageError, match="True or False"):
            with_options(wrapped, abandon_on_cancel="yes")


def test_without_an_event_loop_of_asyncio_a_call_says_what_it_needs():
    from google.auth.credentials import AnonymousCredentials
    from google.cloud import vision

    async def make():
        return vision.ImageAnnotatorAsyncClient(credentials=AnonymousCredentials())

    client = asyncio.run(make())
    call = wrap(client, budget="$1").batch_annotate_images(requests=[])
    with pytest.raises(UsageError, match="event loop of asyncio"):
        call.send(None)  # as a loop of another library would


# The portal


def through_a_portal(function):
    """Return what `function` gives that runs on a loop, called by a thread."""

    async def main():
        portal = Portal()
        return await asyncio.to_thread(portal.call, function, 30.0)

    return asyncio.run(main())


def test_a_call_has_the_context_of_its_caller_and_what_its_thread_adds():
    request, span = contextvars.ContextVar("request"), contextvars.ContextVar("span")

    async def here():
        return request.get(None), span.get(None)

    async def main():
        request.set("of the task")
        portal = Portal()

        def thread():
            span.set("of the thread")
            return portal.call(here, 5.0)

        with ThreadPoolExecutor(1) as pool:  # its threads have no context of the task
            return await asyncio.wrap_future(pool.submit(thread))

    assert asyncio.run(main()) == ("of the task", "of the thread")


def test_a_call_that_takes_too_long_is_cancelled():
    cancelled = []

    async def forever():
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            cancelled.append(True)
            raise

    async def main():
        with pytest.raises(TimeoutError):
            await asyncio.to_thread(Portal().call, forever, 0.05)
        assert cancelled, "before the loop ends, which cancels whatever is left"

    asyncio.run(main())


def test_a_call_without_a_limit_is_cancelled_with_its_caller():
    """The caller's own, about pictures that are not certified: nobody pays for votes there."""
    cancel = Stop()

    async def forever():
        cancel.stop()
        await asyncio.sleep(60)

    async def main():
        return await asyncio.to_thread(Portal(cancel).call, forever, None)

    with pytest.raises(TransientError, match="cancelled"):
        asyncio.run(main())


def test_a_call_that_the_loop_cancels_was_sent():
    async def end():
        raise asyncio.CancelledError

    with pytest.raises(TransientError, match="cancelled") as caught:
        through_a_portal(end)
    assert caught.value.sent


def test_a_loop_that_has_ended_sends_nothing():
    async def make():
        return Portal()

    async def never():
        raise AssertionError

    with pytest.raises(FatalError, match="ended") as caught:
        asyncio.run(make()).call(never, 5.0)
    assert not caught.value.sent


def test_errors_come_back_as_they_are():
    error = ImageError("no")

    async def fail():
        raise error

    with pytest.raises(ImageError) as caught:
        through_a_portal(fail)
    assert caught.value is error


@pytest.mark.parametrize("packing", ["", "gzip", "deflate"])
def test_an_answer_without_end_is_not_read_to_it_nor_a_bomb_unpacked(packing):
    from aiohttp import ClientPayloadError

    packer = zlib.compressobj(9, zlib.DEFLATED, {"gzip": 31}.get(packing, -15))

    class Endless:
        async def readany(self):
            return bytes(2**20)

    class Bomb:
        def __init__(self):
            self.parts = [packer.compress(bytes(2**20)) for _ in range(17)] + [packer.flush(), b""]

        async def readany(self):
            return self.parts.pop(0) or (b"" if not self.parts else await self.readany())

    body = _BoundedBody(Bomb() if packing else Endless(), {"Content-Encoding": packing})
    with pytest.raises(ClientPayloadError) as caught:
        asyncio.run(body.read())
    assert isinstance(caught.value.__cause__, BodyTooLongError)
    assert f"{MOST_BYTES:,}" in str(caught.value)


@pytest.mark.timeout(60)
@pytest.mark.parametrize("after", [b"", b"x", b"x" * 2**20, gzip.compress(bytes(2**16)) * 999])
@pytest.mark.parametrize("length", [0, 1, 65_535, 65_536, 2**20])
def test_what_follows_a_packed_answer_does_not_hold_up_its_reader(length, after):
    """A loop over what zlib leaves never ended: all that the caller's event loop had to do waited."""
    packed = gzip.compress(bytes(length)) + after
    parts = [packed[:100], packed[100:], b""]

    class Body:
        async def readany(self):
            return parts.pop(0)

    assert asyncio.run(_BoundedBody(Body(), {"Content-Encoding": "gzip"}).read()) == packed


@aws
def test_a_redirect_is_not_followed(kit):
    """It would be a second request that no budget counts, and give the picture away."""
    import socketserver

    hits = []

    class Redirecting(socketserver.StreamRequestHandler):
        def handle(self):
            length = 0
            while (line := self.rfile.readline().strip()) != b"":
                hits.append(line) if line.startswith(b"POST") else None
                if line.lower().startswith(b"content-length:"):
                    length = int(line.split(b":")[1])
            self.rfile.read(length)
            to = f"http://127.0.0.1:{self.server.server_address[1]}/elsewhere"
            self.wfile.write(
                f"HTTP/1.1 307 Temporary Redirect\r\nLocation: {to}\r\n"
                "Content-Length: 0\r\nConnection: close\r\n\r\n".encode()
            )

    class Service:
        url = ""

    async def main():
        async with opened(kit, Service) as (_, wrapped):
            with pytest.raises(Exception, match="307"):
                await kit.label(wrapped)

    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Redirecting) as server:
        thread = threading.Thread(target=server.serve_forever, args=[0.01])
        thread.start()
        Service.url = f"http://127.0.0.1:{server.server_address[1]}"
        asyncio.run(main())
        server.shutdown()
        thread.join()
    assert hits
    assert not any(b"elsewhere" in line for line in hits)


# Batches


@google
def test_a_batch_is_certified_picture_by_picture(kit):
    other = np.full((80, 90, 3), 99, np.uint8)

    async def main():
        async with opened(kit, service) as (_, wrapped):
            return await wrapped.batch_annotate_images(
                requests=[
                    {"image": {"content": PHOTO}, "features": [{"type_": 6}, *LABELS]},
                    {"image": {"content": b"no picture"}, "features": LABELS},
                    {"image": {"content": PHOTO}, "features": [{"type_": 6}]},
                    {"image": {"content": png(other)}, "features": LABELS},
                ]
            )

    with serve(kit.service, labeller) as service:
        response = asyncio.run(main())
    assert [len(r.label_annotations) for r in response.responses] == [2, 0, 0, 3]
    assert ["safe_search_annotation" in r for r in response.responses] == [True, False, True, False]
    assert [bool(r.error.code) for r in response.responses] == [False, True, False, False]
    assert verify(certificate_of(response), PHOTO)
    assert verify(certificate_of(response.responses[3]), png(other))
    for number in (1, 2):
        with pytest.raises(UsageError, match="no such certificate"):
            certificate_of(response, number)
    counted = sum(certificate_of(response, number).attempts for number in (0, 3))
    assert asked(service) == counted + 2  # the refused one, and the one that asks for no labels


def test_a_cancellation_is_never_answered_for():
    """Whatever `otherwise` says: after a cancellation no part of a call is begun."""
    cancel = Stop()
    cancel.stop()
    certifier = Certifier(lambda _: pytest.fail("it was opened"))
    call = Call([Passed(lambda: pytest.fail("it was sent"))])
    with pytest.raises(StoppedError):
        certifier.certify(call, CallPolicy(otherwise="plain"), cancel)
