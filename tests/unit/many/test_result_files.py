"""`certify --out`: what is written, and that the same command continues it."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest
from pyarrow import parquet

from smoothapi import parts
from smoothapi.certify import Certificate
from smoothapi.cli import run
from smoothapi.errors import UsageError
from smoothapi.many.files import ResultFile, _cell
from smoothapi.many.results import COLUMNS
from tests.conftest import ScriptedAdapter, answer
from tests.unit.many.conftest import save

KINDS = ("jsonl", "csv", "parquet")


@pytest.fixture
def provider(monkeypatch):
    monkeypatch.setenv("SMOOTHAPI_DENOISER", "none")
    monkeypatch.setenv("SMOOTHAPI_RADIUS", "0.1")
    adapter = ScriptedAdapter(None)
    monkeypatch.setattr(parts, "make_adapter", lambda name, **_: adapter)
    return adapter


def rows_of(path):
    if path.suffix == ".jsonl":
        return [json.loads(line) for line in path.read_text().splitlines()]
    if path.suffix == ".csv":
        with path.open(newline="") as stream:
            return list(csv.DictReader(stream))
    return parquet.read_table(path).to_pylist()


@pytest.mark.parametrize("kind", KINDS)
def test_results_are_written_and_the_same_command_continues(kind, folder, provider, capsys):
    out = Path(f"results.{kind}")
    assert run(["certify", str(folder), "--out", str(out)]) == 2  # a broken one among them
    said = capsys.readouterr()
    assert "5 photos: 4 certified, 0 abstained, 1 failed." in said.out
    assert "broken.jpg" in said.err
    rows = rows_of(out)
    assert [row["outcome"] for row in rows].count("certified") == 4
    sent = provider.sent
    (folder / "broken.jpg").unlink()
    save(folder / "broken.jpg.png", 7)
    assert run(["certify", str(folder), "--out", str(out)]) == 0
    assert "5 photos: 5 certified, 0 abstained, 0 failed. 4 were in the file." in (
        capsys.readouterr().out
    )
    after = rows_of(out)
    assert [row["photo"] for row in after][:4] == [
        row["photo"] for row in rows if row["outcome"] == "certified"
    ]
    assert after[:4] == [row for row in rows if row["outcome"] == "certified"]
    assert provider.sent > sent
    assert not list(out.resolve().parent.glob("*.partial"))


def test_a_photo_that_changed_is_asked_about_again(folder, provider):
    (folder / "broken.jpg").unlink()
    out = Path("results.jsonl")
    assert run(["certify", str(folder), "--out", str(out)]) == 0
    save(folder / "a.png", 99)
    assert run(["certify", str(folder), "--out", str(out)]) == 0
    rows = [row for row in rows_of(out) if row["photo"].endswith("/a.png")]
    assert len({row["digest"] for row in rows}) == len(rows) == 2


def test_lines_hold_certificates_that_verify(folder, provider, capsys):
    run(["certify", str(folder), "--out", "results.jsonl"])
    row = rows_of(Path("results.jsonl"))[0]
    assert Certificate.from_dict(row["certificate"]).label == row["label"] == "bus"
    capsys.readouterr()
    assert run(["verify", "results.jsonl"]) == 0
    assert capsys.readouterr().out.count("Verified") == 4


@pytest.mark.parametrize("kind", KINDS)
def test_a_file_of_other_settings_or_of_something_else_is_left_alone(
    kind, folder, provider, capsys
):
    out = Path(f"results.{kind}")
    run(["certify", str(folder), "--out", str(out)])
    before, sent = out.read_bytes(), provider.sent
    assert run(["certify", str(folder), "--out", str(out), "--radius", "0.05"]) == 2
    assert "other settings" in capsys.readouterr().err
    out.write_bytes(b"a letter\n")
    assert run(["certify", str(folder), "--out", str(out)]) == 2
    assert out.read_bytes() == b"a letter\n" != before
    assert provider.sent == sent


@pytest.mark.parametrize("kind", ["jsonl", "csv"])
def test_half_a_row_at_the_end_is_dropped(kind, folder, provider):
    (folder / "broken.jpg").unlink()
    out = Path(f"results.{kind}")
    run(["certify", str(folder), "--out", str(out)])
    whole = rows_of(out)
    out.write_bytes(out.read_bytes()[:-40])  # as a kill leaves it
    assert run(["certify", str(folder), "--out", str(out)]) == 0
    same = [{**row, "cached": 0, "queries": 0, "attempts": 0, "cost": 0, "seconds": 0,
             "certificate": 0} for row in (*whole, *rows_of(out))]  # fmt: skip
    assert same[: len(whole)] == same[len(whole) :]


def test_another_suffix_is_refused_before_anything_is_paid(folder, provider, capsys):
    assert run(["certify", str(folder), "--out", "results.xlsx"]) == 2
    assert ".jsonl, .csv, .parquet" in capsys.readouterr().err
    assert provider.sent == 0


@pytest.mark.parametrize("label", ["=1+1", "+x", "-x", "@x", "\tx"])
def test_no_label_is_a_formula_to_a_spreadsheet(label):
    assert _cell(label) == f"'{label}"
    assert _cell(-1.5) == "-1.5"


def test_an_abstention_exits_with_1_also_when_it_was_in_the_file(folder, provider):
    (folder / "broken.jpg").unlink()
    provider._script = lambda payload, _: answer("bus" if payload[-13] % 2 else "van")
    for _ in range(2):
        assert run(["certify", str(folder), "--out", "results.jsonl"]) == 1


def test_columns_are_those_that_are_documented(tmp_path):
    with ResultFile(tmp_path / "r.csv", "s"):
        pass
    header = (tmp_path / "r.csv").read_text().strip().split(",")
    assert header == [*COLUMNS, "settings", "stamp"]
    with pytest.raises(UsageError):
        ResultFile(tmp_path / "r.txt", "s")
