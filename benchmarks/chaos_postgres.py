"""Several machines on one PostgreSQL, while everything breaks; `chaos.py postgres` runs it.

A real server (tests/postgres.py starts it), a TCP proxy before it, a local service that counts what
arrives. A machine is a process with a clock of its own; it shares the noise key by a file. Printed:

    clocks      4 machines, one 5 minutes fast, one an hour slow, on Budget(attempts=1000, per="day"):
                never more than 1,000 arrive
    storm       kill -9 of the machines, immediate shutdowns of the server, cuts of the network: the
                budget holds, what is lost or bought twice was under way, the certificate is the
                undisturbed one
    throughput  votes a second of 4 machines on PostgreSQL and on the local store, in turn, for a
                service of 20 ms; the bar is 80%

    stored      how long it takes to read a certificate of 1,000 stored votes

    python benchmarks/chaos.py postgres [--rounds 50] [--kills 200] [--crashes 20] [--only storm]

It runs from a copy of the sources, in a folder of its own, with no settings but the defaults: what is
edited meanwhile, and whatever is configured here, is not part of it. A machine that ends by itself
is counted, and what it ended by is printed. Processes, server and folder are gone when it ends.
"""

from __future__ import annotations

import multiprocessing
import os
import random
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
import traceback
from collections import Counter
from contextlib import closing
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

import chaos

from smoothapi import Budget, BudgetExceededError, Retry, Smoother
from smoothapi.address import DatabaseAddress, parse_home
from smoothapi.dispatch import Dispatcher
from smoothapi.store import open_home
from tests.postgres import Postgres, Proxy

chaos.TIMEOUT = 10.0  # the service does not fail here, however busy this computer is
PHOTOS = (range(0, 100_000, 2), range(1, 100_000, 2))  # of the storm, by seed
OFFSETS = (0.0, 300.0, -3600.0, 0.0)
CONCURRENCY = 8
FORK = multiprocessing.get_context("forkserver")
ROOT = Path(__file__).parents[1]
COPIED = ("smoothapi", "adapters", "benchmarks", "tests/__init__.py", "tests/postgres.py")
FOLDER = "CHAOS_FOLDER"  # set where the copy runs


def run_copy(arguments):
    """Run this from a copy of the sources, in which nobody edits; return its exit code."""
    with tempfile.TemporaryDirectory(prefix="chaos-") as folder:
        copy = Path(folder) / "sources"
        for name in COPIED:
            source, goal = ROOT / name, copy / name
            goal.parent.mkdir(parents=True, exist_ok=True)
            if source.is_dir():
                shutil.copytree(source, goal, ignore=shutil.ignore_patterns("__pycache__"))
            else:
                shutil.copy(source, goal)
        kept = {k: v for k, v in os.environ.items() if not k.startswith(("SMOOTHAPI_", "PG"))}
        path = [str(copy), str(copy / "adapters"), os.environ.get("PYTHONPATH", "")]
        own = {name: f"{folder}/{name}" for name in ("XDG_CONFIG_HOME", "XDG_DATA_HOME")}
        here = Path(folder) / "here"
        here.mkdir()
        command = [sys.executable, str(copy / "benchmarks" / "chaos.py"), *arguments]
        environment = {**kept, **own, "PYTHONPATH": os.pathsep.join(path), FOLDER: str(here)}
        process = subprocess.Popen(command, cwd=here, env=environment)
        signal.signal(signal.SIGTERM, lambda *_: process.terminate())
        try:
            return process.wait()
        except KeyboardInterrupt:  # it got that, too, and cleans up
            return process.wait()


class Machines:
    """Processes; none of them is left when this ends, whatever it ends by."""

    def __init__(self):
        self._running = []
        self._said = Path(tempfile.mkdtemp(prefix="ended-", dir=os.environ[FOLDER]))

    def __enter__(self):
        return self

    def __exit__(self, *_):
        for process in self._running:
            process.kill()
        for process in self._running:
            process.join()

    def start(self, work, *arguments):
        process = FORK.Process(target=_ending_in_words, args=(self._said, work, arguments))
        process.start()
        self._running.append(process)
        return process

    def ended_by(self):
        """Return {error: how often} of those that ended by themselves, in a line each."""
        texts = (file.read_text(errors="replace") for file in sorted(self._said.iterdir()))
        return Counter(text.strip().rpartition("\n")[2][:300] for text in texts)


def _ending_in_words(folder, work, arguments):
    try:
        work(*arguments)
    except BaseException:  # noqa: BLE001
        (folder / f"{os.getpid()}").write_text(traceback.format_exc())
        raise SystemExit(1) from None


def set_clock(offset):
    """Give this process a clock of its own."""
    real = time.time
    time.time = lambda: real() + offset


def machine(offset, port, home, key, budget, concurrency, radius, seeds):
    """Certify photos until the budget is gone."""
    set_clock(offset)
    with smoother(port, home, key, budget=budget, concurrency=concurrency, radius=radius) as s:
        s._refuse_early = lambda *_: None  # the limit itself is under test, not the courtesy
        for seed in seeds:
            try:
                s.certify(chaos.photo_of(seed))
            except BudgetExceededError:
                return


