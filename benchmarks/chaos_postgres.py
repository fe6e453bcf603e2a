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

    python benchmarks/chaos.py postgres [--rounds 50] [--kills 200] [--crashes 20]
"""

from __future__ import annotations

import multiprocessing
import random
import signal
import statistics
import sys
import tempfile
import time
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
OFFSETS = (0.0, 300.0, -3600.0, 0.0)
CONCURRENCY = 8
FORK = multiprocessing.get_context("forkserver")


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


def start(*arguments):
    process = FORK.Process(target=machine, args=arguments)
    process.start()
    return process


def clocks(server, folder, rounds):
    key, counts = new_key(folder), []
    for number in range(rounds):
        service, url = chaos.Service(p=0.6), server.new_database()
        open_home(DatabaseAddress(url)).close()
        budget = Budget(attempts=1000, per="day", name=f"round {number}")
        seeds = range(1000)
        running = [
            start(offset, service.port, url, key, budget, 16, 0.1, seeds) for offset in OFFSETS
        ]
        for process in running:
            process.join()
        assert [process.exitcode for process in running] == [0] * 4
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
    generator = random.Random(0)
    seeds = [range(n, 100_000, 2) for n in (0, 0, 1, 1)]  # two on the same photos, each
    arguments = [
        (offset, service.port, url, key, budget, CONCURRENCY, 0.3, of)
        for offset, of in zip(OFFSETS, seeds, strict=True)
    ]
    open_home(DatabaseAddress(database)).close()
    machines = [start(*each) for each in arguments]
    ended = killed = sending = 0
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
            process = machines[victim]
            wait_for = str(process.pid)
            end = time.monotonic() + 20.0
            while wait_for not in service.callers and time.monotonic() < end:
                time.sleep(0.01)
            sending += wait_for in service.callers
            process.kill()
            process.join()
            killed += process.exitcode == -signal.SIGKILL
            ended += process.exitcode not in (0, -signal.SIGKILL)
            machines[victim] = start(*arguments[victim])
    for process in machines:
        process.kill()
        process.join()
        sending += str(process.pid) in service.callers
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
    assert arrived <= account.attempts <= limit
    assert 0 <= reached - stored <= promised
    assert twice <= promised
    assert ended == 0
    # A photo of which some votes are stored, beside one of a calm home.
    home = chaos.new_home(folder, "calm")
    with smoother(service.port, database, key, radius=0.3) as s:
        photo = next(
            p
            for p in map(chaos.photo_of, range(100_000))
            if s.plan(p).stored < s.plan(p).at_most + s.plan(p).stored and s.plan(p).stored
        )
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
    begun.wait()
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
    running = [
        FORK.Process(target=votes, args=(number, home, count, concurrency, begun, done))
        for number in range(4)
    ]
    for process in running:
        process.start()
    times = [done.get(timeout=300) for _ in running]
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


def main(rounds, kills, crashes):
    FORK.set_forkserver_preload(["chaos_postgres", "smoothapi.wiring", "torch", "psycopg_pool"])
    server = Postgres()
    try:
        with tempfile.TemporaryDirectory() as folder:
            stored_certificate(server, folder)
            clocks(server, folder, rounds)
            storm(server, folder, kills, crashes)
            throughput(folder)
    finally:
        server.close()
