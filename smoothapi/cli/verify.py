"""`smoothapi verify`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from smoothapi.answer import printable
from smoothapi.cli.errors import report
from smoothapi.errors import CertificateError, SmoothAPIError, UsageError
from smoothapi.files import to_json

if TYPE_CHECKING:
    from smoothapi.certify.certificate import Certificate


@click.command()
@click.argument("file", type=click.Path(dir_okay=False, allow_dash=True))
@click.option("--photo", type=click.Path(), help="The photo that the certificate is about.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object per certificate.")
def verify(file: str, photo: str | None, as_json: bool) -> int:
    """Check the certificate in FILE (- for stdin) again, from its votes.

    Recomputes label, bound, radius and deductions; with --photo also the digest. It cannot show
    that the provider gave these votes: for that, trust where the file came from.

    FILE may hold several certificates, one a line, as `certify --json` writes them. Each is
    checked; if one does not hold, or a line cannot be read, the exit code is 2.
    """
    texts = _texts(file)
    if photo is not None and len(texts) > 1:
        raise UsageError(
            f"{file!r} has {len(texts)} certificates, and --photo is about one: give a file with "
            "the certificate of that photo alone."
        )
    code = 0
    for where, text in texts:
        try:
            certificate, checks = _checked(where, text, photo)
        except SmoothAPIError as error:
            report(error, as_json=as_json, photo=photo)
            code = error.exit_code
            continue
        if as_json:
            told = {"verified": True, "checked": checks, "label": certificate.label}
            click.echo(to_json(told))
        else:
            click.echo(f"Verified: {printable(str(certificate))}")
            click.echo(f"Recomputed: {', '.join(checks)}.")
    return code


def _texts(file: str) -> list[tuple[str, bytes]]:
    """Return where each certificate is, in words, and its text."""
    try:
        text = sys.stdin.buffer.read() if file == "-" else Path(file).read_bytes()
    except (OSError, ValueError) as error:  # a ValueError: no file has such a name
        reason = error.strerror if isinstance(error, OSError) else None
        raise CertificateError(
            f"Cannot read the certificate {file!r}: {reason or error}."
        ) from error
    lines = [(number, line) for number, line in enumerate(text.splitlines(), 1) if line.strip()]
    if len(lines) > 1 and all(line.lstrip().startswith(b"{") for _, line in lines):
        return [(f"{file!r}, line {number}", line) for number, line in lines]
    return [(repr(file), text)]


def _checked(where: str, text: bytes, photo: str | None) -> tuple[Certificate, list[str]]:
    from smoothapi.certificates import verify as check  # noqa: PLC0415
    from smoothapi.certify.certificate import Certificate  # noqa: PLC0415

    try:
        certificate = Certificate.from_json(text)
    except CertificateError as error:
        raise CertificateError(
            f"{where}: {error} `smoothapi certify PHOTO --json` writes one."
        ) from error
    try:
        return certificate, check(certificate, photo)
    except CertificateError as error:
        raise CertificateError(f"{where}: {error}") from error
