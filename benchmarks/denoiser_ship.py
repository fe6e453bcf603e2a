r"""Put trained weights into the package: half precision, model card, credits.

    python benchmarks/denoiser_ship.py default RUN/weights.safetensors --version 2.0 --data DATA \
        --labels labels.json --speed speed.json --command "smoothapi denoiser train ..."

The first argument is the name that chooses the weights: `default` or `small`. `--labels` is what
benchmarks/denoiser_labels.py --json printed for these weights, `--speed` (repeatable: CPU, GPU) what
benchmarks/denoiser_speed.py --json printed, `--certified` (repeatable) what
benchmarks/certified_fraction.py --json wrote; the card holds measured figures only, so what is not
given is left out. Without weights the card of those that ship gets the new figures, and keeps the
others.
"""

from __future__ import annotations

import argparse
import csv
import json
import re
from collections import Counter
from pathlib import Path

from smoothapi.denoise.storage import SHIPPED, load_network, read_header, write_weights
from smoothapi.denoise.training.photo_files import files, held_out

FOLDER = Path(__file__).parents[1] / "smoothapi" / "denoise" / "weights"
CARDS = {"default": "MODEL_CARD.md", "small": "MODEL_CARD_SMALL.md"}
HELD_OUT = 200
PHOTOS = "`photos/`, `labelled_photos/` and `more_photos` of the project's data"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("which", choices=SHIPPED)
    parser.add_argument("weights", type=Path, nargs="?")
    parser.add_argument("--version", help="of the weights")
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--labels", type=Path)
    parser.add_argument("--speed", type=Path)
    parser.add_argument("--certified", type=Path, action="append", default=[])
    parser.add_argument("--command", action="append", default=[], help="of each stage, in order")
    parser.add_argument("--stage", action="append", default=[], type=Path, help="its weights")
    parser.add_argument("--surrogate", action="append", default=[], help="by name, if not told")
    parser.add_argument("--photos", default=PHOTOS, help="what it was trained on")
    parser.add_argument("--limit", action="append", default=[], help="of these weights; repeatable")
    parser.add_argument("--note", default="", help="what the commands do not tell")
    args = parser.parse_args()
    path = FOLDER / f"{args.which}.json"
    card = new_card(args) if args.weights else json.loads(path.read_text())
    if args.limit:
        card["limits"] = args.limit
    for name in ("labels", "speed"):
        if given := getattr(args, name):
            card[name] = json.loads(given.read_text())
    if args.certified:
        reports = [json.loads(path.read_text()) for path in args.certified]
        card["certified"] = {
            "rows": [row for report in reports for row in report["rows"]],
            **{k: reports[0]["arguments"][k] for k in ("alpha", "votes", "precision")},
        }
    path.write_text(json.dumps(card, indent=1) + "\n", encoding="utf-8")
    (FOLDER / CARDS[args.which]).write_text(model_card(card), encoding="utf-8")
    (FOLDER / "CREDITS.md").write_text(credit(args.data, set(card["held_out"])), encoding="utf-8")
    shipped = FOLDER / card["file"]
    print(f"{shipped} {shipped.stat().st_size} bytes {card['sha256']}")


def new_card(args: argparse.Namespace) -> dict:
    """Copy the weights to where they ship from, and describe them; figures come later."""
    header = read_header(args.weights)
    network = load_network(header)
    name = "smoothapi-unet" + ("" if args.which == "default" else f"-{args.which}")
    shipped = FOLDER / f"{name.removeprefix('smoothapi-')}-{args.version}.safetensors"
    if args.weights.resolve() != shipped:
        write_weights(
            shipped,
            network.state_dict(),
            architecture=header.architecture,
            config=header.config,
            about=header.about | {"version": args.version},
            half=True,
        )
    labelled = args.data / "labelled_photos"
    kept = sorted(held_out([p.name for p in files(labelled)], HELD_OUT))
    stages = [read_header(path).about for path in args.stage or [args.weights]]
    return {
        "name": f"{name}-{args.version}",
        "file": shipped.name,
        "sha256": read_header(shipped).sha256,
        "licence": "Apache-2.0",
        "architecture": header.architecture,
        "config": header.config,
        "parameters": sum(p.numel() for p in network.parameters()),
        "storage": "float16",
        "sigma": [0.05, 1.0],
        "stages": [
            {"command": command, "steps": about.get("steps"), "recipe": about.get("recipe")}
            for command, about in zip(args.command, stages, strict=True)
        ],
        "note": args.note,
        "photos": args.photos,
        "surrogates": sorted(
            {
                *args.surrogate,
                *(
                    word.rpartition(":")[2].rpartition("/")[2].removesuffix(".onnx")
                    for command in args.command
                    for flag, word in zip(command.split(), command.split()[1:], strict=False)
                    if flag == "--surrogate"
                ),
            }
        ),
        "labels": None,
        "speed": None,
        "certified": None,
        "held_out": kept,
    }


