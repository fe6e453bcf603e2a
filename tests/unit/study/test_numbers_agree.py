"""Every number of a study that stands in two places is the same in both."""

from __future__ import annotations

import contextlib
import csv
import html
import io
import json
import re
from dataclasses import replace
from functools import cache

import numpy as np
import pytest

from smoothapi import cli
from smoothapi.cli.study import _show
from smoothapi.study import StudyResult, figures
from smoothapi.study.figures import measure_of
from smoothapi.study.success import Measure, Success
from smoothapi.study.summary import Summary, queries_text, share_text
from tests.unit.study.conftest import synthetic


def one_sigma(result):
    cells = tuple(cell for cell in result.cells if cell.sigma == 0.25)
    return replace(result, sigmas=(0.25,), cells=cells)


@cache
def labelled():
    return synthetic(12, pictures=0)


@cache
def unlabelled():
    return replace(
        labelled(), photos=tuple(replace(photo, truth=()) for photo in labelled().photos)
    )


STUDIES = {
    "labelled": labelled,
    "unlabelled": unlabelled,
    "one sigma": lambda: one_sigma(unlabelled()),
    "several ways": lambda: synthetic(4, denoisers=("default", "none"), pictures=0),
    "other labels": lambda: disagreeing(one_sigma(unlabelled())),
}


def disagreeing(result):
    """Every third certificate is for another label than the plain one."""
    cells = tuple(
        replace(cell, outcomes=tuple(replace(o, agrees=False) if o.certified else o for o in cell.outcomes))
        if number % 3 == 0 else cell
        for number, cell in enumerate(result.cells)
    )  # fmt: skip
    return replace(result, cells=cells)


@pytest.fixture(scope="module", params=STUDIES)
def told(request, tmp_path_factory):
    """A study, the folder of its report, the report's text, and what the terminal says."""
    result = StudyResult.from_json(STUDIES[request.param]().to_json())
    folder = result.report(tmp_path_factory.mktemp("report")).parent
    terminal = io.StringIO()
    with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stdout(terminal):
        patch.setenv("COLUMNS", "300")
        _show(result)
    page = (folder / "report.html").read_text()
    text = html.unescape(re.sub(r"<[^>]+>", " ", page))
    return result, folder, page, " ".join(text.split()), terminal.getvalue()


def cells_of(page, table, key):
    """Return what the cells of a table's row say."""
    part = page[page.index(f'id="{table}"') :]
    row = part[part.index(f'data-key="{html.escape(key)}"') :]
    row = row[: row.index("</tr>")]
    found = re.findall(r"<t[dh][^>]*>(.*?)</t[dh]>", row, flags=re.DOTALL)
    return [" ".join(html.unescape(re.sub(r"<[^>]+>", " ", cell)).split()) for cell in found]


def test_figures_are_those_of_the_photos_in_the_table_beside_them(told):
    result, folder, *_ = told
    with (folder / "photos.csv").open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    saved = json.loads((folder / "figures.json").read_text())
    with (folder / "figures.csv").open(newline="") as stream:
        table = list(csv.DictReader(stream))
    assert [float(row["certified"]) for row in table] == [row["certified"] for row in saved]
    assert [float(row["mean_queries"]) for row in table] == [row["mean_queries"] for row in saved]
    keys = ("provider", "denoiser", "sigma", "radius", "max_votes", "method")
    for figure, row in zip(figures(result), saved, strict=True):
        assert row["agreeing"] == figure.agreeing.share
        assert row["queries_per_success"] == figure.queries_per_success
        if figure.estimated:
            continue
        mine = [r for r in rows if [r[k] for k in keys] == [str(row[k]) for k in keys]]
        assert len(mine) == figure.photos
        counts = {
            name: sum(r[name] == "true" for r in mine)
            for name in ("certified", "agreeing", "right")
        }
        assert figure.certified.share == counts["certified"] / len(mine)
        assert figure.agreeing.share == counts["agreeing"] / len(mine)
        if figure.accuracy is not None:
            assert figure.accuracy.share == counts["right"] / len(mine)
        successes = counts[str(figure.measure)]
        if figure.queries_per_success is not None:
            votes = sum(int(r["votes"]) for r in mine)
            assert figure.queries_per_success == pytest.approx(votes / successes)
            assert figure.queries_per_success * figure.success.share == pytest.approx(
                figure.mean_queries
            )
        assert sum(figure.counts.values()) == counts["certified"]
        assert next(iter(figure.counts.values())) == successes


