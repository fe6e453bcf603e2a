"""Knobs change what they say and nothing else, and are part of what a denoiser is."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch

from smoothapi.denoise import load
from smoothapi.denoise.adaptation import Adaptation
from smoothapi.denoise.knobs import NEUTRAL, Knobs
from smoothapi.denoise.runtime import LocalRuntime
from smoothapi.denoise.sources import File, Tuned, adapted
from smoothapi.denoise.storage import read_header
from smoothapi.errors import DenoiserError, UsageError
from smoothapi.image import load_image
from smoothapi.noise import NoiseKey
from smoothapi.variants import MadeVariants

DIGEST = "ab" * 32


def tuned(file, knobs):
    return LocalRuntime(Tuned(File(read_header(file), None), knobs), device="cpu", precision="fp32")


A_LITTLE = Knobs(blend=0.1)


def written(file, folder, *, knobs=A_LITTLE, photos=(DIGEST,), **changes):
    facts = {
        "weights": "../" + file.name,
        "sha256": read_header(file).sha256,
        "provider": "aws",
        "sigma": 0.25,
    }
    path = folder / "sub" / "adapted.json"
    Adaptation(knobs=knobs, photos=frozenset(photos), **(facts | changes)).write(path)
    return path


def test_what_the_knobs_do_is_what_they_say():
    noisy, denoised = torch.rand(2, 3, 5, 6), torch.rand(2, 3, 5, 6)
    blended = Knobs(blend=0.25).apply(noisy, denoised)
    torch.testing.assert_close(blended, 0.75 * denoised + 0.25 * noisy)
    soft = Knobs(sharpen=-1.0).apply(noisy, denoised)
    kernel = torch.tensor([1.0, 2.0, 1.0])
    kernel = (kernel[:, None] * kernel / 16).expand(3, 1, 3, 3)
    padded = torch.nn.functional.pad(denoised, (1, 1, 1, 1), mode="replicate")
    torch.testing.assert_close(soft, torch.nn.functional.conv2d(padded, kernel, groups=3))
    sharp = Knobs(sharpen=0.2).apply(noisy, denoised)
    torch.testing.assert_close(sharp, soft + 1.2 * (denoised - soft))
    both = Knobs(0.25, 0.2).apply(noisy, denoised)
    torch.testing.assert_close(both, blended + sharp - denoised)


def test_neutral_knobs_change_no_bit_and_no_fingerprint(tiny_file, tmp_path, noisy):
    plain = load(tiny_file, device="cpu", precision="fp32")
    assert NEUTRAL.apply(torch.ones(1), (out := torch.zeros(1))) is out
    path = written(tiny_file, tmp_path, knobs=NEUTRAL, photos=())
    same = load(path, device="cpu", precision="fp32")
    assert (same.name, same.fingerprint) == (plain.name, plain.fingerprint)
    assert same.adaptation is None
    np.testing.assert_array_equal(same.variants(noisy, 0.25), plain.variants(noisy, 0.25))
    neutral = tuned(tiny_file, NEUTRAL)
    np.testing.assert_array_equal(neutral.variants(noisy, 0.25), plain.variants(noisy, 0.25))


def test_knobs_and_photos_are_in_the_fingerprint_and_the_provider_in_the_name(tiny_file, tmp_path):
    plain = load(tiny_file, device="cpu")
    seen = {plain.fingerprint}
    for knobs in (Knobs(blend=0.1), Knobs(sharpen=0.1), Knobs(0.1, 0.1), Knobs(0.05, 0.1)):
        seen.add(tuned(tiny_file, knobs).fingerprint)
        for photos in ((), (DIGEST,), (DIGEST, "cd" * 32)):
            made = load(written(tiny_file, tmp_path, knobs=knobs, photos=photos), device="cpu")
            seen.add(made.fingerprint)
            assert made.name.startswith(f"{plain.name}+aws-")
    assert len(seen) == 1 + 4 * 4


def test_the_figures_are_no_part_of_it(tiny_file, tmp_path):
    first = load(written(tiny_file, tmp_path), device="cpu")
    second = load(written(tiny_file, tmp_path, about={"queries": 7}), device="cpu")
    assert first.fingerprint == second.fingerprint


def test_an_adapted_denoiser_does_to_pictures_what_its_setting_did(tiny_file, tmp_path, noisy):
    knobs = Knobs(blend=0.2, sharpen=0.5)
    made = load(written(tiny_file, tmp_path, knobs=knobs), device="cpu", precision="fp32")
    tried = tuned(tiny_file, knobs)
    assert made.fingerprint != tried.fingerprint  # the answers that chose it are not its votes
    pictures = made.variants(noisy, 0.25)
    np.testing.assert_array_equal(pictures, tried.variants(noisy, 0.25))
    assert (pictures != load(tiny_file, device="cpu", precision="fp32").variants(noisy, 0.25)).any()
    alone = np.concatenate([made.variants(one[None], 0.25) for one in noisy])
    np.testing.assert_array_equal(pictures, alone)


def test_a_photo_that_tuned_a_denoiser_gets_fresh_noise_with_it(tiny_file, tmp_path):
    image = load_image(np.full((12, 16, 3), 99, np.uint8), size=12)
    other = load_image(np.full((12, 16, 3), 98, np.uint8), size=12)
    path = written(tiny_file, tmp_path, photos=(image.digest,))
    key = NoiseKey(bytes(32))

    def seen(denoiser, image, index=0):
        variants = MadeVariants(adapter=None, sigma=0.25, key=key, denoiser=denoiser, codec=None)
        return variants.look_at(image, index)[0]

    plain, made = load(tiny_file, device="cpu"), load(path, device="cpu")
    assert (seen(plain, other) == seen(made, other)).all()
    assert (seen(plain, image) != seen(made, image)).mean() > 0.9
    assert (seen(made, image) == seen(made, image)).all()
    # Nor is it the noise of another index, or of another adaptation.
    again = load(written(tiny_file, tmp_path, photos=(image.digest, DIGEST)), device="cpu")
    assert (seen(again, image) != seen(made, image)).mean() > 0.9
    assert all((seen(plain, image, i) != seen(made, image)).mean() > 0.9 for i in range(5))


def test_knobs_out_of_range_are_refused():
    for wrong in ({"blend": -0.1}, {"blend": 1.0}, {"sharpen": -1.1}, {"sharpen": float("nan")}):
        with pytest.raises(UsageError, match=r"blend|sharpen"):
            Knobs(**wrong)


def test_a_damaged_adaptation_or_one_of_other_weights_is_refused(tiny_file, tmp_path):
    path = written(tiny_file, tmp_path)
    good = json.loads(path.read_text())
    path.write_text("{")
    with pytest.raises(DenoiserError, match="cannot be read"):
        load(path)
    path.write_text(json.dumps(good | {"schema": "smoothapi.study/1"}))
    with pytest.raises(DenoiserError, match="not an adapted denoiser"):
        load(path)
    for change in ({"knobs": {"blur": 1}}, {"photos": ["x"]}, {"sigma": "high"}, {"weights": 3}):
        path.write_text(json.dumps(good | change))
        with pytest.raises(DenoiserError, match="damaged"):
            load(path)
    with pytest.raises(DenoiserError, match="adapt` again"):
        adapted(written(tiny_file, tmp_path, sha256="00" * 32))
    with pytest.raises(DenoiserError, match="cannot be read"):
        load(tmp_path / "missing.json")
