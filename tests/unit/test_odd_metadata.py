"""What is beside good pixels keeps nobody from reading them, in any format."""

import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image, TiffImagePlugin, features

from smoothapi.errors import ImageError
from smoothapi.image import load_image

PHOTO = Image.fromarray(
    np.kron(np.random.default_rng(0).integers(0, 256, (3, 4, 3)), np.ones((8, 8, 1))).astype(
        np.uint8
    )
)
AS_IT_LIES = "taken as it lies, since its EXIF data cannot be read"
TURNED = "turned upright as its EXIF orientation says"
MIB = 2**20


def written(kind, **options):
    stream = io.BytesIO()
    if kind == "HEIF":
        pytest.importorskip("pillow_heif").from_pillow(PHOTO).save(stream, **options)
    else:
        if kind == "AVIF" and not features.check("avif"):
            pytest.skip("this Pillow has no AVIF")
        if kind == "WEBP":
            options["lossless"] = True
        PHOTO.save(stream, kind, **options)
    return stream.getvalue()


def tiff_of(*entries, next_folder=0):
    """Return EXIF data: a TIFF with these entries of (tag, kind, count, four bytes)."""
    folder = b"".join(struct.pack(">HHI4s", *entry) for entry in entries)
    head = b"MM\0*\0\0\0\x08" + struct.pack(">H", len(entries))
    return b"Exif\0\0" + head + folder + struct.pack(">I", next_folder)


def orientation(value):
    return tiff_of((0x0112, 3, 1, struct.pack(">HH", value, 0)))


EXIF = {
    "no TIFF": b"Exif\0\0no TIFF at all",
    "empty": b"Exif\0\0",
    "cut": orientation(1)[:20],
    "folders in a circle": tiff_of((0x0112, 3, 1, b"\0\1\0\0"), next_folder=8),
    "a folder that is nowhere": tiff_of((34665, 4, 1, b"\x7f\0\0\0"), (34853, 4, 1, b"\xff" * 4)),
    "a million entries": b"Exif\0\0MM\0*\0\0\0\x08\xff\xff",
    "text for a number": tiff_of((0x0112, 2, 2, b"9\0\0\0")),
    "a fraction nowhere": tiff_of((0x0112, 5, 1, struct.pack(">I", 60_000))),
    **{f"orientation {n}": orientation(n) for n in (0, 9, 255, 65_535)},
}  # fmt: skip


def chunk(kind, data, crc=None):
    """Return a chunk of a PNG; right by its checksum, unless another is given."""
    crc = zlib.crc32(kind + data) if crc is None else crc
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", crc)


def segment(marker, data):
    return b"\xff" + bytes([marker]) + struct.pack(">H", len(data) + 2) + data


CHUNKS = {
    "a text with a wrong checksum": chunk(b"tEXt", b"a\0b", 1),
    "EXIF with a wrong checksum": chunk(b"eXIf", b"MM", 1),
    "one of another's with a wrong checksum": chunk(b"prVt", b"x", 1),
    "a text of 3 MiB": chunk(b"tEXt", b"a\0" + b"b" * 3 * MIB),
    "70 texts of a MiB": b"".join(chunk(b"tEXt", b"%d\0" % n + b"b" * MIB) for n in range(70)),
    "a text that unpacks to 50 MiB": chunk(b"zTXt", b"a\0\0" + zlib.compress(bytes(50 * MIB))),
    "a profile that unpacks to 5 MiB": chunk(b"iCCP", b"a\0\0" + zlib.compress(bytes(5 * MIB))),
    "a profile packed otherwise": chunk(b"iCCP", b"a\0\5junk"),
    "a text that is none": chunk(b"iTXt", b"a\0\1\0\0\0junk"),
    **{f"an empty {kind}": chunk(kind.encode(), b"") for kind in (
        "gAMA", "cHRM", "pHYs", "tIME", "iCCP", "zTXt", "iTXt", "sRGB", "bKGD", "sBIT", "cICP", "eXIf"
    )},
}  # fmt: skip
SEGMENTS = {
    "a short JFIF": segment(0xE0, b"JFIF\0"),
    "a short Adobe": segment(0xEE, b"Adobe"),
    "a thumbnail of JFIF": segment(0xE0, b"JFXX\0\x10"),
    "a profile cut off": segment(0xE2, b"ICC_PROFILE\0"),
    "200 parts of a profile": b"".join(
        segment(0xE2, b"ICC_PROFILE\0" + bytes([n + 1, 200]) + bytes(65_000)) for n in range(200)
    ),
    "an index of pictures that is none": segment(0xE2, b"MPF\0junkjunk"),
    "an empty index of pictures": segment(0xE2, b"MPF\0MM\0*\0\0\0\x08\0\0\0\0\0\0"),
    "Photoshop's": segment(0xED, b"Photoshop 3.0\x008BIMjunk"),
    "a comment": segment(0xFE, b"\xff" * 60_000),
    "20 EXIF": segment(0xE1, b"Exif\0\0junk") * 20,
    "an empty EXIF": segment(0xE1, b""),
}


