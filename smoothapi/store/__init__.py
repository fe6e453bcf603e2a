"""What is kept and shared: answers, budgets, the pace of each provider, leases on variants.

`protocols` says what a store promises; `Home` keeps it in a folder of this machine,
`smoothapi.store.postgres` in a database that many machines share.
"""

from smoothapi.store.budget import Budget
from smoothapi.store.home import Home
from smoothapi.store.opening import kept_records, open_home
from smoothapi.store.protocols import (
    Account,
    Answers,
    GatewayRecords,
    KeptAnswers,
    Leases,
    Ledger,
    Pace,
    Runs,
    Spent,
    Store,
)
from smoothapi.store.recording import Recorder, Replay, read_recording
from smoothapi.store.records import Record, Token
from smoothapi.store.rows import Seen, StoredAnswer, answer_key, refreshes_of
from smoothapi.store.runs import RunRecord

__all__ = [
    "Account",
    "Answers",
    "Budget",
    "GatewayRecords",
    "Home",
    "KeptAnswers",
    "Leases",
    "Ledger",
    "Pace",
    "Record",
    "Recorder",
    "Replay",
    "RunRecord",
    "Runs",
    "Seen",
    "Spent",
    "Store",
    "StoredAnswer",
    "Token",
    "answer_key",
    "kept_records",
    "open_home",
    "read_recording",
    "refreshes_of",
]
