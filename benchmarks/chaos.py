"""The dispatcher against everything that can go wrong, counted at the server.

A local HTTP service labels pictures and counts what it is sent. Four parts, each printed:

    kill      kill -9 at random moments, many times, in 4 processes that share one store and budget,
              with one picture a request and with many
    faults    30% of calls fail, in turn by every fault below; the certificate must not change
    budget    4 processes of 64 threads against Budget(attempts=1000): never more arrive
    overhead  throughput at 20 ms latency and concurrency 32 against the ideal and against a bare
              loop (same threads, adapter and service, no smoothapi), measured in turn; our CPU per
              query beyond the bare loop's. The dispatcher alone, then the whole of `certify`

    postgres  several machines on one PostgreSQL (chaos_postgres.py); only where it is asked for

    python benchmarks/chaos.py [kill|faults|budget|overhead|postgres ...] [--kills 200] [--batch 1 16 128] [--rounds 50]

Faults: 429 with and without Retry-After, 500, 503, connection reset, timeout before and after the
server answered, half a body, wrong JSON, 200 with an error inside, slow drip.
"""

from __future__ import annotations

import argparse
import asyncio
import hashlib
import json
import os
import random
import resource
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from decimal import Decimal
from functools import partial
from http.client import HTTPConnection, HTTPException
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np

from smoothapi import (
    Answer,
    Budget,
    BudgetExceededError,
    FatalError,
    Label,
    Limits,
    PermanentError,
    Price,
    Retry,
    Smoother,
    ThrottledError,
    TransientError,
)
from smoothapi.dispatch import Dispatcher
from smoothapi.encode import Codec
from smoothapi.image import load_image
from smoothapi.noise import NoiseKey, noisy_variants
from smoothapi.store import Home

FAULTS = (
    "429", "429 later", "500", "503", "reset", "timeout before", "timeout after", "half body",
    "wrong json", "error inside", "drip",
)  # fmt: skip
TIMEOUT = 0.25
PHOTO = np.random.default_rng(0).integers(0, 256, (24, 32, 3), dtype=np.uint8)


