"""The denoiser on this machine: source, device, precision and batches; made by `load`."""

from __future__ import annotations

import hashlib
import inspect
import logging
import threading
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property, partial
from itertools import repeat
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from smoothapi.denoise.device import (
    check_device,
    check_precision,
    choose_device,
    choose_precision,
    describe_card,
    require_torch,
    torch_version,
)
from smoothapi.denoise.judge import Facts, judge
from smoothapi.denoise.pictures import check_noisy, to_8bit
from smoothapi.denoise.plain import NoDenoiser
from smoothapi.denoise.sources import File, Function, Module, Source, adapted
from smoothapi.denoise.storage import SHIPPED, read_header
from smoothapi.errors import DenoiserError, UsageError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    import torch
    from numpy.typing import NDArray

    from smoothapi.denoise.cuda import Engine
    from smoothapi.denoise.protocol import DenoiserRuntime

_logger = logging.getLogger("smoothapi")

_PIXELS_A_BATCH = {"cpu": 8 * 224 * 224, "mps": 16 * 224 * 224, "cuda": 128 * 224 * 224}
"""Bounds the memory of a batch; beyond these sizes nothing gets faster."""

_GRAPH_PIXELS = 32 * 224 * 224
"""Pixels of a batch of `smoothapi.denoise.cuda`: chosen by benchmarks/denoiser_speed.py."""

ENGINE = "graph/1"
"""Of `smoothapi.denoise.cuda`, which imports torch: a change of any bit needs another name."""

_WORKERS = 8
"""Most pictures that a CPU works on side by side."""


