"""What must be shared and kept, as protocols of verbs that any backend can have."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from collections.abc import Mapping

    from smoothapi.answer import Answer
    from smoothapi.errors import PermanentError
    from smoothapi.store.rows import Kept


class Answers(Protocol):
    """Where answers come from and go to: the store, a recorder before it, or a replay."""

    def get(self, key: str) -> Answer | PermanentError | None:
        """Return what was answered for `key`, or None if it was never asked."""

    def put(self, *answers: Kept) -> None:
        """Keep answers: all of them, or none."""

    def give_up(self, asked: Mapping[str, object], why: str) -> None:
        """Take note that a variant was given up after its retries."""

    def row(self, key: str) -> dict[str, Any]:
        """Return an answer with what was asked, as JSON-ready values."""

    def close(self) -> None:
        """Release files."""