class Service(ThreadingHTTPServer):
    """Labels a picture by what its bytes hash to, and counts every request that arrives."""

    daemon_threads = True
    request_queue_size = 512

    def __init__(self, *, p=0.95, latency=0.0, faulty=0.0):
        super().__init__(("127.0.0.1", 0), Handler)
        self.p, self.latency, self.faulty = p, latency, faulty
        self.lock = threading.Lock()
        self.arrived = 0
        self.answered = Counter()  # by digest: answers that were sent whole
        self.seen = Counter()  # by digest: requests
        self.faults = Counter()
        self.callers = set()  # numbers of the processes that asked
        threading.Thread(target=self.serve_forever, daemon=True).start()

    @property
    def port(self):
        return self.server_address[1]

    def handle_error(self, request, client_address):
        """A client that hung up or was killed is no news."""


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def do_POST(self):
        server = self.server
        body = self.rfile.read(int(self.headers["Content-Length"]))
        if "X-Lengths" in self.headers:
            self.reply_to_batch(body, [int(n) for n in self.headers["X-Lengths"].split(",")])
            return
        digest = hashlib.sha256(body).hexdigest()
        with server.lock:
            server.arrived += 1
            server.seen[digest] += 1
            server.callers.add(self.headers["X-Process"])
            fault = None
            # A variant's first request fails or does not, by what it is; a retry never does.
            if server.seen[digest] == 1 and int(digest[:4], 16) < server.faulty * 2**16:
                fault = FAULTS[sum(server.faults.values()) % len(FAULTS)]
                server.faults[fault] += 1
        time.sleep(server.latency)
        name = "bus" if int(digest[-8:], 16) < server.p * 2**32 else "van"
        self.reply(fault, json.dumps({"label": name}).encode())
        if fault is None:
            with server.lock:
                server.answered[digest] += 1

    def reply_to_batch(self, body, lengths):
        """Label several pictures of one request, without faults."""
        server, digests = self.server, []
        for length in lengths:
            digests.append(hashlib.sha256(body[:length]).hexdigest())
            body = body[length:]
        with server.lock:
            server.arrived += len(digests)
            server.seen.update(digests)
            server.callers.add(self.headers["X-Process"])
        time.sleep(server.latency)
        names = ["bus" if int(d[-8:], 16) < server.p * 2**32 else "van" for d in digests]
        self.send_response(200)
        self.finish_with(json.dumps({"labels": names}).encode())
        with server.lock:
            server.answered.update(digests)

    def reply(self, fault, body):
        if fault in ("429", "429 later", "500", "503"):
            self.send_response(int(fault[:3]))
            if fault == "429 later":
                self.send_header("Retry-After", "0.05")
            self.finish_with(b"")
        elif fault == "reset":
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
            self.close_connection = True
            self.connection.close()
        elif fault == "timeout before":
            time.sleep(2 * TIMEOUT)
            self.close_connection = True
        elif fault == "timeout after":  # the answer is made, and comes too late
            time.sleep(1.5 * TIMEOUT)
            self.send_response(200)
            self.finish_with(body)
        elif fault == "half body":
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body[: len(body) // 2])
            self.close_connection = True
        elif fault == "drip":
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            for byte in body:
                self.wfile.write(bytes([byte]))
                self.wfile.flush()
                time.sleep(TIMEOUT / 4)
        else:
            self.send_response(200)
            self.finish_with(
                {"wrong json": b"{'label': ", "error inside": b'{"error": "busy"}'}.get(fault, body)
            )

    def finish_with(self, body):
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        """Quiet."""


class HttpAdapter:
    """An adapter for the service, as a stranger would write it: one request, no retries."""

    name = "chaos"
    identity = {"operation": "label"}
    price = Price(Decimal("1.00"))

    def __init__(self, port, batch=1):
        self.port = port
        self.limits = Limits(batch=batch)
        self.headers = {"X-Process": str(os.getpid())}
        self.local = threading.local()

    def ask(self, payloads):
        deadline = time.monotonic() + TIMEOUT
        connection = getattr(self.local, "connection", None)
        if connection is None:
            connection = self.local.connection = HTTPConnection(
                "127.0.0.1", self.port, timeout=TIMEOUT
            )
        headers = self.headers
        if self.limits.batch > 1:
            headers = {**headers, "X-Lengths": ",".join(str(len(each)) for each in payloads)}
        try:
            connection.request("POST", "/", b"".join(payloads), headers)
            response = connection.getresponse()
            body = b""
            while chunk := response.read1(1 << 16):
                body += chunk
                if time.monotonic() > deadline:
                    raise TimeoutError("slow drip")
            length = response.length
            response.close()  # else the connection takes no further request
            if length:
                raise HTTPException("half a body")
        except (OSError, HTTPException) as error:
            connection.close()
            self.local.connection = None
            raise TransientError(type(error).__name__) from error
        if response.status == 429:
            after = response.headers.get("Retry-After")
            raise ThrottledError("429", retry_after=float(after) if after else None)
        if response.status >= 500:
            raise TransientError(str(response.status))
        if response.status >= 400:
            raise PermanentError(str(response.status))
        return self.read(body)

    def read(self, body):
        try:
            said = json.loads(body)
            names = said["labels"] if self.limits.batch > 1 else [said["label"]]
            return [Answer((Label(name, 1.0),), "v1") for name in names]
        except (ValueError, KeyError) as error:
            raise TransientError("no answer in the body") from error

    def close(self):
        pass


def smoother(port, home, batch=1, **options):
    options.setdefault("retry", Retry(attempts=8, base=0.02, cap=0.1, deadline=60))
    options.setdefault("radius", 0.1)
    return Smoother(HttpAdapter(port, batch), denoiser="none", home=home, **options)


def new_home(folder, name="home"):
    """Every home has the same noise, so that certificates can be compared."""
    home = Path(folder) / name
    home.mkdir()
    (home / "noise.key").write_bytes(bytes(range(32)))
    (home / "noise.key").chmod(0o600)
    return home


def worker(port, home, limit, concurrency, radius, photos, batch):
    """One process of a part: certify photos until done or the budget is gone."""
    budget = Budget(attempts=limit, name="shared")
    options = {"budget": budget, "concurrency": concurrency, "radius": radius}
    with smoother(port, home, batch, **options) as s:
        s._refuse_early = lambda *_: None  # the limit itself is under test, not the courtesy
        for seed in range(photos):
            try:
                s.certify(photo_of(seed))
            except BudgetExceededError:
                return
            except FatalError:
                raise


def photo_of(seed):
    return np.random.default_rng(seed).integers(0, 256, PHOTO.shape, dtype=np.uint8)


class WaitingAdapter(HttpAdapter):
    """A service that takes its time and costs its client nothing."""

    def __init__(self, latency):
        super().__init__(0)
        self.latency = latency

    def ask(self, payloads):
        time.sleep(self.latency)
        return [Answer((Label("bus", 1.0),), "v1") for _ in payloads]


def measured(work):
    """Return seconds, and CPU seconds of this process."""
    before, began = cpu_seconds(), time.perf_counter()
    work()
    return time.perf_counter() - began, cpu_seconds() - before


def bare(adapter, concurrency, count, make):
    """Send `count` pictures through the adapter with nothing around it."""
    with ThreadPoolExecutor(concurrency) as threads:
        for _ in threads.map(lambda index: adapter.ask([make(index)]), range(count)):
            pass


class _Same:
    """Work that sends one payload again and again."""

    batch, refresh, refreshes = 16, False, 0

    def __init__(self, count):
        self.left = count
        self._payload = PHOTO.tobytes()

    def asked(self, index):
        return {"provider": "chaos", "image": "0" * 64, "index": index}

    def prepare(self, lot):
        return [lambda: self._payload] * len(lot)

    def needed(self):
        return self.left


def dispatched(adapter, concurrency, count, home):
    """Send them through the dispatcher alone: budget, pace, leases, store, order of index."""
    work, opened = _Same(count), Home(home)
    dispatcher = Dispatcher.open(
        adapter,
        opened.answers,
        opened,
        [Budget(attempts=2 * count, name="all")],
        concurrency=concurrency,
    )
    with dispatcher.run(work) as run:
        for _ in run:
            work.left -= 1
    dispatcher.close()
    assert len(opened.answers) == count
    opened.close()


def cpu_seconds():
    return sum(resource.getrusage(resource.RUSAGE_SELF)[:2])


def spawn(*arguments):
    return subprocess.Popen([sys.executable, __file__, "worker", *map(str, arguments)])


def wait_until(true, seconds=20.0):
    end = time.monotonic() + seconds
    while not true() and time.monotonic() < end:
        time.sleep(0.01)


def kill(kills, batch):
    # More for more kills, so that the budget is not spent long before the last of them.
    limit, radius, photos = 500 + 200 * kills * min(batch, 8), 0.1, 10_000
    server = Service(p=0.85, latency=0.03)
    with tempfile.TemporaryDirectory() as folder:
        home = new_home(folder)
        concurrency = 8
        arguments = (server.port, home, limit, concurrency, radius, photos, batch)
        generator = random.Random(0)
        processes = [spawn(*arguments) for _ in range(4)]
        hit = sending = 0
        for number in range(kills):
            victim = generator.randrange(4)
            if number % 2:  # at any moment, else as it sends
                time.sleep(generator.uniform(0.0, 2.0))
            else:
                wait_until(lambda: str(processes[victim].pid) in server.callers)  # noqa: B023
                time.sleep(generator.uniform(0.0, 0.5))
            # The budget is to outlast the kills: whoever found it spent has ended by himself.
            processes[victim].send_signal(signal.SIGKILL)
            killed = processes[victim].wait() == -signal.SIGKILL
            hit += killed
            sending += killed and str(processes[victim].pid) in server.callers
            processes[victim] = spawn(*arguments)
        codes = [process.wait() for process in processes]
        assert codes == [0] * 4, codes
        arrived = server.arrived
        stored = stored_answers(home)
        reached = len(server.answered)
        twice = sum(count > 1 for count in server.answered.values())
        # One request of each thread that sends, as docs/explanation/money.md promises.
        promised = sending * batch * (concurrency + concurrency // 2)
        print(
            f"kill      requests of {batch}: {kills} kills, {hit} of a running process ({sending} of one that had begun "
            f"to send): {arrived} arrived, budget {limit}; {reached} variants answered, "
            f"{stored} stored, {reached - stored} lost in flight (promised: at most {promised}), {twice} bought twice after a kill"
        )
        assert sending > 0
        assert arrived <= limit
        assert 0 <= reached - stored <= promised
        # The photo on which the budget ended: some of its votes are stored, the rest must be sent.
        with smoother(server.port, home, batch, radius=radius) as s:
            unfinished = (photo_of(seed) for seed in range(photos))
            photo = next(p for p in unfinished if s.plan(p).stored < s.plan(p).at_most)
            kept = s.plan(photo).stored  # none, if the budget ended between two photos
            resumed = s.certify(photo)
        with smoother(server.port, new_home(folder, "calm"), batch, radius=radius) as s:
            calm = s.certify(photo)
        print(
            f"          resumed certificate equals the undisturbed one: {resumed == calm}; "
            f"it sent {resumed.attempts} and had {resumed.cached} stored, the undisturbed one sent "
            f"{calm.attempts}"
        )
        assert resumed == calm
        assert resumed.attempts > 0
        assert resumed.cached >= kept
    server.shutdown()


def stored_answers(home):
    with Home(home) as opened:
        return len(opened.answers)


def faults():
    with tempfile.TemporaryDirectory() as folder:
        server = Service(p=0.9)
        with smoother(server.port, new_home(folder, "calm")) as s:
            calm = s.certify(PHOTO)
        server.shutdown()
        server = Service(p=0.9, faulty=0.3)
        with smoother(server.port, new_home(folder), concurrency=8) as s:
            stormy = s.certify(PHOTO)
        failed = sum(server.faults.values())
        print(
            f"faults    {failed} of {stormy.queries} queries failed first, by {len(server.faults)} kinds; "
            f"attempts reported {stormy.attempts}, at the server {server.arrived}; "
            f"same certificate: {stormy == calm}"
        )
        assert stormy == calm
        assert stormy.attempts == server.arrived
        server.shutdown()


def budget(rounds):
    most = 0
    counts = []
    for _ in range(rounds):
        server = Service(p=0.6)
        with tempfile.TemporaryDirectory() as folder:
            home = new_home(folder)
            processes = [spawn(server.port, home, 1000, 64, 0.1, 1000, 1) for _ in range(4)]
            for process in processes:
                process.wait()
            counts.append(server.arrived)
            most = max(most, server.arrived)
        server.shutdown()
        assert most <= 1000, most
    print(
        f"budget    {rounds} rounds of 4 processes x 64 threads: {min(counts)} to {most} arrived of 1000 allowed"
    )


def overhead():
    concurrency, latency, count = 32, 0.02, 3000
    server = subprocess.Popen(
        [sys.executable, __file__, "serve", str(latency)], stdout=subprocess.PIPE, text=True
    )
    port = int(server.stdout.readline())
    image, codec, key = load_image(PHOTO), Codec(), NoiseKey(bytes(range(32)))

    def variant(index):
        noisy_variants(image, 0.25, [index], key)
        return codec.encode(PHOTO)

    def raw(_):
        return payload

    def certified(home):
        options = {"radius": "largest", "max_votes": count, "plain": False}
        with smoother(port, home, concurrency=concurrency, **options) as s:
            assert s.certify(PHOTO).attempts == count

    payload = PHOTO.tobytes()
    waiting, http = WaitingAdapter(latency), HttpAdapter(port)
    rows = {
        "a service that only waits": (
            lambda _: bare(waiting, concurrency, count, raw),
            lambda home: dispatched(waiting, concurrency, count, home),
        ),
        "HTTP": (
            lambda _: bare(http, concurrency, count, raw),
            lambda home: dispatched(http, concurrency, count, home),
        ),
        "HTTP, noise and PNG (certify)": (
            lambda _: bare(http, concurrency, count, variant),
            certified,
        ),
    }
    ideal = concurrency / latency
    print(
        f"overhead  at {latency * 1e3:.0f} ms and concurrency {concurrency}, ideal {ideal:.0f} queries a second"
    )
    with tempfile.TemporaryDirectory() as folder:
        for name, both in rows.items():
            times = [[], []]
            for turn in range(5):
                for times_of, work in zip(times, both, strict=True):
                    home = new_home(folder, f"{len(times_of)}{turn}{name[:6]}{work is both[0]}")
                    times_of.append(measured(partial(work, home)))
            (bare_time, bare_cpu), (our_time, our_cpu) = (
                [statistics.median(column) for column in zip(*of, strict=True)] for of in times
            )
            print(
                f"          {name:30s} bare loop {count / bare_time / ideal:6.1%} of it, "
                f"ours {count / our_time / ideal:6.1%}; CPU a query: bare {bare_cpu / count * 1e3:.2f} ms, "
                f"{(our_cpu - bare_cpu) / count * 1e3:.2f} ms more for ours"
            )
        print("          bars: ours 95%, 1 ms")
        home = new_home(folder, "stored")
        options = {"radius": "largest", "max_votes": 1000, "plain": False}
        with smoother(port, home, concurrency=concurrency, **options) as s:
            s.certify(PHOTO)
            seconds, _ = measured(lambda: s.certify(PHOTO))
            cached = s.certify(PHOTO)
    server.kill()
    print(
        f"          a stored certificate of {cached.total_votes} votes in {seconds:.2f} s, {cached.queries} sent (bar 0.5 s)"
    )


def postgres(options):
    import chaos_postgres  # needs the extra and a server

    chaos_postgres.main(options.rounds, options.kills, options.crashes, options.only)


class FastHandler(asyncio.Protocol):
    """As little HTTP as the adapter needs: the server must not be what is measured."""

    reply = b'HTTP/1.1 200 OK\r\nContent-Length: 16\r\n\r\n{"label": "bus"}'

    def __init__(self, latency):
        self.latency, self.pending = latency, b""

    def connection_made(self, transport):
        self.transport = transport

    def data_received(self, data):
        self.pending += data
        head, end, body = self.pending.partition(b"\r\n\r\n")
        if end and len(body) >= int(head.lower().split(b"content-length: ")[1].split(b"\r")[0]):
            self.pending = b""
            loop = asyncio.get_running_loop()
            loop.call_later(self.latency, self.transport.write, self.reply)


async def serve_fast(latency):
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: FastHandler(latency), "127.0.0.1", 0, backlog=512)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("parts", nargs="*", default=["faults", "kill", "budget", "overhead"])
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--batch", type=int, nargs="+", default=[1, 16, 128])
    parser.add_argument("--rounds", type=int, default=50)
    parser.add_argument("--crashes", type=int, default=20)
    parser.add_argument("--only", nargs="+", help="of postgres: stored, clocks, storm, throughput")
    options = parser.parse_args()
    for part in options.parts:
        {
            "kill": lambda: [kill(options.kills, batch) for batch in options.batch],
            "faults": faults,
            "budget": lambda: budget(options.rounds),
            "overhead": overhead,
            "postgres": lambda: postgres(options),
        }[part]()


if __name__ == "__main__":
    if sys.argv[1:2] == ["worker"]:
        port, home, limit, concurrency, radius, photos, batch = sys.argv[2:]
        numbers = int(limit), int(concurrency), float(radius), int(photos), int(batch)
        worker(int(port), Path(home), *numbers)
    elif sys.argv[1:2] == ["serve"]:
        asyncio.run(serve_fast(float(sys.argv[2])))
    else:
        main()
