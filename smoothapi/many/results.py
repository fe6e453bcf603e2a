"""What certifying one of many photos came to, and the same as a row of a table."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from smoothapi.certify.radii import native_radius

if TYPE_CHECKING:
    from smoothapi.certify.certificate import Certificate
    from smoothapi.errors import SmoothAPIError

COLUMNS: dict[str, type] = {
    "photo": str,
    "outcome": str,
    "label": str,
    "radius": float,
    "radius_native": float,
    "radius_requested": float,
    "largest_radius": float,
    "reason": str,
    "leader": str,
    "leader_share": float,
    "plain_label": str,
    "plain_agrees": bool,
    "votes": int,
    "queries": int,
    "attempts": int,
    "cached": int,
    "cost": float,
    "seconds": float,
    "sigma": float,
    "alpha": float,
    "max_votes": int,
    "kind": str,
    "provider": str,
    "model_version": str,
    "denoiser": str,
    "digest": str,
    "error": str,
    "message": str,
}
"""The columns of `PhotoResult.row` and their types; each may be None. A `schema` for polars."""

Value = str | float | int | bool | None


@dataclass(frozen=True, slots=True, eq=False)
class PhotoResult:
    """What certifying one photo came to: a certificate, or the error that it met.

    Attributes:
        index: of the photo among those given, from 0.
        photo: its path or location, or another name.
        certificate: certified or abstained; None where an error ended it.
        error: what ended it; None where there is a certificate.
        stamp: what changes with the file's content, "" where nothing is known that does.
    """

    index: int
    photo: str
    certificate: Certificate | None
    error: SmoothAPIError | None = None
    stamp: str = ""

    @property
    def outcome(self) -> Literal["certified", "abstained", "failed"]:
        """In one word. A prediction with a label counts as certified: with its confidence."""
        if self.certificate is None:
            return "failed"
        return "abstained" if self.certificate.abstained else "certified"

    def row(self) -> dict[str, Value]:
        """Return it as one row of a table, with the columns of `COLUMNS`.

        `pandas.DataFrame(result.row() for result in smoother.certify_many(photos))`, and
        `polars.DataFrame(rows, schema=COLUMNS)`.
        """
        values: dict[str, Value] = dict.fromkeys(COLUMNS)
        values.update(photo=self.photo, outcome=self.outcome)
        if self.error is not None:
            values.update(
                error=type(self.error).__name__,
                message=str(self.error),
                attempts=self.error.attempts,
                cost=self.error.cost,
            )
        if self.certificate is None:
            return values
        certificate = self.certificate
        for name in COLUMNS:
            if hasattr(certificate, name):
                values[name] = getattr(certificate, name)
        leader, count = _leader(certificate)
        votes = certificate.total_votes
        values.update(
            votes=votes,
            leader=leader,
            leader_share=count / votes if votes and leader is not None else None,
            digest=certificate.image.digest,
            radius_native=native_radius(
                certificate.radius, certificate.image.gain, certificate.rounding
            ),
        )
        return values


def _leader(certificate: Certificate) -> tuple[str | None, int]:
    """Return the label with the most votes, and how many; none where votes are lists of labels."""
    if certificate.target.get("target") not in ("top1", "top-k"):
        return None, 0
    named = ((label, n) for label, n in certificate.tally.items() if label is not None)
    return next(named, (None, 0))
