"""How far one deployment goes: many workers on one database, by simulation with the real store.

A real PostgreSQL (tests/postgres.py starts it); its ledger, pace, leases and answers are the ones
that every run uses. The service and the clock are simulated: nothing waits, time is what the
simulation says it is. 10,000 photos whose certificates take 46 votes each or a few more, 1 to 64 workers of 8
requests in flight, quotas of 50 and 500 a second, answers after 0.25 s, 2% of requests fail and are sent again.
Printed, by quota and workers:

    votes/s      by the simulated clock
    limit        the share of it in which nothing could go faster for: the quota, the workers (all their
                 requests are in flight), the database (as many statements as it was measured to take)
    statements   on PostgreSQL a vote, counted

and on paper, from bytes measured a row: what a billion photos need.

    python benchmarks/scale.py [--photos 10000] [--sample 100]
"""

from __future__ import annotations

import argparse
import heapq
import math
import random
import sys
import time
import uuid
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from decimal import Decimal
from functools import partial
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from smoothapi.address import DatabaseAddress
from smoothapi.answer import Answer, Label
from smoothapi.provider import Price
from smoothapi.store import Budget, StoredAnswer, answer_key, open_home
from smoothapi.variants import asked_of
from tests.postgres import Postgres

LATENCY = 0.25  # seconds of a request
FAILED = 0.02
CONCURRENCY = 8  # requests in flight of a worker
MACHINES = 8  # that ask the real store at the same time
VOTES = (46, 70)  # of a photo
LABELS = [Label(name, 0.9) for name in ("Bus", "Vehicle", "Transportation", "School Bus", "Road")]
PRICE = Price(Decimal(1))
BILLION = 10**9


class Counted:
    """Counts a store's statements."""

    def __init__(self, store):
        self.statements = 0
        self._run = store._server.run
        store._server.run = self

    def __call__(self, *given, **more):
        self.statements += 1
        return self._run(*given, **more)


def asked(photo, index):
    of = asked_of(
        provider="simulated",
        identity={"operation": "label"},
        image=f"{photo:064x}",
        size=(224, 224),
        codec="png/1",
        sigma=0.25,
        noise="0" * 16,
        denoiser="1" * 16,
    )
    return of(index)


def measure(url, sample):
    """Return statements a vote, statements a second and attempts a vote, of some machines at once."""
    open_home(DatabaseAddress(url)).close()
    shares = [range(n, sample, MACHINES) for n in range(MACHINES)]
    began = time.perf_counter()
    with ThreadPoolExecutor(MACHINES) as threads:
        counts = list(threads.map(partial(certify, url), shares))
    seconds = time.perf_counter() - began
    statements, attempts, votes = map(sum, zip(*counts, strict=True))
    return statements / votes, statements / seconds, attempts / votes


def certify(url, photos):
    """Do what a dispatcher does for each photo; return statements, attempts and votes.

    In its order: look up, lease, take a place of the pace, reserve, (the request), settle, write
    the answers of a lot together, drop the leases.
    """
    votes = attempts = 0
    with closing(open_home(DatabaseAddress(url))) as store:
        counted = Counted(store)
        ledger = store.ledger([Budget(attempts=10**8, name="all")], "simulated", PRICE)
        pace = store.pace("simulated", 10**6)  # its statement is counted, its wait simulated
        for photo in photos:
            generator = random.Random(photo)
            wanted = generator.randint(*VOTES)
            keys = {answer_key(asked(photo, index)): index for index in range(wanted)}
            store.answers.get_all(list(keys))
            leases = store.leases()
            for begin in range(0, wanted, CONCURRENCY):
                lot = list(keys)[begin : begin + CONCURRENCY]
                leases.take(lot)
                answered = []
                for key in lot:
                    tries = 1 + (generator.random() < FAILED)
                    for _ in range(tries):
                        pace.take(1)
                        ledger.settle(ledger.reserve(1), 1)
                    attempts += tries
                    answer = Answer(tuple(LABELS), "v1", request_id=uuid.uuid4().hex)
                    answered.append((asked(photo, keys[key]), answer))
                store.answers.put(*(StoredAnswer(*each) for each in answered))
                leases.drop(lot)
            leases.end()
            votes += wanted
        ledger.close()
        return counted.statements, attempts, votes


