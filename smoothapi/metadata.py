"""What is beside the pixels in a file of a picture: left out where it keeps them from being read.

Decoders give up on a picture for a comment with a wrong checksum or a profile of three mebibytes.
What decides the pixels stays, all else can go.
"""

from __future__ import annotations

import re
import struct
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

_JPEG = b"\xff\xd8"
_PNG = b"\x89PNG\r\n\x1a\n"
_TIFF = {b"II*\x00": "<", b"MM\x00*": ">"}

_PIXELS = (b"IHDR", b"PLTE", b"tRNS", b"IDAT", b"IEND", b"acTL", b"fcTL", b"fdAT")
_EXIF_OF_PNG = b"eXIf"

_EXIF_OF_AVIF = re.compile(rb"(infe.{4}(?:..|....)\x00\x00)Exif", re.DOTALL)

_SCAN = 0xDA
_APP0, _APP1, _APP14, _APP15, _COMMENT = 0xE0, 0xE1, 0xEE, 0xEF, 0xFE
# These say how colours are coded, where they are long enough to say anything.
_COLOURS = {_APP0: 14, _APP14: 12}

_FOLDERS_OF_TIFF = (34665, 34853, 40965)  # EXIF, GPS, interoperability: elsewhere in the file
_UNKNOWN_TAG = 65_000
_BYTE = 1


def less_metadata(data: bytes) -> bytes:
    """Return a PNG, JPEG, AVIF or TIFF with less beside its pixels, or the same if nothing can go.

    EXIF data, which says how a photo is turned, goes last.
    """
    kept = _without(data, exif=True)
    return kept if kept != data else _without(data, exif=False)


def has_exif(data: bytes) -> bool:
    """Whether a PNG, JPEG or AVIF holds EXIF data."""
    return _without(data, exif=True) != _without(data, exif=False)


def _without(data: bytes, *, exif: bool) -> bytes:
    if data.startswith(_PNG):
        return b"".join((_PNG, *_chunks(data, exif=exif)))
    if data.startswith(_JPEG):
        return b"".join((_JPEG, *_segments(data, exif=exif)))
    if data[4:8] == b"ftyp" and not exif:
        return _EXIF_OF_AVIF.sub(rb"\1none", data)
    if data[:4] in _TIFF:
        return _without_folders(data)
    return data


def _chunks(png: bytes, *, exif: bool) -> Iterator[bytes]:
    position = len(_PNG)
    while position + 12 <= len(png):
        end = position + 12 + int.from_bytes(png[position : position + 4])
        kind = png[position + 4 : position + 8]
        if kind in _PIXELS or (exif and kind == _EXIF_OF_PNG):
            yield png[position:end]
        position = end


def _segments(jpeg: bytes, *, exif: bool) -> Iterator[bytes]:
    position = len(_JPEG)
    while jpeg[position : position + 1] == b"\xff" and jpeg[position + 1 : position + 2]:
        kind = jpeg[position + 1]
        if kind == _SCAN:
            break
        length = int.from_bytes(jpeg[position + 2 : position + 4])
        end = position + 2 + length
        beside = _APP0 <= kind <= _APP15 or kind == _COMMENT
        colours = length - 2 >= _COLOURS.get(kind, len(jpeg))
        if not beside or colours or (exif and kind == _APP1):
            yield jpeg[position:end]
        position = end
    yield jpeg[position:]


def _without_folders(tiff: bytes) -> bytes:
    """Return a TIFF whose first picture has no folder of EXIF data: tags nobody knows instead."""
    order = _TIFF[tiff[:4]]
    changed = bytearray(tiff)
    try:
        (start,) = struct.unpack_from(f"{order}I", tiff, 4)
        (count,) = struct.unpack_from(f"{order}H", tiff, start)
        for entry in range(start + 2, start + 2 + 12 * count, 12):
            (tag,) = struct.unpack_from(f"{order}H", tiff, entry)
            if tag in _FOLDERS_OF_TIFF:
                struct.pack_into(f"{order}HHII", changed, entry, _UNKNOWN_TAG, _BYTE, 1, 0)
    except struct.error:  # it is damaged elsewhere, too
        return tiff
    return bytes(changed)
