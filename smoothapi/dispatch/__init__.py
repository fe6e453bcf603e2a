"""Variants out, answers back: what stands between money and noise."""

from smoothapi.dispatch.answers import Answers, AnswerStore, answer_key
from smoothapi.dispatch.budget import (
    Account,
    Budget,
    Ledger,
    Spent,
    accounts,
    release_abandoned,
    reset,
)
from smoothapi.dispatch.contract import Adapter, Credentials, Limits, NeedsCredentials
from smoothapi.dispatch.dispatcher import Dispatcher, Run
from smoothapi.dispatch.job import Delivery, Job, Totals
from smoothapi.dispatch.price import Price
from smoothapi.dispatch.recording import Named, Recorder, Replay, read_recording
from smoothapi.dispatch.registry import (
    ProviderInfo,
    make_adapter,
    provider_names,
    providers,
)
from smoothapi.dispatch.retry import Retry, retry_after_seconds
from smoothapi.dispatch.state import SharedState

__all__ = [
    "Account",
    "Adapter",
    "AnswerStore",
    "Answers",
    "Budget",
    "Credentials",
    "Delivery",
    "Dispatcher",
    "Job",
    "Ledger",
    "Limits",
    "Named",
    "NeedsCredentials",
    "Price",
    "ProviderInfo",
    "Recorder",
    "Replay",
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
    "read_recording",
    "release_abandoned",
    "reset",
    "retry_after_seconds",
]
