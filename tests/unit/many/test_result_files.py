"""`certify --out`: what is written, and that the same command continues it."""

from __future__ import annotations

import csv
import json
import threading
from itertools import count
from pathlib import Path

import pytest
from pyarrow import parquet

from smoothapi import each_photo, parts
from smoothapi.certify import Certificate
from smoothapi.cli import run
from smoothapi.errors import UsageError
from smoothapi.files import csv_cell
from smoothapi.many.files import ResultFile
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


def unsure(payload, _):
    return answer("bus" if payload[-13] % 2 else "van")


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


@pytest.mark.parametrize("kind", KINDS)
def test_a_photo_that_changed_is_asked_about_again_and_its_old_row_goes(
    kind, folder, provider, capsys
):
    (folder / "broken.jpg").unlink()
    out = Path(f"results.{kind}")
    assert run(["certify", str(folder), "--out", str(out)]) == 0
    before = {row["photo"]: row["digest"] for row in rows_of(out)}
    save(folder / "a.png", 99)
    assert run(["certify", str(folder), "--out", str(out)]) == 0
    assert "4 photos: 4 certified, 0 abstained, 0 failed. 3 were in" in capsys.readouterr().out
    after = {row["photo"]: row["digest"] for row in rows_of(out)}
    assert len(rows_of(out)) == len(after) == 4
    assert [name for name in after if after[name] != before[name]] == [str(folder / "a.png")]


def test_what_was_killed_before_an_old_row_went_is_mended_when_it_goes_on(folder, provider):
    (folder / "broken.jpg").unlink()
    out = Path("results.jsonl")
    run(["certify", str(folder), "--out", str(out)])
    old = out.read_text()
    save(folder / "a.png", 99)
    run(["certify", str(folder), "--out", str(out)])
    new = [row for row in rows_of(out) if row["photo"].endswith("/a.png")]
    out.write_text(old + json.dumps(new[0]) + "\n")
    sent = provider.sent
    assert run(["certify", str(folder), "--out", str(out)]) == 0
    assert provider.sent == sent
    assert [row for row in rows_of(out) if row["photo"].endswith("/a.png")] == new
    assert len(rows_of(out)) == 4


def test_rows_of_photos_that_a_command_does_not_name_stay_and_do_not_count(
    folder, provider, capsys
):
    out = Path("results.jsonl")
    provider._script = unsure
    assert run(["certify", str(folder / "a.png"), "--out", str(out)]) == 1
    provider._script = lambda *_: answer()
    capsys.readouterr()
    assert run(["certify", str(folder / "b.png"), "--out", str(out)]) == 0
    assert "1 photo: 1 certified, 0 abstained, 0 failed." in capsys.readouterr().out
    assert [row["outcome"] for row in rows_of(out)] == ["abstained", "certified"]


@pytest.mark.parametrize("command", ["certify", "predict"])
def test_results_of_other_classes_are_of_other_settings(command, folder, provider, capsys):
    for name in ("vehicle", "coach"):
        Path(f"{name}.json").write_text(json.dumps({name: ["bus"]}))
    given = [command, str(folder / "a.png"), "--out", "r.jsonl", "--classes"]
    assert run([*given, "vehicle.json"]) == 0
    assert run([*given, "coach.json"]) == 2
    assert "other settings" in capsys.readouterr().err
    assert [row["label"] for row in rows_of(Path("r.jsonl"))] == ["vehicle"]
    assert run([*given, "vehicle.json"]) == 0


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("radius", "accepted", "code"), [("0.05", "9 native", 1), ("0.3", "0.04", 0)]
)
def test_what_accept_radius_said_is_said_again_by_the_same_command(
    kind, radius, accepted, code, folder, provider, capsys
):
    if not code:  # abstained on, and yet enough
        asked = count()
        provider._script = lambda *_: answer("van" if next(asked) % 10 == 9 else "bus")
    command = ["certify", str(folder / "a.png"), "--radius", radius, "--out", f"r.{kind}"]
    accepting = [*command, "--accept-radius", accepted]
    assert [run(accepting) for _ in range(2)] == [code, code]
    assert capsys.readouterr().err.count("certified, but not") == 2 * code
    assert {row["outcome"] for row in rows_of(Path(f"r.{kind}"))} == {
        "certified" if code else "abstained"
    }
    assert run(command) == 2
    assert "other settings" in capsys.readouterr().err


@pytest.mark.parametrize("kind", KINDS)
def test_a_second_command_may_not_write_to_the_same_file(kind, folder, provider, capsys):
    out = Path(f"r.{kind}")
    with ResultFile(out, "s"):
        Path("link").symlink_to(".")
        assert run(["certify", str(folder), "--out", f"link/{out}"]) == 2
        assert "Another command is writing" in capsys.readouterr().err
        assert provider.sent == 0
    with ResultFile(out, "s"):
        pass
    assert sorted(path.name for path in Path().iterdir() if "r." in path.name) == [out.name]


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("r.jsonl", '{"name": "half a li'),
        ("r.jsonl", '{"name": "a line"}'),
        ("r.jsonl", "{"),
        ("r.jsonl", '{"schema": "smoothapi.result/1"}'),
        ("r.csv", "a,b"),
        ("r.csv", ",".join([*COLUMNS, "settings", "stamp", "accepted"]) + "\r\nx,y\r\nz\r\n"),
    ],
)
def test_a_file_that_is_not_ours_is_left_as_it_is(name, content, folder, provider, capsys):
    Path(name).write_text(content, newline="")
    assert run(["certify", str(folder), "--out", name]) == 2
    assert "other settings (or something else)" in capsys.readouterr().err
    assert Path(name).read_bytes() == content.encode()
    assert provider.sent == 0


