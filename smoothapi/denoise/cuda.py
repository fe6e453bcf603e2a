"""A network of smoothapi's on a CUDA device: always one shape, recorded once, replayed for each.

Which kernels cuDNN takes, and so how sums are rounded, depends on the shape of a batch. Here a
batch of one size of picture therefore has one shape, whatever was asked for: what is missing is
filled up with what lay there before and thrown away. So a variant's bits depend on the picture
and its noise alone. The network, its conversion to 8 bit and the figures that tell whether it
returned pictures are one CUDA graph; noise is drawn before it; and while one batch is computed,
the one before travels back.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import torch

from smoothapi.denoise.device_noise import keys_of
from smoothapi.denoise.judge import Facts

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from contextlib import AbstractContextManager

    from numpy.typing import NDArray
    from torch import Tensor

    from smoothapi.denoise.device_noise import Generator

    Network = Callable[[Tensor, Tensor], Tensor]
    """(N, 3, H, W) float32 and sigma, float32 (1,) -> floating point (N, 3, H, W)."""

MOST_A_BATCH = 64
"""Small pictures come no faster in larger batches, and few of them should not wait for many."""

_SIZES_KEPT = 8
"""Sizes of picture whose buffers and graphs are kept, about 60 MB each beside a common pool."""


class GraphicsCard(Protocol):
    """What the engine asks of a device: a CUDA device, or a stand-in of its tests."""

    device: torch.device

    def computing(self) -> AbstractContextManager[object]:
        """Return a context in which kernels are queued one after the other."""
        ...

    def record(self, step: Callable[[], None]) -> Callable[[], None]:
        """Return what repeats a step with the tensors that it used; called while computing."""
        ...

    def pinned(self, *shape: int, dtype: torch.dtype) -> Tensor:
        """Return memory of the host that the device copies to and from by itself."""
        ...

    def send(self, pairs: Sequence[tuple[Tensor, Tensor]]) -> Callable[[], None]:
        """Copy (from, to) when all that is queued is done; return what waits for the copies."""
        ...

    def settle(self) -> None:
        """Wait for all that was queued."""
        ...

    def forget(self) -> None:
        """Give free memory back to the device."""
        ...


class CudaCard:
    """A CUDA device with a stream to compute on and one for copies."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self._compute = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
        self._copy = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
        self._pool: Any = torch.cuda.graph_pool_handle()

    @contextmanager
    def computing(self) -> Iterator[None]:
        """Return a context in which kernels are queued one after the other."""
        with torch.cuda.device(self.device), torch.cuda.stream(self._compute):
            yield

    def record(self, step: Callable[[], None]) -> Callable[[], None]:
        """Return what repeats a step with the tensors that it used; called while computing."""
        try:
            return self._record(step)
        except BaseException:
            # A pool that no graph is left in cannot be used again; those recorded before keep it.
            self._pool = torch.cuda.graph_pool_handle()
            raise

    def _record(self, step: Callable[[], None]) -> Callable[[], None]:
        graph = torch.cuda.CUDAGraph()
        with _fixed_algorithms():
            for _ in range(2):  # the first run chooses kernels and may compile some
                step()
            self._compute.synchronize()
            # Other threads may allocate meanwhile: that is no part of this graph. All graphs
            # share one pool, since no two of them run at once.
            with torch.cuda.graph(
                graph, pool=self._pool, stream=self._compute, capture_error_mode="thread_local"
            ):
                step()
        return graph.replay

    def pinned(self, *shape: int, dtype: torch.dtype) -> Tensor:
        """Return memory of the host that the device copies to and from by itself."""
        return torch.empty(shape, dtype=dtype, pin_memory=True)

    def send(self, pairs: Sequence[tuple[Tensor, Tensor]]) -> Callable[[], None]:
        """Copy (from, to) when all that is queued is done; return what waits for the copies."""
        self._copy.wait_stream(self._compute)
        arrived = torch.cuda.Event()  # type: ignore[no-untyped-call]
        with torch.cuda.stream(self._copy):
            for source, target in pairs:
                target.copy_(source, non_blocking=True)
            arrived.record()
        return arrived.synchronize

    def settle(self) -> None:
        """Wait for all that was queued."""
        self._compute.synchronize()
        self._copy.synchronize()

    def forget(self) -> None:
        """Give free memory back to the device."""
        self._pool = torch.cuda.graph_pool_handle()
        torch.cuda.empty_cache()


