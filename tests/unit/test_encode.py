"""Encoding: what a provider decodes is what the denoiser made."""

from __future__ import annotations

import io

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from smoothapi.encode import Codec, _largest_png
from smoothapi.errors import UsageError


def picture(width, height, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def decoded(data):
    with Image.open(io.BytesIO(data)) as image:
        return image.format, np.asarray(image.convert("RGB"))


@settings(max_examples=20, deadline=None)
@given(st.integers(1, 50), st.integers(1, 50), st.integers(0, 2**32 - 1))
def test_png_loses_nothing(width, height, seed):
    sent = picture(width, height, seed)
    data = Codec("png").encode(sent)
    with Image.open(io.BytesIO(data)) as image:
        image.verify()  # the checksums, too
        assert image.mode == "RGB"
    kind, received = decoded(data)
    assert kind == "PNG"
    assert np.array_equal(sent, received)


def test_jpeg_is_close_and_smaller():
    smooth = np.tile(np.arange(200, dtype=np.uint8)[:, None, None], (1, 200, 3))
    data = Codec("jpeg").encode(smooth)
    kind, received = decoded(data)
    assert kind == "JPEG"
    assert np.abs(smooth.astype(int) - received).max() <= 2


def test_a_png_is_about_as_small_as_others_are():
    smooth = np.add.outer(np.arange(200), np.arange(300)) // 2
    noisy = smooth[..., None] + np.random.default_rng(0).normal(0, 6, (200, 300, 3))
    sent = noisy.clip(0, 255).astype(np.uint8)
    stream = io.BytesIO()
    Image.fromarray(sent).save(stream, "PNG", compress_level=6)
    assert len(Codec().encode(sent)) < 1.05 * len(stream.getvalue())


def test_what_shares_memory_with_another_picture_is_packed_as_it_looks():
    whole = picture(60, 40)
    for part in (whole[::2, 5:20], whole[..., ::-1], whole.transpose(1, 0, 2)):
        assert np.array_equal(decoded(Codec().encode(part))[1], part)


@pytest.mark.parametrize("name", ["png", "jpeg"])
def test_the_same_picture_gives_the_same_bytes(name):
    assert Codec(name).encode(picture(60, 40)) == Codec(name).encode(picture(60, 40))


@pytest.mark.parametrize(
    ("size", "expected"), [((40, 30), (107, 80)), ((30, 40), (80, 107)), ((200, 90), (200, 90))]
)
def test_small_pictures_are_enlarged_to_what_the_provider_takes(size, expected):
    _, received = decoded(Codec("png", min_side=80).encode(picture(*size)))
    assert received.shape[1::-1] == expected


def test_the_version_tells_apart_what_changes_the_pixels():
    versions = {Codec().version, Codec("jpeg").version, Codec(min_side=80).version}
    assert len(versions) == 3


@pytest.mark.parametrize(("above", "kind"), [(10**6, "PNG"), (0, "JPEG")])
def test_what_is_too_large_as_png_is_sent_as_jpeg(above, kind):
    sent = picture(60, 40)
    got, received = decoded(Codec(jpeg_above=above).encode(sent))
    assert got == kind
    if kind == "JPEG":
        assert Codec(jpeg_above=above).encode(sent) == Codec("jpeg").encode(sent)
    else:
        assert np.array_equal(sent, received)


def test_each_picture_is_judged_by_its_own_bytes():
    """The same pixels are always sent the same way, whatever was sent before."""
    plain, noisy = np.zeros((40, 60, 3), np.uint8), picture(60, 40)
    codec = Codec(jpeg_above=len(Codec().encode(noisy)) - 1)
    kinds = [decoded(codec.encode(each))[0] for each in (plain, noisy, plain, noisy)]
    assert kinds == ["PNG", "JPEG", "PNG", "JPEG"]
    exactly = Codec(jpeg_above=len(Codec().encode(noisy)))
    assert decoded(exactly.encode(noisy))[0] == "PNG"


def test_the_rule_is_in_the_version_only_where_it_can_apply():
    codec = Codec(jpeg_above=4_000_000, min_side=80)
    assert codec.for_size((224, 224)).version == Codec(min_side=80).version
    assert codec.for_size((1000, 1000)).version == Codec(min_side=80).version
    assert codec.for_size((1200, 1200)) is codec
    assert "jpeg-above-4000000" in codec.version
    assert "libjpeg" in codec.version
    assert "zlib" in codec.version
    assert Codec(jpeg_above=1).version != Codec(jpeg_above=2).version
    assert Codec("jpeg", jpeg_above=1).version == Codec("jpeg").version
    small = Codec(jpeg_above=20_000, min_side=80)  # judged by the size that is sent
    assert small.for_size((10, 10)) is small
    assert Codec(jpeg_above=20_000).for_size((10, 10)) == Codec()


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 300), st.integers(1, 300), st.integers(0, 2**32 - 1))
def test_no_png_is_larger_than_the_bound(width, height, seed):
    assert len(Codec().encode(picture(width, height, seed))) <= _largest_png((width, height))


def test_no_large_png_is_larger_than_the_bound():
    assert len(Codec().encode(picture(1500, 900))) <= _largest_png((1500, 900))


def test_unknown_codecs_are_refused():
    with pytest.raises(UsageError, match="png, jpeg"):
        Codec("webp")
