"""Nothing unprintable reaches a terminal or a file for people, whatever came from outside."""

from __future__ import annotations

import io
import json
import logging
import os
import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from rich.table import Table

import smoothapi
from smoothapi import Certificate, Smoother, errors, parts
from smoothapi.answer import Answer, Label
from smoothapi.cli import _Printable
from smoothapi.cli.console import PrintableConsole
from smoothapi.cli.terminal import echo_facts, echo_styled
from smoothapi.errors import FatalError, PermanentError, ProviderError
from smoothapi.text import printable, printable_lines
from tests.conftest import ScriptedAdapter, invoke

KINDS = {
    "C0": "\x1b[31m\x07\x08\r\x00",
    "DEL and C1": "\x7f\x9b31m\x85\x9d",
    "direction": "\u202a\u202e\u2066\u2069\u200e\u200f\u061c",
    "no width": "\u200b\u200c\u200d\u2060\ufeff\u00ad",
    "separators": "\u2028\u2029",
    "tags": "\U000e0001\U000e0041\U000e007f",
    "surrogates": "\udcff\ud800",
    "private and unassigned": "\ue000\U0010ffff",
}
ALL = "".join(KINDS.values())
FILE = "".join(
    c for c in ALL if c != "\0" and not "\ud800" <= c <= "\udfff"
)  # as file systems take


def unprintable(text):
    return sorted({c for c in text if not c.isprintable() and c != "\n"})


@pytest.fixture
def photo():
    name = f"photo{FILE}.png"
    picture = np.random.default_rng(0).integers(0, 256, (24, 32, 3), dtype=np.uint8)
    Image.fromarray(picture).save(name)
    return name


@pytest.fixture(autouse=True)
def adapter(monkeypatch):
    """One whose labels, parents, version and ids hold all that they should not."""
    answer = Answer((Label(f"bus{ALL}", 0.9, (f"car{ALL}",)),), f"v1{ALL}", f"id{ALL}")
    adapter = ScriptedAdapter(lambda payload, attempt: answer)
    adapter.identity = {"operation": f"label{FILE}"}
    monkeypatch.setenv("SMOOTHAPI_DENOISER", "none")
    monkeypatch.setattr(parts, "make_adapter", lambda name, **_: adapter)
    monkeypatch.setattr("smoothapi.provider.make_adapter", lambda name, **_: adapter)
    return adapter


COMMANDS = {
    "certify": ["certify", "PHOTO"],
    "certify, abstaining": ["certify", "PHOTO", "--max-votes", "1000", "--radius", "0.4"],
    "certify, a target": ["certify", "PHOTO", "--target", f"present:bus{FILE}:0.5"],
    "predict": ["predict", "PHOTO"],
    "dry run": ["certify", "PHOTO", "--dry-run"],
    "no such photo": ["certify", f"missing{FILE}.png"],
    "plan": ["plan", "."],
    "study": ["study", ".", "--sigma", "0.25", "--out", f"out{FILE}", "--max-votes", "20"],
    "study plan": ["study", ".", "--dry-run"],
    "runs": ["runs"],
    "budget": ["budget"],
    "reset of a budget": ["budget", "reset", f"name{FILE}"],
    "cache": ["cache", "info"],
    "cache verify": ["cache", "verify"],
    "cache, another home": ["cache", "--home", f"home{FILE}", "info"],
    "cache import": ["cache", "import", f"missing{FILE}"],
    "cache export": ["cache", "export"],
    "config": ["config"],
    "providers": ["providers"],
    "provider check": ["providers", "check", "mock", "--yes"],
    "verify": ["verify", "certificate.json"],
    "verify, no file": ["verify", f"missing{FILE}"],
    "no such command": [f"certfy{FILE}"],
    "no such option": ["certify", f"--option{FILE}", "x"],
    "no such value": ["certify", "PHOTO", "--codec", f"png{FILE}"],
    "no such target": ["certify", "PHOTO", "--target", f"top{FILE}"],
    "no such provider": ["emulate", f"aws{FILE}"],
    "help": ["certify", "--help"],
    "denoiser": ["denoiser", "convert", f"missing{FILE}", f"out{FILE}"],
}
NO_JSON = ("reset of a budget", "cache verify", "cache import", "cache export", "help", "denoiser",
           "no such provider", "no such command", "runs")  # fmt: skip


