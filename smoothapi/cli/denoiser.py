"""`smoothapi denoiser`: train, measure, convert and adapt denoisers."""

from __future__ import annotations

import json
import sys
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn
from rich.table import Table

from smoothapi.cli.adapt import adapt
from smoothapi.errors import SmoothAPIError

if TYPE_CHECKING:
    from collections.abc import Callable

    from smoothapi.denoise.evaluate import Report
    from smoothapi.denoise.train import StepReport

_FOLDER = click.Path(exists=True, file_okay=False, path_type=Path)
_FILE = click.Path(exists=True, dir_okay=False, path_type=Path)
_OUT = click.Path(path_type=Path)


class _Group(click.Group):
    """Turns smoothapi's errors into a line on stderr and their exit code."""

    def invoke(self, ctx: click.Context) -> object:
        try:
            return super().invoke(ctx)
        except SmoothAPIError as error:
            Console(stderr=True).print(f"[bold red]error:[/] {_plain(str(error))}", soft_wrap=True)
            ctx.exit(error.exit_code)


@click.group(cls=_Group)
def denoiser() -> None:
    """Train, measure, convert and adapt the local denoiser."""


@denoiser.command(short_help="Train a denoiser, or resume after a kill.")
@click.option(
    "--data",
    "folders",
    type=_FOLDER,
    multiple=True,
    required=True,
    help="Folder of photos; repeatable. Named twice, it counts twice.",
)
@click.option("--hold-out", type=_FOLDER, help="Folder of which some photos are never trained on.")
@click.option("--hold-out-count", default=200, show_default=True, help="How many of them.")
@click.option("--out", type=_OUT, required=True, help="Folder of checkpoint, weights and log.")
@click.option("--start", type=_FILE, help="Weights to begin from (safetensors).")
@click.option("--surrogate", "surrogates", multiple=True, help="ONNX file or module:function.")
@click.option("--surrogates-per-step", default=1, show_default=True)
@click.option(
    "--objective",
    type=click.Choice(["pixel", "stability", "both"]),
    default="pixel",
    show_default=True,
)
@click.option("--stability-weight", default=0.1, show_default=True)
@click.option(
    "--feature-weight", default=0.0, show_default=True, help="Of what surrogates see on the way."
)
@click.option(
    "--view", default=0, help="Side of what surrogates of any size see; 0 is the whole crop."
)
@click.option("--architecture", type=click.Choice(["unet", "dncnn"]), default="unet")
@click.option("--channels", default="48,96,192,192", show_default=True, help="U-Net, by scale.")
@click.option("--encoder-blocks", default="1,1,2,2", show_default=True)
@click.option("--decoder-blocks", default="1,1,1", show_default=True)
@click.option("--steps", default=0, help="End after so many steps (reproducible).")
@click.option("--minutes", default=0.0, help="End after so many minutes.")
@click.option("--crop", default=96, show_default=True, help="Side of a crop in pixels.")
@click.option("--batch", default=16, show_default=True)
@click.option("--scale-low", default=0.4, show_default=True, help="Smallest shrinking factor.")
@click.option("--upright", is_flag=True, help="Mirror crops, but never turn them.")
@click.option("--sigma", nargs=2, type=float, default=(0.05, 1.0), show_default=True)
@click.option("--focus", nargs=2, type=float, default=(0.12, 0.6), show_default=True)
@click.option("--focus-share", default=0.6, show_default=True)
@click.option(
    "--optimizer", type=click.Choice(["muon", "adamw"]), default="muon", show_default=True
)
@click.option("--learning-rate", default=2e-3, show_default=True)
@click.option("--final-rate", default=0.01, show_default=True, help="Fraction left at the end.")
@click.option("--warmup", default=200, show_default=True)
@click.option("--weight-decay", default=0.01, show_default=True)
@click.option("--clip", default=1.0, show_default=True, help="Largest norm of the gradient.")
@click.option("--ema", default=0.999, show_default=True)
@click.option("--precision", type=click.Choice(["bf16", "fp32"]), default="bf16")
@click.option("--seed", default=0, show_default=True)
@click.option("--device", default="auto", show_default=True)
@click.option("--threads", default=0, help="CPU threads; 0 leaves torch's choice.")
@click.option(
    "--shards", default=1, show_default=True, help="Parts of a batch, a thread each (busy CPUs)."
)
@click.option("--compile", "compile_network", is_flag=True, help="torch.compile (CUDA).")
@click.option("--json", "as_json", is_flag=True, help="Reports as JSON lines on stdout.")
def train(
    *,
    folders: tuple[Path, ...],
    hold_out: Path | None,
    hold_out_count: int,
    out: Path,
    start: Path | None,
    surrogates: tuple[str, ...],
    architecture: str,
    channels: str,
    encoder_blocks: str,
    decoder_blocks: str,
    crop: int,
    batch: int,
    scale_low: float,
    upright: bool,
    device: str,
    threads: int,
    shards: int,
    compile_network: bool,
    as_json: bool,
    **options: Any,
) -> None:
    """Train a denoiser; run the same command again to resume after a kill."""
    import torch  # noqa: PLC0415 - help and usage errors must not wait for torch

    from smoothapi.denoise import data, networks, storage  # noqa: PLC0415
    from smoothapi.denoise.device import choose_device  # noqa: PLC0415
    from smoothapi.denoise.surrogates import load_classifier  # noqa: PLC0415
    from smoothapi.denoise.train import Recipe, Trainer  # noqa: PLC0415

    if threads:
        torch.set_num_threads(threads)
    recipe = Recipe(crops=data.Crops(crop, batch, scale_low, turned=not upright), **options)
    torch.manual_seed(recipe.seed)
    if start is not None:
        network = storage.load_network(storage.read_header(start))
    elif architecture == "unet":
        network = networks.UNet(
            networks.UNetConfig(
                _numbers(channels), _numbers(encoder_blocks), _numbers(decoder_blocks)
            )
        )
    else:
        network = networks.DnCNN()
    kept = frozenset[str]()
    if hold_out is not None:
        kept = data.held_out((p.name for p in data.files(hold_out)), hold_out_count)
    photos = data.Photos.load(folders, leave_out=kept)
    trainer = Trainer(
        network,
        photos,
        recipe,
        out=out,
        surrogates=[load_classifier(path) for path in surrogates],
        device=torch.device(choose_device(device)),
        compile_network=compile_network,
        shards=shards,
    )
    err = Console(stderr=True)
    size = sum(p.numel() for p in network.parameters()) / 1e6
    err.print(f"{len(photos)} photos, {len(kept)} held out, {size:.2f} M parameters, to {out}")
    with Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        TaskProgressColumn(),
        TimeRemainingColumn(),
        console=err,
        disable=not err.is_terminal,
    ) as bar:
        trainer.run(report=_reporter(bar, as_json=as_json))
    err.print(f"Weights: {out / 'weights.safetensors'}")


