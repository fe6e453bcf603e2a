"""Bursts: which steps a training run had better not take, decided without waiting for a device."""

from __future__ import annotations

import torch
from torch import Tensor

_MEMORY = 0.99
_FIRST = 50  # norms that are looked at before one can be out of line


class Guard:
    """Compares each gradient's norm with the running norm of those before it.

    Nothing here is read back from the device, so it costs no time. The running norm moves towards
    a burst too, but never towards more than `burst` times itself: gradients that stay large are
    believed after a while, and training goes on.

    Args:
        burst: a norm above so many times the running norm is a burst.
        device: where gradients are.

    Attributes:
        norm: the running norm, a float32 tensor of shape ().
        seen: how many norms it is made of, the same.
    """

    def __init__(self, burst: float, device: torch.device) -> None:
        self.burst = burst
        self.norm = torch.zeros((), device=device)
        self.seen = torch.zeros((), device=device)

    def keep(self, loss: Tensor, gradient: Tensor) -> Tensor:
        """Whether a step is to be taken.

        Args:
            loss: of the step, of shape ().
            gradient: the norm of its gradient, of shape ().

        Returns:
            A bool of shape (), on the device: False for a burst, and for a loss or a gradient that
            is infinite or no number.
        """
        finite = loss.isfinite() & gradient.isfinite()
        within = (gradient <= self.burst * self.norm) | (self.seen < _FIRST)
        # The mean of the first norms, and a moving average later.
        share = (1 / (self.seen + 1)).clamp_min(1 - _MEMORY)
        most = torch.where(self.seen < _FIRST, gradient, self.burst * self.norm)
        moved = self.norm.lerp(torch.minimum(gradient, most), share)
        self.norm = torch.where(finite, moved, self.norm)
        self.seen = self.seen + finite
        return finite & within

    def state(self) -> dict[str, Tensor]:
        """What a checkpoint has to keep."""
        return {"norm": self.norm, "seen": self.seen}

    def restore(self, state: dict[str, Tensor]) -> None:
        """Go on from a checkpoint; one that is older than this class has no state."""
        if state:
            self.norm, self.seen = (state[k].to(self.norm.device) for k in ("norm", "seen"))