@pytest.mark.timeout(120)
@pytest.mark.parametrize("as_json", [False, True])
@pytest.mark.parametrize("name", COMMANDS)
def test_no_command_prints_it(name, as_json, photo, monkeypatch):
    if as_json and name in NO_JSON:
        pytest.skip("has no --json, or nothing to say")
    Path("smoothapi.toml").write_text(_toml(name))
    if name != "config":  # which shows what is not trusted, too
        monkeypatch.setenv("SMOOTHAPI_CONFIG", str(Path("smoothapi.toml").absolute()))
    arguments = [photo if part == "PHOTO" else part for part in COMMANDS[name]]
    if name == "verify":
        with Smoother("mock", denoiser="none") as smoother:
            Path("certificate.json").write_text(smoother.certify(photo).to_json())
    result = invoke(*arguments, *(["--json"] if as_json else []))
    assert result.exit_code != 70, result.stderr
    assert not isinstance(result.exception, Exception) or isinstance(result.exception, SystemExit)
    assert result.output
    assert not unprintable(result.stdout), name
    assert not unprintable(result.stderr), name
    if as_json:
        assert result.stdout.isascii()


def _toml(name):
    """Return settings with hostile values, escaped as TOML has it."""
    hostile = "".join(f"\\U{ord(c):08x}" for c in FILE)
    lines = [f'record = "record{hostile}.jsonl"', 'budget = "100000/month"']
    if name == "config":
        lines += [f'device = "{hostile}"', f'provider = "mock{hostile}"', f'home = "h{hostile}"']
    lines += ["[providers.aws]", f'profile = "{hostile}"', f'"na{hostile}me" = "x"']
    return "\n".join(lines)


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_is_replaced(kind):
    shown = printable(KINDS[kind])
    assert shown.isprintable()
    assert len(shown) == len(KINDS[kind])
    assert printable_lines(f"a{KINDS[kind]}\nb") == f"a{printable(KINDS[kind])}\nb"
    assert json.dumps(KINDS[kind]).isprintable()


@pytest.mark.parametrize("text", ["Bär", "校车", "🚌", "школьный автобус", "حافلة", "a b"])
def test_the_words_of_people_stay(text):
    assert printable(text) == text


@pytest.mark.parametrize(
    "kind",
    [
        kind
        for kind in vars(errors).values()
        if isinstance(kind, type) and issubclass(kind, errors.SmoothAPIError)
    ],
)
def test_an_errors_message_is_printable(kind):
    """A traceback prints it."""
    error = kind(f"The file a{ALL}b\ncannot be read.")
    assert not unprintable(str(error))
    assert "cannot be read" in str(error)
    assert error.args == (str(error),)


def test_a_certificate_and_a_study_are_ascii_and_come_back(photo):
    with Smoother("mock", denoiser="none") as smoother:
        certificate = smoother.certify(photo)
    assert certificate.label == f"bus{ALL}"
    text = certificate.to_json(indent=1)
    assert text.isascii()
    assert not unprintable(text)
    assert Certificate.from_json(text) == certificate
    for shown in (str(certificate), repr(certificate), certificate._repr_html_()):
        assert not unprintable(shown)


def test_a_report_holds_none_of_it(photo):
    assert (
        invoke("study", ".", "--sigma", "0.25", "--out", "out", "--max-votes", "20").exit_code == 0
    )
    for name in ("result.json", "report.html", "figures.json"):
        text = Path("out", name).read_text(encoding="utf-8")
        assert not unprintable(text.replace("\t", "")), name


def test_progress_and_tables_are_printable():
    stream = io.StringIO()
    console = PrintableConsole(file=stream, force_terminal=True, width=400)
    table = Table(title=ALL)
    table.add_column(ALL)
    table.add_row(f"{ALL}\nsecond line")
    console.print(table, f"[bold]x[/bold]{ALL}")
    text = re.sub(r"\x1b\[[\d;]*m", "", stream.getvalue())
    assert "second line" in text
    assert not unprintable(text)