def smoother(port, home, key, **options):
    retry = Retry(attempts=8, base=0.02, cap=0.1, deadline=120)
    options = {"retry": retry, "radius": 0.1, **options}
    adapter = chaos.HttpAdapter(port)
    return Smoother(adapter, denoiser="none", home=home, noise_key_file=key, **options)


def new_key(folder):
    key = Path(folder) / "deployed.key"
    key.write_text(bytes(range(32)).hex())
    key.chmod(0o600)
    return str(key)


def clocks(server, folder, rounds):
    key, counts = new_key(folder), []
    for number in range(rounds):
        service, url = chaos.Service(p=0.6), server.new_database()
        open_home(DatabaseAddress(url)).close()
        budget = Budget(attempts=1000, per="day", name=f"round {number}")
        seeds = range(1000)
        with Machines() as machines:
            running = [
                machines.start(machine, offset, service.port, url, key, budget, 16, 0.1, seeds)
                for offset in OFFSETS
            ]
            for process in running:
                process.join()
        assert [process.exitcode for process in running] == [0] * 4, machines.ended_by()
        counts.append(service.arrived)
        with closing(open_home(DatabaseAddress(url))) as store:
            [account] = store.accounts()
        assert account.attempts == service.arrived, (account, service.arrived)
        assert service.arrived <= 1000, service.arrived
        service.shutdown()
        service.server_close()
        server.sql(f"DROP DATABASE {url.partition('?')[0].rpartition('/')[2]} WITH (FORCE)")
    print(
        f"clocks      {rounds} rounds of 4 machines, clocks {OFFSETS} s off: {min(counts)} to "
        f"{max(counts)} arrived of 1000 allowed",
        flush=True,
    )