def simulate(photos, workers, quota, *, statements, per_second):
    """Return votes a second of simulated time, and the share of it by what was the limit."""
    generator = random.Random(1)
    left = [0] * workers  # votes that the worker's photo still takes
    in_flight = [0] * workers
    events = []  # (when, worker) of answers
    now = place = database = 0.0
    waiting, done, votes = photos, 0, 0
    limits = {"quota": 0.0, "workers": 0.0, "database": 0.0}
    idle = set(range(workers))
    while done < photos:
        for worker in list(idle):
            while in_flight[worker] < CONCURRENCY:
                if left[worker] == 0:
                    if not waiting:
                        break
                    waiting -= 1
                    left[worker] = generator.randint(*VOTES)
                left[worker] -= 1
                in_flight[worker] += 1
                database = max(database, now) + statements / per_second
                place = max(place, now) + 1.0 / quota
                heapq.heappush(events, (max(place, database) + LATENCY, worker))
            idle.discard(worker)
        when, worker = heapq.heappop(events)
        # What stands in the future is waited for; where nothing does, all that workers may have
        # in flight is.
        if max(place, database) <= when:
            limits["workers"] += when - now
        else:
            limits["quota" if place >= database else "database"] += when - now
        now = when
        in_flight[worker] -= 1
        if generator.random() < FAILED:
            left[worker] += 1
        else:
            votes += 1
        idle.add(worker)
        done = photos if not (waiting or any(left) or events) else done
    return votes / now, {name: share / now for name, share in limits.items()}


def bytes_a_row(server, url):
    [(size, index, rows)] = server.sql(
        "SELECT pg_table_size('smoothapi.answers'), pg_indexes_size('smoothapi.answers'), "
        "(SELECT count(*) FROM smoothapi.answers)",
        url,
    )
    return size / rows, index / rows


def on_paper(row, index):
    votes = sum(VOTES) / 2
    rows = BILLION * (votes + 1)
    size = rows * (row + index)
    partitions = math.ceil(size / 100e9)
    print(
        f"\na billion photos of {votes:.0f} votes and the plain answer, from {row:.0f} bytes a row and {index:.0f} of its "
        f"keys:\n"
        f"    rows        {rows:.1e}\n"
        f"    bytes       {size / 1e12:.0f} TB ({BILLION * votes * row / 1e12:.0f} TB of answers)\n"
        f"    partitions  {partitions:,} of 100 GB, by the answers' keys, which are digests\n"
        f"    requests    {rows * (1 + FAILED):.1e}: ${rows * (1 + FAILED) / 1000:,.0f} at $1 for 1,000\n"
        f"    time        {rows / 500 / 86400 / 365:.1f} years at 500 a second; "
        f"{rows / 86400 / 365:,.0f} a second for one year"
    )


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--photos", type=int, default=10_000)
    parser.add_argument("--sample", type=int, default=100, help="photos with the real store")
    options = parser.parse_args()
    server = Postgres(fsync="on", autovacuum="on", shared_buffers="128MB")
    try:
        url = server.new_database()
        statements, per_second, attempts = measure(url, options.sample)
        print(
            f"measured: {statements:.2f} statements a vote, {per_second:,.0f} statements a second "
            f"from {MACHINES} machines at once, {attempts:.2f} attempts a vote"
        )
        print("quota  workers  votes/s   quota  workers  database")
        for quota in (50, 500):
            for workers in (1, 2, 4, 8, 16, 32, 64):
                rate, limits = simulate(
                    options.photos, workers, quota, statements=statements, per_second=per_second
                )
                print(
                    f"{quota:5d}  {workers:7d}  {rate:7.1f}  {limits['quota']:6.0%}  "
                    f"{limits['workers']:7.0%}  {limits['database']:8.0%}",
                    flush=True,
                )
        on_paper(*bytes_a_row(server, url))
    finally:
        server.close()


if __name__ == "__main__":
    main()
