"""The store of many machines keeps the contract of stores, against a real server."""

from __future__ import annotations

import time

import pytest

from smoothapi.address import DatabaseAddress
from smoothapi.testing import StoreContract
from tests.conftest import Ticks

psycopg = pytest.importorskip("psycopg")


DAY = 86_400.0


class TestPostgres(StoreContract):
    @pytest.fixture(autouse=True)
    def _noon(self, postgres, database, ticks):
        """Let no day end in the midst of a test."""
        ticks.passed = (DAY / 2 - time.time()) % DAY
        postgres.set_clock(database, ticks.passed)

    @pytest.fixture
    def ticks(self):
        return Ticks()

    @pytest.fixture
    def advance(self, postgres, database, ticks):
        def advance(seconds):
            ticks.passed += seconds
            postgres.set_clock(database, ticks.passed)

        return advance

    @pytest.fixture
    def open_store(self, database, noise_key_file, ticks):
        from smoothapi.store.postgres import PostgresHome

        where = DatabaseAddress(database)
        return lambda: PostgresHome(where, noise_key_file=noise_key_file, tick=ticks)

    @pytest.fixture
    def opening(self, database, noise_key_file):
        return (
            "from pathlib import Path\n"
            "from smoothapi.address import DatabaseAddress\n"
            "from smoothapi.store import open_home\n"
            f"store = open_home(DatabaseAddress({database!r}), Path({str(noise_key_file)!r}))"
        )
