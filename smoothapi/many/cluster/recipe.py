"""What a machine is told so that it works as the others do, and what all must agree on.

Neither holds a secret. Passwords, credentials and the noise key are on each machine: in its
environment, in its settings, in files. What of it can be compared without being shown is.
"""

from __future__ import annotations

import hashlib
import os
import pickle
import socket
from contextlib import closing, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from smoothapi import config
from smoothapi._version import __version__
from smoothapi.address import DatabaseAddress, parse_home
from smoothapi.errors import UsageError
from smoothapi.files import canonical_json
from smoothapi.noise import NoiseKey
from smoothapi.options import SmootherOptions, resolve
from smoothapi.parts import choose_adapter
from smoothapi.provider import choose_price
from smoothapi.provider.secrets import is_secret_name
from smoothapi.store import open_home

if TYPE_CHECKING:
    from collections.abc import Mapping

    from smoothapi.options import AskOptions
    from smoothapi.photos import Fetcher
    from smoothapi.provider import Adapter
    from smoothapi.settings import Settings

Facts = dict[str, str]
"""What all machines must agree on: {what: how it is here}, none of it secret."""

_BOOT = Path("/proc/sys/kernel/random/boot_id")


@dataclass(frozen=True, slots=True)
class SessionRecipe:
    """What a machine opens its sessions by. Made by `recipe_of`.

    Attributes:
        providers: names of adapters; how they are made is each machine's own settings.
        denoisers: {name: "default", "small", "none" or a file that all machines have}.
        device: where the denoiser runs, as for `Smoother`.
        home: the folder or the address, without a password.
        noise_key_file: of the machine that gives out the work; another's own setting goes before.
        noise_key: its public id.
        options: of the sessions, plain values.
    """

    providers: tuple[str, ...]
    denoisers: Mapping[str, str]
    device: str
    home: str
    noise_key_file: str | None
    noise_key: str
    options: SmootherOptions = field(default_factory=SmootherOptions)

    @property
    def denoises(self) -> Mapping[str, str]:
        """Of the denoisers those that are a network."""
        return {name: spec for name, spec in self.denoisers.items() if spec != "none"}


def recipe_of(
    providers: Mapping[str, Any],
    denoisers: Mapping[str, Any],
    settings: Settings,
    options: SmootherOptions,
) -> SessionRecipe:
    """Return the recipe of what was asked for here.

    Args:
        providers: {name: name of an adapter}.
        denoisers: {name: what names it}.
        settings: in force here.
        options: of the sessions, plain values.

    Raises:
        UsageError: something was given that other machines cannot be told of.
        StoreError: the noise key cannot be read.
    """
    for given in providers.values():
        if not isinstance(given, str):
            raise UsageError(
                "On a cluster a provider is named ('aws'), not given as an object: each machine "
                "makes its own, by its own settings and credentials. Write the options of the "
                "adapter into the settings ([providers.NAME], SMOOTHAPI_PROVIDERS__...) there and "
                "here."
            )
        if given.startswith("replay:"):
            raise UsageError("A replay asks nobody, so there is nothing to share: run it here.")
    for given in denoisers.values():
        if not isinstance(given, (str, Path)):
            raise UsageError(
                "On a cluster a denoiser is 'default', 'small', 'none', or a file that its "
                "machines have, not an object: write a module of your own to a file with "
                "`smoothapi denoiser convert`."
            )
    if settings.record is not None:
        raise UsageError(
            "A recording is of one process: without record, answers are kept in the home, of which "
            "`smoothapi cache export` makes a file."
        )
    home, file = settings.home, settings.noise_key_file
    with closing(open_home(home, file)) as store:
        key = NoiseKey(store.keys().current).id
    return SessionRecipe(
        providers=tuple(dict.fromkeys(providers.values())),
        denoisers={name: _where(str(given)) for name, given in denoisers.items()},
        device=settings.device,
        home=str(home.absolute()) if isinstance(home, Path) else home.without_secrets.url,
        noise_key_file=None if file is None else str(file.absolute()),
        noise_key=key,
        options=options,
    )


def _where(denoiser: str) -> str:
    path = Path(denoiser)
    return str(path.absolute()) if path.suffix else denoiser


