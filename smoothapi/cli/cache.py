"""`smoothapi cache`."""

from __future__ import annotations

import json
import sys
from contextlib import contextmanager
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import click

from smoothapi.cli.group import Group
from smoothapi.cli.options import options
from smoothapi.cli.terminal import confirm, echo
from smoothapi.errors import StoreError, UsageError
from smoothapi.files import replacing, shown_name

if TYPE_CHECKING:
    from collections.abc import Iterator

    from smoothapi.store import Home
    from smoothapi.store.local.answers import AnswerStore


@click.group(cls=Group)
@options("home")
def cache(home: str | None) -> None:
    """Look after the stored answers: each was paid for."""
    del home  # kept by the option itself


@cache.command()
@click.option("--json", "as_json", is_flag=True, help="One JSON object.")
@options("home")
def info(home: str | None, as_json: bool) -> int:
    """Say how many answers there are, and where."""
    with _store(home) as store:
        facts: dict[str, Any] = {
            "directory": shown_name(str(store.directory)),
            "answers": len(store),
            "bytes": store.bytes(),
        }
    if as_json:
        echo(json.dumps(facts))
    else:
        size = f"{facts['bytes'] / 2**20:.1f} MiB"
        echo(f"{facts['answers']:,} answers, {size}, in {facts['directory']}")
    return 0


@cache.command()
@options("home")
def verify(home: str | None) -> int:
    """Read every answer, and say which cannot be used."""
    bad = good = 0
    with _store(home) as store:
        for key in store.all_keys():
            try:
                store.row(key)
                good += 1
            except StoreError as error:
                bad += 1
                echo(f"{key}: {error}", err=True)
    echo(f"{good:,} answers can be used, {bad:,} cannot.")
    return 2 if bad else 0


@cache.command(short_help="Write all answers as a recording.")
@click.argument("file", type=click.Path(dir_okay=False, allow_dash=True), default="-")
@options("home")
def export(home: str | None, file: str) -> int:
    """Write all answers to FILE (default: stdout) as a recording, which replay:FILE reads."""
    from smoothapi.mixes import Mixes  # noqa: PLC0415
    from smoothapi.store.recording import header, to_line  # noqa: PLC0415

    with _home(home) as opened, _written(file) as stream:
        store, count, bad = opened.answers, 0, 0
        stream.write(header(mixes=Mixes.load(opened.mixes_file).to_dict()))
        for key in store.all_keys():
            try:
                line = to_line(store.row(key))
            except StoreError:
                bad += 1
                continue
            stream.write(line)
            count += 1
    left_out = (
        f" {bad:,} cannot be read, and were left out (smoothapi cache verify)." if bad else ""
    )
    echo(f"Exported {count:,} answers.{left_out}", err=True)
    return 0


@cache.command("import", short_help="Add the answers of a recording.")
@click.argument("file", type=click.Path(dir_okay=False, allow_dash=True), default="-")
@options("home")
def import_(home: str | None, file: str) -> int:
    """Add the answers of FILE (default: stdin), a recording or export; those here stay.

    They then count as given to this installation, and certificates made of them do not say that
    they were imported: take files only from whom you would take certificates.

    Variants that the recorded run gave up are left out: they can be asked again.
    """
    from smoothapi.store.recording import check_row, is_header, parse_line  # noqa: PLC0415

    added = kept = 0
    with _store(home) as store, _read(file) as stream:
        for number, line in enumerate(stream, start=1):
            try:
                row = parse_line(line)
                if row is None or is_header(row) or "gave_up" in row:
                    continue
                check_row(row)
                new = store.add_row(row)
            except StoreError as error:
                raise UsageError(
                    f"Line {number:,} of {file!r} is not a stored answer ({error}). The {added:,} "
                    "before it were imported."
                ) from error
            added, kept = added + new, kept + (not new)
    echo(f"Imported {added:,} answers; {kept:,} were here already.")
    return 0


@cache.command()
@click.option("--yes", is_flag=True, help="Do not ask.")
@options("home")
def clear(home: str | None, yes: bool) -> int:
    """Delete all answers. They were paid for, and cannot be had again for nothing."""
    with _store(home) as store:
        if not yes:
            confirm(f"Delete {len(store):,} paid answers?", abort=True)
        echo(f"Deleted {store.clear():,} answers.")
    return 0


@contextmanager
def _store(home: str | None) -> Iterator[AnswerStore]:
    with _home(home) as opened:
        yield opened.answers


def _home(home: str | None) -> Home:
    from smoothapi.config import resolve  # noqa: PLC0415
    from smoothapi.store import Home  # noqa: PLC0415

    resolved = resolve(home=home)
    resolved.require_trust(("home",))
    return Home(resolved.settings.home)


@contextmanager
def _written(file: str) -> Iterator[IO[str]]:
    if file == "-":
        yield sys.stdout
        return
    try:
        with replacing(Path(file)) as stream:
            yield stream
    except OSError as error:
        raise UsageError(f"{file!r} cannot be written: {error.strerror or error}.") from error


@contextmanager
def _read(file: str) -> Iterator[IO[bytes]]:
    if file == "-":
        yield sys.stdin.buffer
        return
    try:
        with Path(file).open("rb") as stream:
            yield stream
    except OSError as error:
        raise UsageError(f"{file!r} cannot be read: {error.strerror or error}.") from error
