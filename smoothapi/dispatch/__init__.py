"""Variants out, answers back: what stands between money and noise."""

from smoothapi.dispatch.dispatcher import Dispatcher
from smoothapi.dispatch.job import Delivery, Totals, Work
from smoothapi.dispatch.retry import Retry
from smoothapi.dispatch.run import Run

__all__ = ["Delivery", "Dispatcher", "Retry", "Run", "Totals", "Work"]
