"""What a gateway adds to its callers' calls, and whether it holds under load.

A local Rekognition with 20 ms of latency, `smoothapi serve`, and what it is compared with are each
a process of its own; callers are threads of this one, which ask about photos of their own for a
while. Printed are

- the requests a second that reach the provider through the gateway, and those of one wrapped client
  with as many callers and requests in flight: the share is the gateway's own (bar: 85%). On a busy
  machine the processor's time for a request says more: it is printed beside;
- what 99% of the calls waited for their turn at most, and memory of the process, in the middle and
  at the end;
- attempts against a budget below what the callers would send (bar: never passed);
- what of the paid answers is on disk after kill -9 in the middle (bar: all but 2 x concurrency);
- what a call that passes through takes, and what it takes directly (bar: 2 ms more).

    python benchmarks/gateway_load.py [--seconds 60] [--callers 64] [--only throughput]
"""

from __future__ import annotations

import argparse
import base64
import json
import os
import re
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import boto3
import numpy as np
import requests
from botocore.config import Config

from smoothapi import Budget, wrap
from smoothapi.encode import Codec
from smoothapi.services import serve
from smoothapi.store import Home

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

CONCURRENCY, WORKERS = 32, 16
KEYS = {"AWS_ACCESS_KEY_ID": "AKIAIOSFODNN7EXAMPLE", "AWS_SECRET_ACCESS_KEY": "s" * 40}
CERTIFY = {
    "denoiser": "none",
    "max_votes": 100,
    "radius": 0.05,
    "concurrency": CONCURRENCY,
    "size": 64,
}
TICKS = os.sysconf("SC_CLK_TCK")


def labeller(_: Any) -> Any:
    return [("Bus", 0.97), ("Vehicle", 0.96)]


def photo(seed: int) -> bytes:
    pixels = np.random.default_rng(seed).integers(60, 190, (80, 80, 3), dtype=np.uint8)
    return Codec().encode(pixels)


