"""Variants out, answers back: what stands between money and noise."""

from smoothapi.dispatch.answers import AnswerStore, answer_key
from smoothapi.dispatch.budget import Budget, Ledger, Spent
from smoothapi.dispatch.contract import Adapter, Limits, Price
from smoothapi.dispatch.dispatcher import Delivery, Dispatcher, Job, Run, Totals
from smoothapi.dispatch.registry import (
    ProviderInfo,
    make_adapter,
    provider_names,
    providers,
)
from smoothapi.dispatch.retry import Retry

__all__ = [
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
    "Spent",
    "Totals",
    "answer_key",
    "make_adapter",
    "provider_names",
    "providers",
]
