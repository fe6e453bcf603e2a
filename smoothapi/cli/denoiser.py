"""`smoothapi denoiser`: train, measure, convert and adapt denoisers, and pack photos."""

from __future__ import annotations

import json
import sys
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

import click
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn
from rich.table import Table

from smoothapi.cli.adapt import adapt
from smoothapi.cli.console import PrintableConsole
from smoothapi.cli.group import Group
from smoothapi.cli.options import working_radius
from smoothapi.cli.signals import Stopped, says_when_stopped
from smoothapi.cli.terminal import echo
from smoothapi.denoise.device import require_torch
from smoothapi.denoise.training.recipe import Objective, Optimizer, PhotosOn, TrainingPrecision

if TYPE_CHECKING:
    from collections.abc import Callable

    from rich.progress import TaskID

    from smoothapi.denoise.training.evaluate import Report
    from smoothapi.denoise.training.train import StepReport
    from smoothapi.study.certified import Certified
    from smoothapi.study.figures import Band

_FOLDER = click.Path(exists=True, file_okay=False, path_type=Path)
_FILE = click.Path(exists=True, dir_okay=False, path_type=Path)
_OUT = click.Path(path_type=Path)
_NOTHING_WRITTEN = "Nothing was written: the same command begins anew."
_NOTHING_MEASURED = "Nothing of what was measured is kept: the same command begins anew."


@click.group(cls=Group)
def denoiser() -> None:
    """Train, measure, convert and adapt the local denoiser."""


