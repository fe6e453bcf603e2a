"""Where answers are kept, and a home with a clock that a test sets."""

from __future__ import annotations

import pytest

from smoothapi.store import Home
from smoothapi.store.local.answers import AnswerStore
from tests.conftest import Clock


@pytest.fixture
def store(tmp_path):
    store = AnswerStore(tmp_path / "answers")
    yield store
    store.close()


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def home(tmp_path, clock):
    with Home(tmp_path, clock=clock) as home:
        yield home
