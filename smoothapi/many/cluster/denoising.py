"""Denoising on other machines: lots of several photos go in, variants come back.

A lot is sent as the working image and the indices of its variants: the noise is drawn where it is
cleaned, from the key that each machine has, so neither noise nor key is on the way.
"""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from smoothapi.denoise import gathered, load
from smoothapi.errors import DenoiserError, SmoothAPIError, UsageError
from smoothapi.many.cluster.connection import import_ray
from smoothapi.many.cluster.recipe import here, key_here
from smoothapi.variants import MadeVariants, denoised

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import numpy as np
    from numpy.typing import NDArray

    from smoothapi.denoise import DenoiserRuntime
    from smoothapi.denoise.adaptation import Adaptation
    from smoothapi.image import WorkingImage
    from smoothapi.many.cluster.recipe import SessionRecipe
    from smoothapi.noise import NoiseKey

LOTS_AT_ONCE = 16
"""Calls that one denoiser takes at the same time: what waits becomes one batch."""

_PATIENCE = 300.0  # seconds without any denoiser, before that is an error
_REST = 2.0  # seconds for which one that has died is asked only if there is no other
_KEPT_IMAGES = 64  # of which references are held


@dataclass(frozen=True, slots=True)
class DenoiserHere:
    """Which denoiser a machine has loaded; the members are those of `DenoiserRuntime`."""

    name: str
    fingerprint: str
    adaptation: Adaptation | None
    device: str
    precision: str


class DenoisingPlace:
    """A process with the network: an actor. Nothing is loaded before it is asked for.

    Args:
        recipe: says which denoisers, and which noise key.
    """

    def __init__(self, recipe: SessionRecipe) -> None:
        self._recipe = recipe
        self._lock = threading.Lock()
        self._runtimes: dict[str, DenoiserRuntime] = {}
        self._key: NoiseKey | None = None

    def denoisers(self) -> Mapping[str, DenoiserHere] | SmoothAPIError:
        """Return which denoisers this machine has, or what is wrong with them."""
        try:
            self._open()
            return {
                name: DenoiserHere(
                    runtime.name,
                    runtime.fingerprint,
                    runtime.adaptation,
                    runtime.device,
                    runtime.precision,
                )
                for name, runtime in self._runtimes.items()
            }
        except SmoothAPIError as error:
            return error

    def variants(
        self, name: str, fingerprint: str, image: WorkingImage, sigma: float, indices: Sequence[int]
    ) -> NDArray[np.uint8] | SmoothAPIError:
        """Return variants of an image, as `smoothapi.variants.denoised` does."""
        try:
            key = self._open()
            return denoised(image, sigma, indices, key, self._runtime(name, fingerprint))
        except SmoothAPIError as error:
            return error

    def cleaned(
        self, name: str, fingerprint: str, noisy: NDArray[np.floating[Any]], sigma: float
    ) -> NDArray[np.uint8] | SmoothAPIError:
        """Return noisy pictures denoised."""
        try:
            self._open()
            return self._runtime(name, fingerprint).variants(noisy, sigma)
        except SmoothAPIError as error:
            return error

    def _open(self) -> NoiseKey:
        with self._lock:
            if self._key is None:
                self._runtimes = {
                    name: gathered(load(spec, device=self._recipe.device))
                    for name, spec in self._recipe.denoises.items()
                }
                self._key = key_here(self._recipe)
            return self._key

    def _runtime(self, name: str, fingerprint: str) -> DenoiserRuntime:
        runtime = self._runtimes[name]
        if runtime.fingerprint != fingerprint:  # begun anew on another kind of machine
            raise DenoiserError(
                f"{here()} has a denoiser of other bits ({runtime.fingerprint}, of "
                f"{runtime.device} in {runtime.precision}) than the others ({fingerprint}), and "
                "the votes of a certificate are of one. Have it run on one kind of machine."
            )
        return runtime


