"""A photo in: what is taken, what is refused, and how far a change of it can grow."""

from __future__ import annotations

import io
import struct
import warnings
import weakref
import zlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageOps

from smoothapi.errors import ImageError, UsageError
from smoothapi.image import GRID_BITS, _resize_norm, _resize_weights, load_image, resize_norm


def picture(width=40, height=30, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def encoded(image: Image.Image, kind="PNG", **options) -> bytes:
    stream = io.BytesIO()
    image.save(stream, kind, **options)
    return stream.getvalue()


def test_every_kind_of_source_gives_the_same_working_image(tmp_path):
    array = picture()
    image = Image.fromarray(array)
    path = tmp_path / "photo.png"
    path.write_bytes(encoded(image))
    sources = [path, str(path), path.read_bytes(), image, array]
    assert len({load_image(source).digest for source in sources}) == 1
    as_float = load_image(array / 255.0).pixels  # passes through float32 once more
    assert np.abs(as_float - load_image(array).pixels).max() <= 2.0**-GRID_BITS
    assert load_image(path).name == "photo.png"


def test_pixels_lie_on_the_grid_and_cannot_be_written():
    image = load_image(picture(300, 200), size=64)
    units = image.pixels * 2.0**GRID_BITS
    assert np.array_equal(units, np.rint(units))
    assert image.pixels.min() >= 0.0
    assert image.pixels.max() <= 1.0
    with pytest.raises(ValueError, match="read-only"):
        image.pixels[0, 0, 0] = 0.5


def test_digest_tells_pictures_and_shapes_apart():
    array = picture(40, 30)
    other = array.copy()
    other[3, 4, 1] ^= 1
    digests = {
        load_image(array).digest,
        load_image(other).digest,
        load_image(array.reshape(40, 30, 3)).digest,
    }
    assert len(digests) == 3


@pytest.mark.parametrize(
    ("native", "size", "expected"),
    [
        ((400, 300), 150, (200, 150)),
        ((300, 400), 150, (150, 200)),
        ((40, 30), 150, (40, 30)),
        ((400, 300), (64, 64), (64, 64)),
        ((40, 30), (80, 60), (80, 60)),
    ],
)
def test_working_size(native, size, expected):
    image = load_image(picture(*native), size=size)
    assert image.size == expected
    assert image.native_size == native
    assert image.resized == (native != expected)
    assert (image.gain == 1.0) == (native == expected)


@pytest.mark.parametrize("size", [0, -3, (0, 5), (1, 2, 3), 1.5, True, 5000, (200_000, 200_000)])
def test_impossible_sizes_are_refused(size):
    with pytest.raises(UsageError, match="cannot be used: give the shorter side"):
        load_image(picture(), size=size)


def resize_plane(plane, size):
    return np.asarray(
        Image.fromarray(plane.astype(np.float32)).resize(size, Image.Resampling.BICUBIC),
        dtype=np.float64,
    )


@pytest.mark.parametrize(
    ("native", "target"), [((97, 61), (32, 20)), ((299, 299), (224, 224)), ((30, 20), (64, 48))]
)
def test_gain_is_the_norm_of_the_real_resize(native, target):
    """Power iteration through the resize itself finds the same norm, from below."""
    gain = resize_norm(native[0], target[0]) * resize_norm(native[1], target[1])
    # The transpose is applied through the two 1-D operators, read off column by column.
    across = np.stack(
        [resize_plane(row[None], (target[0], 1))[0] for row in np.eye(native[0])], axis=1
    )
    down = np.stack(
        [resize_plane(row[:, None], (1, target[1]))[:, 0] for row in np.eye(native[1])], axis=1
    )
    x = np.random.default_rng(1).standard_normal((native[1], native[0]))
    for _ in range(400):
        x /= np.linalg.norm(x)
        y = resize_plane(x, target)
        grown = np.linalg.norm(y)
        x = down.T @ y @ across
    assert grown <= gain
    assert grown == pytest.approx(gain, rel=3e-3)
    assert np.linalg.norm(across, 2) * np.linalg.norm(down, 2) == pytest.approx(gain, rel=3e-6)


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 2**32 - 1), st.floats(1e-4, 1.0), st.integers(8, 60))
def test_no_change_of_the_photo_grows_by_more_than_the_gain(seed, strength, size):
    generator = np.random.default_rng(seed)
    photo = generator.random((50, 70, 3))
    change = np.clip(photo + strength * generator.standard_normal(photo.shape), 0, 1)
    one, other = load_image(photo, size=size), load_image(change, size=size)
    rounding = 2.0**-GRID_BITS * np.sqrt(one.pixels.size)
    grown = np.linalg.norm(one.pixels - other.pixels)
    assert grown <= one.gain * np.linalg.norm(photo - change) + rounding


