"""The same application, certified: `python -m pytest -p certified`.

In production the change is one line of `photo_sorter.main`::

    client = smoothapi.wrap(boto3.client("rekognition"), budget="$20/day", score=0.5)

Here each client that boto3 makes is wrapped, so that not even the tests' own line changes. Radius
and alpha are such that a photo takes a dozen votes, and there is no denoiser.
"""

from __future__ import annotations

from functools import wraps
from typing import Any

import boto3

import smoothapi

FAST = {"radius": 0.05, "alpha": 0.01, "max_votes": 100, "denoiser": "none", "size": 96}
_plain = boto3.client


@wraps(_plain)
def _wrapped(*arguments: Any, **options: Any) -> Any:
    return smoothapi.wrap(_plain(*arguments, **options), budget="10000", **FAST)


boto3.client = _wrapped