class Part:
    """This script in a process of its own, in another role: it says one line, and answers others."""

    def __init__(self, *arguments: str) -> None:
        self.process = subprocess.Popen(
            [sys.executable, *arguments],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
            text=True, env={**os.environ, **KEYS},
        )  # fmt: skip
        self.said = self.heard()

    def heard(self) -> Any:
        """Return the next line of JSON."""
        assert self.process.stdout is not None
        return json.loads(self.process.stdout.readline())

    def ask(self) -> Any:
        """Ask for a line more."""
        assert self.process.stdin is not None
        self.process.stdin.write("\n")
        self.process.stdin.flush()
        return self.heard()

    def memory(self) -> float:
        """Return MiB of resident memory."""
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        return int(status.partition("VmRSS:")[2].split()[0]) / 1024

    def processor(self) -> float:
        """Return seconds of the processor's time."""
        fields = Path(f"/proc/{self.process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / TICKS

    def stop(self, number: int = signal.SIGTERM) -> None:
        self.process.send_signal(number)
        self.process.wait()


def be_the_service() -> None:
    """Answer as Rekognition; say for each line what was asked and what would be billed."""
    with serve("aws", labeller, latency=0.02, keep=0) as service:
        print(json.dumps({"url": service.url}), flush=True)
        for _ in sys.stdin:
            told = {"requests": service.requests, "billed": service.billed}
            print(json.dumps(told), flush=True)


def be_the_peer(url: str, home: str, seconds: float, callers: int) -> None:
    """Certify photos by one wrapped client; say that it is ready, and when it is done."""
    client = boto3.client(
        "rekognition",
        endpoint_url=url,
        region_name="us-east-1",
        config=Config(retries={"total_max_attempts": 1}, max_pool_connections=128),
    )
    counted = Budget(per="month", name="peer")  # on disk, as the gateway's are
    with wrap(client, budget=counted, home=home, **CERTIFY) as wrapped:  # type: ignore[arg-type]
        print("{}", flush=True)
        began = time.process_time()
        ask = lambda picture: wrapped.detect_labels(Image={"Bytes": picture})  # noqa: E731
        calls = len(load(ask, callers, seconds))
        used = time.process_time() - began
    print(json.dumps({"calls": calls, "processor": used}), flush=True)


def load(ask: Callable[[bytes], object], callers: int, seconds: float) -> list[float]:
    """Have callers ask for a while; return what each call took that was answered."""
    ends = time.monotonic() + seconds
    took: list[float] = []

    def calling(number: int) -> None:
        seed = 1_000_000 * (number + 1)
        while time.monotonic() < ends:
            began = time.monotonic()
            try:
                ask(photo(seed))
            except Exception:  # noqa: BLE001  what it was does not matter here
                time.sleep(0.05)
            else:
                took.append(time.monotonic() - began)
            seed += 1

    threads = [threading.Thread(target=calling, args=(i,)) for i in range(callers)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return took


def asking(url: str) -> Callable[[bytes], object]:
    """Return what asks a gateway, each thread over a connection of its own."""
    local = threading.local()
    headers = {
        "content-type": "application/x-amz-json-1.1",
        "x-amz-target": "RekognitionService.DetectLabels",
    }

    def ask(picture: bytes) -> None:
        if not hasattr(local, "session"):
            local.session = requests.Session()
        body = json.dumps({"Image": {"Bytes": base64.b64encode(picture).decode()}})
        local.session.post(url, headers=headers, data=body, timeout=300).raise_for_status()

    return ask


def written(folder: Path, url: str, budget: str) -> str:
    """Write a configuration, and return its file."""
    rows = [f"{name} = {json.dumps(value)}" for name, value in CERTIFY.items()]
    file = folder / "gateway.toml"
    file.write_text(
        "\n".join(
            [
                "[gateway]", "port = 0", 'callers = "anyone"', f"workers = {WORKERS}", "",
                "[certify]", *rows, f'home = "{folder}/home"', "",
                "[providers.aws]", f'budget = "{budget}"', "passthrough = true", "",
                "[providers.aws.options]", f'endpoint = "{url}"', 'region = "us-east-1"',
                "per_second = 100000",
            ]
        )
    )  # fmt: skip
    return str(file)


@contextmanager
def started(budget: str) -> Iterator[tuple[Path, Part, Part]]:
    """Give a folder, a service and a gateway before it."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        service = Part(__file__, "--role", "service")
        stack.callback(service.stop)
        file = written(folder, service.said["url"], budget)
        gateway = Part("-m", "smoothapi", "serve", "aws", "--config", file, "--json")
        stack.callback(gateway.process.kill)
        yield folder, service, gateway


def percentile(values: list[float], share: float) -> float:
    return sorted(values)[min(len(values) - 1, int(share * len(values)))] if values else 0.0


def queued(url: str, share: float) -> str:
    """Return what that share of the calls waited at most, as the metrics' histogram tells it."""
    text = requests.get(f"{url}/metrics", timeout=60).text
    rows = re.findall(r'smoothapi_gateway_queued_seconds_bucket\{le="([^"]+)".*\} (\S+)', text)
    total = float(rows[-1][1])
    return next(le for le, count in rows if float(count) >= share * total)


def throughput(callers: int, seconds: float) -> None:
    with started("unlimited") as (folder, service, gateway):
        at = service.ask()["requests"]
        arguments = [service.said["url"], str(folder / "peer"), str(seconds), str(callers)]
        began = time.monotonic()
        peer = Part(__file__, "--role", "peer", *arguments)
        done = peer.heard()
        of_peer = service.ask()["requests"] - at
        possible, cost = of_peer / (time.monotonic() - began), done["processor"] / of_peer

        half: list[float] = []
        timer = threading.Timer(seconds / 2, lambda: half.append(gateway.memory()))
        before, used, began = service.ask()["requests"], gateway.processor(), time.monotonic()
        timer.start()
        took = load(asking(gateway.said["url"]), callers, seconds)
        rate = (service.ask()["requests"] - before) / (time.monotonic() - began)
        own = (gateway.processor() - used) / max(1, service.ask()["requests"] - before)
        timer.join()
        print(
            f"{rate:,.0f} requests a second through the gateway, {possible:,.0f} through wrap: "
            f"{100 * rate / possible:.0f}%\n"
            f"{1000 * own:.2f} ms of the processor for each, {1000 * cost:.2f} ms in wrap: "
            f"{100 * own / cost:.0f}%\n"
            f"{len(took):,} calls, p50 {percentile(took, 0.5):.2f} s, p99 "
            f"{percentile(took, 0.99):.2f} s; 99% waited at most {queued(gateway.said['url'], 0.99)}"
            f" s for their turn ({callers} callers, {WORKERS} workers)\n"
            f"memory: {half[0]:.0f} MiB in the middle, {gateway.memory():.0f} MiB at the end"
        )
        passing_through(service, gateway)
        began = time.monotonic()
        gateway.stop()
        print(f"stopped in {time.monotonic() - began:.1f} s")


def passing_through(service: Part, gateway: Part) -> None:
    direct, through = [], []
    body = json.dumps({"Image": {"Bytes": base64.b64encode(photo(1)).decode()}})
    headers = {
        "X-Amz-Target": "RekognitionService.DetectText",
        "content-type": "application/x-amz-json-1.1",
    }
    used = gateway.processor()
    with requests.Session() as session:
        for _ in range(300):
            for url, times in ((service.said["url"], direct), (gateway.said["url"], through)):
                began = time.monotonic()
                session.post(url, data=body, headers=headers, timeout=60)
                times.append(1000 * (time.monotonic() - began))
    used = 1000 * (gateway.processor() - used) / len(through)
    added = statistics.median(a - b for a, b in zip(through, direct, strict=True))
    print(
        f"passing through: {statistics.median(through):.2f} ms, directly "
        f"{statistics.median(direct):.2f} ms, {added:.2f} ms more; least "
        f"{min(through) - min(direct):.2f} ms more; {used:.2f} ms of the processor"
    )


def budget(callers: int, seconds: float) -> None:
    with started("500/day") as (_, service, gateway):
        load(asking(gateway.said["url"]), callers, seconds)
        gateway.stop()
        print(f"budget of 500 attempts: {service.ask()['requests']} were made")


def killed(callers: int, seconds: float) -> None:
    with started("unlimited") as (folder, service, gateway):
        timer = threading.Timer(seconds, lambda: gateway.stop(signal.SIGKILL))
        timer.start()
        load(asking(gateway.said["url"]), callers, seconds)
        timer.join()
        time.sleep(1.0)  # what was on its way to the service
        billed = service.ask()["billed"]
        with Home(folder / "home") as home:
            kept = len(home.answers)
        print(
            f"kill -9: {billed:,} answers were paid for, {kept:,} are on disk, "
            f"{billed - kept:,} lost (promised: at most {2 * CONCURRENCY})"
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--callers", type=int, default=64)
    parser.add_argument("--only", choices=("throughput", "budget", "killed"))
    parser.add_argument("--role", choices=("service", "peer"), help=argparse.SUPPRESS)
    parser.add_argument("more", nargs="*", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.role == "service":
        be_the_service()
    elif options.role == "peer":
        url, home, seconds, callers = options.more
        be_the_peer(url, home, float(seconds), int(callers))
    else:
        parts = {
            "throughput": partial(throughput, options.callers, options.seconds),
            "budget": partial(budget, options.callers, options.seconds / 6),
            "killed": partial(killed, options.callers, options.seconds / 6),
        }
        for name, part in parts.items():
            if options.only in (None, name):
                part()


if __name__ == "__main__":
    main()