def test_the_terminal_the_page_and_a_notebook_begin_with_the_same_headline(told):
    result, _, page, text, terminal = told
    summary = Summary.of(result)
    for line in summary.lines:
        assert line in terminal
        assert html.escape(line) in result._repr_html_()
    headline = summary.headline
    shown = re.search(r'data-figure="headline">([^<]*)<', page)
    assert shown.group(1) == share_text(headline.success.share)
    assert f"for {queries_text(headline)} queries each" in text
    assert f"{headline.dollars_per_thousand:,.2f} for 1,000 photos" in text
    others = [n for name, n in headline.counts.items()][1:]
    assert ('data-figure="others"' in page) == any(others)
    if any(others):
        assert summary.lines[1] in text


def test_the_table_of_the_terminal_is_that_of_a_notebook_and_of_all_figures(told):
    result, _, page, _, terminal = told
    cap = result.rules.max_votes[-1]
    notebook = result._repr_html_()
    for figure in figures(result):
        if (figure.max_votes, figure.method) != (cap, "sequential"):
            continue
        per = "none" if figure.queries_per_success is None else f"{figure.queries_per_success:,.0f}"
        band = f"{share_text(figure.success.low)} - {share_text(figure.success.high)}"
        row = rf"{figure.sigma:g} +{figure.radius:g} +{share_text(figure.success.share)} +{band} +~?{figure.mean_queries:,.0f} +{per}\b"
        assert re.search(row, terminal), row
        assert (
            f">{share_text(figure.success.low)} to {share_text(figure.success.high)}<" in notebook
        )
        key = f"{figure.provider}|{figure.denoiser}|{figure.sigma}|{figure.radius}|{cap}|sequential"
        told_there = cells_of(page, "figures", key)
        assert any(cell.startswith(share_text(figure.success.share, 1)) for cell in told_there)
        assert f"{figure.mean_queries:,.0f}" in " ".join(told_there)
        assert ("\N{EN DASH}" if per == "none" else per) in told_there


def test_what_was_chosen_is_said_alike_on_the_page_and_the_terminal(told):
    result, _, page, _, terminal = told
    summary = Summary.of(result)
    for (provider, denoiser, radius), choice in summary.choices.items():
        cells = cells_of(page, "choices", f"{provider}|{denoiser}|{radius}")
        if choice.judged is None or choice.chosen is None:
            continue
        judged = choice.judged
        assert str(judged.sigma) in cells
        assert any(cell.startswith(share_text(judged.success.share)) for cell in cells)
        assert queries_text(judged) in cells
        if summary.calibration:
            said = f"{share_text(judged.success.share)} are {judged.measure.text}, for {queries_text(judged)} queries"
            assert said in terminal
    if not summary.calibration:
        assert "cheapest" not in terminal
        assert "calibration" not in page


def test_one_sigma_of_one_way_has_all_photos_to_judge_it():
    result = one_sigma(labelled())
    summary = Summary.of(result)
    assert summary.calibration == 0
    assert summary.headline.photos == 12
    several = Summary.of(labelled())
    assert several.headline.photos + several.calibration == 12


def test_a_study_is_judged_by_the_strictest_measure_that_can_be_told_of_all():
    whole = labelled()
    assert measure_of(whole) is Measure.RIGHT
    some = replace(whole, photos=(replace(whole.photos[0], truth=()), *whole.photos[1:]))
    assert measure_of(some) is Measure.AGREEING
    cells = tuple(
        replace(cell, outcomes=tuple(replace(o, agrees=None) for o in cell.outcomes))
        for cell in some.cells
    )
    assert measure_of(replace(some, cells=cells)) is Measure.CERTIFIED
    assert all(f.success == f.certified for f in figures(replace(some, cells=cells)))


