"""How many pixels are decoded at once: a bound that all of a process share, and that always ends."""

from __future__ import annotations

import asyncio
import io
import os
import threading
from contextlib import ExitStack

import pytest
from PIL import Image, ImageFile

from smoothapi import decoding
from smoothapi.asynchronous import Stop, in_thread
from smoothapi.decoding import PixelRoom
from smoothapi.errors import ImageError
from smoothapi.image import MAX_PIXELS, load_image
from tests.waiting import until

pytestmark = pytest.mark.timeout(120)


def file_of(width=40, height=30, kind="PNG"):
    stream = io.BytesIO()
    Image.new("RGB", (width, height), "red").save(stream, kind)
    return stream.getvalue()


@pytest.fixture
def rooms(monkeypatch):
    """Rooms of this process for photos of at most 2,000 pixels at once, and for larger ones."""
    made = decoding._Process()
    made.usual, made.large = PixelRoom(2_000), PixelRoom(2_000)
    monkeypatch.setattr(decoding, "_here", made)
    return made


class Waiting:
    """Threads that hold pixels until they are let go, in the order of their coming."""

    def __init__(self, room):
        self.room = room
        self.inside = []
        self.threads = []

    def come(self, pixels):
        leave = threading.Event()

        def hold():
            with self.room.hold(pixels):
                self.inside.append(pixels)
                leave.wait(60)
                self.inside.remove(pixels)

        thread = threading.Thread(target=hold, daemon=True)
        before = self.room.waiting + len(self.inside)
        thread.start()
        until(lambda: self.room.waiting + len(self.inside) == before + 1)
        self.threads.append(thread)
        return leave

    def end(self):
        for thread in self.threads:
            thread.join(60)
        assert not any(thread.is_alive() for thread in self.threads)
        assert self.room.held == self.room.waiting == 0


def test_no_more_pixels_are_held_than_there_is_room_for():
    room, most, lock = PixelRoom(100), [], threading.Lock()

    def hold(pixels):
        for _ in range(20):
            with room.hold(pixels), lock:
                most.append(room.held)

    threads = [threading.Thread(target=hold, args=(10 + 7 * i,)) for i in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert max(most) <= 100
    assert room.held == room.waiting == 0


def test_what_is_larger_than_the_room_goes_in_alone():
    crowd = Waiting(PixelRoom(100))
    first = crowd.come(10)
    large = crowd.come(1_000)
    assert crowd.inside == [10]
    first.set()
    until(lambda: crowd.inside == [1_000])
    last = crowd.come(10)
    assert crowd.inside == [1_000]
    large.set()
    last.set()
    crowd.end()


def test_a_large_one_waits_for_no_one_who_came_behind_it():
    crowd = Waiting(PixelRoom(100))
    first = crowd.come(50)
    large = crowd.come(90)
    small = crowd.come(10)  # there is room for it, and yet it waits
    assert crowd.inside == [50]
    first.set()
    until(lambda: sorted(crowd.inside) == [10, 90])
    large.set()
    small.set()
    crowd.end()


def test_a_wait_that_is_interrupted_holds_up_nobody(monkeypatch):
    crowd = Waiting(PixelRoom(100))
    first = crowd.come(100)
    plain = threading.Condition.wait

    def interrupted(self, timeout=None):
        if threading.current_thread() is threading.main_thread():
            raise KeyboardInterrupt
        return plain(self, timeout)

    monkeypatch.setattr(threading.Condition, "wait", interrupted)
    with pytest.raises(KeyboardInterrupt), crowd.room.hold(60):
        pytest.fail("there was no room")
    monkeypatch.undo()
    assert crowd.room.waiting == 0
    behind = crowd.come(100)
    first.set()
    behind.set()
    crowd.end()


@pytest.mark.parametrize("error", [OSError, MemoryError, KeyboardInterrupt, SystemExit])
def test_a_decoder_that_fails_leaves_the_room(error, rooms, monkeypatch):
    held = []

    def load(_):
        held.append(rooms.usual.held)
        raise error

    monkeypatch.setattr(ImageFile.ImageFile, "load", load)
    with pytest.raises((ImageError, error)):
        load_image(file_of())
    assert held[0] == 1_200
    assert rooms.usual.held == 0


@pytest.mark.parametrize("source", ["file", "image", "cut off", "too many frames"])
def test_a_photo_that_was_loaded_holds_no_room(source, rooms):
    data = file_of()
    if source == "too many frames":
        stream = io.BytesIO()
        frames = [Image.new("RGB", (40, 30), color) for color in ("red", "blue")]
        frames[0].save(stream, "GIF", save_all=True, append_images=frames[1:])
        data = stream.getvalue()
    with ExitStack() as stack:
        if source in ("cut off", "too many frames"):
            stack.enter_context(pytest.raises(ImageError))
        load_image({"image": Image.new("RGB", (40, 30)), "cut off": data[:-40]}.get(source, data))
    assert rooms.usual.held == rooms.usual.waiting == 0


def test_a_usual_photo_waits_for_no_large_one(rooms):
    large = Waiting(rooms.large)
    leave = [large.come(2_000) for _ in range(3)]
    assert load_image(file_of()).native_size == (40, 30)
    for one in leave:
        one.set()
    large.end()


def test_the_largest_photo_that_is_taken_fits_into_its_room():
    assert decoding.USUAL <= decoding.MOST_USUAL
    assert decoding.MOST_LARGE == MAX_PIXELS


def test_photos_of_many_threads_are_decoded_in_turn(rooms, monkeypatch):
    plain, most = ImageFile.ImageFile.load, []

    def load(self):
        most.append(rooms.usual.held)
        return plain(self)

    monkeypatch.setattr(ImageFile.ImageFile, "load", load)
    data, digests = file_of(), []
    threads = [
        threading.Thread(target=lambda: digests.append(load_image(data).digest)) for _ in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(digests) == 8
    assert max(most) == 1_200  # two would be 2,400


def test_an_event_loop_goes_on_while_a_photo_waits(rooms):
    crowd = Waiting(rooms.usual)
    leave = crowd.come(2_000)

    async def load():
        photo = asyncio.ensure_future(in_thread(lambda: load_image(file_of()), Stop()))
        while not rooms.usual.waiting:  # noqa: ASYNC110  threads tell no loop
            await asyncio.sleep(0.001)
        photo.cancel()  # its thread is awaited, and leaves the room as any other
        leave.set()
        with pytest.raises(asyncio.CancelledError):
            await photo

    asyncio.run(load())
    crowd.end()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_child_is_not_held_up_by_who_was_decoding_in_its_parent(monkeypatch):
    crowd = Waiting(decoding._here.usual)
    leave = crowd.come(decoding.MOST_USUAL)
    child = os.fork()
    if child == 0:
        decoded = False
        try:
            decoded = load_image(file_of()).size == (40, 30)
        finally:  # it runs no other test
            os._exit(0 if decoded else 1)
    _, status = os.waitpid(child, 0)
    leave.set()
    crowd.end()
    assert status == 0