FACTS = {
    "words": ("one two three four five six", ["one two three four", "five six"]),
    "a long word": ("a " + "x" * 45, ["a", "x" * 20, "x" * 20, "x" * 5]),
    "wide": ("校车" * 6, ["校车" * 5, "校车"]),
    "accents take no room": ("e\u0301" * 20 + " f", ["e\u0301" * 20, "f"]),
    "lines": ("one\n\ntwo", ["one", "", "two"]),
    "nothing": ("", [""]),
}


@pytest.mark.parametrize("kind", FACTS)
def test_facts_keep_to_the_width_of_the_terminal(kind, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "28")
    text, lines = FACTS[kind]
    echo_facts([("name", ""), ("  name", text)])
    first, *rest = [line.rstrip(" ") for line in capsys.readouterr().out.splitlines()]
    assert first == "name"
    begun = ["  name  ", *[" " * 8] * (len(lines) - 1)]
    assert rest == [(b + line).rstrip(" ") for b, line in zip(begun, lines, strict=True)]


@pytest.mark.parametrize("kind", KINDS)
def test_facts_and_styled_lines_are_printable(kind, capsys, monkeypatch):
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.delenv("NO_COLOR", raising=False)
    echo_facts([(KINDS[kind], f"a{KINDS[kind]}")])
    echo_styled((KINDS[kind], {"bold": True}))
    out = capsys.readouterr().out
    assert "\x1b[1m" in out
    assert not unprintable(re.sub(r"\x1b\[\d+m", "", out))


@pytest.mark.parametrize(
    ("variables", "coloured"),
    [
        ({}, False),
        ({"FORCE_COLOR": "1"}, True),
        ({"FORCE_COLOR": "1", "NO_COLOR": "1"}, False),
        ({"FORCE_COLOR": "1", "TERM": "dumb"}, False),
    ],
    ids=["a file", "forced", "forbidden", "a dumb terminal"],
)
def test_colours_are_for_terminals_and_for_whoever_asks(variables, coloured, capsys, monkeypatch):
    for name in ("FORCE_COLOR", "NO_COLOR", "TERM"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    echo_styled(("bus", {"fg": "green"}))
    assert capsys.readouterr().out == ("\x1b[32mbus\x1b[0m\n" if coloured else "bus\n")


def test_what_is_logged_to_a_terminal_is_printable():
    record = logging.makeLogRecord(
        {"msg": f"a{ALL}\nb", "exc_info": (ValueError, ValueError(ALL), None)}
    )
    assert not unprintable(_Printable("smoothapi: %(message)s").format(record))


@pytest.mark.parametrize("kind", [FatalError, PermanentError])
def test_a_providers_words_are_printable_too(kind, photo, adapter):
    adapter._script = lambda payload, attempt: kind(f"no{ALL}", request_id=f"id{ALL}")
    for more in ([], ["--json"]):
        result = invoke("certify", photo, *more)
        assert result.exit_code == ProviderError.exit_code
        assert not unprintable(result.output)


def test_the_commands_print_in_one_way():
    """Past `terminal` and `console` nothing is printed, and JSON is always escaped."""
    folder = Path(smoothapi.__file__).parent
    for path in folder.rglob("*.py"):
        text = path.read_text()
        assert "ensure_ascii=False" not in text, path
        if path.parent.name == "cli" and path.name not in ("terminal.py", "console.py"):
            assert not re.search(
                r"click\.(echo|secho|confirm|prompt)\(|\bprint\(|(?<!e)Console\(",
                re.sub(r"\.print\(", "", text),
            ), path


def test_a_variable_that_sets_nothing_is_named_printably(monkeypatch, caplog):
    monkeypatch.setitem(os.environ, f"SMOOTHAPI_X{FILE}", "1")
    invoke("config")
    assert "sets nothing" in caplog.text
    assert not unprintable(caplog.records[0].getMessage())


def test_usage_errors_of_the_library_are_printable():
    with pytest.raises(errors.DenoiserError) as caught:
        Smoother("mock", denoiser=f"missing{FILE}").__enter__()
    assert not unprintable(str(caught.value))
