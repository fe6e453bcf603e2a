"""`smoothapi verify`."""

from __future__ import annotations

import json
import re
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import click

from smoothapi.cli.errors import report
from smoothapi.cli.options import options
from smoothapi.cli.terminal import echo
from smoothapi.errors import (
    CertificateError,
    ImageError,
    SigningKeyError,
    SmoothAPIError,
    StoreError,
    UnreadableCertificateError,
    UntrustedCertificateError,
    UsageError,
)
from smoothapi.files import to_json
from smoothapi.text import printable

if TYPE_CHECKING:
    from collections.abc import Sequence

    from smoothapi.certify.certificate import Certificate
    from smoothapi.many.files import ResultLine
    from smoothapi.signing import PublicKey, SignedCertificate

# From good to bad. That nobody vouches for one must not hide that another was forged.
_SEVERITY = (
    0,
    UnreadableCertificateError.exit_code,
    UntrustedCertificateError.exit_code,
    CertificateError.exit_code,
)
_NEXT = re.compile(r"\S")
_BOM = b"\xef\xbb\xbf"


@click.command()
@click.argument("file", type=click.Path(dir_okay=False, allow_dash=True))
@click.option("--photo", type=click.Path(), help="The photo that the certificate is about.")
@options("home", home="The home that made it: votes, sigma and key are compared.")
@click.option(
    "--key",
    "key_files",
    type=click.Path(),
    multiple=True,
    help="Public key (PEM) to trust: it, or another one given, must have signed.",
)
@click.option("--json", "as_json", is_flag=True, help="One JSON object per certificate.")
def verify(
    file: str, photo: str | None, home: str | None, key_files: tuple[str, ...], as_json: bool
) -> int:
    """Check the certificate in FILE (- for stdin) again, from its votes.

    Recomputes label, bound, radius and deductions, and says what the file alone cannot show: its
    sigma, its noise key and its votes, which --home compares with what the home that made it has
    stored, and its photo, which --photo compares. For what is left, trust where the file came from:
    with --key, one of the keys that you trust must have signed it.

    FILE may hold several certificates, signed or not, as `certify --json` writes them. Each is
    checked, and the worst decides the exit code; from good to bad: 0 all hold, 5 one cannot
    be read (or the file, the photo, the home or a key cannot), 7 one is not signed by a key that
    was given, 6 one does not hold or its signature is forged.
    """
    try:
        keys = _public_keys(key_files)
        given = _given(file)
        if photo is not None and len(given) > 1:
            raise UsageError(
                f"{file!r} has {len(given)} certificates, and --photo is about one: give a file "
                "with the certificate of that photo alone."
            )
    except (CertificateError, SigningKeyError) as error:
        report(error, as_json=as_json, photo=photo)
        return _code(error)
    code = 0
    for one in given:
        try:
            checked = _checked(one, photo, home, keys)
        except (CertificateError, ImageError, StoreError) as error:
            report(error, as_json=as_json, photo=photo)
            code = max(code, _code(error), key=_SEVERITY.index)
            continue
        _tell(checked, as_json=as_json)
        if checked.rests and not as_json:
            echo(f"Not checked: {'; '.join(checked.rests)}.{_what_compares(photo, home, keys)}")
    return code


def _what_compares(*given: object) -> str:
    """Return which options, of those that were not given, compare what is left."""
    options = ("--photo", "--home", "--key")
    left = [name for name, one in zip(options, given, strict=True) if not one]
    if not left:
        return ""
    *some, last = left
    return f" {', '.join(some)} and {last} compare these." if some else f" {last} compares that."


@dataclass(frozen=True)
class _Given:
    """What is to be checked.

    Attributes:
        where: it stands, in words.
        text: of the certificate.
        line: of results, in which it stands; None for a certificate by itself.
    """

    where: str
    text: bytes
    line: ResultLine | None = None


@dataclass(frozen=True)
class _Checked:
    """A certificate that holds.

    Attributes:
        certificate: what it says.
        signer: the key that signed it, of those given.
        checks: what was checked, in words.
        rests: what was not.
    """

    certificate: Certificate
    signer: PublicKey | None
    checks: list[str]
    rests: list[str]