@denoiser.command(short_help="Train a denoiser, or resume after a kill.")
@click.option(
    "--data",
    "places",
    type=click.Path(exists=True, path_type=Path),
    multiple=True,
    required=True,
    help="Folder of photos, or FILE.bin of `denoiser pack`; repeatable. Named twice, it counts "
    "twice.",
)
@click.option(
    "--source-weight",
    "weights",
    multiple=True,
    metavar="NAME=WEIGHT",
    help="How often photos of a source (a folder's name, or what a pack says) are drawn, where "
    "others have 1; repeatable.",
)
@click.option(
    "--photos-on",
    type=click.Choice(get_args(PhotosOn)),
    default="auto",
    show_default=True,
    help="Where crops are cut: in RAM, after shrinking by a factor from --scale-low; or on the "
    "device, out of photos with short sides of 1 and 8/7 crops. auto: on CUDA devices.",
)
@click.option(
    "--hold-out",
    type=_FOLDER,
    help="Folder of which some photos are never trained on. Packs keep no names: hold out of them "
    "when they are written.",
)
@click.option("--hold-out-count", default=200, show_default=True, help="How many of them.")
@click.option("--out", type=_OUT, required=True, help="Folder of checkpoint, weights and log.")
@click.option("--start", type=_FILE, help="Weights to begin from (safetensors).")
@click.option(
    "--surrogate",
    "surrogates",
    multiple=True,
    help="ONNX file, module:function or FILE.py:function; repeatable.",
)
@click.option("--surrogates-per-step", default=1, show_default=True)
@click.option(
    "--objective",
    type=click.Choice(get_args(Objective)),
    default="pixel",
    show_default=True,
)
@click.option("--stability-weight", default=0.1, show_default=True)
@click.option(
    "--feature-weight", default=0.0, show_default=True, help="Of what surrogates see on the way."
)
@click.option(
    "--labels-from",
    default=0.0,
    show_default=True,
    help="Share of the run that looks at pixels alone, before stability and features come in.",
)
@click.option(
    "--labels-sigma",
    default=0.0,
    show_default=True,
    help="Noise level at which stability and features count half; 0: the same at each.",
)
@click.option(
    "--view", default=0, help="Side of what surrogates of any size see; 0 is the whole crop."
)
@click.option("--architecture", type=click.Choice(["unet", "dncnn"]), default="unet")
@click.option("--channels", default="48,96,192,192", show_default=True, help="U-Net, by scale.")
@click.option("--encoder-blocks", default="1,1,2,2", show_default=True)
@click.option("--decoder-blocks", default="1,1,1", show_default=True)
@click.option("--steps", default=0, help="End after so many steps (reproducible).")
@click.option("--minutes", default=0.0, help="End after so many minutes, compiling not counted.")
@click.option("--crop", default=96, show_default=True, help="Side of a crop in pixels.")
@click.option("--batch", default=16, show_default=True)
@click.option("--scale-low", default=0.4, show_default=True, help="Smallest shrinking factor.")
@click.option("--upright", is_flag=True, help="Mirror crops, but never turn them.")
@click.option("--sigma", nargs=2, type=float, default=(0.05, 1.0), show_default=True)
@click.option("--focus", nargs=2, type=float, default=(0.12, 0.6), show_default=True)
@click.option("--focus-share", default=0.6, show_default=True)
@click.option(
    "--optimizer", type=click.Choice(get_args(Optimizer)), default="muon", show_default=True
)
@click.option("--learning-rate", default=2e-3, show_default=True)
@click.option(
    "--hold",
    default=0.0,
    show_default=True,
    help="Share of the run before the rate begins to fall.",
)
@click.option("--final-rate", default=0.01, show_default=True, help="Fraction left at the end.")
@click.option("--warmup", default=200, show_default=True)
@click.option("--weight-decay", default=0.01, show_default=True)
@click.option("--clip", default=1.0, show_default=True, help="Largest norm of the gradient.")
@click.option(
    "--burst",
    default=20.0,
    show_default=True,
    help="Skip a step whose gradient is so many times the running norm.",
)
@click.option("--ema", default=0.999, show_default=True)
@click.option("--precision", type=click.Choice(get_args(TrainingPrecision)), default="bf16")
@click.option("--seed", default=0, show_default=True)
@click.option("--device", default="auto", show_default=True)
@click.option("--threads", default=0, help="CPU threads; 0 leaves torch's choice.")
@click.option(
    "--shards", default=1, show_default=True, help="Parts of a batch, a thread each (busy CPUs)."
)
@click.option(
    "--compile/--no-compile",
    "compile_network",
    default=None,
    help="torch.compile the network; by default on CUDA devices.",
)
@click.option("--json", "as_json", is_flag=True, help="Reports as JSON lines on stdout.")
def train(
    *,
    places: tuple[Path, ...],
    weights: tuple[str, ...],
    photos_on: PhotosOn,
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
    compile_network: bool | None,
    as_json: bool,
    **options: Any,
) -> None:
    """Train a denoiser; run the same command again to resume after a kill."""
    # Loaded here, since help and usage errors must not wait for torch.
    require_torch("Training")
    from smoothapi.denoise.training.data import Crops  # noqa: PLC0415
    from smoothapi.denoise.training.photo_files import names_held_out  # noqa: PLC0415
    from smoothapi.denoise.training.recipe import Recipe  # noqa: PLC0415
    from smoothapi.denoise.training.setup import make_trainer  # noqa: PLC0415

    crops = Crops(crop, batch, scale_low, turned=not upright, weights=tuple(map(_weight, weights)))
    recipe = Recipe(crops=crops, **options)
    shape: dict[str, Any] = {}
    if start is None and architecture == "unet":
        shape = {
            "channels": _numbers(channels),
            "encoder_blocks": _numbers(encoder_blocks),
            "decoder_blocks": _numbers(decoder_blocks),
        }
    kept = names_held_out(hold_out, hold_out_count)
    trainer = make_trainer(
        recipe,
        places,
        out=out,
        network=start or (architecture, shape),
        leave_out=kept,
        photos_on=photos_on,
        surrogates=surrogates,
        device=device,
        threads=threads,
        shards=shards,
        compile_network=compile_network,
    )
    err = PrintableConsole(stderr=True)
    size = sum(p.numel() for p in trainer.network.parameters()) / 1e6
    err.print(
        f"{len(trainer.photos)} photos, {len(kept)} held out, {size:.2f} M parameters, to {out}"
    )
    try:
        with _bar(err) as bar:
            trainer.run(report=_reporter(bar, as_json=as_json))
    except KeyboardInterrupt:
        raise Stopped(_where_training_stands(out)) from None
    err.print(f"Weights: {out / 'weights.safetensors'}")


