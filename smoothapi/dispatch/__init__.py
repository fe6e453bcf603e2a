"""Variants out, answers back: what stands between money and noise."""

from smoothapi.dispatch.answers import Answers, AnswerStore, Kept, answer_key
from smoothapi.dispatch.budget import Budget
from smoothapi.dispatch.contract import Adapter, Credentials, Limits, NeedsCredentials
from smoothapi.dispatch.dispatcher import Dispatcher
from smoothapi.dispatch.job import Delivery, Job, Totals
from smoothapi.dispatch.ledger import (
    Account,
    Ledger,
    Spent,
    accounts,
    release_abandoned,
    reset,
)
from smoothapi.dispatch.price import Price
from smoothapi.dispatch.recording import Recorder, Replay, read_recording
from smoothapi.dispatch.registry import (
    ProviderInfo,
    make_adapter,
    provider_names,
    providers,
)
from smoothapi.dispatch.retry import Retry, retry_after_seconds
from smoothapi.dispatch.run import Run
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
    "Kept",
    "Ledger",
    "Limits",
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
