"""Variants out, answers back: what stands between money and noise."""

from smoothapi.dispatch.dispatcher import Dispatcher
from smoothapi.dispatch.job import Delivery, Job, Totals
from smoothapi.dispatch.retry import Retry
from smoothapi.dispatch.run import Run

__all__ = ["Delivery", "Dispatcher", "Job", "Retry", "Run", "Totals"]
