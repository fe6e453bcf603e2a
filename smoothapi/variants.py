"""Variants of a photo: what is asked about each, and how the picture that is sent is made.

image -> noise -> denoise -> encode
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, NoReturn, Protocol, TypeAlias

import numpy as np

from smoothapi.denoise import RecordedDenoiser
from smoothapi.errors import UsageError
from smoothapi.noise import NoiseKey, noisy_variants, variant_seeds

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from numpy.typing import NDArray

    from smoothapi.denoise import DenoiserIdentity, DenoiserRuntime
    from smoothapi.dispatch.job import Encode
    from smoothapi.encode import Codec
    from smoothapi.image import WorkingImage
    from smoothapi.provider import Adapter
    from smoothapi.store import Replay

Asked: TypeAlias = "Callable[[int | None], dict[str, object]]"
"""Index of a variant -> all that decides the answer to it; None stands for the image itself."""


class Variants(Protocol):
    """How variants are made and asked about: the same for all votes of a certificate."""

    @property
    def adapter(self) -> Adapter:
        """Who is asked."""
        ...

    @property
    def sigma(self) -> float:
        """The noise level."""
        ...

    @property
    def denoiser(self) -> DenoiserIdentity:
        """What cleans the noise."""
        ...

    @property
    def noise_key(self) -> str:
        """The public id of the key that the noise is drawn from."""
        ...

    @property
    def replayed_from(self) -> str:
        """The file name of the recording that answers; "" where variants are made here."""
        ...

    def codec_version(self, image: WorkingImage) -> str:
        """Return how variants of the image are encoded."""
        ...

    def asked(self, image: WorkingImage) -> Asked:
        """Return index -> all that decides the answer, and nothing else."""
        ...

    def prepare(self, image: WorkingImage, indices: Sequence[int]) -> list[Encode]:
        """Return for each index what makes the payload: noise and denoising are done now.

        Raises:
            UsageError: a replay has no answer about the first of them.
        """
        ...

    def prepare_plain(self, image: WorkingImage) -> list[Encode]:
        """Return what makes the payload of the image itself; raises as `prepare` does."""
        ...

    def look_at(
        self, image: WorkingImage, index: int
    ) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
        """Return a variant as (noisy, denoised), each (height, width, 3) uint8.

        Raises:
            UsageError: a replay has answers only.
        """
        ...

    def check_side(self, image: WorkingImage) -> None:
        """Raise UsageError if the provider does not take pictures as long as the image's."""
        ...

    def at(self, sigma: float, denoiser: DenoiserRuntime | None = None) -> Variants:
        """Return those at another noise level, and by another denoiser if one is given.

        Raises:
            UsageError: a replay has the one denoiser that it was recorded with.
        """
        ...

    def through(self, adapter: Adapter, codec: Codec) -> Variants:
        """Return those that ask through another adapter of the same provider.

        Raises:
            UsageError: a replay asks nobody.
        """
        ...


@dataclass(frozen=True, slots=True)
class MadeVariants:
    """Variants that are made here; members as of `Variants`.

    Attributes:
        adapter: who is asked.
        sigma: noise level.
        key: what the noise is drawn from.
        denoiser: what cleans it.
        codec: how it is encoded, before the rules that cannot apply to an image are dropped.
    """

    adapter: Adapter
    sigma: float
    key: NoiseKey
    denoiser: DenoiserRuntime
    codec: Codec
    replayed_from = ""

    @property
    def noise_key(self) -> str:
        """The public id of the key."""
        return self.key.id

    def codec_version(self, image: WorkingImage) -> str:
        """Return how variants of the image are encoded."""
        return self.codec.for_size(image.size).version

    def asked(self, image: WorkingImage) -> Asked:
        """Return index -> all that decides the answer, and nothing else."""
        return _asked(self, image)

    def prepare(self, image: WorkingImage, indices: Sequence[int]) -> list[Encode]:
        """Return for each index what makes the payload: noise and denoising are done now."""
        codec = self.codec.for_size(image.size)
        return [partial(codec.encode, picture) for picture in self._denoised(image, indices)]

    def prepare_plain(self, image: WorkingImage) -> list[Encode]:
        """Return what makes the payload of the image itself."""
        return [partial(self.codec.for_size(image.size).encode, image.to_uint8())]

    def look_at(
        self, image: WorkingImage, index: int
    ) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
        """Return a variant as (noisy, denoised), each (height, width, 3) uint8."""
        key = _key_for(image, self.key, self.denoiser)
        noisy = noisy_variants(image, self.sigma, [index], key)
        seen = np.rint(np.clip(noisy[0], 0.0, 1.0) * 255.0).astype(np.uint8)
        return seen, self.denoiser.variants(noisy, self.sigma)[0]

    def check_side(self, image: WorkingImage) -> None:
        """Raise UsageError if the provider does not take pictures as long as the image's."""
        longest = max(self.codec.size_of(image.size))
        if longest > self.adapter.limits.max_side:
            raise UsageError(
                f"The working image would be sent with a side of {longest:,} pixels, and "
                f"{self.adapter.name} takes up to {self.adapter.limits.max_side:,}. Give size="
                "(width, height), or crop the photo."
            )

    def at(self, sigma: float, denoiser: DenoiserRuntime | None = None) -> MadeVariants:
        """Return those at another noise level, and by another denoiser if one is given."""
        return replace(self, sigma=sigma, denoiser=self.denoiser if denoiser is None else denoiser)

    def through(self, adapter: Adapter, codec: Codec) -> MadeVariants:
        """Return those that ask through another adapter of the same provider."""
        return replace(self, adapter=adapter, codec=codec)

    def _denoised(self, image: WorkingImage, indices: Sequence[int]) -> NDArray[np.uint8]:
        return denoised(image, self.sigma, indices, self.key, self.denoiser)