def folded(command: str) -> str:
    """Return a command on lines that are read without scrolling, broken before its options."""
    lines = [""]
    for words in re.split(r" (?=--)", command):
        if len(f"{lines[-1]} {words}") > 88:
            lines.append(f" {words}")
        else:
            lines[-1] += f" {words}"
    return " \\\n   ".join(lines).strip()


def model_card(card: dict) -> str:
    stages = "\n".join(
        f"{i}. {stage['steps']} steps:\n\n   ```\n   {folded(stage['command'])}\n   ```\n"
        for i, stage in enumerate(card["stages"], start=1)
    )
    limits = "".join(f"- {text}\n" for text in card["limits"])
    return f"""# Model card: {card["name"]}

A denoiser for Gaussian noise on photos, standard deviation 0.05 to 1.0 on the scale where black
is 0 and white is 1. It stands in front of image classifiers in denoised smoothing; it is not
meant to make photos look good, and must not be used to judge what a photo shows.

- Network: U-Net on the four half-size phases of the picture, channels
  {card["config"]["channels"]}, {card["parameters"]:,} parameters, stored as float16
  ({card["file"]}, SHA-256 {card["sha256"]}).
- Input: RGB, unclipped, with sigma. Output: the estimate of the clean picture, not clipped.
- Licence: Apache-2.0. Credits for the photos it was trained on: CREDITS.md.

## Training

The repository's own command, on {card["photos"]}, less
{len(card["held_out"])} labelled photos that no training saw: those whose file names have the
smallest SHA-256, listed in the card's JSON file. Kodak24, CIFAR-10 and other people's denoisers were
not used. DATA stands for the data folder; the weights are the moving average.

{stages}
{card["note"]}

Surrogates: {", ".join(card["surrogates"]) or "none"}
(see benchmarks/denoiser_surrogates.py).
tiny_darknet was kept as the classifier that is never a surrogate. The full recipes are in the
JSON file.

## Measured

{label_table(card["labels"])}
{certified_table(card.get("certified"))}{speed_table(card["speed"])}
## Limits

{limits}- Pictures near a 224-pixel working size, of the kinds of things people photograph. Drawings,
  screens, scans, medical, satellite and infrared pictures were not trained on.
- Noise that is not Gaussian, independent by pixel and of the level that is told to it.
- At sigma 0.5 and above fine detail is gone and may be replaced by likely texture.
- A certificate does not depend on any of this: whatever the denoiser does, it is part of the
  classifier that is certified. A worse denoiser certifies less, never wrongly.
"""


def label_table(labels: dict | None) -> str:
    if not labels:
        return "Nothing yet.\n"
    lines = [
        "`benchmarks/denoiser_labels.py`: PSNR and SSIM on 256x256 centre crops of Kodak24; labels",
        "after one noisy copy of each of the held-out photos at 224x224, 'right' by the photo's",
        "label, 'as clean' by the classifier's own label of the clean photo.",
        "",
    ]
    names = list(next(iter(labels.values()))[0]["accuracy"])
    lines.append(
        "| sigma | denoiser | Kodak24 dB | SSIM | "
        + " | ".join(f"{n} right | as clean" for n in names)
        + " |"
    )
    lines.append("|---" * (4 + 2 * len(names)) + "|")
    found = [(row["sigma"], name, row) for name, rows in labels.items() for row in rows]
    for sigma in sorted({sigma for sigma, _, _ in found}):
        for denoiser, row in ((name, row) for at, name, row in found if at == sigma):
            shares = " | ".join(
                f"{row[kind][n]:.1%}" for n in names for kind in ("accuracy", "agreement")
            )
            lines.append(
                f"| {row['sigma']:g} | {denoiser} | {row['kodak_psnr']:.2f} | "
                f"{row['kodak_ssim']:.4f} | {shares} |"
            )
    return "\n".join(lines) + "\n"


