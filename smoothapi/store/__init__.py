"""What is kept: answers, budgets, the pace of each provider and leases on variants."""

from smoothapi.store.budget import Budget
from smoothapi.store.local.answers import AnswerStore
from smoothapi.store.local.database import SharedState
from smoothapi.store.local.ledger import (
    Account,
    Ledger,
    Spent,
    accounts,
    release_abandoned,
    reset,
)
from smoothapi.store.protocols import Answers
from smoothapi.store.recording import Named, Recorder, Replay, read_recording
from smoothapi.store.rows import Kept, answer_key

__all__ = [
    "Account",
    "AnswerStore",
    "Answers",
    "Budget",
    "Kept",
    "Ledger",
    "Named",
    "Recorder",
    "Replay",
    "SharedState",
    "Spent",
    "accounts",
    "answer_key",
    "read_recording",
    "release_abandoned",
    "reset",
]