@pytest.mark.parametrize(
    ("label", "agrees", "truth", "told"),
    [
        ("Bus", True, ("bus", "coach"), (True, True, True)),
        ("Bus", False, ("car",), (True, False, False)),
        ("Bus", None, (), (True, None, None)),
        (None, None, ("bus",), (False, False, False)),
        (None, None, (), (False, False, None)),
    ],
)
def test_certified_agreeing_and_right(label, agrees, truth, told):
    outcome = replace(labelled().cells[0].outcomes[0], label=label, agrees=agrees)
    end = Success.of(outcome, truth)
    assert (end.certified, end.agreeing, end.right) == told


def test_a_hostile_label_is_no_formula_in_the_table_of_photos(tmp_path):
    result = labelled()
    cells = tuple(replace(cell, plain="=HYPERLINK(1)") for cell in result.cells)
    folder = replace(result, cells=cells).report(tmp_path).parent
    with (folder / "photos.csv").open(newline="") as stream:
        assert {row["plain"] for row in csv.DictReader(stream)} == {"'=HYPERLINK(1)"}


def test_a_misspelt_truth_is_told_from_a_class(make, pictures, caplog):
    classes = {"warm": ["red"], "cold": ["green", "blue"]}
    truth = dict(zip(pictures, ["warm", "wrm", "green", "horse", *["cold"] * 8], strict=True))
    options = {"sigmas": 0.12, "radii": 0.05, "max_votes": 40}
    make(pictures, truth=truth, classes=classes, **options).plan()
    said = caplog.text
    assert (
        "'wrm' of 1 photo is none of the classes, so none can be right. Did you mean 'warm'?"
        in said
    )
    assert (
        "'green' of 1 photo is none of the classes, so none can be right. Did you mean 'cold'?"
        in said
    )
    assert "'horse' of 1 photo is none of the classes, so none can be right.\n" in said
    assert "'cold'" not in said.replace("Did you mean 'cold'", "")


def test_a_truth_that_no_answer_ever_was_is_said_after_the_study(make, pictures, caplog):
    truth = {name: "redd" if number == 0 else "red" for number, name in enumerate(pictures)}
    make(pictures, truth=truth, sigmas=0.12, radii=0.05, max_votes=40).run()
    assert (
        "'redd' of 1 photo was in no answer of this study, so none can be right. Did you mean 'red'?"
        in caplog.text
    )
    assert "'red' of" not in caplog.text


class InMemory:
    """A fetcher of two photos in a bucket."""

    def __init__(self, photos):
        self.photos = photos

    def below(self, location):
        from smoothapi.photos import RemoteFile

        for name in self.photos:
            yield RemoteFile(f"{location}{name}")

    def fetch(self, location):
        return self.photos[location.rpartition("/")[2]]


def test_a_study_takes_buckets_and_patterns_as_certify_does(make, pictures, tmp_path):
    from PIL import Image

    files = {}
    for name, pixels in list(pictures.items())[1:3]:
        stream = io.BytesIO()
        Image.fromarray(pixels).save(stream, "PNG")
        files[name] = stream.getvalue()
        (tmp_path / name).write_bytes(stream.getvalue())
    options = {"sigmas": 0.12, "radii": 0.05, "max_votes": 40}
    here = make(str(tmp_path / "*.png"), **options).run()
    there = make("s3://bucket/photos/", fetcher=InMemory(files), **options).run()
    assert there.name == "s3://bucket/photos/"
    assert {photo.name for photo in there.photos} == {f"s3://bucket/photos/{n}" for n in files}
    assert {photo.digest for photo in there.photos} == {photo.digest for photo in here.photos}
    assert there.queries == 0  # the same pictures: what was paid for is used


def test_the_plan_of_the_command_line_calls_certified_what_the_figures_do(capsys):
    assert cli.run(["plan", "--p", "0.999", "--photos", "10", "--radius", "0.1", "--json"]) == 0
    (row,) = json.loads(capsys.readouterr().out)["rows"]
    assert row["certified"] == pytest.approx(1.0, abs=0.01)
    assert row["queries"] >= row["at_least"] > 0
    assert np.isclose(row["per_photo"], row["queries"] / 10)
