"""What a stranger writes an adapter against: the contract, its values, and how one is found."""

from smoothapi.provider.clients import check_client, refuse_async, refuse_unmade
from smoothapi.provider.consent import SafeOptions
from smoothapi.provider.contract import (
    Adapter,
    Credentials,
    HasEndpoint,
    Limits,
    NeedsCredentials,
)
from smoothapi.provider.mask import KeepsSecrets, Mask, masked
from smoothapi.provider.price import Price
from smoothapi.provider.registry import (
    ProviderInfo,
    adapter_options,
    choose_price,
    doubtful_options,
    make_adapter,
    provider_names,
    providers,
    refused_settings,
    registered,
)
from smoothapi.provider.retry_after import retry_after_seconds
from smoothapi.provider.vocabulary import HasVocabulary, Vocabulary, vocabulary_of

__all__ = [
    "Adapter",
    "Credentials",
    "HasEndpoint",
    "HasVocabulary",
    "KeepsSecrets",
    "Limits",
    "Mask",
    "NeedsCredentials",
    "Price",
    "ProviderInfo",
    "SafeOptions",
    "Vocabulary",
    "adapter_options",
    "check_client",
    "choose_price",
    "doubtful_options",
    "make_adapter",
    "masked",
    "provider_names",
    "providers",
    "refuse_async",
    "refuse_unmade",
    "refused_settings",
    "registered",
    "retry_after_seconds",
    "vocabulary_of",
]
