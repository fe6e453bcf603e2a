"""One call of an adapter, held to its contract."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING

from smoothapi.answer import Answer
from smoothapi.errors import FatalError, ProviderError
from smoothapi.provider.guards import stopped_by_guard

if TYPE_CHECKING:
    from collections.abc import Sequence

    from smoothapi.provider.contract import Adapter


def ask(adapter: Adapter, payloads: Sequence[bytes]) -> Sequence[Answer | ProviderError]:
    """Make one request through the adapter; what it must not do is a FatalError.

    Returns:
        For each payload, its answer or the error that it alone met.

    Raises:
        ProviderError: as the adapter's `ask`, with the adapter's name.
        FatalError: it raised something else, or returned what it should not.
    """
    try:
        answers = adapter.ask(payloads)
    except BaseException as error:  # a sender thread gets no Ctrl-C: whatever it is, it raised it
        if (stopped := stopped_by_guard(error)) is not None:
            stopped.provider = adapter.name
            raise stopped from error
        if isinstance(error, ProviderError):
            error.provider = error.provider or adapter.name
            raise
        raise FatalError(
            f"The adapter {adapter.name!r} failed with {type(error).__name__}, which is not one of "
            "smoothapi's provider errors: this is a defect of the adapter.",
            provider=adapter.name,
        ) from error
    with suppress(TypeError):
        if len(answers) == len(payloads) and all(
            isinstance(answer, (Answer, ProviderError)) for answer in answers
        ):
            for answer in answers:
                if isinstance(answer, ProviderError):
                    answer.provider = answer.provider or adapter.name
            return answers
    raise FatalError(
        f"The adapter {adapter.name!r} must return one Answer or ProviderError for each of the "
        f"{len(payloads)} pictures it was given: this is a defect of the adapter.",
        provider=adapter.name,
    )
