"""Muon for convolutions, AdamW for the rest."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from concurrent.futures import Executor

    from torch.nn import Parameter


class Muon(torch.optim.Optimizer):
    """Momentum whose matrices are made orthogonal before they are applied.

    Jordan et al., "Muon: an optimizer for hidden layers in neural networks" (2024): the update of
    a weight matrix is replaced by its nearest semi-orthogonal matrix, by a Newton-Schulz
    iteration. A convolution counts as the matrix (outputs, inputs * height * width). Vectors are
    updated by Adam (Kingma and Ba, 2015) with decoupled weight decay.

    Matrices of one shape are updated as one batch and all vectors as one, without waiting for the
    device; with a `pool`, which pays on CPUs, each parameter is a piece of work for one thread.
    Both keep the same state by parameter, so a checkpoint of one resumes in the other.

    Args:
        parameters: what to train.
        lr: step size. Matrices are scaled so that one value suits both kinds.
        momentum: of the matrices.
        betas: of the vectors.
        weight_decay: decoupled, for matrices only.

    Attributes:
        pool: threads that share the work, if any.
    """

    def __init__(
        self,
        parameters: Iterable[Parameter],
        lr: float = 1e-3,
        *,
        momentum: float = 0.95,
        betas: tuple[float, float] = (0.9, 0.99),
        weight_decay: float = 0.0,
    ) -> None:
        defaults = {
            "lr": lr,
            "momentum": momentum,
            "betas": betas,
            "weight_decay": weight_decay,
        }
        super().__init__(parameters, defaults)
        self.pool: Executor | None = None
        # Stacks of state by the parameters in them; those in `state` are views of these.
        self._stacks: dict[tuple[int, ...], dict[str, Tensor]] = {}
        self._stacked: list[int] = []

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take over a state; see torch.optim.Optimizer."""
        super().load_state_dict(state_dict)
        self._stacks.clear()

    @torch.no_grad()
    def step(  # type: ignore[override]
        self, closure: Callable[[], float] | None = None, *, keep: Tensor | None = None
    ) -> None:
        """Apply the gradients once.

        Args:
            closure: not supported.
            keep: on the parameters' device, a bool of shape (): False leaves parameters and state
                as they are, whatever the gradients are. None means True.
        """
        del closure
        for group in self.param_groups:
            parameters = [p for p in group["params"] if p.grad is not None]
            if self.pool is not None:
                self._stacks.clear()
                if keep is None or bool(keep):
                    list(self.pool.map(self._update, parameters, [group] * len(parameters)))
            else:
                self._update_stacks(parameters, group, keep)

    @torch.no_grad()
    def _update(self, parameter: Tensor, group: dict[str, Any]) -> None:
        assert parameter.grad is not None  # noqa: S101 - `step` has seen to it
        update = self._matrix if parameter.ndim > 1 else self._vector
        update(parameter, parameter.grad, group)

    def _matrix(self, parameter: Tensor, gradient: Tensor, group: dict[str, Any]) -> None:
        momentum = self._state(parameter)["momentum"].lerp_(gradient, 1 - group["momentum"])
        update = gradient.lerp(momentum, group["momentum"]).reshape(len(parameter), -1)
        update = orthogonalised(update).reshape(parameter.shape)
        size = _size(*parameter.flatten(1).shape)
        parameter.mul_(1 - group["lr"] * group["weight_decay"])
        parameter.add_(update.to(parameter.dtype), alpha=-group["lr"] * size)

    def _vector(self, parameter: Tensor, gradient: Tensor, group: dict[str, Any]) -> None:
        state = self._state(parameter)
        first, second = group["betas"]
        state["step"] = state["step"] + 1  # may be one number for several parameters
        count = float(state["step"])
        mean = state["mean"].lerp_(gradient, 1 - first) / (1 - first**count)
        square = state["square"].lerp_(gradient * gradient, 1 - second) / (1 - second**count)
        parameter.add_(mean / (square.sqrt() + 1e-8), alpha=-group["lr"])

    def _state(self, parameter: Tensor) -> dict[str, Tensor]:
        state: dict[str, Tensor] = self.state[parameter]
        if not state:
            if parameter.ndim > 1:
                state["momentum"] = torch.zeros_like(parameter)
            else:
                state["step"] = torch.zeros(())
                state["mean"] = torch.zeros_like(parameter)
                state["square"] = torch.zeros_like(parameter)
        return state

    def _update_stacks(
        self, parameters: list[Tensor], group: dict[str, Any], keep: Tensor | None
    ) -> None:
        if [id(p) for p in parameters] != self._stacked:
            self._stacks.clear()
            self._stacked = [id(p) for p in parameters]
        by_shape: dict[tuple[int, int], list[Tensor]] = {}
        vectors = []
        for parameter in parameters:
            if parameter.ndim > 1:
                rows = len(parameter)
                by_shape.setdefault((rows, parameter.numel() // rows), []).append(parameter)
            else:
                vectors.append(parameter)
        for (rows, columns), some in by_shape.items():
            gradients = [_gradient(p).reshape(rows, columns) for p in some]
            self._matrices(some, _kept(torch.stack(gradients), keep), group, keep)
        if vectors:
            gradient = _kept(torch.cat([_gradient(p) for p in vectors]), keep)
            self._vectors(vectors, gradient, group, keep)

    def _matrices(
        self,
        parameters: list[Tensor],
        gradient: Tensor,
        group: dict[str, Any],
        keep: Tensor | None,
    ) -> None:
        momentum = self._stack(parameters, "momentum", gradient)
        _lerp(momentum, gradient, 1 - group["momentum"], keep)
        update = orthogonalised(gradient.lerp(momentum, group["momentum"])).to(gradient.dtype)
        rate, share = group["lr"] * _size(*gradient.shape[1:]), group["lr"] * group["weight_decay"]
        decay: float | Tensor = 1 - share
        if keep is not None:
            update, decay = update * keep, 1 - share * keep.to(gradient.dtype)
        updates = [u.reshape(p.shape) for u, p in zip(update, parameters, strict=True)]
        torch._foreach_mul_(parameters, decay)
        torch._foreach_add_(parameters, updates, alpha=-rate)

    def _vectors(
        self,
        parameters: list[Tensor],
        gradient: Tensor,
        group: dict[str, Any],
        keep: Tensor | None,
    ) -> None:
        mean, square = (self._stack(parameters, key, gradient) for key in ("mean", "square"))
        count = self._count(parameters, gradient.device)
        count += 1 if keep is None else keep.to(count.dtype)
        first, second = group["betas"]
        _lerp(mean, gradient, 1 - first, keep)
        _lerp(square, gradient * gradient, 1 - second, keep)
        # 1 - beta^count, which float32 would round to few digits. A count of 0 is a skipped step.
        large, small = (-torch.expm1(count.clamp_min(1) * math.log(b)) for b in (first, second))
        update = mean / large / ((square / small).sqrt() + 1e-8)
        if keep is not None:
            update = update * keep
        updates = torch.split(update, [p.numel() for p in parameters])
        torch._foreach_add_(parameters, list(updates), alpha=-group["lr"])

    def _stack(self, parameters: list[Tensor], key: str, like: Tensor) -> Tensor:
        """One tensor of the shape of `like` with the state of several parameters."""
        stacks = self._stacks.setdefault(tuple(map(id, parameters)), {})
        if key not in stacks:
            states = [self._state(p) for p in parameters]
            flat = torch.cat([state[key].reshape(-1) for state in states])
            parts = torch.split(flat, [p.numel() for p in parameters])
            for state, part, parameter in zip(states, parts, parameters, strict=True):
                state[key] = part.view(parameter.shape)
            stacks[key] = flat.view(like.shape)
        return stacks[key]

    def _count(self, parameters: list[Tensor], device: torch.device) -> Tensor:
        """The steps that vectors have taken, one number for all of them, on their device."""
        stacks = self._stacks.setdefault(tuple(map(id, parameters)), {})
        if "step" not in stacks:
            states = [self._state(p) for p in parameters]
            stacks["step"] = states[0]["step"].to(device, copy=True)
            for state in states:
                state["step"] = stacks["step"]
        return stacks["step"]


def orthogonalised(matrix: Tensor, steps: int = 5) -> Tensor:
    """Roughly the nearest semi-orthogonal matrix: singular values within about [0.7, 1.2].

    Args:
        matrix: (rows, columns), or (n, rows, columns) for a batch.
        steps: of the quintic Newton-Schulz iteration with Jordan's coefficients.

    Returns:
        bfloat16, of the same shape: the precision is enough and twice as fast.
    """
    tall = matrix.shape[-2] > matrix.shape[-1]
    x = (matrix.mT if tall else matrix).bfloat16()
    x /= x.norm(dim=(-2, -1), keepdim=True) + 1e-7
    add_product = torch.baddbmm if x.ndim == 3 else torch.addmm
    for _ in range(steps):
        gram = x @ x.mT
        x = add_product(x, 2.0315 * gram @ gram - 4.7750 * gram, x, beta=3.4445)
    return x.mT if tall else x


def _size(rows: int, columns: int) -> float:
    # Gives every matrix the root-mean-square update of 0.2, which is about Adam's.
    return 0.2 * math.sqrt(max(rows, columns))


def _gradient(parameter: Tensor) -> Tensor:
    assert parameter.grad is not None  # noqa: S101 - `step` has seen to it
    return parameter.grad


def _kept(gradient: Tensor, keep: Tensor | None) -> Tensor:
    # What is skipped may be infinite or no number, which no product with 0 would remove.
    return gradient if keep is None else torch.where(keep, gradient, 0.0)


def _lerp(into: Tensor, towards: Tensor, share: float, keep: Tensor | None) -> None:
    into.lerp_(towards, share if keep is None else keep.to(into.dtype) * share)
