"""`smoothapi cache`."""

from __future__ import annotations

import json
import sys
from contextlib import closing, contextmanager
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import click

from smoothapi.cli.group import Group
from smoothapi.cli.home import opened_home
from smoothapi.cli.options import options
from smoothapi.cli.signals import says_when_stopped
from smoothapi.cli.terminal import confirm, echo
from smoothapi.errors import StoreError, UsageError
from smoothapi.files import replacing, shown_name
from smoothapi.text import printable

if TYPE_CHECKING:
    from collections.abc import Iterator

    from smoothapi.store import KeptAnswers, StoredAnswer

_AT_ONCE = 500  # answers that are added in one transaction
_ADDED_STAY = "The answers that were added stay: the same command adds the rest."


@click.group(cls=Group)
@options("home")
def cache(home: str | None) -> None:
    """Look after the stored answers: each was paid for."""
    del home  # kept by the option itself


@cache.command()
@click.option("--json", "as_json", is_flag=True, help="One JSON object.")
@options("home")
def info(home: str | None, as_json: bool) -> int:
    """Say how many answers there are, where, and of which noise keys."""
    with _answers(home) as answers:
        facts: dict[str, Any] = {
            "directory": shown_name(answers.where),
            "answers": len(answers),
            "bytes": answers.bytes(),
            "noise_keys": answers.noise_keys(),
        }
    if as_json:
        echo(json.dumps(facts))
        return 0
    size = f"{facts['bytes'] / 2**20:.1f} MiB"
    echo(f"{facts['answers']:,} answers, {size}, in {facts['directory']}")
    for key, count in facts["noise_keys"].items():
        echo(f"Noise key {printable(key)}: {count:,}")
    return 0


@cache.command()
@options("home")
def verify(home: str | None) -> int:
    """Read every answer, and say which cannot be used."""
    bad = good = 0
    with _answers(home) as answers:
        for key, row in answers.scan():
            if isinstance(row, StoreError):
                bad += 1
                echo(f"{key}: {row}", err=True)
            else:
                good += 1
    echo(f"{good:,} answers can be used, {bad:,} cannot.")
    return 2 if bad else 0


@cache.command(short_help="Write all answers as a recording.")
@click.argument("file", type=click.Path(dir_okay=False, allow_dash=True), default="-")
@options("home")
def export(home: str | None, file: str) -> int:
    """Write all answers to FILE (default: stdout) as a recording, which replay:FILE reads."""
    from smoothapi.mixes import Mixes  # noqa: PLC0415
    from smoothapi.store.recording import header, to_line  # noqa: PLC0415

    with opened_home(home) as store, _written(file) as stream:
        count = bad = 0
        stream.write(header(mixes=Mixes.load(store).to_dict()))
        for _, row in store.answers.scan():
            if isinstance(row, StoreError):
                bad += 1
                continue
            stream.write(to_line(row))
            count += 1
    echo(f"Exported {count:,} answers.{_left_out(bad)}", err=True)
    return 0


@cache.command("import", short_help="Add the answers of a recording.")
@click.argument("file", type=click.Path(dir_okay=False, allow_dash=True), default="-")
@options("home")
@says_when_stopped(_ADDED_STAY)
def import_(home: str | None, file: str) -> int:
    """Add the answers of FILE (default: stdin), a recording or export; those here stay.

    They then count as given to this installation, and certificates made of them do not say that
    they were imported: take files only from whom you would take certificates.

    Variants that the recorded run gave up are left out: they can be asked again.
    """
    from smoothapi.store.recording import check_row, is_header, parse_line  # noqa: PLC0415
    from smoothapi.store.rows import stored_answer  # noqa: PLC0415

    with _answers(home) as answers, _read(file) as stream:
        adding = _Adding(answers)
        for number, line in enumerate(stream, start=1):
            try:
                row = parse_line(line)
                if row is None or is_header(row) or "gave_up" in row:
                    continue
                check_row(row)
                answer = stored_answer(row)
            except StoreError as error:
                adding.finish()
                raise UsageError(
                    f"Line {number:,} of {file!r} is not a stored answer ({error}). The "
                    f"{adding.added:,} before it were imported."
                ) from error
            if answer is not None:
                adding.add(answer)
        adding.finish()
    echo(f"Imported {adding.added:,} answers; {adding.kept:,} were here already.")
    return 0


@cache.command(short_help="Copy all answers from one home to another.")
@click.argument("source", metavar="FROM")
@click.argument("target", metavar="TO")
@says_when_stopped(_ADDED_STAY)
def copy(source: str, target: str) -> int:
    """Copy the answers of the home FROM to the home TO; those there stay.

    Either is a folder, or postgresql://... . Budgets are not copied. Answers are found again only
    with the noise key that they were bought with: give TO's machines the file of FROM's key, or the
    same SMOOTHAPI_NOISE_KEY_FILE.
    """
    from smoothapi.address import parse_home  # noqa: PLC0415
    from smoothapi.store import open_home  # noqa: PLC0415
    from smoothapi.store.rows import stored_answer  # noqa: PLC0415

    where, to = parse_home(source), parse_home(target)
    if where == to:
        raise UsageError("FROM and TO are the same home: there is nothing to copy.")
    if isinstance(where, Path) and not (where / "answers").is_dir():
        raise UsageError(
            f"There is no home in {source!r}: it holds no answers. Nothing was copied."
        )
    bad = 0
    with closing(open_home(where)) as old, closing(open_home(to)) as new:
        adding = _Adding(new.answers)
        for _, row in old.answers.scan():
            if isinstance(row, StoreError):
                bad += 1
            elif (answer := stored_answer(row)) is not None:
                adding.add(answer)
        adding.finish()
        if new.note("mixes") is None and (mixes := old.note("mixes")) is not None:
            new.keep_note("mixes", mixes)
    echo(f"Copied {adding.added:,} answers; {adding.kept:,} were there already.{_left_out(bad)}")
    return 0


class _Adding:
    """Answers on their way into a store, many in one transaction."""

    def __init__(self, answers: KeptAnswers) -> None:
        self._answers = answers
        self._waiting: list[StoredAnswer] = []
        self.added = self.kept = 0

    def add(self, answer: StoredAnswer) -> None:
        self._waiting.append(answer)
        if len(self._waiting) >= _AT_ONCE:
            self.finish()

    def finish(self) -> None:
        added = self._answers.add(self._waiting)
        self.added += added
        self.kept += len(self._waiting) - added
        self._waiting.clear()


def _left_out(bad: int) -> str:
    return f" {bad:,} cannot be read, and were left out (smoothapi cache verify)." if bad else ""


@cache.command()
@click.option("--yes", is_flag=True, help="Do not ask.")
@options("home")
def clear(home: str | None, yes: bool) -> int:
    """Delete all answers. They were paid for, and cannot be had again for nothing."""
    with _answers(home) as answers:
        if not yes:
            confirm(f"Delete {len(answers):,} paid answers?", abort=True)
        echo(f"Deleted {answers.clear():,} answers.")
    return 0


@contextmanager
def _answers(home: str | None) -> Iterator[KeptAnswers]:
    with opened_home(home) as store:
        yield store.answers


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