def sendable(fetcher: Fetcher) -> Fetcher:
    """Return a fetcher that other machines can have, too; raises UsageError."""
    try:
        pickle.dumps(fetcher)
    except Exception as error:
        raise UsageError(
            f"The fetcher ({type(fetcher).__name__}) cannot be sent to other machines: a "
            "PhotoFetcher can, and one of your own if it can be pickled."
        ) from error
    return fetcher


def options_here(recipe: SessionRecipe) -> AskOptions:
    """Return the options that say where the home and the noise key of this machine are."""
    settings = config.resolve().settings
    home: str | Path = recipe.home
    own = settings.home
    if isinstance(own, DatabaseAddress) and own.without_secrets.url == recipe.home:
        home = own.url  # with the password that this machine was given
    file = settings.noise_key_file or recipe.noise_key_file
    return {"home": home, "noise_key_file": file}


def key_here(recipe: SessionRecipe) -> NoiseKey:
    """Return the noise key of this machine; see `facts_here`, which compares it.

    Raises:
        StoreError: it cannot be read.
        UsageError: it is another one.
    """
    where = options_here(recipe)
    with closing(open_home(parse_home(str(where["home"])), _path(where["noise_key_file"]))) as home:
        key = NoiseKey(home.keys().current)
    if key.id != recipe.noise_key:
        raise UsageError(
            f"The noise key of {socket.gethostname()} is {key.id}, and that of the machine that "
            f"gives out the work is {recipe.noise_key}: every photo would be paid for twice. Give "
            "all machines the deployment's file (SMOOTHAPI_NOISE_KEY_FILE)."
        )
    return key


def facts_here(recipe: SessionRecipe) -> Facts:
    """Return what this machine must have in common with all others.

    Raises:
        SmoothAPIError: something of the recipe cannot be used here.
    """
    key = key_here(recipe)
    home = parse_home(recipe.home)
    facts = {"version of smoothapi": __version__}
    if isinstance(home, Path):
        facts["home"] = _identity(home)
    for name in recipe.providers:
        resolved = resolve(name, options_here(recipe))
        with closing(choose_adapter(name, resolved)) as adapter:
            facts |= _facts_of(adapter, name, resolved.settings, key)
    return facts


def _facts_of(adapter: Adapter, name: str, settings: Settings, key: NoiseKey) -> Facts:
    options = settings.providers.get(name, {})
    told = {n: str(v) for n, v in options.items() if not is_secret_name(n)}
    limits = {"max_failed": settings.max_failed}
    # Keyed: an address may hold what is secret, and few addresses can be guessed by trying.
    secret = key.stream("settings of a cluster").secret
    digest = hashlib.blake2b(canonical_json({**told, **limits}), key=secret, digest_size=8)
    return {
        f"model of {name}": canonical_json(dict(adapter.identity)).decode(),
        f"price list of {name}": str(choose_price(settings, adapter)),
        f"settings of {name}": digest.hexdigest(),
    }


def _identity(folder: Path) -> str:
    """Return what tells a folder from those of other machines, containers included."""
    boot = ""
    with suppress(OSError):
        boot = _BOOT.read_text(encoding="ascii").strip()
    about = folder.stat()
    return f"{folder} of {socket.gethostname()} ({boot[:8]}, {about.st_dev:x}:{about.st_ino:x})"


def disagreements(mine: Facts, theirs: Facts) -> str:
    """Return in what another machine differs, in words; "" if in nothing."""
    if mine.get("home") != theirs.get("home"):
        return (
            f"the home {mine.get('home')} is a folder, which other machines do not share. Machines "
            "share a home on PostgreSQL: home='postgresql://...' (SMOOTHAPI_HOME)"
        )
    return "; ".join(
        f"{what} (here {mine.get(what, 'none')}, there {theirs.get(what, 'none')})"
        for what in sorted(mine | theirs)
        if mine.get(what) != theirs.get(what)
    )


def _path(given: str | Path | None) -> Path | None:
    return None if given is None else Path(given)


def here() -> str:
    """Return what this machine and process are called."""
    return f"{socket.gethostname()} (process {os.getpid()})"
