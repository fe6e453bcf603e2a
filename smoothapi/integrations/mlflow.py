"""A study as a run of MLflow: what was asked, what came of it, and the report as an artifact.

Needs the extra `mlflow` (mlflow-skinny: the client alone). Where runs go is MLflow's to say:
MLFLOW_TRACKING_URI, MLFLOW_EXPERIMENT_NAME, or what the caller set.
"""

from __future__ import annotations

import os
import re
import tempfile
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

try:
    import mlflow
except ImportError as error:
    from smoothapi.errors import MissingExtraError

    raise MissingExtraError(
        "MLflow needs another package: pip install 'smoothapi-vision[mlflow]'."
    ) from error

from smoothapi.certify.certificate import rounded_down
from smoothapi.errors import UsageError
from smoothapi.provider.mask import Mask
from smoothapi.study.figures import figures
from smoothapi.study.summary import Summary
from smoothapi.text import printable, shortened

if TYPE_CHECKING:
    from pathlib import Path

    from smoothapi.study import Figure, StudyResult

_LONGEST_PARAM = 500  # characters; some servers keep no more
_NOT_IN_A_NAME = re.compile(r"[^\w\-. /]")  # of a metric


def check() -> None:
    """Fail before a study is paid for if its run could not be begun.

    Raises:
        UsageError: the tracking server cannot be reached, or refuses.
    """
    failed = None
    try:
        mlflow.search_experiments(max_results=1)
    except (mlflow.exceptions.MlflowException, OSError) as error:
        failed = _failed(error)
    if failed is not None:
        raise failed  # here: what MLflow raised, which may know a password, is not chained


def log_study(result: StudyResult, *, report: str | Path | None = None) -> str:
    """Log a study as one run of MLflow, in the experiment that is active.

    Parameters are what was asked. Metrics are, of the sequential test at the largest cap, for each
    way, sigma and radius, the shares that the report has, under the names that
    `smoothapi.study.Figure` has; and `headline/...`, what the report begins with. Artifacts are the
    report and its files.

    Args:
        result: the study.
        report: the folder of a report that is written already; by default one is made for it.

    Returns:
        The id of MLflow's run.

    Raises:
        MissingExtraError: the report needs the extra `report`.
        UsageError: the tracking server cannot be reached, or refuses.
    """
    failed = None
    try:
        return _logged(result, report)
    except (mlflow.exceptions.MlflowException, OSError) as error:
        failed = _failed(error)
    raise failed


def _logged(result: StudyResult, report: str | Path | None) -> str:
    with mlflow.start_run(run_name=printable(result.name)) as run:
        mlflow.log_params(_params(result))
        mlflow.log_metrics(_metrics(result))
        mlflow.set_tags({"smoothapi.study": result.created, "smoothapi.stopped": result.stopped})
        if report is not None:
            mlflow.log_artifacts(str(report), "report")
        else:
            with tempfile.TemporaryDirectory() as folder:
                mlflow.log_artifacts(str(result.report(folder).parent), "report")
        return str(run.info.run_id)


def _params(result: StudyResult) -> dict[str, str]:
    rules = result.rules
    told: dict[str, Any] = {
        "providers": ", ".join(facts.name for facts in result.providers),
        "denoisers": ", ".join(f"{d.name} {d.fingerprint}" for d in result.denoisers),
        "sigmas": ", ".join(f"{sigma:g}" for sigma in result.sigmas),
        "radii": ", ".join(f"{radius:g}" for radius in rules.radii),
        "max_votes": ", ".join(map(str, rules.max_votes)),
        "alpha": rules.alpha,
        "target": result.target.get("target"),
        "size": result.size,
        "codec": result.codec,
        "photos": len(result.photos),
        "command": result.command,
        **{f"version.{name}": version for name, version in result.versions.items()},
    }
    return {name: printable(str(value))[:_LONGEST_PARAM] for name, value in told.items()}


def _metrics(result: StudyResult) -> dict[str, float]:
    cap = result.rules.max_votes[-1]
    found = {
        "queries": float(result.queries),
        "dollars": result.dollars,
        "seconds": result.seconds,
        "left_out": float(result.left_out),
    }
    for figure in figures(result):
        if (figure.max_votes, figure.method) == (cap, "sequential"):
            place = (
                f"{figure.provider}/{figure.denoiser}/sigma {figure.sigma:g}/"
                f"radius {rounded_down(figure.radius)}"
            )
            found |= {f"{_NOT_IN_A_NAME.sub('_', place)}/{n}": v for n, v in _of(figure).items()}
    headline = Summary.of(result).headline
    if headline is not None:
        found |= {f"headline/{name}": value for name, value in _of(headline).items()}
    return found


def _of(figure: Figure) -> dict[str, float]:
    row = figure.to_row()
    names = (
        "certified", "agreeing", "accuracy", "mean_queries", "queries_per_success",
        "dollars_per_success", "dollars_per_thousand",
    )  # fmt: skip
    told = {name: float(row[name]) for name in names if row[name] is not None}
    return {**told, "success": figure.success.share}


def _failed(error: Exception) -> UsageError:
    said = Mask(_secrets()).text(printable(str(error)))
    return UsageError(
        f"MLflow cannot keep the run: {shortened(said, 400)[1:-1]}. Look whether "
        "MLFLOW_TRACKING_URI is right and its server can be reached. The study itself is kept."
    )


def _secrets() -> list[str | None]:
    """Return what MLflow was told to sign in with."""
    address = urlsplit(mlflow.get_tracking_uri())
    named = ("MLFLOW_TRACKING_PASSWORD", "MLFLOW_TRACKING_TOKEN", "DATABRICKS_TOKEN")
    return [address.password, address.query, *map(os.environ.get, named)]