class _Slot:
    """Where one of two batches under way is filled in, and where it comes back."""

    def __init__(self, card: GraphicsCard, shape: tuple[int, int, int]) -> None:
        batch, height, width = shape
        self.keys = card.pinned(batch, 2, dtype=torch.int64)
        self.staged = torch.empty((batch, height, width, 3), dtype=torch.uint8, device=card.device)
        self.staged_facts = torch.empty((batch, 4), dtype=torch.float32, device=card.device)
        self.clean = card.pinned(batch, height, width, 3, dtype=torch.uint8)
        self.facts = card.pinned(batch, 4, dtype=torch.float32)


class _Plan:
    """The tensors and the graph of one size of picture."""

    def __init__(self, card: GraphicsCard, network: Network, shape: tuple[int, int, int]) -> None:
        batch, height, width = shape
        f32, f64, device = torch.float32, torch.float64, card.device
        self.batch = batch
        self.pixels = torch.zeros((height, width, 3), dtype=f64, device=device)
        self.keys = torch.zeros((batch, 2), dtype=torch.int64, device=device)
        self.noisy = torch.full((batch, height, width, 3), 0.5, dtype=f32, device=device)
        self.sigma = torch.full((1,), 0.25, dtype=f32, device=device)
        self.clean = torch.zeros((batch, height, width, 3), dtype=torch.uint8, device=device)
        self.facts = torch.zeros((batch, 4), dtype=f32, device=device)
        self.slots = (_Slot(card, shape), _Slot(card, shape))
        self._network = network
        self.replay = card.record(self._step)

    def _step(self) -> None:
        self.convert(self._network(self.noisy.permute(0, 3, 1, 2), self.sigma))

    def convert(self, denoised: Tensor) -> None:
        """Fill in the 8-bit pictures and the facts about what the network returned."""
        values = denoised.permute(0, 2, 3, 1).float()
        self.clean.copy_(values.clamp(0, 1).mul_(255).round_())
        rows, noisy = values.flatten(1), self.noisy.flatten(1)
        torch.stack(
            (
                rows.amin(1),
                rows.amax(1),
                (rows < -0.1).float().mean(1),
                (noisy < -0.1).float().mean(1),
            ),
            dim=1,
            out=self.facts,
        )