def test_a_turned_photo_is_put_upright():
    array = picture(40, 30)
    exif = Image.Exif()
    exif[0x0112] = 6  # turn clockwise to see it upright
    data = encoded(Image.fromarray(np.rot90(array)), exif=exif)
    image = load_image(data)
    assert image.digest == load_image(array).digest
    assert any("EXIF" in note for note in image.notes)


def test_transparency_goes_on_white():
    clear = np.zeros((8, 8, 4), dtype=np.uint8)
    image = load_image(encoded(Image.fromarray(clear)))
    assert np.all(image.pixels == 1.0)
    assert any("white" in note for note in image.notes)


def test_palette_transparency_goes_on_white():
    palette = Image.new("P", (8, 8), 0)
    palette.putpalette([0, 0, 0] * 256)
    assert np.all(load_image(encoded(palette, transparency=0)).pixels == 1.0)


def test_16_bit_grey_keeps_its_range():
    values = np.array([[0, 65535], [32768, 257]], dtype=np.uint16)
    image = load_image(encoded(Image.fromarray(values)))
    assert np.allclose(image.pixels[:, :, 0], values / 65535, atol=2.0**-GRID_BITS)
    assert np.array_equal(image.pixels[:, :, 0], image.pixels[:, :, 2])


def test_cmyk_is_converted():
    rgb = Image.new("RGB", (8, 8), (200, 30, 60))
    image = load_image(encoded(rgb.convert("CMYK"), "TIFF"))
    assert np.allclose(image.pixels[0, 0] * 255, (200, 30, 60), atol=1)
    assert any("CMYK" in note for note in image.notes)


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P"])
def test_other_modes_are_read(mode):
    image = load_image(encoded(Image.new("RGB", (9, 7), "white").convert(mode)))
    assert image.pixels.shape == (7, 9, 3)
    assert np.all(image.pixels == 1.0)


def animation(kind):
    frames = [Image.new("RGB", (8, 8), color) for color in ("red", "blue")]
    return encoded(frames[0], kind, save_all=True, append_images=frames[1:])


def promise(width, height):
    """A PNG that promises so many pixels and brings none."""

    def chunk(kind, body=b""):
        return (
            struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
        )

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT") + chunk(b"IEND")


@pytest.mark.parametrize(
    ("data", "complaint"),
    [
        (b"", "empty"),
        (b"this is no image at all", "not an image"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "not an image"),
        (encoded(Image.fromarray(picture(200, 200)))[:5000], "cut off"),
        (encoded(Image.fromarray(picture(200, 200)), "JPEG")[:3000], "cut off"),
        (promise(20_000, 20_000), "decompression bomb"),
        (animation("GIF"), "several frames"),
        (animation("PNG"), "several frames"),
        (animation("TIFF"), "several frames"),
    ],
)
def test_bad_files_are_refused_in_words(data, complaint):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)
        with pytest.raises(ImageError, match=complaint):
            load_image(data)


def test_a_photo_just_above_the_limit_is_refused_before_it_is_decoded():
    with pytest.raises(ImageError, match="bomb"):  # here Pillow's warning is an error
        load_image(promise(9460, 9460))