class LocalRuntime:
    """A source of a denoiser with device, precision and batches chosen: a `DenoiserRuntime`.

    The network is read at the first call of `variants`, so a run that is answered from the cache
    never reads it.

    Args:
        source: weights, a module or a function.
        device: as for `load`.
        precision: as for `load`.

    Attributes:
        name: for reports and certificates.
        adaptation: to which provider it was adapted, and by answers about which photos; None for
            a denoiser that no answer had a part in.
        loading: whether the network is being read now.

    Raises:
        DenoiserError: the device or the precision cannot be used.
        MissingExtraError: torch is not installed.
    """

    def __init__(self, source: Source, *, device: str, precision: str) -> None:
        check_device(device)
        check_precision(precision)
        require_torch()
        self.name = source.name
        self.adaptation = source.adaptation
        self.loading = False
        self._source = source
        self._wanted = (device, precision)
        self._lock = threading.Lock()
        self._call: Callable[[torch.Tensor, float], torch.Tensor] | None = None
        self._largest_batch: int | None = None
        self._generator_is_right = False  # as far as is known
        self._engine: Engine | None = None
        self._graph_pixels = _GRAPH_PIXELS
        self._named = False  # whether anybody keeps answers under the fingerprint
        self._pool: ThreadPoolExecutor | None = None
        self._workers = 1

    def __repr__(self) -> str:
        return f"<LocalRuntime {self.name} {self.fingerprint}>"

    @cached_property
    def device(self) -> str:
        """`cpu`, `cuda:N` or `mps`."""
        return choose_device(self._wanted[0])

    @cached_property
    def precision(self) -> str:
        """`bf16`, `fp16` or `fp32`: of the convolutions; sums outside the network are fp32."""
        wanted = self._wanted[1]
        if wanted == "auto" and not self._source.wants_half:
            return "fp32"
        return choose_precision(wanted, self.device)

    @property
    def fingerprint(self) -> str:
        """16 hexadecimal digits that stand for all that decides a variant's bits.

        The weights or the name that the caller gave, kind of device, precision and torch's
        version: the votes of one certificate must come from one function, and another of these
        may round a pixel differently. How variants are split into batches is not part of it: it
        changes no bit. On CUDA what draws the noise is part of it, and for smoothapi's own
        networks also the card, the version of cuDNN and the one shape that all batches have.
        """
        self._named = True
        return hashlib.sha256(f"smoothapi-denoiser|{self._identity}".encode()).hexdigest()[:16]

    @property
    def _identity(self) -> str:
        identity = f"{self._source.identity}|{self._platform}"
        return f"{identity}|{self._graph_pixels}" if self._replays else identity

    @cached_property
    def _platform(self) -> str:
        kind = self.device.partition(":")[0]
        version = torch_version().partition("+")[0]
        platform = f"{kind}|{self.precision}|{version}"
        if self.draws_noise:
            from smoothapi.denoise.device_noise import choose_generator  # noqa: PLC0415

            platform += f"|{choose_generator(self.device).name}"
        if self._replays:
            platform += f"|{ENGINE}|{describe_card(self.device)}"
        return platform

    @property
    def _replays(self) -> bool:
        """Whether batches of one shape are replayed: on CUDA, for networks that are known."""
        return self._source.ours and self.device.startswith("cuda")

    @property
    def draws_noise(self) -> bool:
        """Whether noise is best drawn by `variants_of`: on CUDA, else one core draws and copies."""
        return self.device.startswith("cuda")

    @property
    def takes_turns(self) -> bool:
        """Whether calls wait for one another, so that few large ones are better than many.

        A network on CPUs works on several at once, each with part of the cores.
        """
        return not (self.device == "cpu" and self._source.reentrant)

    @property
    def loaded(self) -> bool:
        """Whether the network is in memory."""
        return self._call is not None

    def variants(self, noisy: NDArray[np.floating[Any]], sigma: float) -> NDArray[np.uint8]:
        """Denoise, clip to [0, 1] and round to 8 bit; see `DenoiserRuntime`.

        The bits that a module or function of the user's gives a variant on CUDA may depend on what
        else is in the call.
        """
        noisy = check_noisy(noisy, sigma)
        if noisy.size == 0:
            return to_8bit(noisy)
        with self._lock:
            if self._call is None:
                self._open()
            if self._replays:
                return self._replay(noisy.shape, lambda engine: engine.of_noisy(noisy, sigma))
            if self._pool is None or len(noisy) == 1:
                return self._denoise(
                    noisy.shape, lambda start, stop: self._pictures(noisy[start:stop], sigma)
                )
        # Its workers take turns by themselves: while one ends a lot, another begins the next.
        return self._denoise(
            noisy.shape, lambda start, stop: self._side_by_side(noisy[start:stop], sigma)
        )

    def variants_of(
        self, pixels: NDArray[np.float64], sigma: float, seeds: Sequence[int]
    ) -> NDArray[np.uint8]:
        """Draw the noise of some variants on the device, and denoise; see `DenoiserRuntime`."""
        import torch  # noqa: PLC0415

        from smoothapi.denoise.device_noise import check_generator, choose_generator  # noqa: PLC0415

        generator = choose_generator(self.device)

        def one_batch(start: int, stop: int) -> NDArray[np.uint8]:
            with torch.inference_mode():
                clean = torch.from_numpy(np.array(pixels, dtype=np.float64)).to(self.device)
                noisy = generator.pictures(clean, sigma, seeds[start:stop])
                return self._cleaned(noisy.permute(0, 3, 1, 2), sigma)

        with self._lock:
            if self._call is None:
                self._open()
            if not self._generator_is_right:
                check_generator(torch.device(self.device), generator)
                self._generator_is_right = True
            if self._replays and seeds:
                return self._replay(
                    (len(seeds), *pixels.shape),
                    lambda engine: engine.of_seeds(pixels, sigma, seeds),
                )
            return self._denoise((len(seeds), *pixels.shape), one_batch)

    def _replay(
        self, shape: tuple[int, ...], work: Callable[[Engine], NDArray[np.uint8]]
    ) -> NDArray[np.uint8]:
        assert self._engine is not None  # noqa: S101 - callers have seen to it
        while True:
            try:
                return work(self._engine)
            except (MemoryError, RuntimeError) as error:
                if _is_out_of_memory(error):
                    self._shrink(self._engine, shape, error)
                    continue
                # Drivers and builds of torch fail in ways of their own. Another way to compute
                # would round otherwise, under a fingerprint that promises this one.
                raise DenoiserError(
                    f"The denoiser {self.name} cannot run on {self.device}: "
                    f"{type(error).__name__}: {str(error).partition(chr(10))[0]}. Use "
                    "device='cpu', or another version of torch."
                ) from error

    def _shrink(self, engine: Engine, shape: tuple[int, ...], error: Exception) -> None:
        """Take batches of half the size, under another fingerprint.

        Raises:
            DenoiserError: a batch was one picture; or somebody has read the fingerprint, and so
                may hold answers that came from batches of the former size.
        """
        batch = engine.batch_of(*shape[1:3])
        if batch == 1:
            raise self._too_large(shape) from error
        self._graph_pixels = (batch // 2) * shape[1] * shape[2]
        engine.resize(self._graph_pixels)
        _logger.warning(
            "The denoiser ran out of memory with %d pictures at once; it goes on with %d, which "
            "may round pixels differently: its answers are kept apart from those before.",
            batch,
            batch // 2,
        )
        if self._named:
            self._named = False
            raise DenoiserError(
                f"The denoiser {self.name} ran out of memory on {self.device} with {batch} "
                f"pictures of {shape[2]}x{shape[1]}. It now takes {batch // 2} at once, but the "
                "votes of one certificate must come from batches of one size. Nothing was sent of "
                "this lot. Start the certificate again, or stop what else uses the device."
            ) from error

    def _too_large(self, shape: tuple[int, ...]) -> DenoiserError:
        return DenoiserError(
            f"The denoiser {self.name} ran out of memory on {self.device} with a single "
            f"picture of {shape[2]}x{shape[1]}. Choose a smaller working size, or device='cpu'."
        )

    def _denoise(
        self, shape: tuple[int, ...], one_batch: Callable[[int, int], NDArray[np.uint8]]
    ) -> NDArray[np.uint8]:
        clean = np.empty(shape, np.uint8)
        done = 0
        while done < len(clean):
            batch = self._batch(shape)
            try:
                clean[done : done + batch] = one_batch(done, min(done + batch, len(clean)))
            except (MemoryError, RuntimeError) as error:
                if not _is_out_of_memory(error):
                    raise
                self._halve(batch, shape, error)
                continue
            done += batch
        return clean

    def _batch(self, shape: tuple[int, ...]) -> int:
        pixels = _PIXELS_A_BATCH[self.device.partition(":")[0]]
        fits = max(1, pixels // (shape[1] * shape[2]))
        return fits if self._largest_batch is None else min(fits, self._largest_batch)

    def _halve(self, batch: int, shape: tuple[int, ...], error: Exception) -> None:
        if batch == 1:
            raise self._too_large(shape) from error
        self._largest_batch = batch // 2
        _logger.warning(
            "The denoiser ran out of memory with %d pictures at once; it goes on with %d.",
            batch,
            self._largest_batch,
        )
        if self.device.startswith("cuda"):
            import torch  # noqa: PLC0415

            torch.cuda.empty_cache()

    def _side_by_side(self, noisy: NDArray[np.floating[Any]], sigma: float) -> NDArray[np.uint8]:
        assert self._pool is not None  # noqa: S101 - `variants` has seen to it
        parts = np.array_split(noisy, min(self._workers, len(noisy)))
        return np.concatenate(list(self._pool.map(self._pictures, parts, repeat(sigma))))

    def _open(self) -> None:
        self.loading = True
        try:
            self._load()
        finally:
            self.loading = False

    def _load(self) -> None:
        import torch  # noqa: PLC0415 - a fully cached run never needs it

        call = self._source.open()
        if isinstance(call, torch.nn.Module):
            call = _Prepared(call, self.device, self.precision)
        cores = torch.get_num_threads()
        if self.device == "cpu" and self._source.reentrant and cores > 1:
            # Pictures side by side, not the parts of one convolution: where another process takes
            # a core, the others need not wait for it after every layer.
            self._workers = min(cores, _WORKERS)
            self._pool = ThreadPoolExecutor(
                self._workers,
                "denoise",
                initializer=torch.set_num_threads,
                initargs=(cores // self._workers,),
            )
        if self._replays:
            self._engine = self._start_engine(self._source.knobs.after(call))
        self._call = call

    def _start_engine(self, call: Callable[..., torch.Tensor]) -> Engine:
        import torch  # noqa: PLC0415

        from smoothapi.denoise.cuda import CudaCard, Engine  # noqa: PLC0415
        from smoothapi.denoise.device_noise import choose_generator  # noqa: PLC0415

        card = CudaCard(torch.device(self.device))
        generator = choose_generator(self.device)
        return Engine(card, call, generator, partial(judge, self.name), self._graph_pixels)

    def _pictures(self, noisy: NDArray[np.floating[Any]], sigma: float) -> NDArray[np.uint8]:
        import torch  # noqa: PLC0415

        # A plain copy: contiguous, writable and float32, whatever came in.
        pixels = torch.from_numpy(np.array(noisy, dtype=np.float32)).to(self.device)
        with torch.inference_mode():
            return self._cleaned(pixels.permute(0, 3, 1, 2), sigma)

    def _cleaned(self, pixels: torch.Tensor, sigma: float) -> NDArray[np.uint8]:
        import torch  # noqa: PLC0415

        assert self._call is not None  # noqa: S101 - callers have seen to it
        denoised = self._call(pixels, float(sigma))
        self._check(denoised, pixels, sigma)
        denoised = self._source.knobs.apply(pixels, denoised)
        rounded = (denoised.float().clamp(0, 1) * 255).round().to(torch.uint8)
        return cast("NDArray[np.uint8]", rounded.permute(0, 2, 3, 1).cpu().numpy())

    def _check(self, denoised: object, noisy: torch.Tensor, sigma: float) -> None:
        import torch  # noqa: PLC0415

        who = f"The denoiser {self.name}"
        if not isinstance(denoised, torch.Tensor):
            raise DenoiserError(
                f"{who} returned a {type(denoised).__name__}; it must return a torch tensor."
            )
        if denoised.shape != noisy.shape:
            raise DenoiserError(
                f"{who} returned the shape {tuple(denoised.shape)} for {tuple(noisy.shape)}; it "
                "must return pictures of the shape that it got, (N, 3, H, W)."
            )
        if not denoised.is_floating_point():
            raise DenoiserError(
                f"{who} returned {denoised.dtype}; it must return floating point, on the scale "
                "[0, 1]."
            )
        low, high = (float(v) for v in denoised.aminmax())
        below, noisy_below = (float((x < -0.1).float().mean()) for x in (denoised, noisy))
        judge(self.name, Facts(low, high, below, noisy_below), sigma)


def load(
    spec: str | Path | Callable[..., torch.Tensor] | None = "default",
    *,
    device: str = "auto",
    precision: str = "auto",
    name: str | None = None,
) -> DenoiserRuntime:
    """A denoiser that is ready to run, without loading it yet.

    Args:
        spec: `"default"`, the weights that keep most labels; `"small"`, the ones that take a
            third to two thirds of the time; a path of a .safetensors file that
            `smoothapi denoiser train` or `convert` wrote, or of a .json file that `adapt` wrote; a
            torch module, called with the noisy pictures and sigma, or with the pictures alone if
            its forward takes no more; any other callable of the `Denoiser` protocol; None or
            `"none"`: plain smoothing, noise as it is.
        device: `auto`, `cpu`, `cuda`, `cuda:N` or `mps`. One that is missing is replaced by the
            CPU with a logged warning.
        precision: `auto`, `bf16`, `fp16` or `fp32`. A torch module of one's own stays in fp32
            unless told otherwise.
        name: for reports, and what the answers of a module or callable of one's own are stored
            under: change it whenever the thing itself changes. An attribute `fingerprint` does
            the same. A module with neither is given a fresh one each time; a callable is refused.

    Raises:
        DenoiserError: the file, device or precision cannot be used.
        MissingExtraError: torch is not installed, and something but "none" is asked for.
        UsageError: a callable without a name, or something that cannot denoise at all.
    """
    source: Source
    if spec is None or spec == "none":
        return NoDenoiser(device=device, precision=precision)
    if isinstance(spec, (str, Path)):
        source = _on_disk(spec, name)
    elif _is_module(spec):
        source = Module(cast("torch.nn.Module", spec), name)
    elif callable(spec):
        source = Function(spec, name)
    else:
        raise UsageError(
            f"A {type(spec).__name__} cannot be used as a denoiser. Give 'default', 'small', "
            "'none', a path of a .safetensors file, a torch module, or a function of (noisy, "
            "sigma)."
        )
    return LocalRuntime(source, device=device, precision=precision)


def _on_disk(spec: str | Path, name: str | None) -> Source:
    if spec in SHIPPED:
        return File.shipped(str(spec), name)
    if Path(spec).suffix.lower() == ".json":
        return adapted(Path(spec), name)
    return File(read_header(Path(spec)), name)


class _Prepared:
    """A network in eval mode on its device, in its precision."""

    def __init__(self, network: torch.nn.Module, device: str, precision: str) -> None:
        import torch  # noqa: PLC0415

        from smoothapi.denoise.networks import DnCNN, UNet  # noqa: PLC0415

        types = {"bf16": torch.bfloat16, "fp16": torch.float16, "fp32": torch.float32}
        dtype = types[precision]
        self._kind = device.partition(":")[0]
        network = network.eval().requires_grad_(requires_grad=False).to(device)
        self._autocast: torch.dtype | None = None
        if isinstance(network, (UNet, DnCNN)):
            network = network.to(dtype=dtype, memory_format=torch.channels_last)  # type: ignore[call-overload]
        elif dtype != torch.float32:
            self._autocast = dtype
        self._network = network
        self._takes_sigma = _takes_two(network.forward)

    def __call__(self, noisy: torch.Tensor, sigma: float) -> torch.Tensor:
        import torch  # noqa: PLC0415

        arguments = (noisy, sigma) if self._takes_sigma else (noisy,)
        with torch.autocast(
            self._kind, self._autocast or torch.bfloat16, enabled=self._autocast is not None
        ):
            return cast("torch.Tensor", self._network(*arguments))


def _takes_two(function: Callable[..., object]) -> bool:
    try:
        inspect.signature(function).bind(None, None)
    except (TypeError, ValueError):
        return False
    return True


def _is_module(spec: object) -> bool:
    # Without importing torch: whoever has a module has imported it.
    import sys  # noqa: PLC0415

    torch_module = sys.modules.get("torch")
    return torch_module is not None and isinstance(spec, torch_module.nn.Module)


def _is_out_of_memory(error: Exception) -> bool:
    import torch  # noqa: PLC0415

    if isinstance(error, (MemoryError, torch.OutOfMemoryError)):
        return True
    # How torch's CPU allocator and oneDNN put it.
    text = str(error).lower()
    return any(sign in text for sign in ("not enough memory", "can't allocate", "out of memory"))
