"""`smoothapi verify`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from smoothapi.cli.errors import report
from smoothapi.cli.options import options
from smoothapi.cli.terminal import echo
from smoothapi.errors import (
    CertificateError,
    ImageError,
    SmoothAPIError,
    StoreError,
    UnreadableCertificateError,
    UsageError,
)
from smoothapi.files import to_json
from smoothapi.text import printable

if TYPE_CHECKING:
    from smoothapi.certify.certificate import Certificate


@click.command()
@click.argument("file", type=click.Path(dir_okay=False, allow_dash=True))
@click.option("--photo", type=click.Path(), help="The photo that the certificate is about.")
@options("home", home="Folder of the home that made it: votes, sigma and key are compared.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object per certificate.")
def verify(file: str, photo: str | None, home: str | None, as_json: bool) -> int:
    """Check the certificate in FILE (- for stdin) again, from its votes.

    Recomputes label, bound, radius and deductions, and says what the file alone cannot show: its
    sigma, its noise key and its votes, which --home compares with what the home that made it has
    stored, and its photo, which --photo compares. For what is left, trust where the file came from.

    FILE may hold several certificates, one a line, as `certify --json` writes them. Each is
    checked, and the worst decides the exit code: 0 all hold, 5 one cannot be read (or the file, the
    photo or the home cannot), 6 one does not hold.
    """
    code = 0
    try:
        texts = _texts(file)
        if photo is not None and len(texts) > 1:
            raise UsageError(
                f"{file!r} has {len(texts)} certificates, and --photo is about one: give a file "
                "with the certificate of that photo alone."
            )
    except CertificateError as error:
        report(error, as_json=as_json, photo=photo)
        return error.exit_code
    for where, text in texts:
        try:
            certificate, checks = _checked(where, text, photo, home)
        except (CertificateError, ImageError, StoreError) as error:
            report(error, as_json=as_json, photo=photo)
            code = max(code, _code(error))
            continue
        _tell(certificate, checks, _rests(certificate, photo, home), as_json=as_json)
    return code


def _code(error: SmoothAPIError) -> int:
    """Return the exit code: what is needed to check and cannot be read is one kind."""
    unread = isinstance(error, (ImageError, StoreError))
    return UnreadableCertificateError.exit_code if unread else error.exit_code


def _tell(certificate: Certificate, checks: list[str], rests: list[str], *, as_json: bool) -> None:
    if as_json:
        told = {
            "verified": True,
            "checked": checks,
            "unchecked": rests,
            "label": certificate.label,
        }
        echo(to_json(told))
        return
    echo(f"Verified: {printable(str(certificate))}")
    echo(f"Recomputed: {', '.join(checks)}.")
    if rests:
        echo(f"Not checked: {'; '.join(rests)}. --home and --photo compare these.")


def _texts(file: str) -> list[tuple[str, bytes]]:
    """Return where each certificate is, in words, and its text."""
    try:
        text = sys.stdin.buffer.read() if file == "-" else Path(file).read_bytes()
    except (OSError, ValueError) as error:  # a ValueError: no file has such a name
        reason = error.strerror if isinstance(error, OSError) else None
        raise UnreadableCertificateError(
            f"Cannot read the certificate {file!r}: {reason or error}."
        ) from error
    lines = [(number, line) for number, line in enumerate(text.splitlines(), 1) if line.strip()]
    if len(lines) > 1 and all(line.lstrip().startswith(b"{") for _, line in lines):
        return [(f"{file!r}, line {number}", line) for number, line in lines]
    return [(repr(file), text)]


def _checked(
    where: str, text: bytes, photo: str | None, home: str | None
) -> tuple[Certificate, list[str]]:
    from smoothapi.certificates import verify as check  # noqa: PLC0415
    from smoothapi.certify.certificate import Certificate  # noqa: PLC0415

    try:
        certificate = Certificate.from_json(text)
    except CertificateError as error:
        raise type(error)(
            f"{where}: {error} `smoothapi certify PHOTO --json` writes one."
        ) from error
    try:
        return certificate, check(certificate, photo, home=home)
    except (CertificateError, StoreError) as error:
        raise type(error)(f"{where}: {error}") from error


def _rests(certificate: Certificate, photo: str | None, home: str | None) -> list[str]:
    from smoothapi.certificates import unchecked  # noqa: PLC0415

    return unchecked(certificate, photo=photo is not None, home=home is not None)
