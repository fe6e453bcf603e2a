"""The result of a study, which can be written as a report."""

from __future__ import annotations

from pathlib import Path

from smoothapi import notebook
from smoothapi.certify.certificate import rounded_down
from smoothapi.study.figures import figures, measures_of
from smoothapi.study.findings import Findings
from smoothapi.study.summary import Summary, queries_text, share_text


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

    def _repr_html_(self) -> str:
        """Return, for notebooks, what the study comes to and its figures at the largest cap."""
        summary = Summary.of(self)
        measure, *others = measures_of(self)
        several = len(self.providers) * len(self.denoisers) > 1
        names = ("provider", "denoiser") if several else ()
        header = (
            *names, "sigma", "radius", measure.heading, "95% band", "queries", "per success",
            *(other.heading for other in others),
        )  # fmt: skip
        rows = [
            (
                *((figure.provider, figure.denoiser) if several else ()),
                f"{figure.sigma:g}",
                rounded_down(figure.radius),
                share_text(figure.success.share),
                f"{share_text(figure.success.low)} to {share_text(figure.success.high)}",
                queries_text(figure),
                "none" if (per := figure.queries_per_success) is None else f"{per:,.0f}",
                *(share_text(None if (b := figure.share(m)) is None else b.share) for m in others),
            )
            for figure in figures(self)
            if (figure.max_votes, figure.method) == (summary.max_votes, "sequential")
        ]
        stopped = [f"This is a partial study: {self.stopped}"] if self.stopped else []
        told = "".join(map(notebook.paragraph, (*stopped, *summary.lines)))
        whole = f"All {len(self.photos):,} photos, at most {summary.max_votes:,} votes each:"
        return told + notebook.paragraph(whole) + notebook.table(header, rows)
