"""`smoothapi key`: the key that certificates are signed with, and the one of the noise."""

from __future__ import annotations

import re
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING

import click

from smoothapi.cli.group import Group
from smoothapi.cli.home import home_settings
from smoothapi.cli.options import options
from smoothapi.cli.terminal import echo
from smoothapi.errors import SigningKeyError, UsageError
from smoothapi.files import shown_name, to_json

if TYPE_CHECKING:
    from smoothapi.address import HomeAddress
    from smoothapi.keyring import KeyRing
    from smoothapi.settings import Settings
    from smoothapi.signing import PublicKey
    from smoothapi.store import Store

_FILE = click.argument("file", required=False, type=click.Path(dir_okay=False))
_JSON = click.option("--json", "as_json", is_flag=True, help="One JSON object.")


@click.group(cls=Group)
@options("home")
def key(home: str | None) -> None:
    """Make and show the key that certificates are signed with, and the one of the noise.

    The noise key is a secret, too: whoever has it can defeat certificates. A home in a folder makes
    its own on first use. Machines that share a home on PostgreSQL share the key by a file that you
    deploy as a secret: `key new --noise FILE`, and SMOOTHAPI_NOISE_KEY_FILE on each of them.
    """
    del home  # kept by the option itself


@key.command()
@_FILE
@click.option("--signing", is_flag=True, help="A key to sign certificates with.")
@click.option("--noise", is_flag=True, help="A key to draw noise from, for several machines.")
@_JSON
@options("home")
def new(file: str | None, signing: bool, noise: bool, as_json: bool, home: str | None) -> int:
    """Make a key in FILE, which only you can read. No file that is there is replaced.

    With --signing, FILE is by default signing.key in the home, and its public half, for those who
    verify, is in FILE.pub. With --noise, FILE is for SMOOTHAPI_NOISE_KEY_FILE: the same on every
    machine that shares a home.
    """
    if signing == noise:
        raise UsageError(
            "Say which key: --signing makes one to sign certificates with, --noise one to draw "
            "noise from, for machines that share a home. A home in a folder makes its own noise "
            "key on first use."
        )
    if noise:
        return _new_noise_key(file, as_json=as_json)
    from smoothapi.signing import SigningKey, public_file  # noqa: PLC0415

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


def _new_noise_key(file: str | None, *, as_json: bool) -> int:
    from smoothapi.keyring import KeyRing  # noqa: PLC0415

    if file is None:
        raise UsageError("Name the file that the noise key is to be in: key new --noise FILE.")
    path, made = Path(file), KeyRing.generate()
    made.write(path)
    _show_noise_key(made, path, as_json=as_json)
    if not as_json:
        echo(
            f"Made {shown_name(file)!r} (secret). Deploy it as a secret, and name it in "
            "SMOOTHAPI_NOISE_KEY_FILE.",
            err=True,
        )
    return 0


@key.command("show-id")
@_FILE
@_JSON
@options("home")
def show_id(file: str | None, as_json: bool, home: str | None) -> int:
    """Show the public id of the noise key in FILE, which certificates carry, and those before it.

    By default that of SMOOTHAPI_NOISE_KEY_FILE, or else of the home. It tells nothing of the key.
    """
    from smoothapi.keyring import KeyRing  # noqa: PLC0415

    path, deployed = _noise_key_file(file, home)
    _show_noise_key(KeyRing.read(path, deployed=deployed), path, as_json=as_json)
    return 0


@key.command()
@_FILE
@_JSON
@options("home")
def rotate(file: str | None, as_json: bool, home: str | None) -> int:
    """Put a new noise key into FILE, before those that are in it.

    By default into SMOOTHAPI_NOISE_KEY_FILE, or else the home's. New certificates are of new noise,
    so photos are asked about anew. Answers of before stay, and `verify --home` still compares old
    certificates with them. Then give every machine the file anew.
    """
    from smoothapi.keyring import KeyRing  # noqa: PLC0415

    path, deployed = _noise_key_file(file, home)
    keys = KeyRing.read(path, deployed=deployed).rotated()
    keys.write(path, replace=True)
    _show_noise_key(keys, path, as_json=as_json)
    return 0


