"""`smoothapi key`: the key that certificates are signed with."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from smoothapi.cli.group import Group
from smoothapi.cli.options import options
from smoothapi.cli.terminal import echo
from smoothapi.errors import SigningKeyError, UsageError
from smoothapi.files import shown_name, to_json

if TYPE_CHECKING:
    from smoothapi.signing import PublicKey

_FILE = click.argument("file", required=False, type=click.Path(dir_okay=False))
_JSON = click.option("--json", "as_json", is_flag=True, help="One JSON object.")


@click.group(cls=Group)
@options("home")
def key(home: str | None) -> None:
    """Make and show the key that certificates are signed with.

    The key that noise is drawn from is another one, and is made by itself on first use.
    """
    del home  # kept by the option itself


@key.command()
@_FILE
@click.option("--signing", is_flag=True, help="A key to sign certificates with; the only kind.")
@_JSON
@options("home")
def new(file: str | None, signing: bool, as_json: bool, home: str | None) -> int:
    """Make a key in FILE (default: signing.key in the home), and its public half in FILE.pub.

    FILE is secret, and only you can read it. FILE.pub is for those who verify. Neither replaces a
    file that is there.
    """
    from smoothapi.signing import SigningKey, public_file  # noqa: PLC0415

    if not signing:
        raise UsageError(
            "Say which key: --signing makes one to sign certificates with. The key that noise is "
            "drawn from is made on first use."
        )
    made = SigningKey.generate()
    path = Path(file) if file is not None else _home_file(home)
    if file is None:
        _make_folder(path.parent)
    made.write(path)
    _show(made.public, path, as_json=as_json)
    if not as_json:
        secret, public = shown_name(str(path)), shown_name(str(public_file(path)))
        echo(f"Made {secret!r} (secret) and {public!r} (for those who verify).", err=True)
    return 0


@key.command()
@_FILE
@_JSON
@options("home")
def show(file: str | None, as_json: bool, home: str | None) -> int:
    """Show the public key of the secret or public one in FILE (default: the home's), and its id."""
    from smoothapi.signing import public_key  # noqa: PLC0415

    path = Path(file) if file is not None else _home_file(home)
    _show(public_key(path), path, as_json=as_json)
    return 0


def _show(public: PublicKey, path: Path, *, as_json: bool) -> None:
    if as_json:
        file = shown_name(str(path))
        echo(to_json({"id": public.id, "public_key": public.pem, "file": file}))
    else:
        echo(f"Key {public.id}\n{public.pem.rstrip()}")  # readers of PEM pass over the first line


def _make_folder(home: Path) -> None:
    try:
        home.mkdir(parents=True, exist_ok=True, mode=0o700)
    except OSError as error:
        raise SigningKeyError(
            f"The home {str(home)!r} cannot be made: {error.strerror}. Set SMOOTHAPI_HOME to a "
            "folder that you can write to."
        ) from error


def _home_file(home: str | None) -> Path:
    from smoothapi.config import resolve  # noqa: PLC0415
    from smoothapi.store import Home  # noqa: PLC0415

    resolved = resolve(home=home)
    resolved.require_trust(("home",))
    return Home(resolved.settings.home).signing_key_file
