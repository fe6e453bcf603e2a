"""Variants a second on a CUDA device; `denoiser_speed.py --device cuda` calls it.

In one run on one card: the paper's DnCNN as its code runs it (float32, NCHW, batch norm in eval
mode, TF32 as torch has it), each of our networks alone (bf16, channels_last; call by call, with
cuDNN's kernels chosen by rules and by timing, and as a CUDA graph) for several sizes of batch, and
`variants_of` from the working image to 8-bit pictures in the host's memory, noise included. Then
what the noise and the conversion take of that, and how many pixels differ when 64 variants are
asked for in other lots. Each figure is the median of some rounds between synchronised clocks.

Bars: the largest network end to end at least 80% of the fastest of that network alone; the
smallest at least 8 times DnCNN; noise and conversion below 20% of the time of either; no pixel
that differs. One network by itself has the bar that it was made for.
"""

from __future__ import annotations

import json
import statistics
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from rich.console import Console
from rich.table import Table

from smoothapi.denoise import cuda, load
from smoothapi.denoise.cuda import Engine
from smoothapi.denoise.device_noise import (
    check_generator,
    choose_generator,
    keys_of,
    plain_generator,
)
from smoothapi.denoise.networks import DnCNN
from smoothapi.errors import SmoothAPIError

if TYPE_CHECKING:
    from collections.abc import Callable

SIGMA = 0.25
BATCHES = (8, 16, 32, 64, 128)
COUNT = 512
SMALL = "small"
DEVICE = torch.device("cuda:0")


def main(weights: list[str], size: int, rounds: int, file: str | None) -> None:
    # Some cards slow down when warm: what is compared is measured in one run.
    console = Console(width=110)
    figures: dict[str, Any] = {
        "card": torch.cuda.get_device_name(DEVICE),
        "torch": torch.__version__,
        "cudnn": torch.backends.cudnn.version(),
        "size": size,
        "unit": f"variants of {size}x{size} a second",
    }
    cuda.MOST_A_BATCH = max(BATCHES)
    bench = Bench(size, rounds)
    figures["DnCNN fp32 NCHW"] = bench.dncnn()
    figures["noise"] = bench.noise()
    show(console, "before the networks", figures)
    for name in weights:
        try:
            found = bench.network(name)
        except (SmoothAPIError, OSError) as error:
            console.print(f"{name}: {error}")
            continue
        figures.setdefault("networks", {})[name] = found
        show(console, name, found)
        if file:  # as far as it has come
            Path(file).write_text(json.dumps(figures, indent=2) + "\n")
    figures["bars"] = bars(figures)
    table = Table("bar", "wanted", "measured", "holds", title="bars")
    for bar in figures["bars"]:
        table.add_row(bar["bar"], bar["wanted"], bar["measured"], "yes" if bar["holds"] else "NO")
    console.print(table)
    if file:
        Path(file).write_text(json.dumps(figures, indent=2) + "\n")


