"""What is kept and shared: answers, budgets, the pace of each provider, leases on variants.

`protocols` says what a store promises; `Home` keeps it in a folder of this machine.
"""

from smoothapi.store.budget import Budget
from smoothapi.store.home import Home
from smoothapi.store.protocols import Account, Answers, Leases, Ledger, Pace, Spent, Store
from smoothapi.store.recording import Recorder, Replay, read_recording
from smoothapi.store.rows import Seen, StoredAnswer, answer_key, refreshes_of

__all__ = [
    "Account",
    "Answers",
    "Budget",
    "Home",
    "Leases",
    "Ledger",
    "Pace",
    "Recorder",
    "Replay",
    "Seen",
    "Spent",
    "Store",
    "StoredAnswer",
    "answer_key",
    "read_recording",
    "refreshes_of",
]
