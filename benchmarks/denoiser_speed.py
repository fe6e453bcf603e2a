"""Milliseconds and memory of the shipped denoiser beside the paper's DnCNN and FFDNet.

    python benchmarks/denoiser_speed.py [--weights default ...] [--size 224] [--batch 8] [--rounds 5] [--json FILE]
    python benchmarks/denoiser_speed.py --device cuda [--weights default small] [--json FILE]

The first of --weights is ours; others stand beside it by their names. By default that is the default
network, and on a card, where both have bars, the small one too.

All networks take turns in one process, so that a busy machine is busy for each of them; the least
disturbed round of each counts. DnCNN runs as the paper's code does: float32, NCHW, batch norm in
eval mode. FFDNet has its published shape (12 layers of 96 channels on half-size phases) and
random weights, which take the same time, and runs in the precisions that ours runs in. Ours is
timed through the runtime: from the noisy array to 8-bit pictures.

Bars: at most 1/8 of DnCNN; at most 1/2 of FFDNet in the same precision; below 1.5 GB.

On a CUDA device the bars are those of `denoiser_speed_cuda.py`, which does the work.
"""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys
import time
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from rich.console import Console
from rich.table import Table
from torch import nn
from torch.nn import functional as F  # noqa: N812

from smoothapi.denoise import load
from smoothapi.denoise.device import cpu_has_bf16
from smoothapi.denoise.networks import DnCNN

if TYPE_CHECKING:
    from collections.abc import Callable


class FFDNet(nn.Module):
    """Zhang, Zuo and Zhang (TIP 2018), colour."""

    def __init__(self) -> None:
        super().__init__()
        widths = [15, *[96] * 11, 12]
        self.layers = nn.ModuleList(nn.Conv2d(a, b, 3, padding=1) for a, b in pairwise(widths))

    def forward(self, noisy: torch.Tensor, sigma: float) -> torch.Tensor:
        """The noise."""
        x = F.pixel_unshuffle(noisy, 2)
        x = torch.cat([x, torch.full_like(x[:, :3], sigma)], dim=1)
        x = x.to(self.layers[0].weight.dtype)
        for layer in self.layers[:-1]:
            x = F.relu(layer(x))
        return F.pixel_shuffle(self.layers[-1](x), 2)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--size", type=int, default=224)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--weights", nargs="+")
    parser.add_argument("--device", default="cpu", choices=["cpu", "cuda"])
    parser.add_argument("--memory-of", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--json", metavar="FILE")
    args = parser.parse_args()
    args.weights = args.weights or (["default", "small"] if args.device == "cuda" else ["default"])
    if args.device == "cuda":
        import denoiser_speed_cuda

        denoiser_speed_cuda.main(args.weights, args.size, args.rounds, args.json)
        return
    if args.memory_of:
        print(peak_memory(args.weights[0], args.size, args.memory_of))
        return
    figures = {"threads": torch.get_num_threads(), "size": args.size, "batch": args.batch}
    figures["ms"] = times(args)
    figures["peak_mb"] = {
        str(count): int(
            subprocess.run(
                [sys.executable, __file__, "--memory-of", str(count), "--size", str(args.size),
                 "--weights", args.weights[0]],
                check=True, capture_output=True, text=True,
            ).stdout
        )
        for count in (8, 256)
    }  # fmt: skip
    show(figures)
    if args.json:
        Path(args.json).write_text(json.dumps(figures, indent=2) + "\n")


def times(args: argparse.Namespace) -> dict[str, float]:
    rng = np.random.default_rng(0)
    noisy = rng.random((args.batch, args.size, args.size, 3), dtype=np.float32)
    tensor = torch.from_numpy(noisy).permute(0, 3, 1, 2)
    planar = tensor.contiguous()
    interleaved = tensor.contiguous(memory_format=torch.channels_last)
    torch.manual_seed(0)
    dncnn = DnCNN().eval()
    ffdnet = FFDNet().eval()
    ffdnet_fast = FFDNet().eval().to(memory_format=torch.channels_last)
    runs: dict[str, Callable[[], object]] = {
        "DnCNN fp32": lambda: dncnn(planar, 0.25),
        "FFDNet fp32": lambda: ffdnet(planar, 0.25),
        "FFDNet fp32 channels_last": lambda: ffdnet_fast(interleaved, 0.25),
    }
    if cpu_has_bf16():
        ffdnet_bf16 = FFDNet().eval().to(torch.bfloat16, memory_format=torch.channels_last)
        runs["FFDNet bf16 channels_last"] = lambda: ffdnet_bf16(interleaved, 0.25)
    for name in args.weights:
        shown = "ours" if name == args.weights[0] else name
        for precision in ("fp32", "bf16") if cpu_has_bf16() else ("fp32",):
            runtime = load(name, device="cpu", precision=precision)
            runs[f"{shown} {precision}"] = lambda ours=runtime: ours.variants(noisy, 0.25)
    best = dict.fromkeys(runs, float("inf"))
    for turn in range(args.rounds + 1):
        for name, run in runs.items():
            begun = time.perf_counter()
            with torch.inference_mode():
                run()
            if turn:  # the first turn warms up
                best[name] = min(best[name], 1000 * (time.perf_counter() - begun) / args.batch)
    return best


def peak_memory(weights: str, size: int, count: int) -> int:
    """Megabytes of a process of its own that makes `count` variants, 8 a call.

    Not by `getrusage`: on Linux what it says is, across exec, never less than the parent had.
    """
    denoiser = load(weights, device="cpu")
    rng = np.random.default_rng(0)
    for _ in range(-(-count // 8)):
        denoiser.variants(rng.random((8, size, size, 3), dtype=np.float32), 0.25)
    status = Path("/proc/self/status").read_text()
    return int(re.search(r"VmHWM:\s+(\d+) kB", status)[1]) * 1024 // 1_000_000


def show(figures: dict) -> None:
    ms = figures["ms"]
    best = "bf16" if "ours bf16" in ms else "fp32"
    table = Table(
        title=f"ms per {figures['size']}x{figures['size']} variant, {figures['threads']} threads"
    )
    for name in ("network", "ms", "ours is"):
        table.add_column(name, justify="left" if name == "network" else "right")
    for name, value in sorted(ms.items(), key=lambda item: -item[1]):
        ours = (
            ms[f"ours {'bf16' if 'bf16' in name or 'DnCNN' in name else 'fp32'}"]
            if (best == "bf16")
            else ms["ours fp32"]
        )
        ratio = "" if name.startswith("ours") else times_of(ours / value)
        table.add_row(name, f"{value:.1f}", ratio)
    console = Console()
    console.print(table)
    for count, megabytes in figures["peak_mb"].items():
        console.print(f"peak memory, {count} variants: {megabytes} MB", highlight=False)


def times_of(ratio: float) -> str:
    return f"1/{1 / ratio:.1f}" if ratio < 1 else f"{ratio:.1f} times"


if __name__ == "__main__":
    main()