class Engine:
    """Denoises any number of variants in batches of one shape.

    Not safe to call from several threads at once: `LocalRuntime` has a lock.

    Args:
        card: the device.
        network: in eval mode, on the device, in its precision.
        generator: draws the noise.
        judge: called with the facts of every batch and sigma; raises where they cannot be pictures.
        pixels_a_batch: as many pictures as have so many pixels are one batch, at least one and at
            most `MOST_A_BATCH`.
    """

    def __init__(
        self,
        card: GraphicsCard,
        network: Network,
        generator: Generator,
        judge: Callable[[Facts, float], None],
        pixels_a_batch: int,
    ) -> None:
        self._card = card
        self._network = network
        self._generator = generator
        self._judge = judge
        self._pixels_a_batch = pixels_a_batch
        self._plans: OrderedDict[tuple[int, int], _Plan] = OrderedDict()

    def batch_of(self, height: int, width: int) -> int:
        """Return how many pictures of a size are always one batch."""
        return max(1, min(MOST_A_BATCH, self._pixels_a_batch // (height * width)))

    def resize(self, pixels_a_batch: int) -> None:
        """Take other batches from now on, which may change bits, and give memory back."""
        self._pixels_a_batch = pixels_a_batch
        self._plans.clear()
        self._card.forget()

    def of_seeds(
        self, pixels: NDArray[np.float64], sigma: float, seeds: Sequence[int]
    ) -> NDArray[np.uint8]:
        """Draw the noise of each seed over a working image, and denoise.

        Args:
            pixels: (height, width, 3), multiples of 2**-20.
            sigma: noise level, in (0, 1.5].
            seeds: 128 bits each.

        Returns:
            uint8 (len(seeds), height, width, 3).

        Raises:
            RuntimeError: among others, torch.OutOfMemoryError at the first call of a size.
        """
        keys = keys_of(seeds)
        height, width = pixels.shape[:2]

        def begin(plan: _Plan, slot: _Slot, start: int, stop: int) -> None:
            if start == 0:
                plan.pixels.copy_(torch.from_numpy(np.array(pixels, dtype=np.float64)))
            slot.keys[: stop - start] = torch.from_numpy(keys[start:stop])
            plan.keys.copy_(slot.keys, non_blocking=True)
            self._generator.draw(plan.noisy, plan.pixels, sigma, plan.keys)

        return self._run((len(seeds), height, width), sigma, begin)

    def of_noisy(self, noisy: NDArray[np.floating[Any]], sigma: float) -> NDArray[np.uint8]:
        """Denoise pictures whose noise was drawn elsewhere.

        Args:
            noisy: (N, height, width, 3), any floating type.
            sigma: noise level, above 0.

        Returns:
            uint8 (N, height, width, 3).

        Raises:
            RuntimeError: among others, torch.OutOfMemoryError at the first call of a size.
        """

        def begin(plan: _Plan, slot: _Slot, start: int, stop: int) -> None:
            del slot
            part = torch.from_numpy(np.array(noisy[start:stop], dtype=np.float32))
            plan.noisy[: stop - start].copy_(part)

        return self._run(noisy.shape[:3], sigma, begin)

    def _run(
        self,
        shape: tuple[int, ...],
        sigma: float,
        begin: Callable[[_Plan, _Slot, int, int], None],
    ) -> NDArray[np.uint8]:
        count, height, width = shape
        pictures = np.empty((count, height, width, 3), np.uint8)
        under_way: deque[Callable[[], None]] = deque()
        with torch.inference_mode(), self._card.computing():
            plan = self._plan(height, width)
            plan.sigma.fill_(sigma)
            try:
                for number, start in enumerate(range(0, count, plan.batch)):
                    part = pictures[start : start + plan.batch]
                    slot = plan.slots[number % 2]
                    begin(plan, slot, start, start + len(part))
                    plan.replay()
                    under_way.append(self._return(plan, slot, part, sigma))
                    if len(under_way) == len(plan.slots):
                        under_way.popleft()()
                while under_way:
                    under_way.popleft()()
            except BaseException:
                self._card.settle()  # nothing may come back into a slot of the next call
                raise
        return pictures

    def _return(
        self, plan: _Plan, slot: _Slot, part: NDArray[np.uint8], sigma: float
    ) -> Callable[[], None]:
        # Set aside on the device first, so that the next batch need not wait for the way back.
        slot.staged.copy_(plan.clean)
        slot.staged_facts.copy_(plan.facts)
        wait = self._card.send(((slot.staged, slot.clean), (slot.staged_facts, slot.facts)))

        def collect() -> None:
            wait()
            facts = slot.facts[: len(part)].numpy()
            self._judge(
                Facts(
                    low=float(facts[:, 0].min()),
                    high=float(facts[:, 1].max()),
                    below=float(facts[:, 2].mean()),
                    noisy_below=float(facts[:, 3].mean()),
                ),
                sigma,
            )
            np.copyto(part, slot.clean[: len(part)].numpy())

        return collect

    def _plan(self, height: int, width: int) -> _Plan:
        plan = self._plans.get((height, width))
        if plan is None:
            while len(self._plans) >= _SIZES_KEPT:
                self._plans.popitem(last=False)
            shape = (self.batch_of(height, width), height, width)
            plan = self._plans[height, width] = _Plan(self._card, self._network, shape)
        self._plans.move_to_end((height, width))
        return plan


@contextmanager
def _fixed_algorithms() -> Iterator[None]:
    """Let cuDNN choose by rules, not by timing, and only what gives the same bits each time."""
    cudnn = torch.backends.cudnn
    before = cudnn.benchmark, cudnn.deterministic
    cudnn.benchmark, cudnn.deterministic = False, True
    try:
        yield
    finally:
        cudnn.benchmark, cudnn.deterministic = before
