"""What a stranger writes an adapter against: the contract, its values, and how one is found."""

from smoothapi.provider.contract import Adapter, Credentials, Limits, NeedsCredentials
from smoothapi.provider.mask import KeepsSecrets, Mask, masked
from smoothapi.provider.price import Price
from smoothapi.provider.registry import (
    ProviderInfo,
    make_adapter,
    provider_names,
    providers,
)
from smoothapi.provider.retry_after import retry_after_seconds

__all__ = [
    "Adapter",
    "Credentials",
    "KeepsSecrets",
    "Limits",
    "Mask",
    "NeedsCredentials",
    "Price",
    "ProviderInfo",
    "make_adapter",
    "masked",
    "provider_names",
    "providers",
    "retry_after_seconds",
]
