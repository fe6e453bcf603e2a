"""Packs: many photos in one file, to take them to a machine with a GPU.

A pack is two files: NAME.bin, the encoded photos one after another (JPEG, or whatever Pillow
reads), and NAME.json beside it, a list of [offset, length, source], one for each photo, in bytes.
"""

from __future__ import annotations

import io
import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

from PIL import Image

from smoothapi.denoise.training.photo_files import Encoded, files
from smoothapi.errors import UsageError
from smoothapi.files import replacing

if TYPE_CHECKING:
    from collections.abc import Iterable


def read_pack(path: Path) -> list[Encoded]:
    """The photos of a pack, undecoded.

    Args:
        path: of the .bin file.

    Raises:
        UsageError: the list beside it is missing or damaged, or does not fit the file.
    """
    index = path.with_suffix(".json")
    if not index.is_file():
        raise UsageError(
            f"{path} is not a folder, and to be read as a pack of photos it needs the list "
            f"{index.name} beside it. Give a folder, or write a pack by "
            "`smoothapi denoiser pack FOLDER FILE.bin`."
        )
    content = path.read_bytes()
    try:
        entries = [(int(o), int(n), str(source)) for o, n, source in json.loads(index.read_text())]
    except (ValueError, TypeError) as error:
        raise UsageError(f"{index} is not a list of [offset, length, source]: {error}") from error
    if not entries:
        raise UsageError(f"The pack {path} holds no photo.")
    for offset, length, _ in entries:
        if not 0 <= offset <= offset + length <= len(content):
            raise UsageError(
                f"{index} places a photo at {offset} to {offset + length}, but {path.name} has "
                f"{len(content)} bytes: one of them was cut short, or they are not a pair."
            )
    return [Encoded(source, content[offset : offset + n]) for offset, n, source in entries]


def found(places: Iterable[Path], *, leave_out: frozenset[str] = frozenset()) -> list[Encoded]:
    """The photos of folders, searched recursively, and of packs (`read_pack`), undecoded.

    Args:
        places: folders, or files of packs.
        leave_out: file names in folders that must not be used. Packs keep no names.

    Raises:
        UsageError: a place holds no photo, or cannot be read as a pack.
    """
    photos: list[Encoded] = []
    for place in map(Path, places):
        if place.is_file():
            photos += read_pack(place)
        else:
            source = place.resolve().name
            photos += [Encoded(source, p) for p in files(place) if p.name not in leave_out]
    return photos


def write_pack(
    places: Iterable[Path],
    path: Path,
    *,
    short_side: int = 256,
    quality: int = 90,
    leave_out: frozenset[str] = frozenset(),
) -> int:
    """Shrink photos and write them as a pack; the source of each is the name of its folder.

    Args:
        places: folders, searched recursively, or other packs.
        path: the .bin file; the list goes beside it.
        short_side: in pixels; photos that are smaller stay as they are.
        quality: of the JPEGs, 1 to 95; their colours are not subsampled.
        leave_out: file names that are not written, for example `held_out`'s.

    Returns:
        How many photos were written.

    Raises:
        UsageError: a place holds no photo, none is left, or a value is out of range.
    """
    if path.suffix != ".bin":
        raise UsageError(f"A pack is named FILE.bin, with its list in FILE.json; not {path.name}.")
    if short_side < 8 or not 1 <= quality <= 95:
        raise UsageError("The short side is at least 8 pixels, and the quality is from 1 to 95.")
    photos = found(places, leave_out=leave_out)
    if not photos:
        raise UsageError("No photo is left to write: all are held out.")
    entries: list[tuple[int, int, str]] = []
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path, "wb") as stream, ThreadPoolExecutor() as pool:
        made = pool.map(lambda photo: _shrunk(photo, short_side, quality), photos)
        for photo, content in zip(photos, made, strict=True):
            entries.append((stream.tell(), len(content), photo.source))
            stream.write(content)
        with replacing(path.with_suffix(".json")) as index:
            index.write(json.dumps(entries))
    return len(entries)


def _shrunk(photo: Encoded, short_side: int, quality: int) -> bytes:
    picture = Image.fromarray(photo.decode())
    scale = short_side / min(picture.size)
    if scale < 1:
        size = (round(picture.width * scale), round(picture.height * scale))
        picture = picture.resize(size, Image.Resampling.BICUBIC)
    stream = io.BytesIO()
    picture.save(stream, "JPEG", quality=quality, subsampling=0)
    return stream.getvalue()
