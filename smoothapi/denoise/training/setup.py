"""From what a user names to a trainer that is ready: threads, network, photos, surrogates."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from smoothapi.denoise.device import choose_device
from smoothapi.denoise.networks import build
from smoothapi.denoise.storage import load_network, read_header
from smoothapi.denoise.training.data import Photos
from smoothapi.denoise.training.device_photos import PhotosOnDevice
from smoothapi.denoise.training.surrogates import load_classifier
from smoothapi.denoise.training.train import Trainer

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from pathlib import Path

    from smoothapi.denoise.training.data import Batches
    from smoothapi.denoise.training.recipe import PhotosOn, Recipe


def make_trainer(
    recipe: Recipe,
    places: Iterable[Path],
    *,
    out: Path,
    network: Path | tuple[str, Mapping[str, Any]],
    leave_out: frozenset[str] = frozenset(),
    photos_on: PhotosOn = "auto",
    surrogates: Sequence[str] = (),
    device: str = "auto",
    threads: int = 0,
    shards: int = 1,
    compile_network: bool | None = None,
) -> Trainer:
    """Make the network, load photos and surrogates, and return the trainer of one run.

    Args:
        recipe: how to train; a new network's weights come from its seed.
        places: folders of photos, and packs.
        out: folder of checkpoint, weights and log.
        network: a weights file to begin from, or the architecture and configuration of a new one
            (see `networks.build`).
        leave_out: file names that must not be trained on, such as `names_held_out`'s.
        photos_on: where crops are cut; `auto` takes the device where that is CUDA.
        surrogates: specifications, as `load_classifier` takes them.
        device: as `choose_device` takes it.
        threads: of torch on CPUs, for the whole process; 0 leaves torch's choice.
        shards: parts of a batch, a thread each.
        compile_network: None compiles on CUDA only.

    Raises:
        UsageError: a place holds no photo, or the recipe needs surrogates and none is given.
        DenoiserError: the weights, the configuration or the device cannot be used.
    """
    if threads:
        torch.set_num_threads(threads)
    chosen = torch.device(choose_device(device))
    on_cuda = chosen.type == "cuda"
    torch.manual_seed(recipe.seed)
    begun = build(*network) if isinstance(network, tuple) else load_network(read_header(network))
    photos: Batches
    if photos_on == "device" or (photos_on == "auto" and on_cuda):
        size = recipe.crops.size
        photos = PhotosOnDevice.load(places, size=size, device=chosen, leave_out=leave_out)
    else:
        photos = Photos.load(places, leave_out=leave_out)
    return Trainer(
        begun,
        photos,
        recipe,
        out=out,
        surrogates=[load_classifier(spec) for spec in surrogates],
        device=chosen,
        compile_network=on_cuda if compile_network is None else compile_network,
        shards=shards,
    )