def _where_training_stands(out: Path) -> str:
    checkpoint = out / "checkpoint.safetensors"
    if not checkpoint.exists():
        return "There was no checkpoint yet: the same command begins anew."
    return f"The same command continues from the last checkpoint, {checkpoint}."


def _reporter(bar: Progress, *, as_json: bool) -> Callable[[StepReport], None]:
    task = bar.add_task("training", total=1.0)

    def report(step: StepReport) -> None:
        text = (
            f"step {step.step}  loss {step.loss:.4f}  PSNR {step.psnr:.2f} dB  "
            f"{step.speed:.0f} pictures/s"
        )
        bar.update(task, completed=step.progress, description=text)
        if as_json:
            line = {f.name: getattr(step, f.name) for f in fields(step)}
            sys.stdout.write(json.dumps(line) + "\n")
            sys.stdout.flush()
        elif bar.disable:
            bar.console.print(f"{text}  {step.seconds:.0f} s", highlight=False)

    return report


@denoiser.command(short_help="Write photos into one file, for a machine with a GPU.")
@click.argument(
    "places",
    nargs=-1,
    required=True,
    type=click.Path(exists=True, path_type=Path),
    metavar="FOLDER...",
)
@click.argument("output", type=_OUT, metavar="FILE.bin")
@click.option("--short-side", default=256, show_default=True, help="Pixels; none is enlarged.")
@click.option("--quality", default=90, show_default=True, help="Of the JPEGs.")
@click.option("--hold-out", type=_FOLDER, help="Folder of which some photos are not written.")
@click.option("--hold-out-count", default=200, show_default=True, help="How many of them.")
@says_when_stopped(_NOTHING_WRITTEN)
def pack(
    places: tuple[Path, ...],
    output: Path,
    *,
    hold_out: Path | None,
    hold_out_count: int,
    **options: Any,
) -> None:
    """Shrink the photos of each FOLDER and write them to FILE.bin, for `train --data FILE.bin`.

    A list of offset, length and source (the folder's name) of each photo goes to FILE.json.
    """
    from smoothapi.denoise.training.packs import write_pack  # noqa: PLC0415
    from smoothapi.denoise.training.photo_files import names_held_out  # noqa: PLC0415

    kept = names_held_out(hold_out, hold_out_count)
    count = write_pack(places, output, leave_out=kept, **options)
    PrintableConsole(stderr=True).print(
        f"{_plain(str(output))}: {count} photos, {output.stat().st_size / 2**20:.1f} MiB",
        soft_wrap=True,
    )