def test_an_empty_file_is_begun(folder, provider):
    for name in ("r.jsonl", "r.csv"):
        Path(name).touch()
        assert run(["certify", str(folder / "a.png"), "--out", name]) == 0
        assert len(rows_of(Path(name))) == 1


def test_finished_results_are_kept_at_once_though_an_earlier_photo_has_not_ended(folder, provider):
    """As a kill would find them: the first photo waits until the others are in the file."""
    (folder / "broken.jpg").unlink()
    out, seen = Path("r.jsonl"), []
    done = threading.Event()
    real = ResultFile.write

    def write(self, result, **more):
        real(self, result, **more)
        seen.append(result.index)
        done.set()

    load = each_photo.load_image

    def wait(source, **more):
        if str(source).endswith("a.png"):
            assert done.wait(60.0)
        return load(source, **more)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ResultFile, "write", write)
        patch.setattr(each_photo, "load_image", wait)
        assert run(["certify", str(folder), "--out", str(out)]) == 0
    assert seen[0] != 0
    assert len(rows_of(out)) == 4


def test_refresh_asks_anew_what_the_file_has(folder, provider):
    out = Path("r.jsonl")
    command = ["certify", str(folder / "a.png"), "--out", str(out)]
    assert run(command) == 0
    sent = provider.sent
    assert run([*command, "--refresh"]) == 0
    assert provider.sent >= 2 * sent
    assert [row["certificate"]["refreshes"] for row in rows_of(out)] == [1]


def test_lines_hold_certificates_that_verify(folder, provider, capsys):
    run(["certify", str(folder), "--out", "results.jsonl"])
    row = next(row for row in rows_of(Path("results.jsonl")) if row["outcome"] == "certified")
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
    assert csv_cell(label) == f"'{label}"
    assert csv_cell(-1.5) == "-1.5"


@pytest.mark.parametrize("name", ["=1+1.png", "'=1.png", "''+1.png", "-1.png"])
def test_no_name_is_a_formula_when_the_command_goes_on_either(name, folder, provider):
    provider._script = lambda *_: answer("=bus")
    save(Path(name), 1)
    command = ["certify", f"--out={Path('r.csv').resolve()}", "--", name]
    assert run(command) == 0
    before, sent = Path("r.csv").read_bytes(), provider.sent
    assert run(command) == 0
    assert (Path("r.csv").read_bytes(), provider.sent) == (before, sent)
    row = rows_of(Path("r.csv"))[0]
    assert (row["photo"], row["label"]) == (f"'{name}", "'=bus")


def changed(**more):
    return lambda text: json.dumps({**json.loads(text), **more})


@pytest.mark.parametrize(
    ("change", "code", "said"),
    [
        (changed(label="van"), 6, "in label"),
        (changed(photo="photos/b.png"), 6, "in photo"),
        (changed(radius=0.9), 6, "in radius"),
        (changed(outcome="failed"), 6, "in outcome"),
        (changed(certificate=None), 5, "not a certificate"),
        (lambda text: text.replace('"label": ', '"label": "van", "label": ', 1), 5, "twice"),
        (lambda text: text.replace('"radius": 0.1', '"radius": NaN', 1), 5, "NaN"),
        (lambda text: text[:500] + "\n" + text, 5, "not valid JSON"),
    ],
)
def test_a_row_is_held_against_its_certificate(change, code, said, folder, provider, capsys):
    run(["certify", str(folder / "a.png"), str(folder / "b.png"), "--out", "r.jsonl"])
    first, second = Path("r.jsonl").read_text().splitlines()
    if json.loads(first)["photo"].endswith("b.png"):
        first, second = second, first
    Path("r.jsonl").write_text(f"{change(first)}\n{second}\n")
    capsys.readouterr()
    assert run(["verify", "r.jsonl"]) == code
    told = capsys.readouterr()
    assert said in told.err
    assert "Verified" in told.out  # the other one is checked all the same


@pytest.mark.parametrize("cut", [5, 40, 2000])
def test_a_last_row_that_was_cut_off_hides_no_other(cut, folder, provider, capsys):
    run(["certify", str(folder / "a.png"), str(folder / "b.png"), "--out", "r.jsonl"])
    first, second = Path("r.jsonl").read_text().splitlines()
    Path("r.jsonl").write_text(f"{first}\n{second[:cut]}")
    capsys.readouterr()
    assert run(["verify", "r.jsonl"]) == 0
    assert capsys.readouterr().out.count("Verified") == 1
    sent = provider.sent
    assert run(["certify", str(folder), "--out", "r.jsonl"]) == 2  # the broken one
    assert provider.sent > sent
    assert len(rows_of(Path("r.jsonl"))) == 5


def test_results_without_a_certificate_are_nothing_to_verify(folder, provider, capsys):
    run(["certify", str(folder / "broken.jpg"), "--out", "r.jsonl"])
    assert run(["verify", "r.jsonl"]) == 5
    assert "no certificate in them" in capsys.readouterr().err


def test_an_abstention_exits_with_1_also_when_it_was_in_the_file(folder, provider):
    (folder / "broken.jpg").unlink()
    provider._script = unsure
    for _ in range(2):
        assert run(["certify", str(folder), "--out", "results.jsonl"]) == 1


def test_columns_are_those_that_are_documented(tmp_path):
    with ResultFile(tmp_path / "r.csv", "s"):
        pass
    header = (tmp_path / "r.csv").read_text().strip().split(",")
    assert header == [*COLUMNS, "settings", "stamp", "accepted"]
    with pytest.raises(UsageError):
        ResultFile(tmp_path / "r.txt", "s")
