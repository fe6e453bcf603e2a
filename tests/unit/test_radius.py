"""Radii in the units that people have: read, turned into the working image's, and back."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from smoothapi import Certificate, Smoother, config, verify
from smoothapi.certify import native_radius, working_radius
from smoothapi.certify.radii import rms_steps, rounding_of
from smoothapi.certify.sequential import fewest_votes
from smoothapi.errors import CertificateError, UnreachableRadiusError, UsageError
from smoothapi.image import resize_gain, working_size
from smoothapi.radius import WantedRadius
from tests.conftest import ScriptedAdapter

DOCS = Path(__file__).parents[2] / "docs"
PHOTO = np.random.default_rng(0).integers(0, 256, (80, 60, 3), dtype=np.uint8)


@pytest.mark.parametrize(
    ("given", "value", "unit"),
    [
        (0.25, 0.25, "working"),
        (1, 1.0, "working"),
        ("0.25", 0.25, "working"),
        ("0.25 working", 0.25, "working"),
        ("0.5 native", 0.5, "native"),
        (" .5native ", 0.5, "native"),
        ("0.1/255 rms", 0.1 / 255, "rms"),
        ("1e-3 rms", 1e-3, "rms"),
        ("2 / 255", 2 / 255, "working"),
    ],
)
def test_it_is_read(given, value, unit):
    assert WantedRadius.parse(given) == WantedRadius(value, unit)


@pytest.mark.parametrize(
    "given",
    [
        0, -0.25, float("nan"), float("inf"), True, None, "", "rms", "0 native", "1/0 rms",
        "-1 native", "0.5 pixels", "0.5 native native", "1e999 native", "largest ", "٣ native",
        "0.5 Native", "nan", "1_0",
    ],
)  # fmt: skip
def test_what_is_no_radius_is_refused_with_examples(given):
    with pytest.raises(UsageError, match=r"0.5 native.*0.1/255 rms.*largest"):
        WantedRadius.parse(given)


@given(st.floats(1e-9, 1e3), st.sampled_from(["working", "native", "rms"]))
def test_its_text_is_read_again_as_it_was(value, unit):
    wanted = WantedRadius(value, unit)
    assert WantedRadius.parse(str(wanted)) == wanted


@given(st.floats(1e-4, 10.0), st.integers(1, 9000), st.integers(1, 9000), st.floats(0.01, 3.0))
def test_the_working_radius_covers_the_native_one(value, width, height, gain):
    rounding = 0.000554
    native = working_radius(WantedRadius(value, "native"), (width, height), gain, rounding)
    assert native_radius(native, gain, rounding) >= value - 1e-6 - 1e-9 * value
    assert native >= value * gain
    rms = working_radius(WantedRadius(value, "rms"), (width, height), gain, rounding)
    assert rms >= value * gain * (3 * width * height) ** 0.5


@given(
    st.floats(1e-4, 0.3), st.integers(1, 9000), st.integers(1, 9000), st.floats(0.01, 3.0),
    st.floats(0.0, 1e-3),
)  # fmt: skip
def test_steps_of_8_bits_are_never_overstated(value, width, height, gain, rounding):
    """And what was asked for in three digits is shown as it was."""
    asked = float(f"{255 * value:.3g}")
    size = (width, height)
    radius = working_radius(WantedRadius(asked / 255, "rms"), size, gain, rounding)
    shown = rms_steps(radius, size, gain, rounding)
    assert shown >= asked * (1 - 1e-9)
    exact = 255 * (Fraction(radius) - Fraction(rounding)) / Fraction(gain)
    assert Fraction(shown) ** 2 <= exact**2 / (3 * width * height) * (1 + Fraction(1, 10**14))
    assert rms_steps(rounding / 2, size, gain, rounding) == 0.0


def test_what_the_documentation_says_of_a_12_megapixel_photo_and_of_a_small_one():
    page = " ".join((DOCS / "explanation" / "certificate.md").read_text().split())
    photos = []
    for size in ((4000, 3000), (299, 299)):
        working = working_size(size, 224)
        photos.append((size, resize_gain(size, working), rounding_of(3 * working[0] * working[1])))

    def around(asked):
        for photo in photos:
            radius = working_radius(WantedRadius.parse(asked), *photo)
            yield radius, native_radius(radius, *photo[1:])

    (_, large), (_, small) = around("0.25")
    assert f"| {large:.1f} in the photo's own pixels | {small:.2f} |" in page
    (large, _), (small, _) = around("0.5 native")
    votes = fewest_votes(large, 0.25, 0.001, 8e-4)
    assert f"| {large:.3f} around the working image: {votes} votes | {small:.2f} |" in page
    (large, pixels), (small, own) = around("0.1/255 rms")
    assert f"| L2 {pixels:.1f} in its own pixels, {large:.2f} around the working image |" in page
    assert f"| L2 {own:.2f}, {small:.2f} |" in page


def certified(radius, **options):
    with Smoother(
        ScriptedAdapter(), denoiser="none", size=20, radius=radius, sigma=0.25, **options
    ) as smoother:
        return smoother.certify(PHOTO)


@pytest.mark.parametrize("radius", ["0.3 native", "0.8/255 rms"])
def test_it_is_certified_shown_and_verified(radius):
    certificate = certified(radius)
    wanted = WantedRadius.parse(radius)
    assert certificate.label is not None
    assert certificate.radius_asked == str(wanted)
    reached = {"native": certificate.radius_native, "rms": certificate.radius_rms}
    assert reached[wanted.unit] >= wanted.value - 1e-6
    # A photo of four times the size: its own pixels are worth more than the working image's.
    assert certificate.radius < certificate.radius_native
    verify(certificate, PHOTO)
    again = Certificate.from_json(certificate.to_json())
    assert again == certificate
    assert json.loads(certificate.to_json())["radius_rms"] == certificate.radius_rms
    assert certificate.radius_rms == pytest.approx(
        certificate.radius_native / np.sqrt(PHOTO.size), abs=1e-9
    )


@pytest.mark.parametrize("asked", ["9.0 native", "0.3 rms", "0.3 working", "words", "0.31 native"])
def test_a_forged_unit_is_refused(asked):
    with pytest.raises(CertificateError, match="does not add up"):
        verify(replace(certified("0.3 native"), radius_asked=asked))


def test_a_number_is_around_the_working_image():
    certificate = certified(0.1)
    assert (certificate.radius, certificate.radius_asked) == (0.1, "")


def test_it_may_come_from_the_settings(monkeypatch):
    monkeypatch.setenv("SMOOTHAPI_RADIUS", "0.3 native")
    assert config.resolve().settings.radius == "0.3 native"
    assert certified(None).radius_asked == "0.3 native"
    monkeypatch.setenv("SMOOTHAPI_RADIUS", "0.3")
    assert config.resolve().settings.radius == 0.3
    monkeypatch.setenv("SMOOTHAPI_RADIUS", "0.3 pixels")
    with pytest.raises(UsageError, match=r"0\.5 native"):
        config.resolve()


@pytest.mark.parametrize(
    ("given", "unit"), [("40/255 rms", "rms"), ("0.2 rms", "rms"), ("30 native", "native")]
)
def test_one_that_is_out_of_reach_is_named_in_its_unit_with_the_largest_there(given, unit):
    adapter = ScriptedAdapter()
    with Smoother(adapter, denoiser="none", size=32, plain=False, max_votes=200) as smoother:
        with pytest.raises(UnreachableRadiusError) as caught:
            smoother.certify(PHOTO, radius=given)
        said = str(caught.value)
        assert said.startswith(f"{given!r} comes to radius ")
        [largest] = re.findall(rf'In the unit asked for that is "([^"]+ {unit})"', said)
        assert adapter.sent == 0
        certificate = smoother.certify(PHOTO, radius=largest)
    assert certificate.label is not None
    assert certificate.radius <= caught.value.largest


def test_one_around_the_working_image_is_named_as_it_was_given():
    with (
        Smoother(ScriptedAdapter(), denoiser="none", size=32, max_votes=200) as smoother,
        pytest.raises(UnreachableRadiusError, match=r"^radius 2 at sigma 0\.25") as caught,
    ):
        smoother.certify(PHOTO, radius=2)
    assert "unit" not in str(caught.value)
