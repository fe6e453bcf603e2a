"""What runs share, as values: a route to one adapter, and the workers that take it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

from smoothapi.dispatch.semaphore import FastSemaphore
from smoothapi.dispatch.threads import Threads
from smoothapi.dispatch.writing import AnswerWriter
from smoothapi.errors import UsageError

if TYPE_CHECKING:
    from smoothapi.dispatch.breaker import Breaker
    from smoothapi.dispatch.retry import Retry
    from smoothapi.provider import Adapter, Price
    from smoothapi.store import Answers, Ledger, Pace

_PREPARERS = 4
_SPARE = 2  # one thread more for so many requests


@dataclass(frozen=True, slots=True)
class Route:
    """How one adapter is asked: all that stands around an attempt.

    Attributes:
        adapter: who is asked.
        price: the price list in force.
        ledger: budgets, at that price.
        pace: how fast it may be asked.
        breaker: whether the service is taken to be down.
        retry: when a variant is tried again.
    """

    adapter: Adapter
    price: Price
    ledger: Ledger
    pace: Pace
    breaker: Breaker
    retry: Retry


@dataclass(frozen=True, slots=True)
class Workers:
    """The threads of all runs.

    Attributes:
        concurrency: most requests in flight.
        in_flight: held by each request.
        threads: that send. More than requests: while some wait for the service, others encode.
        senders: encode and send.
        preparers: draw noise and denoise. A run prepares one lot at a time; with several runs,
            noise is drawn for some while the denoiser, where they take turns, is busy with
            another.
        answers: where answers are found.
        writer: puts answers there, before their sender goes on: a crash loses at most one request
            of each thread that sends.
    """

    concurrency: int
    in_flight: FastSemaphore
    threads: int
    senders: Threads
    preparers: Threads
    answers: Answers
    writer: AnswerWriter

    @classmethod
    def start(cls, concurrency: int, answers: Answers) -> Self:
        """Start threads for so many requests at once.

        Raises:
            UsageError: not one request would be allowed.
        """
        if concurrency < 1:
            raise UsageError(f"concurrency={concurrency}: at least one request must be allowed.")
        threads = concurrency + max(1, concurrency // _SPARE)
        return cls(
            concurrency=concurrency,
            in_flight=FastSemaphore(concurrency),
            threads=threads,
            senders=Threads(threads, "smoothapi-send"),
            preparers=Threads(_PREPARERS, "smoothapi-prepare"),
            answers=answers,
            writer=AnswerWriter(answers),
        )
