"""The code in the documentation is run: Python blocks as they are, `$ smoothapi` lines as commands.

What follows a command is compared with what it prints; `...` stands for anything. Most pages
ask about the same photo, so they share one home: what one page bought, the next finds in the store.
"""

from __future__ import annotations

import contextlib
import doctest
import io
import os
import secrets
import shlex
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from sybil import Sybil
from sybil.parsers.myst import CodeBlockParser, PythonCodeBlockParser, SkipParser

from smoothapi.cli import run

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sybil import Example

_PHOTOS = Path(__file__).parent.parent / "examples" / "photos"
_TUTORIAL = "first_certificate.md"
_NOTHING_BOUGHT = {_TUTORIAL, "keep_a_budget.md"}  # what they say begins with nothing


def _console(example: Example) -> str | None:
    """Run the commands of a console block; return what differs from what it shows."""
    for command, shown in _commands(str(example.parsed)):
        if not command.startswith("smoothapi "):
            continue
        printed = io.StringIO()
        with contextlib.redirect_stdout(printed), contextlib.redirect_stderr(printed):
            code = run(shlex.split(command, comments=True)[1:])
        if code not in (0, 1):
            return f"{command}\nended with {code}:\n{printed.getvalue()}"
        flags = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE
        if shown and not doctest.OutputChecker().check_output(shown, printed.getvalue(), flags):
            return f"{command}\nprinted:\n{printed.getvalue()}\nbut the page shows:\n{shown}"
    return None


def _commands(block: str) -> list[tuple[str, str]]:
    commands: list[tuple[str, str]] = []
    for line in block.splitlines(keepends=True):
        if line.startswith("$ "):
            commands.append((line[2:].strip(), ""))
        elif commands:
            commands[-1] = (commands[-1][0], commands[-1][1] + line)
    return commands


@pytest.fixture(scope="session")
def readers_home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The home that pages share, those of other workers too: its leases let none pay twice."""
    base = tmp_path_factory.getbasetemp()
    return _home(base.parent if "PYTEST_XDIST_WORKER" in os.environ else base)


def _home(folder: Path) -> Path:
    home = folder / "home"
    home.mkdir(exist_ok=True)
    key = home / "noise.key"
    new = folder / f"{secrets.token_hex(8)}.key"
    new.write_bytes(bytes(range(32)))
    new.chmod(0o600)
    new.replace(key)  # at once, for another worker may be reading it
    return home


@pytest.fixture(scope="module")
def reader(
    request: pytest.FixtureRequest,
    tmp_path_factory: pytest.TempPathFactory,
    readers_home: Path,
) -> Iterator[Path]:
    """A reader's folder with a photo in it, and a home."""
    folder = tmp_path_factory.mktemp("reader")
    shutil.copy(_PHOTOS / "school_bus.jpg", folder / "photo.jpg")
    if request.path.name in _NOTHING_BOUGHT:
        _home(folder)
    else:
        (folder / "home").symlink_to(readers_home)
    before, here = dict(os.environ), Path.cwd()
    for name in [name for name in os.environ if name.startswith("SMOOTHAPI_")]:
        del os.environ[name]
    os.environ.update(
        SMOOTHAPI_HOME=str((folder / "home").resolve()),
        COLUMNS="100",
        NO_COLOR="1",
    )
    if request.path.name != _TUTORIAL:  # which shows what a newcomer gets
        os.environ["SMOOTHAPI_DENOISER"] = "small"  # the other would be most of what a vote costs
    os.chdir(folder)
    yield folder
    os.chdir(here)
    os.environ.clear()
    os.environ.update(before)


pytest_collect_file = Sybil(
    parsers=[
        SkipParser(),
        PythonCodeBlockParser(),
        CodeBlockParser(language="console", evaluator=_console),
    ],
    patterns=["*.md"],
    excludes=["_build/*"],
    fixtures=["reader"],
).pytest()
