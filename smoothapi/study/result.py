"""The result of a study, which can be written as a report."""

from __future__ import annotations

from pathlib import Path

from smoothapi.study.findings import Findings


class StudyResult(Findings):
    """What a study found: `Findings`, and the report of it."""

    def report(self, folder: str | Path) -> Path:
        """Write report.html with result.json, figures.csv, figures.json and photos.csv beside it.

        Returns:
            The path of report.html.

        Raises:
            MissingExtraError: jinja2 or matplotlib is not installed (extra "report").
            UsageError: the folder cannot be written.
        """
        from smoothapi.study.report import write_report  # noqa: PLC0415  needs the extra

        return write_report(self, Path(folder))