def digest(data):
    return load_image(data).digest


@pytest.mark.parametrize("name", EXIF)
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "AVIF", "HEIF"])
def test_exif_that_says_nothing_is_passed_over(kind, name):
    try:
        data = written(kind, exif=EXIF[name])
    except Exception as error:  # noqa: BLE001  the writer's own word on it
        pytest.skip(f"cannot be written: {error}")
    loaded = load_image(data)
    assert loaded.digest == digest(written(kind))
    assert loaded.notes in ((), (AS_IT_LIES,))


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "AVIF", "HEIF", "TIFF"])
def test_exif_that_was_damaged_since(kind):
    """Not all of it can be written: here a good one is damaged where it stands."""
    exif = Image.Exif()
    exif[0x010E] = "a photo of a bus"
    data = written(kind, exif=exif if kind == "TIFF" else exif.tobytes())
    at = data.index(b"a photo of a bus") - 26  # its first folder: how many entries, and the first
    assert at > 0
    damaged = data[:at] + b"\xff" * 14 + data[at + 14 :]
    try:
        loaded = load_image(damaged)
    except ImageError:
        assert kind == "TIFF"  # its pixels hang on the same folder
    else:
        assert loaded.digest == digest(written(kind))
        assert loaded.notes in ((), (AS_IT_LIES,))


@pytest.mark.timeout(60)
@pytest.mark.parametrize("place", ["before", "behind"])
@pytest.mark.parametrize("name", CHUNKS)
def test_any_chunk_beside_the_pixels_of_a_png(name, place):
    png = written("PNG")
    at = 33 if place == "before" else png.rindex(b"IEND") - 4
    loaded = load_image(png[:at] + CHUNKS[name] + png[at:])
    assert loaded.digest == digest(png)
    assert loaded.notes == () or "eXIf" in name or "EXIF" in name


@pytest.mark.parametrize("name", SEGMENTS)
def test_any_segment_beside_the_pixels_of_a_jpeg(name):
    jpeg = written("JPEG")
    assert digest(jpeg[:2] + SEGMENTS[name] + jpeg[2:]) == digest(jpeg)


@pytest.mark.parametrize(
    "beside", [CHUNKS["a text with a wrong checksum"], CHUNKS["an empty gAMA"], b""]
)
def test_a_photo_is_turned_though_a_neighbour_of_its_exif_is_damaged(beside):
    png = written("PNG", exif=orientation(6))
    loaded = load_image(png[:33] + beside + png[33:])
    assert loaded.size == PHOTO.size[::-1]
    assert loaded.notes == (TURNED,)


def test_a_photo_says_that_its_damaged_exif_was_left_out():
    png = written("PNG")
    exif = chunk(b"eXIf", orientation(6)[6:], 1)
    loaded = load_image(png[:33] + exif + png[33:])
    assert (loaded.digest, loaded.notes) == (digest(png), (AS_IT_LIES,))


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF", "AVIF"])
def test_who_turned_the_photo_is_no_matter_it_is_said(kind):
    exif = Image.Exif()
    exif[0x0112] = 6
    loaded = load_image(written(kind, exif=exif))
    assert loaded.native_size == PHOTO.size[::-1]
    assert loaded.notes == (TURNED,)


@pytest.mark.parametrize("profile", [b"junk", b"", bytes(3 * MIB)])
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF", "AVIF"])
def test_any_profile(kind, profile):
    assert digest(written(kind, icc_profile=profile)) == digest(written(kind))


@pytest.mark.parametrize(
    ("tag", "value"),
    [
        (0x0112, 9),
        (34665, 99_999),
        (34853, 0),
        (40965, 1),
        (700, bytes(2 * MIB)),
        (270, "x" * 2 * MIB),
        (33723, b"junk"),
    ],
)
def test_any_tag_of_a_tiff(tag, value):
    tags = TiffImagePlugin.ImageFileDirectory_v2()
    tags[tag] = value
    loaded = load_image(written("TIFF", tiffinfo=tags))
    assert (loaded.digest, loaded.notes) == (digest(written("TIFF")), ())


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "TIFF", "BMP", "GIF", "AVIF", "WEBP"])
def test_what_follows_the_picture(kind):
    assert digest(written(kind) + b"junk" * 99) == digest(written(kind))


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "GIF", "AVIF", "HEIF"])
def test_damaged_pixels_are_refused_with_and_without_metadata(kind):
    data = written(kind)
    with pytest.raises(ImageError):
        load_image(data[: len(data) * 2 // 3])
