"""Variants of a photo: what is asked about each, and how the picture that is sent is made.

image -> noise -> denoise -> encode
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, TypeAlias

import numpy as np

from smoothapi.encode import Codec
from smoothapi.errors import UsageError
from smoothapi.noise import NoiseKey, noisy_variants, variant_seeds
from smoothapi.store import Named, Replay

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray

    from smoothapi.denoise import DenoiserRuntime
    from smoothapi.dispatch.job import Encode
    from smoothapi.image import WorkingImage
    from smoothapi.provider import Adapter

Asked: TypeAlias = "Callable[[int | None], dict[str, object]]"
"""Index of a variant -> all that decides the answer to it; None stands for the image itself."""


@dataclass(frozen=True, slots=True)
class Variants:
    """How variants are made and asked about: the same for all votes of a certificate.

    Attributes:
        adapter: who is asked.
        sigma: noise level.
        key: what the noise is drawn from.
        denoiser: what cleans it.
        codec: how it is encoded, before the rules that cannot apply to an image are dropped.
        replay: the recording that answers; then key, denoiser and codec are mere names, and no
            variant can be made.
    """

    adapter: Adapter
    sigma: float
    key: NoiseKey | Named
    denoiser: DenoiserRuntime | Named
    codec: Codec | Named
    replay: Replay | None = None

    def codec_for(self, image: WorkingImage) -> Codec | Named:
        """Return how variants of the image are encoded."""
        return self.codec.for_size(image.size) if isinstance(self.codec, Codec) else self.codec

    def asked(self, image: WorkingImage) -> Asked:
        """Return index -> all that decides the answer, and nothing else."""
        picture = {
            "provider": self.adapter.name,
            "identity": dict(self.adapter.identity),
            "image": image.digest,
            "size": list(image.size),
            "codec": self.codec_for(image).version,
        }
        noise = {
            "sigma": self.sigma,
            "noise": self.key.id,
            "denoiser": self.denoiser.fingerprint,
        }

        def asked(index: int | None) -> dict[str, object]:
            if index is None:
                return {**picture, "plain": True}
            return {**picture, **noise, "index": index}

        return asked

    def prepare(self, image: WorkingImage, indices: Sequence[int]) -> list[Encode]:
        """Return for each index what makes the payload: noise and denoising are done now.

        Raises:
            UsageError: a replay has no answer about the first of them.
        """
        key, denoiser, codec = self.key, self.denoiser, self.codec_for(image)
        if isinstance(key, Named) or isinstance(denoiser, Named) or isinstance(codec, Named):
            raise self._missing(image, indices[0])
        key = _stream(key, denoiser, image)
        if denoiser.draws_noise:
            seeds = variant_seeds(image, self.sigma, indices, key)
            pictures = denoiser.variants_of(image.pixels, self.sigma, seeds)
        else:
            noisy = noisy_variants(image, self.sigma, indices, key)
            pictures = denoiser.variants(noisy, self.sigma)
        return [partial(codec.encode, picture) for picture in pictures]

    def prepare_plain(self, image: WorkingImage) -> list[Encode]:
        """Return what makes the payload of the image itself; raises as `prepare` does."""
        codec = self.codec_for(image)
        if isinstance(codec, Named):
            raise self._missing(image, None)
        return [partial(codec.encode, image.to_uint8())]

    def look_at(
        self, image: WorkingImage, index: int
    ) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
        """Return a variant as (noisy, denoised), each (height, width, 3) uint8."""
        key, denoiser = self.key, self.denoiser
        if isinstance(key, Named) or isinstance(denoiser, Named):
            raise UsageError("A replay has answers only: neither the noise nor the denoiser.")
        key = _stream(key, denoiser, image)
        noisy = noisy_variants(image, self.sigma, [index], key)
        seen = np.rint(np.clip(noisy[0], 0.0, 1.0) * 255.0).astype(np.uint8)
        return seen, denoiser.variants(noisy, self.sigma)[0]

    def check_side(self, image: WorkingImage) -> None:
        """Raise UsageError if the provider does not take pictures as long as the image's."""
        if isinstance(self.codec, Named):
            return
        longest = max(self.codec.size_of(image.size))
        if longest > self.adapter.limits.max_side:
            raise UsageError(
                f"The working image would be sent with a side of {longest:,} pixels, and "
                f"{self.adapter.name} takes up to {self.adapter.limits.max_side:,}. Give size="
                "(width, height), or crop the photo."
            )

    def _missing(self, image: WorkingImage, index: int | None) -> UsageError:
        assert self.replay is not None  # noqa: S101
        return self.replay.missing(self.asked(image)(index), image.name)


def _stream(key: NoiseKey, denoiser: DenoiserRuntime, image: WorkingImage) -> NoiseKey:
    """Return the key that the image's noise is drawn from.

    Where answers about this very image had a part in the denoiser, it is a stream of the
    denoiser's own: the noise of those answers is no longer independent of what is certified. Such
    variants are told apart in the store by the denoiser's fingerprint, of which the image is part.
    """
    adaptation = denoiser.adaptation
    if adaptation is None or image.digest not in adaptation.photos:
        return key
    return key.stream(f"adapted {adaptation.identity}")