def _reporter(bar: Progress, *, as_json: bool) -> Callable[[StepReport], None]:
    task = bar.add_task("training", total=1.0)

    def report(step: StepReport) -> None:
        text = f"step {step.step}  loss {step.loss:.4f}  PSNR {step.psnr:.2f} dB"
        bar.update(task, completed=step.progress, description=text)
        if as_json:
            line = {f.name: getattr(step, f.name) for f in fields(step)}
            sys.stdout.write(json.dumps(line) + "\n")
            sys.stdout.flush()
        elif bar.disable:
            bar.console.print(f"{text}  {step.seconds:.0f} s", highlight=False)

    return report


@denoiser.command("eval", short_help="Measure PSNR, SSIM, labels kept, speed.")
@click.argument("folder", type=_FOLDER)
@click.option("--weights", default="default", show_default=True, help="default, none or a file.")
@click.option("--sigma", "sigmas", type=float, multiple=True, default=(0.12, 0.25, 0.5, 1.0))
@click.option("--classifier", "classifiers", multiple=True, help="ONNX file or module:function.")
@click.option("--size", default=224, show_default=True, help="Side of the centre crop.")
@click.option("--resize", is_flag=True, help="Shrink the whole photo to the size instead.")
@click.option("--limit", default=0, help="Only the first so many photos.")
@click.option("--device", default="auto", show_default=True)
@click.option("--precision", default="auto", show_default=True)
@click.option("--seed", default=0, show_default=True)
@click.option("--json", "as_json", is_flag=True)
def evaluate(
    folder: Path,
    weights: str,
    classifiers: tuple[str, ...],
    *,
    as_json: bool,
    **options: Any,
) -> None:
    """Measure a denoiser on a FOLDER of photos: PSNR, SSIM, labels kept, milliseconds."""
    from smoothapi.denoise.evaluate import evaluate as measure  # noqa: PLC0415
    from smoothapi.denoise.runtime import load  # noqa: PLC0415
    from smoothapi.denoise.surrogates import load_classifier  # noqa: PLC0415

    runtime = load(weights, device=options.pop("device"), precision=options.pop("precision"))
    err = Console(stderr=True)
    with err.status("measuring"):
        report = measure(runtime, folder, [load_classifier(c) for c in classifiers], **options)
    if as_json:
        click.echo(json.dumps(report.to_dict(), indent=2))
    else:
        Console().print(_table(report))


def _table(report: Report) -> Table:
    table = Table(title=f"{_plain(report.denoiser)} on {report.photos} photos")
    names = ("sigma", "noisy dB", "PSNR dB", "SSIM", "ms/variant")
    for name in (*names, *(f"kept by {_plain(c)}" for c in report.classifiers)):
        table.add_column(name, justify="right")
    for row in report.rows:
        table.add_row(
            f"{row.sigma:g}",
            f"{row.noisy_psnr:.2f}",
            f"{row.psnr:.2f}",
            f"{row.ssim:.4f}",
            f"{row.milliseconds:.1f}",
            *(f"{share:.1%}" for share in row.agreement.values()),
        )
    return table


@denoiser.command(short_help="Convert a checkpoint of the paper's DnCNN.")
@click.argument("checkpoint", type=_FILE)
@click.argument("output", type=_OUT)
def convert(checkpoint: Path, output: Path) -> None:
    """Turn a CHECKPOINT (.pth.tar) of the paper's DnCNN into OUTPUT (.safetensors)."""
    from smoothapi.denoise.convert import convert_dncnn  # noqa: PLC0415

    header = convert_dncnn(checkpoint, output)
    Console(stderr=True).print(
        f"{_plain(str(output))}: {header.architecture}, "
        f"{header.config['layers']} layers of {header.config['channels']} channels",
        soft_wrap=True,
    )


denoiser.add_command(adapt)


def _numbers(text: str) -> tuple[int, ...]:
    try:
        return tuple(int(part) for part in text.split(","))
    except ValueError:
        raise click.BadParameter(f"{text!r} is not a list of numbers such as 48,96") from None


def _plain(text: str) -> str:
    return text.replace("[", "\\[")


if __name__ == "__main__":
    denoiser()