def _code(error: SmoothAPIError) -> int:
    """Return the exit code: what is needed to check and cannot be read is one kind."""
    unread = isinstance(error, (ImageError, StoreError, SigningKeyError))
    return UnreadableCertificateError.exit_code if unread else error.exit_code


def _tell(checked: _Checked, *, as_json: bool) -> None:
    certificate, signer = checked.certificate, checked.signer
    if as_json:
        told = {
            "verified": True,
            "checked": checked.checks,
            "unchecked": checked.rests,
            "label": certificate.label,
            "signed_by": None if signer is None else signer.id,
        }
        echo(to_json(told))
        return
    echo(f"Verified: {printable(str(certificate))}")
    echo(f"Recomputed: {', '.join(checked.checks)}.")
    if signer is not None:
        echo(f"Signed by the key {signer.id}, whose holder vouches for it.")


def _public_keys(files: Sequence[str]) -> tuple[PublicKey, ...] | None:
    from smoothapi.signing import PublicKey  # noqa: PLC0415

    return tuple(PublicKey.read(file) for file in files) or None


def _given(file: str) -> list[_Given]:
    """Return each certificate of a file."""
    try:
        text = sys.stdin.buffer.read() if file == "-" else Path(file).read_bytes()
    except (OSError, ValueError) as error:  # a ValueError: no file has such a name
        reason = error.strerror if isinstance(error, OSError) else None
        raise UnreadableCertificateError(
            f"Cannot read the certificate {file!r}: {reason or error}."
        ) from error
    text = text.removeprefix(_BOM)
    from smoothapi.many.files import result_lines  # noqa: PLC0415  keeps --help light

    results = result_lines(text)
    if results is not None:
        told = [line for line in results if not line.is_failure]
        if not told:
            raise UnreadableCertificateError(f"{file!r} has results, and no certificate in them.")
        return [_Given(f"{file!r}, line {line.number}", line.certificate, line) for line in told]
    lines = [(number, line) for number, line in enumerate(text.splitlines(), 1) if line.strip()]
    if len(lines) > 1 and all(line.lstrip().startswith(b"{") for _, line in lines):
        return [_Given(f"{file!r}, line {number}", line) for number, line in lines]
    documents = _documents(text)
    if len(documents) > 1:
        return [_Given(f"{file!r}, number {n}", one) for n, one in enumerate(documents, 1)]
    return [_Given(repr(file), text)]


def _documents(text: bytes) -> list[bytes]:
    """Return the JSON documents that stand one after the other, as `jq` writes them.

    Empty if that is not all that there is.
    """
    documents, decoder, end = [], json.JSONDecoder(), 0
    try:
        decoded = text.decode()
        while start := _NEXT.search(decoded, end):
            _, end = decoder.raw_decode(decoded, start.start())
            documents.append(decoded[start.start() : end].encode())
    except (ValueError, RecursionError):
        return []
    return documents


def _checked(
    one: _Given,
    photo: str | None,
    home: str | None,
    keys: tuple[PublicKey, ...] | None,
) -> _Checked:
    from smoothapi import certificates  # noqa: PLC0415

    try:
        if one.line is not None and one.line.problem:
            raise UnreadableCertificateError(f"It cannot be read: {one.line.problem}.")
        given = certificates.read(one.text)
    except CertificateError as error:
        raise type(error)(
            f"{one.where}: {error} `smoothapi certify PHOTO --json` writes one."
        ) from error
    try:
        checks = certificates.verify(given, photo, home=home, keys=keys)
        certificate, signer = _opened(given, keys or ())
        if one.line is not None:
            one.line.check(certificate)
            checks = [*checks, "the row of results"]
    except (CertificateError, StoreError) as error:
        raise type(error)(f"{one.where}: {error}") from error
    rests = certificates.unchecked(
        given, photo=photo is not None, home=home is not None, keys=keys is not None
    )
    return _Checked(certificate, signer, checks, rests)


def _opened(
    given: Certificate | SignedCertificate, keys: Sequence[PublicKey]
) -> tuple[Certificate, PublicKey | None]:
    from smoothapi.certify.certificate import Certificate  # noqa: PLC0415

    if isinstance(given, Certificate):
        return given, None
    return Certificate.from_json(given.payload), given.signer(keys)
