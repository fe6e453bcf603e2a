"""`smoothapi cache`."""

from __future__ import annotations

import json
import sys
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import click

from smoothapi.cli.options import options
from smoothapi.cli.terminal import confirm, echo
from smoothapi.errors import StoreError, UsageError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from smoothapi.store.local.answers import AnswerStore


@click.group()
@options("home")
@click.pass_context
def cache(ctx: click.Context, home: str | None) -> None:
    """Look after the stored answers: each was paid for."""
    ctx.obj = home


@cache.command()
@click.option("--json", "as_json", is_flag=True, help="One JSON object.")
@click.pass_obj
def info(home: str | None, as_json: bool) -> int:
    """Say how many answers there are, and where."""
    with _store(home) as store:
        facts: dict[str, Any] = {
            "directory": str(store.directory),
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
@click.pass_obj
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
@click.pass_obj
def export(home: str | None, file: str) -> int:
    """Write all answers to FILE (default: stdout) as a recording, which replay:FILE reads."""
    from smoothapi.store.recording import header, to_line  # noqa: PLC0415

    with _store(home) as store, _open(file, "w") as stream:
        count = 0
        stream.write(header())
        for key in store.all_keys():
            stream.write(to_line(store.row(key)))
            count += 1
    echo(f"Exported {count:,} answers.", err=True)
    return 0


@cache.command("import", short_help="Add the answers of a recording.")
@click.argument("file", type=click.Path(dir_okay=False, allow_dash=True), default="-")
@click.pass_obj
def import_(home: str | None, file: str) -> int:
    """Add the answers of FILE (default: stdin), a recording or export; those here stay.

    They then count as given to this installation, and certificates made of them do not say that
    they were imported: take files only from whom you would take certificates.

    Variants that the recorded run gave up are left out: they can be asked again.
    """
    from smoothapi.store.recording import is_header, parse_line  # noqa: PLC0415

    added = kept = 0
    with _store(home) as store, _open(file, "r") as stream:
        for number, line in enumerate(stream, start=1):
            try:
                row = parse_line(line.encode())
                if row is None or is_header(row) or "gave_up" in row:
                    continue
                new = store.add_row(row)
            except (ValueError, StoreError) as error:
                raise UsageError(
                    f"Line {number} of {file!r} is not a stored answer ({error}). The {added:,} "
                    "before it were imported."
                ) from error
            added, kept = added + new, kept + (not new)
    echo(f"Imported {added:,} answers; {kept:,} were here already.")
    return 0


@cache.command()
@click.option("--yes", is_flag=True, help="Do not ask.")
@click.pass_obj
def clear(home: str | None, yes: bool) -> int:
    """Delete all answers. They were paid for, and cannot be had again for nothing."""
    with _store(home) as store:
        if not yes:
            confirm(f"Delete {len(store):,} paid answers?", abort=True)
        echo(f"Deleted {store.clear():,} answers.")
    return 0


@contextmanager
def _store(home: str | None) -> Iterator[AnswerStore]:
    from smoothapi.config import resolve  # noqa: PLC0415
    from smoothapi.store import Home  # noqa: PLC0415

    with Home(resolve(home=home).settings.home) as opened:
        yield opened.answers


def _open(file: str, mode: str) -> Any:
    if file == "-":
        stream: IO[str] = sys.stdout if mode == "w" else sys.stdin
        return nullcontext(stream)
    try:
        return Path(file).open(mode, encoding="utf-8")
    except OSError as error:
        raise UsageError(f"Cannot open {file!r}: {error.strerror}.") from error