@pytest.mark.parametrize(
    ("array", "complaint"),
    [
        (np.zeros((0, 5, 3), np.uint8), "no pixels"),
        (np.zeros((5, 5), np.uint8), "shape"),
        (np.zeros((3, 5, 5), np.uint8), "shape"),
        (np.zeros((5, 5, 4), np.uint8), "shape"),
        (np.zeros((5, 5, 3), np.int64), "int64"),
        (np.full((5, 5, 3), 255.0), "0..255|within"),
        (np.full((5, 5, 3), np.nan), "within"),
        (np.full((5, 5, 3), -0.1), "within"),
    ],
)
def test_arrays_are_never_guessed_at(array, complaint):
    with pytest.raises(ImageError, match=complaint):
        load_image(array)


def test_files_that_cannot_be_read(tmp_path):
    with pytest.raises(ImageError, match=r"No such file or directory\.$"):
        load_image(tmp_path / "missing.jpg")
    with pytest.raises(ImageError, match=r"directory.*`smoothapi certify FOLDER`"):
        load_image(tmp_path)


def test_a_photo_that_is_not_there_is_said_with_where_it_was_looked_for(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ImageError, match=f"No such file.*looked for in '{tmp_path}'"):
        load_image("missing.jpg")


def test_other_objects_are_refused():
    with pytest.raises(ImageError, match="not dict"):
        load_image({})


def test_a_float_image_file_is_refused():
    image = Image.fromarray(np.zeros((4, 4), dtype=np.float32))
    with pytest.raises(ImageError, match="floating-point"):
        load_image(encoded(image, "TIFF"))


def test_a_very_long_photo_is_refused_rather_than_worked_with_whole():
    with pytest.raises(ImageError, match="working image"):
        load_image(np.zeros((30, 5000, 3), np.uint8), size=224)


def test_32_bit_samples_are_not_guessed_at():
    with pytest.raises(ImageError, match="32-bit"):
        load_image(Image.fromarray(np.full((4, 4), 200, dtype=np.int32)))


@given(st.integers(1, 90), st.integers(1, 90))
def test_the_weights_of_a_resize_are_those_of_single_impulses(before, after):
    first, weights = _resize_weights(before, after)
    found = np.zeros((after, before + weights.shape[1]))
    for row, start, some in zip(found, first, weights, strict=True):
        row[start : start + len(some)] = some
    impulses = Image.fromarray(np.eye(before, dtype=np.float32))
    columns = np.asarray(impulses.resize((after, before), Image.Resampling.BICUBIC))
    np.testing.assert_array_equal(found[:, :before], columns.T)
    assert not found[:, before:].any()


def test_the_norm_of_a_large_resize_takes_few_pictures(monkeypatch):
    rows = []
    make = Image.fromarray
    monkeypatch.setattr(Image, "fromarray", lambda array: rows.append(len(array)) or make(array))
    assert _resize_norm(30_000, 224) == pytest.approx(np.sqrt(224 / 30_000), rel=0.02)
    assert sum(rows) < 600
    assert max(rows) * 30_000 <= 2**24


# Photos as people have them


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
@pytest.mark.parametrize(
    "exif", [b"Exif\0\0no TIFF at all", b"Exif\0\0II*\0\xff\xff\xff\xff", b"Exif\0\0" + bytes(70)]
)
def test_bad_exif_in_good_pixels_is_no_reason_to_refuse_them(kind, exif):
    image = Image.fromarray(picture())
    data = encoded(image, kind, exif=exif)
    loaded = load_image(data)
    assert loaded.digest == load_image(encoded(image, kind)).digest
    assert loaded.notes in ((), ("taken as it lies, since its EXIF data cannot be read",))


@pytest.mark.parametrize("orientation", [0, 9, 77])
def test_an_orientation_that_means_nothing_turns_nothing_and_is_not_said(orientation):
    image = Image.fromarray(picture())
    exif = Image.Exif()
    exif[0x0112] = orientation
    loaded = load_image(encoded(image, exif=exif))
    assert (loaded.digest, loaded.notes) == (load_image(image).digest, ())


@pytest.mark.parametrize("orientation", range(1, 9))
def test_every_orientation_is_as_pillow_turns_it(orientation):
    from PIL import ImageOps

    image = Image.fromarray(picture())
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = encoded(image, exif=exif)
    with Image.open(io.BytesIO(data)) as opened:
        turned = ImageOps.exif_transpose(opened)
    assert load_image(data).digest == load_image(np.asarray(turned)).digest
    assert bool(load_image(data).notes) == (orientation != 1)


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


