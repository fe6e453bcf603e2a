"""A field of ours in a message of protobuf, which no schema knows and every copy keeps.

Protocol buffers keep fields that they do not know, so that old and new programs can talk
(https://protobuf.dev/programming-guides/proto3/#unknowns). What is put into one survives `copy`,
`pickle` and serialisation, is not part of the message's JSON, and no accessor shows it.
"""

from __future__ import annotations

import sys
from typing import Any

_NUMBER = 516_203_144  # of the 2**29 - 1 that there are; anything, but the same for ever
_LENGTH_DELIMITED = 2


def message_of(response: object) -> Any:
    """Return the message of protobuf that a response is, or that is behind it; else None.

    Google's classes (proto-plus) are views of messages, made anew at each reading of a part.
    """
    loaded = sys.modules.get("google.protobuf.message")
    message = getattr(response, "_pb", response)
    return message if loaded is not None and isinstance(message, loaded.Message) else None


def put(message: Any, value: bytes) -> None:
    """Put a value into the field; it takes the place of what was there."""
    tag = _NUMBER << 3 | _LENGTH_DELIMITED
    message.MergeFromString(_varint(tag) + _varint(len(value)) + value)


def get(message: Any) -> bytes | None:
    """Return the field's value, the last one as protobuf has it; None if there is none."""
    from google.protobuf.unknown_fields import UnknownFieldSet  # noqa: PLC0415  loaded already

    found: bytes | None = None
    for field in UnknownFieldSet(message):
        if field.field_number == _NUMBER and field.wire_type == _LENGTH_DELIMITED:
            found = field.data
    return found


def _varint(number: int) -> bytes:
    """Encode a number as protobuf does: 7 bits a byte, the lowest first."""
    parts = []
    while number > 127:
        parts.append(number & 127 | 128)
        number >>= 7
    return bytes([*parts, number])
