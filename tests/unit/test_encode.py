"""Encoding: what a provider decodes is what the denoiser made."""

from __future__ import annotations

import io

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from smoothapi.encode import Codec
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
    kind, received = decoded(Codec("png").encode(sent))
    assert kind == "PNG"
    assert np.array_equal(sent, received)


def test_jpeg_is_close_and_smaller():
    smooth = np.tile(np.arange(200, dtype=np.uint8)[:, None, None], (1, 200, 3))
    data = Codec("jpeg").encode(smooth)
    kind, received = decoded(data)
    assert kind == "JPEG"
    assert np.abs(smooth.astype(int) - received).max() <= 2


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


def test_unknown_codecs_are_refused():
    with pytest.raises(UsageError, match="png, jpeg"):
        Codec("webp")