class Bench:
    def __init__(self, size: int, rounds: int) -> None:
        self.rounds = rounds
        rng = np.random.default_rng(0)
        self.pixels = np.rint(rng.random((size, size, 3)) * 2.0**20) / 2.0**20
        self.seeds = [int.from_bytes(rng.bytes(16), "little") for _ in range(COUNT)]
        self.size = size

    def rate(self, run: Callable[[], object], variants: int, calls: int = 1) -> float:
        """Variants a second, the median of the rounds."""
        for _ in range(2):
            run()
        seconds = []
        for _ in range(self.rounds):
            torch.cuda.synchronize()
            begun = time.perf_counter()
            for _ in range(calls):
                run()
            torch.cuda.synchronize()
            seconds.append(time.perf_counter() - begun)
        return round(variants * calls / statistics.median(seconds), 1)

    def noisy(self, batch: int) -> torch.Tensor:
        generator = torch.Generator(DEVICE).manual_seed(0)
        shape = (batch, self.size, self.size, 3)
        drawn = torch.randn(shape, device=DEVICE, generator=generator)
        return (0.5 + SIGMA * drawn).permute(0, 3, 1, 2)

    def dncnn(self) -> dict[str, float]:
        torch.manual_seed(0)
        network = DnCNN().eval().to(DEVICE)
        found = {}
        with torch.inference_mode():
            for batch in (64, 128):
                planar = self.noisy(batch).contiguous()
                for benchmark in (False, True):
                    torch.backends.cudnn.benchmark = benchmark
                    name = f"batch {batch}{', cudnn.benchmark' if benchmark else ''}"
                    found[name] = self.rate(lambda x=planar: network(x, SIGMA), batch, 3)
        torch.backends.cudnn.benchmark = False
        return found

    def noise(self) -> dict[str, Any]:
        generator = choose_generator(str(DEVICE))
        found: dict[str, Any] = {"generator": generator.name}
        pixels = torch.from_numpy(self.pixels).to(DEVICE)
        for each in (generator, plain_generator()):
            check_generator(DEVICE, each)
            for batch in (16, 64):
                keys = torch.from_numpy(keys_of(self.seeds[:batch])).to(DEVICE)
                out = torch.empty((batch, *self.pixels.shape), device=DEVICE)
                found[f"{each.name}, batch {batch}"] = self.rate(
                    lambda each=each, out=out, keys=keys: each.draw(out, pixels, SIGMA, keys),
                    batch,
                    10,
                )
        return found

    def network(self, name: str) -> dict[str, Any]:
        runtime = load(name, device="cuda")
        begun = time.perf_counter()
        fingerprint = runtime.fingerprint
        first = time.perf_counter()
        runtime.variants_of(self.pixels, SIGMA, self.seeds[:1])
        found: dict[str, Any] = {
            "name": runtime.name,
            "fingerprint": fingerprint,
            "seconds to the fingerprint": round(first - begun, 2),
            "seconds to the first variant": round(time.perf_counter() - first, 2),
            "batch": runtime._engine.batch_of(self.size, self.size),
        }
        found["alone"] = self.alone(runtime._call)
        found["end to end by batch"] = {}
        for batch in BATCHES:
            engine = self.engine(runtime, batch)
            found["end to end by batch"][str(batch)] = self.rate(
                lambda engine=engine: engine.of_seeds(self.pixels, SIGMA, self.seeds), COUNT
            )
            for lot in (12, 47):
                found["end to end by batch"][f"{batch}, asked for {lot}"] = self.rate(
                    lambda engine=engine, lot=lot: engine.of_seeds(
                        self.pixels, SIGMA, self.seeds[:lot]
                    ),
                    lot,
                    5,
                )
            del engine
        found["variants_of"] = self.rate(
            lambda: runtime.variants_of(self.pixels, SIGMA, self.seeds), COUNT
        )
        noisy = self.noisy(128).permute(0, 2, 3, 1).cpu().numpy()
        found["variants, noise from the host"] = self.rate(
            lambda: runtime.variants(noisy, SIGMA), 128
        )
        found["shares"] = self.shares(runtime)
        found["peak MB"] = torch.cuda.max_memory_allocated() // 2**20
        found["pixels that differ"] = self.differing(runtime)
        return found

    def engine(self, runtime: Any, batch: int) -> Engine:
        engine = runtime._engine
        pixels = batch * self.size**2
        return Engine(engine._card, engine._network, engine._generator, engine._judge, pixels)

    def alone(self, call: Callable[..., torch.Tensor]) -> dict[str, float]:
        found = {}
        sigma = torch.full((1,), SIGMA, device=DEVICE)
        with torch.inference_mode():
            for batch in BATCHES:
                noisy = self.noisy(batch)
                for benchmark in (False, True):
                    torch.backends.cudnn.benchmark = benchmark
                    name = f"batch {batch}{', cudnn.benchmark' if benchmark else ''}"
                    found[name] = self.rate(lambda x=noisy: call(x, sigma), batch, 3)
                torch.backends.cudnn.benchmark = False
                found[f"batch {batch}, graph"] = self.rate(
                    graph(lambda x=noisy: call(x, sigma)).replay, batch, 5
                )
        return found

    def shares(self, runtime: Any) -> dict[str, float]:
        """Microseconds a variant of what is done for one batch, apart from one another."""
        engine = runtime._engine
        batch = engine.batch_of(self.size, self.size)
        plan = engine._plans[self.size, self.size]
        sigma, few = plan.sigma, 10
        with torch.inference_mode():
            inputs = plan.noisy.permute(0, 3, 1, 2)
            network = graph(lambda: engine._network(inputs, sigma))
            denoised = engine._network(inputs, sigma)
            conversion = graph(lambda: plan.convert(denoised))
            rates = {
                "network": self.rate(network.replay, batch, few),
                "network and conversion": self.rate(plan.replay, batch, few),
                "conversion": self.rate(conversion.replay, batch, few),
                "noise": self.rate(
                    lambda: engine._generator.draw(plan.noisy, plan.pixels, SIGMA, plan.keys),
                    batch,
                    few,
                ),
            }
        found = {name: round(1e6 / rate, 2) for name, rate in rates.items()}
        whole = 1e6 / self.rate(lambda: engine.of_seeds(self.pixels, SIGMA, self.seeds), COUNT)
        found["end to end"] = round(whole, 2)
        found["noise and conversion, share"] = round(
            (found["noise"] + found["network and conversion"] - found["network"]) / whole, 4
        )
        found["all but the network, share"] = round(1 - found["network"] / whole, 4)
        return found

    def differing(self, runtime: Any) -> dict[str, int]:
        whole = runtime.variants_of(self.pixels, SIGMA, self.seeds[:64])
        found = {}
        for size in (1, 7, 16, 64):
            parts = [
                runtime.variants_of(self.pixels, SIGMA, self.seeds[i : min(i + size, 64)])
                for i in range(0, 64, size)
            ]
            found[str(size)] = int(np.count_nonzero(np.concatenate(parts) != whole))
        turned = runtime.variants_of(self.pixels, SIGMA, [*self.seeds[5:64], *self.seeds[:5]])
        found["turned"] = int(np.count_nonzero(np.roll(turned, 5, axis=0) != whole))
        return found