def storm(server, folder, kills, crashes):
    service, proxy = chaos.Service(p=0.85, latency=0.03), Proxy(server.socket)
    key, database = new_key(folder), server.new_database()
    name = database.partition("?")[0].rpartition("/")[2]
    url = f"postgresql://tester@127.0.0.1:{proxy.port}/{name}"
    limit = 5000 * (kills + 1)  # to outlast the kills
    budget = Budget(attempts=limit, name="shared")
    seeds = [PHOTOS[n] for n in (0, 0, 1, 1)]  # two on the same photos, each
    arguments = [
        (offset, service.port, url, key, budget, CONCURRENCY, 0.3, of)
        for offset, of in zip(OFFSETS, seeds, strict=True)
    ]
    open_home(DatabaseAddress(database)).close()
    with Machines() as machines:
        killed, sending = storm_over(machines, arguments, server, proxy, service, kills, crashes)
    ended_by = machines.ended_by()
    ended = sum(ended_by.values())
    time.sleep(0.5)
    reached, arrived = len(service.answered), service.arrived
    twice = sum(count - 1 for count in service.answered.values())
    with closing(open_home(DatabaseAddress(database))) as store:
        stored = len(store.answers)
        [account] = store.accounts()
        released = store.release_abandoned(everywhere=True)
    promised = sending * (CONCURRENCY + CONCURRENCY // 2)
    print(
        f"storm       {killed} kills of machines ({sending} as they sent), {crashes} crashes of the "
        f"server, {proxy.cuts} connections cut, {ended} machines ended by themselves: {arrived} "
        f"arrived, {account.attempts} counted, budget {limit}; {reached} variants answered, "
        f"{stored} stored, {reached - stored} lost in flight, {twice} bought twice (promised: at "
        f"most {promised}), {released} reserved by the dead",
        flush=True,
    )
    for error, times in ended_by.items():
        print(f"            {times} machines ended by: {error}", flush=True)
    assert arrived <= account.attempts <= limit
    assert 0 <= reached - stored <= promised
    assert twice <= promised
    assert ended == 0
    # A photo of which some votes are stored, if there is one, beside one of a calm home.
    home = chaos.new_home(folder, "calm")
    with smoother(service.port, database, key, radius=0.3) as s:
        photo = last_begun(s, PHOTOS)
        resumed = s.certify(photo)
    with chaos.smoother(service.port, home, radius=0.3) as s:
        calm = s.certify(photo)
    print(
        f"            resumed certificate equals the undisturbed one: {resumed == calm}; "
        f"{resumed.cached} of its votes were stored, {resumed.attempts} sent"
    )
    assert resumed == calm
    proxy.close()
    service.shutdown()


def last_begun(s, photos):
    """Return the photo that was begun last, of several orders in which photos were worked on."""
    begun = []
    for seeds in photos:
        low, high = 0, len(seeds)  # bisected: each plan reads what is stored of a photo
        while low < high:
            middle = (low + high) // 2
            low, high = (
                (middle + 1, high)
                if s.plan(chaos.photo_of(seeds[middle])).stored
                else (low, middle)
            )
        last = seeds[max(0, low - 2) : low]
        begun += [(s.plan(chaos.photo_of(seed)).at_most > 0, seed) for seed in last]
    return chaos.photo_of(max(begun)[1])


def storm_over(machines, arguments, server, proxy, service, kills, crashes):
    """Break everything; return how many machines were killed, and how many were so as they sent."""
    generator = random.Random(0)
    running = [machines.start(machine, *each) for each in arguments]
    killed = sending = 0
    steps = ["kill"] * kills + ["crash"] * crashes + ["cut"] * kills
    generator.shuffle(steps)
    for step in steps:
        time.sleep(generator.uniform(0.0, 0.6))
        if step == "cut":
            proxy.cut()
        elif step == "crash":
            server.stop(signal.SIGQUIT)
            time.sleep(generator.uniform(0.0, 1.0))
            server.start()
        else:
            victim = generator.randrange(4)
            process = running[victim]
            wait_for = str(process.pid)
            end = time.monotonic() + 20.0
            while wait_for not in service.callers and process.is_alive() and time.monotonic() < end:
                time.sleep(0.01)
            sending += wait_for in service.callers
            process.kill()
            process.join()
            killed += process.exitcode == -signal.SIGKILL
            running[victim] = machines.start(machine, *arguments[victim])
    for process in running:
        process.kill()
        process.join()
        sending += str(process.pid) in service.callers
    return killed, sending


def votes(number, home, count, concurrency, begun, done):
    """Send `count` pictures through the dispatcher alone: budget, leases, store, order of index."""
    work = chaos._Same(count)
    work.asked = lambda index: {"provider": "chaos", "machine": number, "index": index}
    store = open_home(parse_home(home))
    dispatcher = Dispatcher.open(
        chaos.WaitingAdapter(0.02),
        store.answers,
        store,
        [Budget(attempts=100 * count, name="all")],
        concurrency=concurrency,
    )
    begun.wait(300)
    began = time.perf_counter()
    with dispatcher.run(work) as run:
        for _ in run:
            work.left -= 1
    done.put((began, time.perf_counter()))
    dispatcher.close()
    store.close()


def together(home, count, concurrency):
    """Return votes a second of 4 machines, from when the first begins to when the last ends."""
    begun, done = FORK.Barrier(4), FORK.Queue()
    with Machines() as machines:
        running = [
            machines.start(votes, number, home, count, concurrency, begun, done)
            for number in range(4)
        ]
        times = [done.get(timeout=600) for _ in running]
        for process in running:
            process.join()
    return 4 * count / (max(end for _, end in times) - min(began for began, _ in times))


def throughput(folder, count=600, turns=5):
    server = Postgres(fsync="on", autovacuum="on", shared_buffers="128MB")
    try:
        for concurrency in (2, 4, 8):
            rates = [], []
            for turn in range(turns):
                local = Path(folder) / f"local {concurrency} {turn}"
                rates[0].append(together(str(local), count, concurrency))
                url = server.new_database()
                open_home(DatabaseAddress(url)).close()
                rates[1].append(together(url, count, concurrency))
            local, shared = map(statistics.median, rates)
            print(
                f"throughput  4 machines, {concurrency} requests each, of an ideal "
                f"{4 * concurrency / 0.02:.0f} votes a second: {local:.0f} on the local store, "
                f"{shared:.0f} on PostgreSQL ({shared / local:.0%}, bar 80%)",
                flush=True,
            )
    finally:
        server.close()


def stored_certificate(server, folder):
    service, url, key = chaos.Service(p=1.0), server.new_database(), new_key(folder)
    options = {"radius": "largest", "max_votes": 1000, "plain": False, "concurrency": 32}
    for where, home in (("PostgreSQL", url), ("the local store", str(Path(folder) / "stored"))):
        with smoother(service.port, home, key, **options) as s:
            s.certify(chaos.PHOTO)
            statements = []
            if home == url:
                run = s.session.dispatcher.store._server.run
                s.session.dispatcher.store._server.run = lambda *given: (
                    statements.append(given[0]),  # noqa: B023
                    run(*given),  # noqa: B023
                )[1]
            seconds, cpu = chaos.measured(lambda: s.certify(chaos.PHOTO))
        print(
            f"stored      a stored certificate of 1000 votes from {where} in {seconds:.2f} s "
            f"({cpu:.2f} s of CPU), {len(statements)} statements (bar 0.5 s)",
            flush=True,
        )
    service.shutdown()


def main(rounds, kills, crashes, only):
    if FOLDER not in os.environ:
        raise SystemExit(run_copy(sys.argv[1:]))
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    FORK.set_forkserver_preload(["chaos_postgres", "smoothapi.wiring", "torch", "psycopg_pool"])
    server = Postgres()
    try:
        with tempfile.TemporaryDirectory() as folder:
            parts = {
                "stored": lambda: stored_certificate(server, folder),
                "clocks": lambda: clocks(server, folder, rounds),
                "storm": lambda: storm(server, folder, kills, crashes),
                "throughput": lambda: throughput(folder),
            }
            for name, part in parts.items():
                if name in (only or parts):
                    part()
    finally:
        server.close()
