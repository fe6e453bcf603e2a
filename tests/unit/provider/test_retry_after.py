"""Retry-After, as services really write it."""

from __future__ import annotations

import pytest

from smoothapi.provider import retry_after_seconds

_NOON = 784_125_577.0  # Sun, 06 Nov 1994 12:39:37 GMT


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        ("120", 120.0),
        (" 0 ", 0.0),
        ("1.5", 1.5),
        ("-3", 0.0),
        ("Sun, 06 Nov 1994 12:40:37 GMT", 60.0),
        ("Sunday, 06-Nov-94 12:40:37 GMT", 60.0),
        ("Sun Nov  6 12:40:37 1994", 60.0),
        ("Sun, 06 Nov 1994 12:00:00 GMT", 0.0),
        (None, None),
        ("", None),
        ("soon", None),
        ("inf", None),
        ("nan", None),
        ("Sun, 99 Nov 1994 12:40:37 GMT", None),
    ],
)
def test_seconds_and_dates_are_read(value, seconds):
    got = retry_after_seconds(value, now=_NOON)
    assert got == (None if seconds is None else pytest.approx(seconds))
