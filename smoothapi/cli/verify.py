"""`smoothapi verify`."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from smoothapi.answer import printable
from smoothapi.errors import CertificateError, SmoothAPIError

if TYPE_CHECKING:
    from smoothapi.certify.certificate import Certificate


@click.command()
@click.argument("file", type=click.Path(dir_okay=False, allow_dash=True))
@click.option("--photo", type=click.Path(), help="The photo that the certificate is about.")
@click.option("--json", "as_json", is_flag=True, help="The result as JSON.")
def verify(file: str, photo: str | None, as_json: bool) -> int:
    """Check the certificate in FILE (- for stdin) again, from its votes.

    Recomputes label, bound, radius and deductions; with --photo also the digest. It cannot show
    that the provider gave these votes: for that, trust where the file came from.
    """
    try:
        certificate, checks = _checked(file, photo)
    except SmoothAPIError as error:
        if as_json:
            told = {
                "schema": "smoothapi.error/1",
                "verified": False,
                "photo": photo,
                "error": type(error).__name__,
                "message": str(error),
            }
            click.echo(json.dumps(told, ensure_ascii=False))
        raise
    if as_json:
        click.echo(json.dumps({"verified": True, "checked": checks, "label": certificate.label}))
    else:
        click.echo(f"Verified: {printable(str(certificate))}")
        click.echo(f"Recomputed: {', '.join(checks)}.")
    return 0


def _checked(file: str, photo: str | None) -> tuple[Certificate, list[str]]:
    from smoothapi.certificates import verify as check  # noqa: PLC0415
    from smoothapi.certify.certificate import Certificate  # noqa: PLC0415

    try:
        text = sys.stdin.buffer.read() if file == "-" else Path(file).read_bytes()
    except OSError as error:
        raise CertificateError(
            f"Cannot read the certificate {file!r}: {error.strerror or error}."
        ) from error
    try:
        certificate = Certificate.from_json(text)
    except CertificateError as error:
        raise CertificateError(
            f"{file!r}: {error} `smoothapi certify PHOTO --json` writes one."
        ) from error
    return certificate, check(certificate, photo)