def certified_table(certified: dict | None) -> str:
    if not certified:
        return ""
    lines = [
        "`benchmarks/certified_fraction.py`: held-out photos that are certified with at most",
        f"{certified['votes']} votes, alpha {certified['alpha']:g}; 'right' and 'as clean' as above,",
        "'wrong' with a label that is not the photo's; exact 95% intervals. All denoisers in",
        f"{certified['precision']}, on two CPU cores.",
        "",
        "| sigma | radius | classifier | denoiser | photos | right | as clean | wrong | votes |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    order = sorted(certified["rows"], key=lambda r: (r["sigma"], r["radius"], r["classifier"]))
    for row in order:
        shares = " | ".join(
            f"{p:.1%} ({low:.0%}-{high:.0%})"
            for p, low, high in (row["right"], row["as_clean"], row["wrong"])
        )
        lines.append(
            f"| {row['sigma']:g} | {row['radius']:g} | {row['classifier']} | {row['denoiser']} | "
            f"{row['photos']} | {shares} | {row['mean_votes']:.0f} |"
        )
    return "\n".join(lines) + "\n\n"


def speed_table(speed: dict | None) -> str:
    if not speed:
        return ""
    shape = f"{speed['size']}x{speed['size']} variant, {speed['threads']} CPU threads"
    ours = next(name for name in ("ours bf16", "ours fp32") if name in speed["ms"])
    lines = [
        f"`benchmarks/denoiser_speed.py`: ms per {shape}, batches of {speed['batch']}, all in one run.",
        *([speed["note"]] if "note" in speed else []),
        "",
        f"| network | ms | times {ours} |",
        "|---|---|---|",
        *(
            f"| {name} | {ms:.1f} | {ms / speed['ms'][ours]:.2f} |"
            for name, ms in speed["ms"].items()
        ),
        "",
        "Peak memory: "
        + ", ".join(f"{mb} MB for {count} variants" for count, mb in speed["peak_mb"].items())
        + ".",
    ]
    return "\n".join(lines) + "\n"


def credit(data: Path, kept: set[str]) -> str:
    with (data / "photos" / "manifest.csv").open(encoding="utf-8") as stream:
        rows = list(csv.DictReader(stream))
    groups = Counter((row["group"], row["licence"]) for row in rows)
    works = sorted(
        {(row["group"], row["source_path"]) for row in rows if "CC0-1" not in row["licence"]}
    )
    with (data / "labelled_photos" / "labels.csv").open(encoding="utf-8") as stream:
        photos = [row for row in csv.DictReader(stream) if row["file"] not in kept]
    with (data / "more_photos.csv").open(encoding="utf-8") as stream:
        more = list(csv.DictReader(stream))
    collections = Counter((row["source"], row["licence"]) for row in more)
    lines = [
        "# Credits: the photos that the shipped denoisers were trained on",
        "",
        "The weights contain none of them. With thanks to everybody who shares photos freely.",
        "",
        "## Collections",
        "",
        "| collection | pictures | licence |",
        "|---|---|---|",
        *(f"| {g} | {n} | {licence} |" for (g, licence), n in groups.items()),
        *(f"| {g} | {n} | {licence} |" for (g, licence), n in collections.items()),
        "",
        "The last seven are in the default denoiser alone; Open Images and COCO are by people on",
        "Flickr, and those of COCO are listed below.",
        "",
        "## Works in them",
        "",
        "By their names in the collections, which often name the author; cropped and scaled.",
        "",
        *(f"- {group}: {clean(work)}" for group, work in works),
        "",
        "## Photos from Flickr",
        "",
        f"{len(photos)} photos, each under CC BY 2.0",
        "(https://creativecommons.org/licenses/by/2.0/), cropped and scaled.",
        "",
        *(f"- {clean(p['author'])}, {p['author_url']}: {p['landing_url']}" for p in photos),
        "",
        "## Photos of COCO",
        "",
        "Each under CC BY 2.0 or CC BY-SA 2.0, as COCO says; cropped and scaled.",
        "",
        *(f"- {row['credit']} ({row['licence'].split(' (')[0]})" for row in more if row["credit"]),
    ]
    return "\n".join(lines) + "\n"


def clean(author: str) -> str:
    """A name as plain text in Markdown; the data writes bytes beyond ASCII in octal."""
    text = re.sub(r"\\([0-7]{3})", lambda m: chr(int(m[1], 8)), " ".join(author.split()))
    if text.isascii() is False and max(map(ord, text)) < 256:
        text = text.encode("latin-1").decode("utf-8", errors="replace")
    return "".join("\\" + c if c in "\\`*_[]<>#" else c for c in text)


if __name__ == "__main__":
    main()