def denoised(
    image: WorkingImage,
    sigma: float,
    indices: Sequence[int],
    key: NoiseKey,
    denoiser: DenoiserRuntime,
) -> NDArray[np.uint8]:
    """Return variants of an image as (len(indices), height, width, 3) uint8."""
    key = _key_for(image, key, denoiser)
    if denoiser.draws_noise:
        seeds = variant_seeds(image, sigma, indices, key)
        return denoiser.variants_of(image.pixels, sigma, seeds)
    return denoiser.variants(noisy_variants(image, sigma, indices, key), sigma)


def _key_for(image: WorkingImage, key: NoiseKey, denoiser: DenoiserRuntime) -> NoiseKey:
    """Return the key that the image's noise is drawn from.

    Where answers about this very image had a part in the denoiser, it is a stream of the denoiser's
    own: the noise of those answers is no longer independent of what is certified. Such variants are
    told apart in the store by the denoiser's fingerprint, of which the image is part.
    """
    adaptation = denoiser.adaptation
    if adaptation is None or image.digest not in adaptation.photos:
        return key
    return key.stream(f"adapted {adaptation.identity}")


@dataclass(frozen=True, slots=True)
class RecordedVariants:
    """Variants that a recording has answers about, and of which none can be made; see `Variants`.

    Attributes:
        replay: the recording.
        sigma: noise level.
    """

    replay: Replay
    sigma: float

    @property
    def adapter(self) -> Adapter:
        """The recorded provider, which is sent nothing."""
        return self.replay.adapter

    @property
    def denoiser(self) -> RecordedDenoiser:
        """The one that made the recorded variants."""
        return RecordedDenoiser(self.replay.denoiser_name, self.replay.source.denoiser)

    @property
    def noise_key(self) -> str:
        """As recorded."""
        return self.replay.source.noise

    @property
    def replayed_from(self) -> str:
        """The file name of the recording."""
        return self.replay.path.name

    def codec_version(self, image: WorkingImage) -> str:
        """Return how the recorded variants were encoded."""
        del image
        return self.replay.source.codec

    def asked(self, image: WorkingImage) -> Asked:
        """Return index -> all that decides the answer, and nothing else."""
        return _asked(self, image)

    def prepare(self, image: WorkingImage, indices: Sequence[int]) -> NoReturn:
        """Raise UsageError: the first of them is not recorded."""
        raise self.replay.missing(self.asked(image)(indices[0]), image.name)

    def prepare_plain(self, image: WorkingImage) -> NoReturn:
        """Raise UsageError: the answer to the image itself is not recorded."""
        raise self.replay.missing(self.asked(image)(None), image.name)

    def look_at(self, image: WorkingImage, index: int) -> NoReturn:
        """Raise UsageError: there is nothing to look at."""
        del image, index
        raise UsageError("A replay has answers only: neither the noise nor the denoiser.")

    def check_side(self, image: WorkingImage) -> None:
        """Do nothing: nothing is sent."""

    def at(self, sigma: float, denoiser: DenoiserRuntime | None = None) -> RecordedVariants:
        """Return those at another noise level.

        Raises:
            UsageError: another denoiser is given.
        """
        if denoiser is not None:
            raise UsageError("A replay has the denoiser that it was recorded with, and no other.")
        return replace(self, sigma=sigma)

    def through(self, adapter: Adapter, codec: Codec) -> NoReturn:
        """Raise UsageError: nobody is asked."""
        del adapter, codec
        raise UsageError("A replay sends nothing, so it cannot ask through another adapter.")


def _asked(variants: Variants, image: WorkingImage) -> Asked:
    return asked_of(
        provider=variants.adapter.name,
        identity=variants.adapter.identity,
        image=image.digest,
        size=image.size,
        codec=variants.codec_version(image),
        sigma=variants.sigma,
        noise=variants.noise_key,
        denoiser=variants.denoiser.fingerprint,
    )


def asked_of(
    *,
    provider: str,
    identity: Mapping[str, object],
    image: str,
    size: Sequence[int],
    codec: str,
    sigma: float,
    noise: str,
    denoiser: str,
) -> Asked:
    """Return index -> all that decides the answer, of which the key of a stored one is made.

    Args:
        provider: the adapter's name.
        identity: the adapter's.
        image: digest of the working image.
        size: its (width, height).
        codec: how variants are encoded.
        sigma: the noise level.
        noise: the public id of the key that the noise is drawn from.
        denoiser: what tells it from any other.
    """
    picture = {
        "provider": provider,
        "identity": dict(identity),
        "image": image,
        "size": list(size),
        "codec": codec,
    }
    drawn = {"sigma": sigma, "noise": noise, "denoiser": denoiser}

    def asked(index: int | None) -> dict[str, object]:
        if index is None:
            return {**picture, "plain": True}
        return {**picture, **drawn, "index": index}

    return asked