def graph(run: Callable[[], object]) -> torch.cuda.CUDAGraph:
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(2):
            run()
    torch.cuda.synchronize()
    recorded = torch.cuda.CUDAGraph()
    with torch.cuda.graph(recorded):
        run()
    return recorded


def bars(figures: dict[str, Any]) -> list[dict[str, Any]]:
    networks = figures.get("networks", {})
    if not networks:
        return []
    fastest = {name: max(found["alone"].values()) for name, found in networks.items()}
    large, small = min(fastest, key=fastest.get), max(fastest, key=fastest.get)
    dncnn = max(figures["DnCNN fp32 NCHW"].values())
    rows = []
    if large != small or large != SMALL:
        share = networks[large]["variants_of"] / fastest[large]
        rows.append((f"{large} end to end / alone", ">= 0.80", f"{share:.3f}", share >= 0.8))
    if large != small or small == SMALL:
        times = networks[small]["variants_of"] / dncnn
        rows.append((f"{small} end to end / DnCNN", ">= 8", f"{times:.2f}", times >= 8))
    for name, found in networks.items():
        part = found["shares"]["noise and conversion, share"]
        rows.append((f"{name}: noise and conversion", "< 0.20", f"{part:.3f}", part < 0.2))
        pixels = sum(found["pixels that differ"].values())
        rows.append((f"{name}: pixels that differ", "0", str(pixels), pixels == 0))
    return [
        {"bar": bar, "wanted": wanted, "measured": measured, "holds": bool(holds)}
        for bar, wanted, measured, holds in rows
    ]


def show(console: Console, title: str, figures: dict[str, Any]) -> None:
    table = Table("what", "figure", title=title)
    for name, value in figures.items():
        if isinstance(value, dict):
            for inner, each in value.items():
                table.add_row(f"{name}: {inner}", str(each))
        else:
            table.add_row(name, str(value))
    console.print(table)