@pytest.mark.parametrize("place", ["before the pixels", "after them"])
@pytest.mark.parametrize(
    "big",
    [
        chunk(b"zTXt", b"comment\0\0" + zlib.compress(bytes(3 * 2**20))),
        chunk(b"iTXt", b"comment\0\1\0\0\0" + zlib.compress(b"x" * 3 * 2**20)),
        chunk(b"iCCP", b"profile\0\0" + zlib.compress(bytes(3 * 2**20))),
        chunk(b"tEXt", b"comment\0" + b"x" * 3 * 2**20) * 30,
    ],
    ids=["zTXt", "iTXt", "iCCP", "tEXt"],
)
def test_texts_and_profiles_of_any_size_are_passed_by(big, place):
    image = Image.fromarray(picture())
    data = encoded(image)
    at = 33 if place == "before the pixels" else len(data) - 12  # behind IHDR, before IEND
    loaded = load_image(data[:at] + big + data[at:])
    assert (loaded.digest, loaded.notes) == (load_image(image).digest, ())


def test_a_jpeg_of_a_thousand_scans_is_refused_before_it_is_decoded():
    data = encoded(Image.fromarray(picture(640, 480)), "JPEG", progressive=True)
    assert load_image(data).size
    last = data.rindex(b"\xff\xda")
    bomb = data[:last] + data[last:-2] * 1000 + data[-2:]
    with pytest.raises(ImageError, match="scans, each over 307,200 pixels"):
        load_image(bomb)


def test_what_looks_like_scans_behind_or_inside_a_jpeg_is_no_scan():
    """A motion photo has a film behind the picture, and a preview in its EXIF data."""
    data = encoded(Image.fromarray(picture()), "JPEG")
    film = b"\xff\xda\0\x08" * 300
    segment = b"\xff\xed" + struct.pack(">H", len(film) + 2) + film
    assert load_image(data[:2] + segment + data[2:] + film).digest == load_image(data).digest


def test_heic_photos_are_read_where_the_package_is_there(monkeypatch):
    pillow_heif = pytest.importorskip("pillow_heif")
    image = Image.fromarray(picture(64, 48))
    stream = io.BytesIO()
    pillow_heif.from_pillow(image).save(stream, quality=-1)
    assert load_image(stream.getvalue()).native_size == (64, 48)
    with pytest.raises(ImageError, match="damaged"):
        load_image(stream.getvalue()[:300])
    monkeypatch.setitem(__import__("sys").modules, "pillow_heif", None)
    with pytest.raises(ImageError, match=r"smoothapi-vision\[heic\]"):
        load_image(stream.getvalue())


def test_files_that_are_open_are_read_from_where_they_are(tmp_path):
    path = tmp_path / "photo.png"
    path.write_bytes(encoded(Image.fromarray(picture())))
    stream = io.BytesIO(path.read_bytes())
    loaded = load_image(stream)
    assert (loaded.digest, loaded.name) == (load_image(path).digest, "image file")
    with pytest.raises(ImageError, match=r"seek\(0\)"):
        load_image(stream)
    with path.open("rb") as file:
        assert load_image(file).name == "photo.png"
    with pytest.raises(ImageError, match="closed"):
        load_image(file)
    with path.open(encoding="latin-1") as text, pytest.raises(ImageError, match="binary mode"):
        load_image(text)
    with path.open(encoding="utf-8") as text, pytest.raises(ImageError):
        load_image(text)


