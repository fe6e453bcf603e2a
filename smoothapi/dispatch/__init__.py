"""Variants out, answers back: what stands between money and noise."""

from smoothapi.dispatch.answers import AnswerStore, answer_key
from smoothapi.dispatch.budget import (
    Account,
    Budget,
    Ledger,
    Spent,
    accounts,
    release_abandoned,
    reset,
)
from smoothapi.dispatch.contract import Adapter, Limits
from smoothapi.dispatch.dispatcher import Delivery, Dispatcher, Job, Run, Totals
from smoothapi.dispatch.price import Price
from smoothapi.dispatch.registry import (
    ProviderInfo,
    make_adapter,
    provider_names,
    providers,
)
from smoothapi.dispatch.retry import Retry
from smoothapi.dispatch.state import SharedState

__all__ = [
    "Account",
    "Adapter",
    "AnswerStore",
    "Budget",
    "Delivery",
    "Dispatcher",
    "Job",
    "Ledger",
    "Limits",
    "Price",
    "ProviderInfo",
    "Retry",
    "Run",
    "SharedState",
    "Spent",
    "Totals",
    "accounts",
    "answer_key",
    "make_adapter",
    "provider_names",
    "providers",
    "release_abandoned",
    "reset",
]
