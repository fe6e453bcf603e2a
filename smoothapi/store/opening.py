"""The home that an address means, opened: a folder, or a database."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from smoothapi.address import DatabaseAddress
from smoothapi.errors import MissingExtraError
from smoothapi.store.home import Home
from smoothapi.store.local.records import LocalRecords

if TYPE_CHECKING:
    from pathlib import Path

    from smoothapi.address import HomeAddress
    from smoothapi.store.protocols import GatewayRecords, Store


def open_home(where: HomeAddress, noise_key_file: Path | None = None) -> Store:
    """Return the store of a home.

    Args:
        where: a folder, or the address of a database.
        noise_key_file: of the deployment's noise key; None for the home's own, which a database
            has not.

    Raises:
        MissingExtraError: psycopg is needed and not installed.
        StoreError: the database cannot be reached or used. What is wrong with a folder is said
            when it is used.
    """
    if not isinstance(where, DatabaseAddress):
        return Home(where, noise_key_file=noise_key_file)
    try:
        from smoothapi.store.postgres import PostgresHome  # noqa: PLC0415  an extra
    except ImportError as error:
        if error.name and not error.name.startswith("psycopg"):
            raise
        raise MissingExtraError(
            "A home on PostgreSQL needs psycopg. Install it: "
            f"pip install 'smoothapi-vision[postgres]' ({error})."
        ) from error
    return PostgresHome(where, noise_key_file=noise_key_file)


def kept_records(home: Store, file: Path | None) -> GatewayRecords:
    """Return what a gateway keeps in a home, or in a file that is named instead.

    Raises:
        StoreError: it cannot be used.
    """
    return home.records if file is None else LocalRecords(file, time.time)
