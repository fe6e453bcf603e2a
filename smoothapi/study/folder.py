"""Which photos a study is about, and what they are said to show."""

from __future__ import annotations

import glob
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

from smoothapi.certify.labels import label_key
from smoothapi.errors import UsageError
from smoothapi.files import read_csv, shown_name
from smoothapi.photos.fetching import is_remote
from smoothapi.photos.finding import SUFFIXES, below, find
from smoothapi.text import shortened

if TYPE_CHECKING:
    from smoothapi.image import PhotoSource
    from smoothapi.photos import Fetcher

Photos: TypeAlias = "str | Path | Iterable[PhotoSource] | Mapping[str, PhotoSource]"

_FILE_COLUMNS = ("file", "filename", "path", "photo", "image")
_LABEL_COLUMNS = ("label", "name", "class")


@dataclass(frozen=True, slots=True)
class Found:
    """What was found to study.

    Attributes:
        photos: (name, source); names are unique, those of a folder are paths below it.
        passed_over: files of the folders whose suffix is not a photo's.
    """

    photos: tuple[tuple[str, PhotoSource], ...]
    passed_over: int = 0


def find_photos(given: Photos, fetcher: Fetcher | None = None) -> Found:
    """Return the photos of a folder with all below it, of several, or those given one by one.

    Hidden files and folders are left out, links to folders not followed. The order is by name.

    Args:
        given: a folder, a file, a pattern (photos/*.jpg, **), an address with https, a bucket's
            file or prefix (s3, gs, az), several of them or of other photos, or {name: photo}.
        fetcher: for what is elsewhere; None to take files alone.

    Raises:
        UsageError: a path does not exist, or no photo is found.
    """
    if isinstance(given, Mapping):
        found = [(shown_name(str(name)), source) for name, source in given.items()]
        passed_over = 0
    else:
        items: list[PhotoSource] = [given] if isinstance(given, (str, Path)) else list(given)
        found, passed_over = _listed(items, fetcher)
    if not found:
        where = f" in {str(given)!r}" if isinstance(given, (str, Path)) else ""
        raise UsageError(
            f"No photos were found{where}. Files with these suffixes are taken: "
            f"{' '.join(sorted(SUFFIXES))}."
        )
    taken: dict[str, int] = {}
    unique: list[tuple[str, PhotoSource]] = []
    for name, source in found:
        taken[name] = taken.get(name, 0) + 1
        unique.append((name if taken[name] == 1 else f"{name} ({taken[name]})", source))
    return Found(tuple(unique), passed_over)


def _listed(
    items: list[PhotoSource], fetcher: Fetcher | None
) -> tuple[list[tuple[str, PhotoSource]], int]:
    found: list[tuple[str, PhotoSource]] = []
    passed_over = 0
    for number, item in enumerate(items):
        if not isinstance(item, (str, Path)):
            found.append((f"photo {number + 1}", item))
            continue
        path = Path(item)
        if fetcher is not None and _is_sought(item):
            found += [(photo.name, photo.source) for photo in find(item, fetcher)]
            continue
        try:
            path.stat()
        except FileNotFoundError:
            raise UsageError(f"{str(path)!r} does not exist. Give a photo or a folder.") from None
        except (OSError, ValueError) as error:  # a ValueError: no file has such a name
            raise UsageError(f"{str(path)!r} cannot be read: {error}.") from error
        if not path.is_dir():
            found.append((shown_name(path.name), path))
            continue
        try:
            files = list(below(path))
        except OSError as error:
            where = shown_name(str(error.filename or path))
            raise UsageError(
                f"The folder {where!r} cannot be read: {error.strerror or error}. Of a part of the "
                "photos a study would say too much."
            ) from error
        photos = [file for file in files if file.suffix.lower() in SUFFIXES]
        passed_over += len(files) - len(photos)
        found += [(shown_name(file.relative_to(path).as_posix()), file) for file in photos]
    return found, passed_over


def _is_sought(item: str | Path) -> bool:
    """Whether a name is of a place elsewhere, or a pattern."""
    return is_remote(item) or (glob.has_magic(str(item)) and not os.path.lexists(item))


def read_truth(given: str | Path | Mapping[str, str]) -> dict[str, tuple[str, ...]]:
    """Return {photo's name: labels that are right}.

    A CSV file has a header. One column names the photo: `file`, `filename`, `path`, `photo` or
    `image`, as a path below the folder or as the bare file name. One says what it shows: `label`,
    `name` or `class`, the first of these that there is; several right ones are separated by "|".
    Other columns are ignored.

    Raises:
        UsageError: the file cannot be read, lacks a column, or labels a photo twice.
    """
    if isinstance(given, Mapping):
        return {str(name): _alternatives(label) for name, label in given.items()}
    path = Path(given)
    try:
        columns, rows = read_csv(path)
    except (OSError, ValueError) as error:
        raise UsageError(f"The labels in {str(path)!r} cannot be read: {error}.") from error
    header = {name.strip().lower(): name for name in columns}
    file = next((header[name] for name in _FILE_COLUMNS if name in header), None)
    label = next((header[name] for name in _LABEL_COLUMNS if name in header), None)
    if file is None or label is None:
        raise UsageError(
            f"The labels in {str(path)!r} need a header with a column "
            f"{' or '.join(_FILE_COLUMNS)} and a column {' or '.join(_LABEL_COLUMNS)}; "
            f"this one has: {shortened(', '.join(header) or 'none', 200)}."
        )
    truth: dict[str, tuple[str, ...]] = {}
    for _, row in rows:
        name, right = row[file].strip().replace("\\", "/"), _alternatives(row[label])
        if not name or not right:
            continue
        if truth.setdefault(name, right) != right:
            raise UsageError(
                f"{str(path)!r} says of {name!r} that it is {' or '.join(truth[name])}, and "
                f"again that it is {' or '.join(right)}. Where both are right, write them in one "
                "row, separated by |."
            )
    return truth


def truth_of(name: str, truth: Mapping[str, tuple[str, ...]]) -> tuple[str, ...]:
    """Return the labels that are right for a photo, found by its path or else by its file name."""
    return truth.get(name) or truth.get(name.rsplit("/", 1)[-1]) or ()


def is_right(label: str, truth: tuple[str, ...]) -> bool:
    """Whether a label is one of those that are right, without regard to case."""
    return label_key(label) in {label_key(name) for name in truth}


def _alternatives(text: str) -> tuple[str, ...]:
    return tuple(part.strip() for part in str(text).split("|") if part.strip())