def worked_whole(source, target):
    """Return the pixels of a photo that is turned, converted and resized whole."""
    if isinstance(source, np.ndarray):
        scale = 255.0 if source.dtype == np.uint8 else 1.0
        planes = [np.ascontiguousarray(source[:, :, c], dtype=np.float32) for c in range(3)]
    else:
        image = ImageOps.exif_transpose(Image.open(io.BytesIO(source)))
        scale = 65535.0 if image.mode.startswith("I") else 255.0
        if image.mode.startswith("I"):
            planes = [np.asarray(image).astype(np.float32)] * 3
        else:
            if image.has_transparency_data:
                rgba = image.convert("RGBA")
                image = Image.alpha_composite(Image.new("RGBA", rgba.size, "white"), rgba)
            planes = [np.asarray(c.convert("F")) for c in image.convert("RGB").split()]
    floats = (Image.fromarray(plane).resize(target, Image.Resampling.BICUBIC) for plane in planes)
    stacked = np.stack([np.asarray(plane, dtype=np.float64) for plane in floats], axis=-1)
    return np.rint(np.clip(stacked / scale, 0.0, 1.0) * 2.0**GRID_BITS) * 2.0**-GRID_BITS


def in_every_way(orientation):
    """Yield photos in the modes and formats that there are, turned in one way."""
    exif = Image.Exif()
    exif[0x0112] = orientation
    rgba = Image.fromarray(np.random.default_rng(1).integers(0, 256, (47, 61, 4), dtype=np.uint8))
    rgb = rgba.convert("RGB")
    yield encoded(rgb, "JPEG", exif=exif)
    yield encoded(rgb.convert("L"), "JPEG", exif=exif)
    yield encoded(rgb.convert("CMYK"), "JPEG", exif=exif)
    yield encoded(rgba, "PNG", exif=exif)
    yield encoded(rgb, "PNG", exif=exif, transparency=(1, 2, 3))
    yield encoded(rgb.quantize(40), "PNG", exif=exif, transparency=3)
    yield encoded(rgba, "WEBP", exif=exif, lossless=True)
    grey = np.random.default_rng(2).integers(0, 65536, (47, 61), dtype=np.uint16)
    yield encoded(Image.fromarray(grey), "PNG", exif=exif)
    yield encoded(rgb.convert("YCbCr"), "TIFF")
    yield picture(61, 47)
    yield picture(61, 47)[::-1, ::2] / np.float32(255.0)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_photo_taken_in_parts_is_the_same_to_the_bit(orientation, monkeypatch):
    monkeypatch.setattr("smoothapi.image._AT_A_TIME", 61 * 5)
    for photo in in_every_way(orientation):
        for target in ((20, 17), (61, 9), (70, 90)):
            found = load_image(photo, size=target).pixels
            assert np.array_equal(found, worked_whole(photo, target))


@pytest.mark.parametrize("mode", ["array", "RGB", "RGBA", "I;16"])
@pytest.mark.parametrize("orientation", [1, 6])
def test_one_float_image_of_a_large_photo_is_held_at_a_time(orientation, mode, monkeypatch):
    """And, while there is one, no second image of the whole photo besides what was decoded."""
    array = picture(300, 200)
    exif = Image.Exif()
    exif[0x0112] = orientation
    image = Image.fromarray(np.zeros((200, 300), np.uint16) if mode == "I;16" else array)
    if mode == "RGBA":
        image.putalpha(7)
    source = array if mode == "array" else encoded(image, exif=exif)
    load_image(source, size=64)  # its gain is known from now on
    made, most = [], []
    plain, resize = Image.Image._new, Image.Image.resize

    def watched(self, core):
        found = plain(self, core)
        made.append(weakref.ref(found))
        return found

    def counting(self, *arguments, **options):
        held = [one() for one in made]
        others = [one for one in held if one is not None and one is not self]
        most.append(sum(one.width * one.height == 60_000 for one in others))
        return resize(self, *arguments, **options)

    monkeypatch.setattr("smoothapi.image._AT_A_TIME", 6_000)
    monkeypatch.setattr(Image.Image, "_new", watched)
    monkeypatch.setattr(Image.Image, "resize", counting)
    load_image(source, size=64)
    assert most == [mode == "RGBA"] * 3  # put on white is another one


def test_a_working_image_is_taken_as_it_is():
    image = load_image(picture(300, 200), size=64)
    assert load_image(image) is image


def test_a_name_that_is_not_utf_8_can_be_written(tmp_path):
    import os

    path = tmp_path / os.fsdecode(b"caf\xe9.png")
    path.write_bytes(encoded(Image.fromarray(picture())))
    name = load_image(path).name
    assert name == "caf\\xe9.png"
    assert name.encode()
