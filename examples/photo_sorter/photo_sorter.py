"""Sort a folder of photos by what Amazon Rekognition sees in them.

    python photo_sorter.py INBOX SORTED

The first rule that applies says into which folder a photo goes. Credentials and region are boto3's.
"""

from __future__ import annotations

import csv
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import boto3
from botocore.exceptions import ClientError

PHOTOS = (".jpg", ".jpeg", ".png")
REFUSED = ("InvalidImageFormatException", "ImageTooLargeException")


@dataclass(frozen=True)
class Rule:
    """A photo with this label, or one below it, goes into the folder from this confidence on."""

    label: str
    at_least: float
    folder: str


RULES = (
    Rule("Weapon", 80, "blocked"),
    Rule("Weapon", 50, "to review"),
    Rule("Person", 90, "people"),
    Rule("Vehicle", 90, "vehicles"),
)


@dataclass(frozen=True)
class Sorted:
    """Where a photo went, and why."""

    photo: str
    folder: str
    because: str


def decide(labels: list[dict[str, Any]], rules: tuple[Rule, ...] = RULES) -> tuple[str, str]:
    """Return the folder that labels say, and the reason."""
    for rule in rules:
        for label in labels:
            names = {label["Name"], *(parent["Name"] for parent in label["Parents"])}
            if rule.label in names and label["Confidence"] >= rule.at_least:
                return rule.folder, f"{label['Name']} {label['Confidence']:.1f}"
    return "unsorted", "no rule applies"


def sort_photo(client: Any, photo: Path, rules: tuple[Rule, ...] = RULES) -> Sorted:
    """Ask about one photo."""
    least = min(rule.at_least for rule in rules)
    try:
        answer = client.detect_labels(Image={"Bytes": photo.read_bytes()}, MinConfidence=least)
    except ClientError as error:
        if error.response["Error"]["Code"] not in REFUSED:
            raise
        return Sorted(photo.name, "unreadable", error.response["Error"]["Code"])
    return Sorted(photo.name, *decide(answer["Labels"], rules))


def sort_folder(client: Any, inbox: Path, outbox: Path) -> list[Sorted]:
    """Copy each photo of a folder to where it belongs, and write down why."""
    outbox.mkdir(parents=True, exist_ok=True)
    done = []
    with (outbox / "sorted.csv").open("w", newline="", encoding="utf-8") as stream:
        rows = csv.writer(stream)
        for photo in sorted(p for p in inbox.iterdir() if p.suffix.lower() in PHOTOS):
            found = sort_photo(client, photo)
            (outbox / found.folder).mkdir(exist_ok=True)
            shutil.copy2(photo, outbox / found.folder / photo.name)
            rows.writerow([found.photo, found.folder, found.because])
            done.append(found)
    return done


def main(arguments: list[str]) -> None:
    """Sort INBOX into SORTED."""
    inbox, outbox = map(Path, arguments)
    for found in sort_folder(boto3.client("rekognition"), inbox, outbox):
        print(f"{found.photo}: {found.folder} ({found.because})")


if __name__ == "__main__":
    main(sys.argv[1:])
