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

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
        """Apply the gradients once; `closure` is not supported."""
        del closure
        work = [
            (parameter, group)
            for group in self.param_groups
            for parameter in group["params"]
            if parameter.grad is not None
        ]
        parameters, groups = zip(*work, strict=True) if work else ((), ())
        list((self.pool.map if self.pool else map)(self._update, parameters, groups))

    @torch.no_grad()
    def _update(self, parameter: Tensor, group: dict[str, Any]) -> None:
        assert parameter.grad is not None  # noqa: S101 - `step` has seen to it
        update = self._matrix if parameter.ndim > 1 else self._vector
        update(parameter, parameter.grad, group)

    def _matrix(self, parameter: Tensor, gradient: Tensor, group: dict[str, Any]) -> None:
        state = self.state[parameter]
        if not state:
            state["momentum"] = torch.zeros_like(gradient)
        momentum = state["momentum"].lerp_(gradient, 1 - group["momentum"])
        update = gradient.lerp(momentum, group["momentum"]).reshape(len(parameter), -1)
        rows, columns = update.shape
        # Gives every matrix the root-mean-square update of 0.2, which is about Adam's.
        size = 0.2 * math.sqrt(max(rows, columns))
        update = orthogonalised(update).reshape(parameter.shape)
        parameter.mul_(1 - group["lr"] * group["weight_decay"])
        parameter.add_(update.to(parameter.dtype), alpha=-group["lr"] * size)

    def _vector(self, parameter: Tensor, gradient: Tensor, group: dict[str, Any]) -> None:
        state = self.state[parameter]
        if not state:
            state["step"] = torch.zeros(())
            state["mean"] = torch.zeros_like(gradient)
            state["square"] = torch.zeros_like(gradient)
        first, second = group["betas"]
        state["step"] += 1
        count = float(state["step"])
        mean = state["mean"].lerp_(gradient, 1 - first) / (1 - first**count)
        square = state["square"].lerp_(gradient * gradient, 1 - second) / (1 - second**count)
        parameter.add_(mean / (square.sqrt() + 1e-8), alpha=-group["lr"])


def orthogonalised(matrix: Tensor, steps: int = 5) -> Tensor:
    """Roughly the nearest semi-orthogonal matrix: singular values within about [0.7, 1.2].

    Args:
        matrix: (rows, columns).
        steps: of the quintic Newton-Schulz iteration with Jordan's coefficients.

    Returns:
        bfloat16, of the same shape: the precision is enough and twice as fast.
    """
    tall = matrix.shape[0] > matrix.shape[1]
    x = (matrix.T if tall else matrix).bfloat16()
    x /= x.norm() + 1e-7
    for _ in range(steps):
        gram = x @ x.T
        x = torch.addmm(x, 2.0315 * gram @ gram - 4.7750 * gram, x, beta=3.4445)
    return x.T if tall else x