_ID = click.argument("key_id", metavar="ID")


@key.command()
@_ID
@options("home")
def admit(key_id: str, home: str | None) -> int:
    """Let the shared home take the noise key with this ID, besides those that it knows.

    Only where the key before it is lost: else rotate it, which needs no permission. `key forget`
    takes it back.
    """
    settings = _shared_settings(key_id, home)
    with closing(_open(settings.home)) as store:
        store.admit_key(key_id)
    echo(f"Admitted {key_id}.")
    return 0


@key.command()
@_ID
@options("home")
def forget(key_id: str, home: str | None) -> int:
    """Have the shared home forget the noise key with this ID, which was admitted by mistake.

    One that stored answers need, or that this machine has, is in use, and not forgotten. A machine
    that has it is then refused at its start.
    """
    from smoothapi.keyring import KeyRing  # noqa: PLC0415

    settings = _shared_settings(key_id, home)
    if settings.noise_key_file is not None:
        keys = KeyRing.read(settings.noise_key_file, deployed=True)
        if key_id in (keys.id, *keys.former_ids):
            raise UsageError(
                f"The noise key {key_id} is in use: it is in {str(settings.noise_key_file)!r}, "
                "which this machine draws noise from. Nothing was changed."
            )
    with closing(_open(settings.home)) as store:
        store.forget_key(key_id)
    echo(f"Forgot {key_id}.")
    return 0


def _open(where: HomeAddress) -> Store:
    from smoothapi.store import open_home  # noqa: PLC0415

    return open_home(where)


def _shared_settings(key_id: str, home: str | None) -> Settings:
    """Return the settings of a home that knows noise keys by their ids."""
    settings = home_settings(home)
    if isinstance(settings.home, Path):
        raise UsageError(
            "A home in a folder takes whatever noise key is in it: nothing to admit or to forget."
        )
    if not re.fullmatch("[0-9a-f]{16}", key_id):
        raise UsageError("An ID has 16 hexadecimal digits: `smoothapi key show-id` shows it.")
    return settings


def _show_noise_key(keys: KeyRing, path: Path, *, as_json: bool) -> None:
    if as_json:
        facts = {"id": keys.id, "former": list(keys.former_ids), "file": shown_name(str(path))}
        echo(to_json(facts))
        return
    echo(f"Noise key {keys.id}")
    for each in keys.former_ids:
        echo(f"Before    {each}")


def _home_file(home: str | None) -> Path:
    return signing_key_file(home_settings(home).home)


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


def signing_key_file(home: HomeAddress) -> Path:
    """Return where the signing key of a home is; a database has none: it would be everybody's."""
    from smoothapi.store import Home  # noqa: PLC0415

    if not isinstance(home, Path):
        raise SigningKeyError(
            "A home on PostgreSQL keeps no signing key, since whoever reads the database could "
            "sign with it. Give the file of one (--sign FILE; smoothapi key new --signing FILE)."
        )
    return Home(home).signing_key_file


def _noise_key_file(file: str | None, home: str | None) -> tuple[Path, bool]:
    """Return the file of the noise key that is meant, and whether it is a deployment's."""
    from smoothapi.store import Home  # noqa: PLC0415

    if file is not None:
        return Path(file), True
    settings = home_settings(home)
    if settings.noise_key_file is not None:
        return settings.noise_key_file, True
    if not isinstance(settings.home, Path):
        raise UsageError(
            "A home on PostgreSQL has no noise key of its own. Name the file of the deployment's "
            "key, here or in SMOOTHAPI_NOISE_KEY_FILE; `smoothapi key new --noise FILE` makes one."
        )
    return Home(settings.home).noise_key_file, False
