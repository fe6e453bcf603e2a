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
- what a call that passes through takes, and what it takes directly (bar: 2 ms more), beside a bare
  proxy of the same libraries, uvicorn and urllib3: what is beyond it is the gateway's own;
- the memory that a picture of 15 MB takes at its peak, passed through and certified (bar: as
  much as it has).

    python benchmarks/gateway_load.py [--seconds 60] [--callers 64] [--only passing]
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import json
import os
import re
import signal
import socket
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
import urllib3
import uvicorn
from botocore.config import Config

from smoothapi import Budget, wrap
from smoothapi.encode import Codec
from smoothapi.services import serve
from smoothapi.store import Home

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

CONCURRENCY, WORKERS, PASSING = 32, 16, 300
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

    def memory(self, kind: str = "VmRSS") -> float:
        """Return MiB of resident memory: now, or at the peak ("VmHWM")."""
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        return int(status.partition(f"{kind}:")[2].split()[0]) / 1024

    def forget_the_peak(self) -> None:
        """Have the peak of memory begin anew."""
        Path(f"/proc/{self.process.pid}/clear_refs").write_text("5")

    def processor(self) -> float:
        """Return seconds of the processor's time."""
        fields = Path(f"/proc/{self.process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / TICKS

    def stop(self, number: int = signal.SIGTERM) -> None:
        self.process.send_signal(number)
        self.process.wait()


def be_the_service(provider: str) -> None:
    """Answer as a provider; say for each line what was asked and what would be billed."""
    with serve(provider, labeller, latency=0.02, keep=0) as service:
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


def be_the_proxy(url: str) -> None:
    """Hand requests on as they are, by the gateway's own libraries and by nothing else of it."""
    upstream = urllib3.PoolManager()

    async def hand_on(_: Any, receive: Any, send: Any) -> None:
        body, more = b"", True
        while more:
            message = await receive()
            body, more = body + message.get("body", b""), message.get("more_body", False)
        kind = {"content-type": "application/x-amz-json-1.1"}
        answer = await asyncio.to_thread(upstream.request, "POST", url, body=body, headers=kind)
        length = (b"content-length", str(len(answer.data)).encode())
        await send({"type": "http.response.start", "status": answer.status, "headers": [length]})
        await send({"type": "http.response.body", "body": answer.data})

    listener = socket.create_server(("127.0.0.1", 0))
    print(json.dumps({"url": f"http://127.0.0.1:{listener.getsockname()[1]}/"}), flush=True)
    config = uvicorn.Config(hand_on, http="h11", loop="asyncio", lifespan="off", log_config=None)
    uvicorn.Server(config).run(sockets=[listener])


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


def written(folder: Path, url: str, budget: str, provider: str = "aws") -> str:
    """Write a configuration, and return its file."""
    own = ['region = "us-east-1"', "per_second = 100000"] if provider == "aws" else ['key = "any"']
    rows = [f"{name} = {json.dumps(value)}" for name, value in CERTIFY.items()]
    file = folder / "gateway.toml"
    file.write_text(
        "\n".join(
            [
                "[gateway]", "port = 0", 'callers = "anyone"', f"workers = {WORKERS}", "",
                "[certify]", *rows, f'home = "{folder}/home"', "",
                f"[providers.{provider}]", f'budget = "{budget}"', "passthrough = true", "",
                f"[providers.{provider}.options]", f'endpoint = "{url}"', *own,
            ]
        )
    )  # fmt: skip
    return str(file)


@contextmanager
def started(budget: str, provider: str = "aws") -> Iterator[tuple[Path, Part, Part]]:
    """Give a folder, a service and a gateway before it."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        service = Part(__file__, "--role", "service", provider)
        stack.callback(service.stop)
        file = written(folder, service.said["url"], budget, provider)
        gateway = Part("-m", "smoothapi", "serve", provider, "--config", file, "--json")
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
        began = time.monotonic()
        gateway.stop()
        print(f"stopped in {time.monotonic() - began:.1f} s")


def passing() -> None:
    """Print what a call that passes through takes, beside a bare proxy of the same libraries."""
    with started("unlimited") as (_, service, gateway):
        proxy = Part(__file__, "--role", "proxy", service.said["url"])
        try:
            parts = {"directly": service, "a bare proxy": proxy, "the gateway": gateway}
            used = {name: -part.processor() for name, part in parts.items()}
            took = taken({name: part.said["url"] for name, part in parts.items()})
            for name, part in parts.items():
                added = [
                    one - plain for one, plain in zip(took[name], took["directly"], strict=True)
                ]
                least = min(took[name]) - min(took["directly"])
                print(
                    f"{name}: {statistics.median(took[name]):.2f} ms, "
                    f"{statistics.median(added):.2f} ms more; least {least:.2f} ms more; "
                    f"{1000 * (used[name] + part.processor()) / PASSING:.2f} ms of the processor"
                )
        finally:
            proxy.stop()
        gateway.stop()


def taken(urls: Mapping[str, str]) -> dict[str, list[float]]:
    """Return milliseconds of calls that are no labelling: to each in turn, so that all are alike."""
    body = json.dumps({"Image": {"Bytes": base64.b64encode(photo(1)).decode()}})
    headers = {
        "X-Amz-Target": "RekognitionService.DetectText",
        "content-type": "application/x-amz-json-1.1",
    }
    took: dict[str, list[float]] = {name: [] for name in urls}
    with requests.Session() as session:
        for _ in range(PASSING):
            for name, url in urls.items():
                began = time.monotonic()
                session.post(url, data=body, headers=headers, timeout=60)
                took[name].append(1000 * (time.monotonic() - began))
    return took


def picture() -> None:
    long = photo(1) + bytes(15_000_000)  # what no decoder reads: as long as a scan
    with started("unlimited", "azure4") as (_, _service, gateway), requests.Session() as session:
        for what, path in (
            ("passed through", "imageanalysis:segment?mode=x"),
            ("certified", "imageanalysis:analyze?features=tags"),
        ):
            url = f"{gateway.said['url']}/computervision/{path}&api-version=2023-10-01"
            headers = {"content-type": "application/octet-stream"}
            session.post(url, data=photo(2), headers=headers, timeout=60)  # all is loaded
            before = gateway.memory()
            gateway.forget_the_peak()
            outcome = session.post(url, data=long, headers=headers, timeout=60).headers
            more = gateway.memory("VmHWM") - before
            print(
                f"a picture of {len(long) / 2**20:.1f} MiB {what} "
                f"({outcome.get('x-smoothapi-outcome')}): {more:.1f} MiB at the peak"
            )
        gateway.stop()


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
    parser.add_argument("--only", choices=("throughput", "passing", "picture", "budget", "killed"))
    parser.add_argument("--role", choices=("service", "peer", "proxy"), help=argparse.SUPPRESS)
    parser.add_argument("more", nargs="*", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.role == "service":
        be_the_service(*options.more)
    elif options.role == "proxy":
        be_the_proxy(*options.more)
    elif options.role == "peer":
        url, home, seconds, callers = options.more
        be_the_peer(url, home, float(seconds), int(callers))
    else:
        parts = {
            "throughput": partial(throughput, options.callers, options.seconds),
            "passing": passing,
            "picture": picture,
            "budget": partial(budget, options.callers, options.seconds / 6),
            "killed": partial(killed, options.callers, options.seconds / 6),
        }
        for name, part in parts.items():
            if options.only in (None, name):
                part()


if __name__ == "__main__":
    main()
