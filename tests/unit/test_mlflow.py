"""A study as a run of MLflow, through its own client, to a folder."""

from __future__ import annotations

import pytest

from smoothapi import cli
from smoothapi.errors import UsageError
from smoothapi.study import figures
from smoothapi.study.summary import Summary
from tests.unit.study.conftest import synthetic

mlflow = pytest.importorskip("mlflow")

from smoothapi.integrations.mlflow import check, log_study  # noqa: E402  an extra


@pytest.fixture
def tracking(tmp_path, monkeypatch):
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    before = mlflow.get_tracking_uri()
    mlflow.set_tracking_uri((tmp_path / "runs").as_uri())
    yield
    mlflow.set_tracking_uri(before)


def test_a_logged_study_has_the_numbers_of_its_figures_and_its_report(tracking, tmp_path):
    result = synthetic(6, pictures=0)
    (tmp_path / "report").mkdir()
    (tmp_path / "report" / "report.html").write_text("<p>")
    check()
    run = mlflow.get_run(log_study(result, report=tmp_path / "report"))
    metrics = run.data.metrics
    headline = Summary.of(result).headline
    assert metrics["headline/success"] == headline.success.share
    assert metrics["headline/queries_per_success"] == pytest.approx(headline.queries_per_success)
    assert metrics["dollars"] == pytest.approx(result.dollars)
    for figure in figures(result):
        if (figure.max_votes, figure.method) == (200, "sequential"):
            place = f"aws/default/sigma {figure.sigma:g}/radius {figure.radius:g}"
            assert metrics[f"{place}/certified"] == figure.certified.share
            assert metrics[f"{place}/accuracy"] == figure.accuracy.share
            assert metrics[f"{place}/mean_queries"] == pytest.approx(figure.mean_queries)
    assert run.data.params["sigmas"] == "0.12, 0.25"
    assert run.info.status == "FINISHED"
    files = mlflow.artifacts.list_artifacts(run_id=run.info.run_id, artifact_path="report")
    assert [file.path for file in files] == ["report/report.html"]


def test_a_server_that_cannot_be_had_is_said_before_anything_is_sent_without_its_password(
    monkeypatch, tmp_path, capsys
):
    monkeypatch.delenv("MLFLOW_ALLOW_FILE_STORE", raising=False)
    before = mlflow.get_tracking_uri()
    mlflow.set_tracking_uri("ftp://me:hunter2secret@host/")
    try:
        with pytest.raises(UsageError, match="MLFLOW_TRACKING_URI") as raised:
            check()
        assert cli.run(["study", str(tmp_path), "--mlflow"]) == 2
    finally:
        mlflow.set_tracking_uri(before)
    assert "hunter2secret" not in f"{raised.value} {raised.value.__context__ or ''}"
    assert "hunter2secret" not in capsys.readouterr().err