@denoiser.command("eval", short_help="Measure PSNR, SSIM, labels kept, certified shares, speed.")
@click.argument("folder", type=_FOLDER)
@click.option(
    "--weights", default="default", show_default=True, help="default, small, none or a file."
)
@click.option("--sigma", "sigmas", type=float, multiple=True, default=(0.12, 0.25, 0.5, 1.0))
@click.option("--classifier", "classifiers", multiple=True, help="ONNX file or module:function.")
@click.option("--truth", type=_FILE, help="CSV with columns file and label, a class number.")
@click.option("--size", default=224, show_default=True, help="Side of the centre crop.")
@click.option("--resize", is_flag=True, help="Shrink the whole photo to the size instead.")
@click.option("--limit", default=0, help="Only the first so many photos.")
@click.option("--certify", is_flag=True, help="Certify each photo, before each classifier, too.")
@click.option(
    "--radius",
    callback=working_radius(
        "Here photos are cut or shrunk to --size first, and certified as if they came so: what a "
        "native or rms radius comes to would be that of no real photo. `smoothapi certify` takes "
        "all units."
    ),
    default="0.25",
    show_default=True,
    help="With --certify: L2 radius wanted, around the working image.",
)
@click.option("--alpha", default=0.001, show_default=True, help="Chance of a wrong certificate.")
@click.option("--max-votes", default=200, show_default=True, help="Most votes a photo.")
@click.option("--device", default="auto", show_default=True, help="auto, cpu, cuda, cuda:N or mps.")
@click.option("--precision", default="auto", show_default=True)
@click.option("--seed", default=0, show_default=True)
@click.option("--json", "as_json", is_flag=True)
@says_when_stopped(_NOTHING_MEASURED)
def evaluate(
    folder: Path,
    weights: str,
    classifiers: tuple[str, ...],
    *,
    truth: Path | None,
    certify: bool,
    radius: float,
    alpha: float,
    max_votes: int,
    device: str,
    precision: str,
    as_json: bool,
    **options: Any,
) -> None:
    """Measure a denoiser on a FOLDER of photos: PSNR, SSIM, labels kept, milliseconds.

    With --certify also how many photos are certified before each --classifier, and with --truth
    how many of them with their right label: what counts in the end.
    """
    _check_certify(certify=certify, classifiers=classifiers, truth=truth)
    require_torch("Measuring a denoiser")
    from smoothapi.denoise.runtime import load  # noqa: PLC0415
    from smoothapi.denoise.training.evaluate import evaluate as measure  # noqa: PLC0415
    from smoothapi.denoise.training.evaluate import pictures  # noqa: PLC0415
    from smoothapi.denoise.training.surrogates import load_classifier  # noqa: PLC0415
    from smoothapi.image import load_image  # noqa: PLC0415
    from smoothapi.study.certified import Terms, certified, out_of_reach, read_truth  # noqa: PLC0415

    labels = None if truth is None else read_truth(truth)
    terms = Terms(radius, alpha, max_votes)
    if certify:
        # What cannot work is said before minutes are spent on the rest.
        out_of_reach(terms, options["sigmas"], 3 * options["size"] ** 2)
    runtime = load(weights, device=device, precision=precision)
    err = PrintableConsole(stderr=True)
    with err.status("measuring"):
        judges = [load_classifier(spec) for spec in classifiers]
        report = measure(runtime, folder, judges, labels=labels, **options)
    found = None
    if certify:
        chosen = {key: options[key] for key in ("size", "resize", "limit")}
        photos = {
            name: load_image(picture, size=options["size"])
            for name, picture in pictures(folder, **chosen).items()
        }
        with _bar(err) as bar:
            found = certified(
                runtime,
                photos,
                judges,
                terms,
                sigmas=options["sigmas"],
                truth=labels,
                seed=options["seed"],
                progress=_photos_done(bar, len(photos)),
            )
    if as_json:
        whole = report.to_dict() | ({} if found is None else {"certified": found.to_dict()})
        echo(json.dumps(whole, indent=2))
        return
    PrintableConsole().print(_table(report))
    if found is not None:
        PrintableConsole().print(_certified_table(found))
        for sigma, reason in found.unreachable.items():
            err.print(
                f"No row for sigma {sigma:g}: {_plain(reason)} (--max-votes, --radius, --alpha)",
                highlight=False,
                soft_wrap=True,
            )


def _check_certify(*, certify: bool, classifiers: tuple[str, ...], truth: Path | None) -> None:
    if certify and not classifiers:
        raise click.UsageError(
            "--certify needs votes, and classifiers give them: name one or more with --classifier."
        )
    if truth is not None and not classifiers:
        raise click.UsageError("--truth is about a classifier's labels: name one by --classifier.")
    context = click.get_current_context()
    for name in ("radius", "alpha", "max_votes"):
        given = context.get_parameter_source(name) is not click.core.ParameterSource.DEFAULT
        if given and not certify:
            option = name.replace("_", "-")
            raise click.UsageError(f"--{option} is for --certify, which is not there: add it.")


