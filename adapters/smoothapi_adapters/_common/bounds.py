"""What bounds each request: connections that are kept, time and size of an answer.

The timeout of requests and botocore is one for each read: an answer that drips in, a byte a second,
never meets it. Here a whole body has one deadline.
"""

from __future__ import annotations

import time
from typing import Any

POOL = 256
"""Connections kept: the largest concurrency, so that no thread's is thrown away after use."""

MOST_BYTES = 16 * 2**20
"""The longest answer that is read, unpacked; labels of 128 pictures are a hundredth of it."""

_CHUNK = 65_536


class BodyTooLongError(Exception):
    """A body has more than `MOST_BYTES`."""

    def __init__(self) -> None:
        super().__init__(f"the answer is longer than {MOST_BYTES:,} bytes")


def read_body(raw: Any, deadline: float) -> bytes:
    """Return the whole body of a response of urllib3, decoded.

    Args:
        raw: the response.
        deadline: as `time.monotonic` counts.

    Raises:
        BodyTooLongError: it is too long.
        TimeoutError: it drips in, and took too long.
    """
    body = bytearray()
    while chunk := raw.read1(_CHUNK, decode_content=True):
        body += chunk
        if len(body) > MOST_BYTES:
            raise BodyTooLongError
        if time.monotonic() > deadline:
            raise TimeoutError("the answer drips in, and took too long")
    raw.release_conn()
    raw.close()  # of a socket that is not kept; else it lasts as long as an error that holds it
    return bytes(body)
