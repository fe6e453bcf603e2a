"""A provider that runs here, and its default labeller."""

from smoothapi_adapters.mock.adapter import MockAdapter
from smoothapi_adapters.mock.efficientnet import EfficientNetLite0

__all__ = ["EfficientNetLite0", "MockAdapter"]
