"""Votes a second on Ray, with one process that asks and with two, where the service is the limit.

A local service that answers after 0.25 s, 4 requests in flight a process, photos of 8 pixels and no
denoiser: what is measured is the sharing. Each in turn, after a first run that starts the processes.
The bar: two at least 1.7 times one.

    python benchmarks/cluster.py [--photos 24] [--turns 3]
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))
os.environ.update(
    RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER="0",  # all at 127.0.0.1
    RAY_USAGE_STATS_ENABLED="0",
    RAY_worker_niceness="0",
    RAY_AUTH_MODE="disabled",
    PYTHONPATH=str(Path(__file__).parents[1]),
)

import numpy as np
import ray

from smoothapi import Cluster, Smoother
from tests.unit.many.labelling import Labelling

OPTIONS = {"sigma": 0.25, "radius": 0.1, "size": 8, "plain": False, "denoiser": "none"}


def photos(turn, count):
    generator = np.random.default_rng(turn)
    return list(generator.integers(0, 256, (count, 8, 8, 3), dtype=np.uint8))


def rate(home, workers, given):
    """Return votes a second, from the first vote that is told of to the end."""
    began = []

    def note(state):
        if state.votes and not began:
            began.append((time.perf_counter(), state.votes))
        seen.append(state.votes)

    seen = []
    with Smoother("http", home=home, concurrency=4, **OPTIONS) as s:
        cluster = Cluster("auto", workers=workers)
        list(s.certify_many(given, cluster=cluster, photos_at_once=4, on_progress=note))
    (start, votes), end = began[0], time.perf_counter()
    return (seen[-1] - votes) / (end - start)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--photos", type=int, default=24)
    parser.add_argument("--turns", type=int, default=3)
    options = parser.parse_args()
    service = Labelling(latency=0.25)
    os.environ.update(service.settings)
    ray.init(address="local", num_cpus=2, include_dashboard=False, log_to_driver=False)
    rates = {1: [], 2: []}
    with tempfile.TemporaryDirectory() as folder:
        for turn in range(options.turns):
            for workers, found in rates.items():
                home = Path(folder) / f"{turn} {workers}"
                found.append(rate(home, workers, photos(turn, options.photos)))
    ray.shutdown()
    service.close()
    one, two = (statistics.median(found) for found in rates.values())
    print(
        f"1 worker {one:.1f} votes a second, 2 workers {two:.1f}: {two / one:.2f} times (bar 1.7); "
        "the service allows 16 and 32"
    )


if __name__ == "__main__":
    main()
