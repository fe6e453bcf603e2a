from __future__ import annotations

import pytest
import torch

from smoothapi.denoise.networks import (
    DnCNN,
    UNet,
    UNetConfig,
    build,
    describe,
    reflect_to_multiple,
)
from smoothapi.errors import DenoiserError

from .harness import TINY, random_unet


@pytest.mark.parametrize("size", [(1, 1), (1, 7), (3, 2), (8, 8), (17, 30), (33, 5)])
def test_any_size_gives_finite_values_of_the_same_shape(size: tuple[int, int]) -> None:
    noisy = torch.randn(2, 3, *size)
    out = random_unet()(noisy, 0.3)
    assert out.shape == noisy.shape
    assert out.dtype == torch.float32
    assert out.isfinite().all()


def test_reflection_mirrors_without_repeating_the_edge() -> None:
    line = torch.tensor([[[[0.0, 1.0, 2.0]]]])
    padded = reflect_to_multiple(line, 8)
    assert padded.shape == (1, 1, 8, 8)
    assert padded[0, 0, 0].tolist() == [0, 1, 2, 1, 0, 1, 2, 1]


def test_untrained_network_is_the_wiener_estimate() -> None:
    # With a silent network only the skip of the preconditioning is left.
    noisy = torch.rand(1, 3, 16, 16)
    sigma, std = 0.25, 0.25
    expected = 0.5 + (noisy - 0.5) * std**2 / (std**2 + sigma**2)
    torch.testing.assert_close(UNet(TINY)(noisy, sigma), expected)


def test_sigma_matters_and_may_differ_within_a_batch() -> None:
    network, noisy = random_unet(), torch.rand(2, 3, 16, 16)
    both = network(noisy, torch.tensor([0.1, 0.8]))
    for index, sigma in enumerate((0.1, 0.8)):
        alone = network(noisy[index : index + 1], sigma)
        torch.testing.assert_close(both[index : index + 1], alone)
    assert not torch.allclose(both[1:], network(noisy[1:], 0.1))


def test_bfloat16_weights_change_a_pixel_by_little() -> None:
    network, noisy = random_unet(), torch.rand(1, 3, 32, 32)
    exact = network(noisy, 0.25)
    rough = network.bfloat16()(noisy, 0.25)
    assert rough.dtype == torch.float32
    assert (rough - exact).abs().max() < 1 / 255


def test_describe_and_build_are_inverse() -> None:
    for network in (UNet(TINY), DnCNN(4, 5)):
        again = build(*describe(network))
        again.load_state_dict(network.state_dict())
        assert describe(again) == describe(network)


@pytest.mark.parametrize(
    ("architecture", "config"),
    [("vgg", {}), ("unet", {"width": 3}), ("dncnn", {"depth": 3}), ("dncnn", {"layers": 2})],
)
def test_unknown_networks_are_refused(architecture: str, config: dict[str, int]) -> None:
    with pytest.raises(DenoiserError):
        build(architecture, config)


@pytest.mark.parametrize(
    "shape",
    [
        {"encoder_blocks": (1,)},
        {"decoder_blocks": (1, 1)},
        {"channels": (0, 4)},
        {"data_std": 0.0},
        {"encoder_blocks": (1, -1)},
    ],
)
def test_impossible_shapes_are_refused(shape: dict[str, object]) -> None:
    fields = {"channels": (4, 6), "encoder_blocks": (1, 1), "decoder_blocks": (1,)}
    with pytest.raises(DenoiserError):
        UNetConfig(**{**fields, **shape})


def test_dncnn_subtracts_what_its_chain_predicts() -> None:
    network = DnCNN(3, 4).eval()
    noisy = torch.rand(1, 3, 9, 9)
    torch.testing.assert_close(network(noisy, 0.5), noisy - network.dncnn(noisy))
    assert len([m for m in DnCNN().modules() if isinstance(m, torch.nn.Conv2d)]) == 17