def _bar(err: PrintableConsole) -> Progress:
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        TaskProgressColumn(),
        TimeRemainingColumn(),
        console=err,
        disable=not err.is_terminal,
    )


def _photos_done(bar: Progress, photos: int) -> Callable[[float, int], None]:
    tasks: dict[float, TaskID] = {}

    def progress(sigma: float, done: int) -> None:
        if sigma not in tasks:
            tasks[sigma] = bar.add_task(f"certifying, sigma {sigma:g}", total=photos)
        bar.update(tasks[sigma], completed=done)

    return progress


def _table(report: Report) -> Table:
    table = Table(title=f"{_plain(report.denoiser)} on {report.photos} photos")
    names = ("sigma", "noisy dB", "PSNR dB", "SSIM", "ms/variant")
    right = report.rows[0].accuracy
    for name in (
        *names,
        *(f"kept by {_plain(c)}" for c in report.classifiers),
        *(f"right by {_plain(c)}" for c in right),
    ):
        table.add_column(name, justify="right", overflow="fold")
    for row in report.rows:
        table.add_row(
            f"{row.sigma:g}",
            f"{row.noisy_psnr:.2f}",
            f"{row.psnr:.2f}",
            f"{row.ssim:.4f}",
            f"{row.milliseconds:.1f}",
            *(f"{share:.1%}" for share in (*row.agreement.values(), *row.accuracy.values())),
        )
    return table


def _certified_table(found: Certified) -> Table:
    terms, first = found.terms, found.rows[0]
    known = "" if first.known in (0, first.photos) else f" ({first.known} with a known label)"
    table = Table(
        title=f"Certified at radius {terms.radius:g} with at most {terms.max_votes} votes, alpha "
        f"{terms.alpha:g}, of {first.photos} photos{known}; 95% intervals"
    )
    table.add_column("sigma", justify="right")
    table.add_column("classifier", overflow="fold")
    names = ("clean\nright", "certified\nright", "certified\nas clean", "certified\nwrong")
    for name in (*(names if first.known else names[2:3]), "votes"):
        table.add_column(name, justify="right", no_wrap=True)
    for row in found.rows:
        shares = (row.clean_right, row.right, row.as_clean, row.wrong)
        table.add_row(
            f"{row.sigma:g}",
            _plain(row.classifier),
            *(_share(share) for share in shares if share is not None),
            f"{row.mean_votes:.0f}",
        )
    return table


def _share(band: Band) -> str:
    return f"{band.share:.1%}\n({100 * (band.low or 0):.0f}-{100 * (band.high or 0):.0f}%)"


@denoiser.command(short_help="Convert a checkpoint of the paper's DnCNN.")
@click.argument("checkpoint", type=_FILE)
@click.argument("output", type=_OUT)
@click.option(
    "--eps",
    type=float,
    help="Of batch normalisation, where the checkpoint's code has another than the paper's 1e-4.",
)
@says_when_stopped(_NOTHING_WRITTEN)
def convert(checkpoint: Path, output: Path, *, eps: float | None) -> None:
    """Turn a CHECKPOINT (.pth.tar) of the paper's DnCNN into OUTPUT (.safetensors).

    No code that it may carry is run.
    """
    require_torch("Reading a checkpoint")
    from smoothapi.denoise.training.convert import convert_dncnn  # noqa: PLC0415

    header = convert_dncnn(checkpoint, output, eps=eps)
    PrintableConsole(stderr=True).print(
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


def _weight(text: str) -> tuple[str, float]:
    name, _, weight = text.rpartition("=")
    try:
        number = float(weight)
    except ValueError:
        name = ""
    if not name:
        raise click.BadParameter(f"{text!r} is not NAME=WEIGHT, such as pets=0.8")
    return name, number


def _plain(text: str) -> str:
    return text.replace("[", "\\[")


if __name__ == "__main__":
    denoiser()
