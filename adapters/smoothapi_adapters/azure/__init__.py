"""Azure's Image Analysis: `azure` is its version 3.2, `azure4` its version 4.0."""

from smoothapi_adapters.azure.v3.adapter import AzureAdapter
from smoothapi_adapters.azure.v4.adapter import Azure4Adapter

__all__ = ["Azure4Adapter", "AzureAdapter"]