class RemoteDenoiser:
    """A denoiser on other machines; a `DenoiserRuntime`.

    Args:
        known: which one it is.
        own_name: what the recipe calls it.
        actors: handles of `DenoisingPlace`, all with the same denoiser.
    """

    draws_noise = False
    takes_turns = False  # whose turn it is is settled where it runs

    def __init__(self, known: DenoiserHere, own_name: str, actors: Sequence[Any]) -> None:
        self._known = known
        self._own_name = own_name
        self._actors = actors
        self._lock = threading.Lock()
        self._busy = [0] * len(actors)
        self._rests_until = [0.0] * len(actors)
        self._images: OrderedDict[str, Any] = OrderedDict()

    def __repr__(self) -> str:
        return f"<RemoteDenoiser {self.name} {self.fingerprint}>"

    def __reduce__(self) -> tuple[type[RemoteDenoiser], tuple[Any, ...]]:
        return RemoteDenoiser, (self._known, self._own_name, self._actors)

    @property
    def name(self) -> str:
        """As of the denoiser itself."""
        return self._known.name

    @property
    def fingerprint(self) -> str:
        """As of the denoiser itself."""
        return self._known.fingerprint

    @property
    def adaptation(self) -> Adaptation | None:
        """As of the denoiser itself."""
        return self._known.adaptation

    @property
    def device(self) -> str:
        """As of the denoiser itself, on the machine where it is."""
        return self._known.device

    @property
    def precision(self) -> str:
        """As of the denoiser itself."""
        return self._known.precision

    @property
    def loaded(self) -> bool:
        """Whether the network is in memory: not in that of this process."""
        return False

    def variants(self, noisy: NDArray[np.floating[Any]], sigma: float) -> NDArray[np.uint8]:
        """Denoise on another machine."""
        return self._call("cleaned", noisy, sigma)

    def variants_of(
        self, pixels: NDArray[np.float64], sigma: float, seeds: Sequence[int]
    ) -> NDArray[np.uint8]:
        """Refuse: seeds are as secret as the key, and are not sent; `variants_at` needs none."""
        del pixels, sigma, seeds
        raise UsageError("Seeds of noise are not sent to other machines.")

    def variants_at(
        self, image: WorkingImage, sigma: float, indices: Sequence[int]
    ) -> NDArray[np.uint8]:
        """Return variants of an image, drawn and denoised on another machine.

        Raises:
            DenoiserError: none of the machines has answered for five minutes.
        """
        return self._call("variants", self._reference(image), sigma, list(indices))

    def _reference(self, image: WorkingImage) -> Any:
        """Put an image where all machines can get it, once for its many lots."""
        with self._lock:
            if image.digest in self._images:
                self._images.move_to_end(image.digest)
            else:
                self._images[image.digest] = import_ray().put(image)
                while len(self._images) > _KEPT_IMAGES:
                    self._images.popitem(last=False)
            return self._images[image.digest]

    def _call(self, method: str, *given: Any) -> NDArray[np.uint8]:
        ray = import_ray()
        end = time.monotonic() + _PATIENCE
        while True:
            number = self._least_busy()
            call = getattr(self._actors[number], method)
            try:
                result = ray.get(call.remote(self._own_name, self.fingerprint, *given))
            except ray.exceptions.RayActorError:  # the process died, or its machine
                with self._lock:
                    self._rests_until[number] = time.monotonic() + _REST
                if time.monotonic() > end:
                    break
                time.sleep(0.2)
            else:
                if isinstance(result, SmoothAPIError):
                    raise result
                return result  # type: ignore[no-any-return]
            finally:
                with self._lock:
                    self._busy[number] -= 1
        raise DenoiserError(
            f"None of the {len(self._actors)} denoisers of the cluster has answered for "
            f"{_PATIENCE:.0f} seconds. Look at its machines with `ray status`."
        )

    def _least_busy(self) -> int:
        with self._lock:
            now = time.monotonic()
            number = min(
                range(len(self._actors)), key=lambda n: (self._rests_until[n] > now, self._busy[n])
            )
            self._busy[number] += 1
        return number


@dataclass(frozen=True, slots=True)
class ClusterVariants(MadeVariants):
    """Variants that are made on other machines, and encoded here; members as of `Variants`."""

    @classmethod
    def of(cls, made: MadeVariants) -> ClusterVariants:
        """Return the same variants, made elsewhere."""
        return cls(made.adapter, made.sigma, made.key, made.denoiser, made.codec)

    def _denoised(self, image: WorkingImage, indices: Sequence[int]) -> NDArray[np.uint8]:
        if isinstance(self.denoiser, RemoteDenoiser):
            return self.denoiser.variants_at(image, self.sigma, indices)
        return denoised(image, self.sigma, indices, self.key, self.denoiser)


def agreed(
    found: Sequence[Mapping[str, DenoiserHere] | SmoothAPIError],
) -> Mapping[str, DenoiserHere]:
    """Return the denoisers that all machines have alike.

    Raises:
        DenoiserError: two of them have one of other bits.
        SmoothAPIError: one cannot load its denoisers.
    """
    all_of_them: list[Mapping[str, DenoiserHere]] = []
    for each in found:
        if isinstance(each, SmoothAPIError):
            raise each
        all_of_them.append(each)
    first = all_of_them[0]
    for other in all_of_them:
        for name, here_ in other.items():
            if here_.fingerprint != first[name].fingerprint:
                raise DenoiserError(
                    f"The denoiser {here_.name} rounds otherwise on {here_.device} in "
                    f"{here_.precision} than on {first[name].device} in {first[name].precision} "
                    "(kind of device, card, precision, version of torch), and the votes of a "
                    "certificate are of one. Have it run on one kind of machine: give device='cpu' "
                    "or 'cuda', or leave the others out of the cluster. Nothing was sent."
                )
    return first
