"""A classifier on this machine."""

from smoothapi_adapters.torch.adapter import TorchAdapter

__all__ = ["TorchAdapter"]
