"""What both versions of Azure's Image Analysis are asked for, and what it costs."""

from __future__ import annotations

import re
from decimal import Decimal
from typing import TYPE_CHECKING

from smoothapi.errors import UsageError
from smoothapi.provider import Price, SafeOptions

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

RETIRES = "2028-09-25"
"""The day on which Azure ends both versions of its Image Analysis."""

SAFE_OPTIONS = SafeOptions(
    names=frozenset(
        {"features", "model_version", "language", "credential", "per_second", "timeout"}
    ),
    endpoint="endpoint",
    hosts=(
        # Azure's public cloud, its regional names, and the clouds of the US government and China.
        "*.cognitiveservices.azure.com",
        "*.services.ai.azure.com",
        "*.api.cognitive.microsoft.com",
        "*.cognitiveservices.azure.us",
        "*.api.cognitive.microsoft.us",
        "*.cognitiveservices.azure.cn",
        "*.api.cognitive.azure.cn",
    ),
    credentials=frozenset({"key"}),
)
"""What a folder's settings may say of either version."""

PRICES_OF = "2026-11-01"

_PIN = re.compile(r"(latest|\d{4}-\d{2}-\d{2})(-preview)?")

# Assumed, for the tier S1 (not checked against a bill): each feature is a transaction.
_PER_THOUSAND = Decimal("1.00")
_PER_THOUSAND_SENTENCES = Decimal("1.50")
_SENTENCES = ("description", "caption", "denseCaptions")


def chosen_features(features: str | Iterable[str], known: Sequence[str]) -> tuple[str, ...]:
    """Return the features asked for, in the order of `known`.

    Args:
        features: names, or text with commas between them.
        known: those that there are.

    Raises:
        UsageError: no feature is named, or an unknown one.
    """
    names = features.split(",") if isinstance(features, str) else list(features)
    asked = {str(name).strip() for name in names} - {""}
    if not asked or not asked <= set(known):
        raise UsageError(f"features={features!r}: choose one or more of {', '.join(known)}.")
    return tuple(name for name in known if name in asked)


def checked_pin(model_version: str) -> str:
    """Return the model version, if it can be one."""
    if not _PIN.fullmatch(model_version):
        raise UsageError(
            f"model_version={model_version!r}: 'latest', or a date such as '2021-04-01'."
        )
    return model_version


def price_of(features: Sequence[str]) -> Price:
    """Return the price of one picture: each feature is charged for."""
    of_each = (
        _PER_THOUSAND_SENTENCES if name in _SENTENCES else _PER_THOUSAND for name in features
    )
    return Price(per_thousand=sum(of_each, Decimal(0)), as_of=PRICES_OF)
