"""The secrets that noise is drawn from, in a file: of one machine, or of a whole deployment.

A file that smoothapi makes by itself is 32 random bytes. One that is shared between machines is
text, as secret managers like it: 64 hexadecimal digits a line, the key in use first and those that
it replaced below, so that certificates of before can still be compared with what is stored.
"""

from __future__ import annotations

import hashlib
import os
import re
import secrets
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from smoothapi.errors import StoreError
from smoothapi.files import create, replacing

BYTES = 32
"""Length of a secret."""

_HEX = re.compile(r"[0-9a-f]{64}", re.IGNORECASE)
_LARGEST = 65_536  # bytes of a file of keys


@dataclass(frozen=True, slots=True)
class KeyRing:
    """The secret that noise is drawn from, and those that it replaced.

    Attributes:
        current: 32 random bytes; never shown, never in a certificate.
        former: those that were used before, the latest first.
    """

    current: bytes = field(repr=False)
    former: tuple[bytes, ...] = field(default=(), repr=False)

    @property
    def id(self) -> str:
        """The public name of the key in use."""
        return key_id(self.current)

    @property
    def former_ids(self) -> tuple[str, ...]:
        """The public names of the keys that were used before, the latest first."""
        return tuple(map(key_id, self.former))

    @classmethod
    def read(cls, path: Path, *, deployed: bool = False) -> KeyRing:
        """Read a file of keys.

        Args:
            path: the file.
            deployed: it was put there for this program, as secret managers do it: then its group
                may read it, too.

        Raises:
            StoreError: it is not there, can be read by others, or is damaged.
        """
        try:
            mode = path.stat().st_mode
            if os.name == "posix" and mode & (0o007 if deployed else 0o077):
                raise StoreError(_open_to_others(path, deployed=deployed))
            with path.open("rb") as file:
                content = file.read(_LARGEST)
        except OSError as error:
            raise StoreError(
                f"The noise key {str(path)!r} cannot be read: {error.strerror}. "
                + (
                    "SMOOTHAPI_NOISE_KEY_FILE names the file of the deployment's key; `smoothapi "
                    "key new --noise FILE` makes one."
                    if deployed
                    else "Set SMOOTHAPI_HOME to a folder that you can read and write."
                )
            ) from error
        return cls._parse(content, path)

    @classmethod
    def _parse(cls, content: bytes, path: Path) -> KeyRing:
        if len(content) == BYTES:
            return cls(content)
        try:
            lines = content.decode("ascii").split()
        except UnicodeDecodeError:
            lines = []
        if not lines or not all(map(_HEX.fullmatch, lines)):
            # Not shown: it may be a key but for one character.
            raise StoreError(
                f"The noise key {str(path)!r} is damaged ({len(content)} bytes): it is {BYTES} "
                "bytes, or lines of 64 hexadecimal digits. Restore the file. If it is lost, delete "
                "it to get a new one; stored answers then no longer fit."
            )
        keys = [bytes.fromhex(line) for line in lines]
        if len(set(keys)) < len(keys):
            raise StoreError(
                f"The noise key {str(path)!r} holds a key twice. Which one is in use is then not "
                "clear: leave each in it once, the one in use first."
            )
        return cls(keys[0], tuple(keys[1:]))

    @classmethod
    def generate(cls) -> KeyRing:
        """Return a new key."""
        return cls(secrets.token_bytes(BYTES))

    def rotated(self) -> KeyRing:
        """Return a new key that keeps those of before."""
        return KeyRing(secrets.token_bytes(BYTES), (self.current, *self.former))

    def write(self, path: Path, *, replace: bool = False) -> None:
        """Write the keys as text, only for the owner; in place of another file if `replace`.

        Raises:
            StoreError: there is a file already, or it cannot be made.
        """
        text = "".join(f"{key.hex()}\n" for key in (self.current, *self.former))
        try:
            if replace:
                # Those who could read it must go on to, and nobody else may.
                with replacing(path, same_owner=True) as stream:
                    stream.write(text)
            else:
                create(Path(os.path.realpath(path)), text.encode(), mode=0o600)  # a link stays one
        except FileExistsError as error:
            raise StoreError(
                f"{str(path)!r} is there already, and is not replaced: certificates may rest on "
                "the key in it. `smoothapi key rotate` puts a new key before the old one."
            ) from error
        except PermissionError as error:
            raise StoreError(
                f"The noise key cannot be written to {str(path)!r}: {error.strerror}. Nothing was "
                "changed. Who replaces a key must be able to write to its folder, and to give the "
                "new file the owner and the group of the old one (as root, say), so that whoever "
                "reads it now still can."
                if replace
                else f"The noise key cannot be written to {str(path)!r}: {error.strerror}."
            ) from error
        except OSError as error:
            raise StoreError(
                f"The noise key cannot be written to {str(path)!r}: {error.strerror}."
            ) from error


def key_id(secret: bytes) -> str:
    """Return a public name of a key that tells nothing about it (16 hex digits)."""
    return hashlib.blake2b(b"key id", key=secret, digest_size=8, person=b"smoothapi").hexdigest()


def own_keys(path: Path) -> KeyRing:
    """Return the keys of an installation; on the first call, make one (mode 0600).

    Raises:
        StoreError: the file is readable by others, damaged, or cannot be made.
    """
    try:
        if not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            with suppress(FileExistsError):  # two first runs at once agree on one key
                create(path, secrets.token_bytes(BYTES), mode=0o600)
    except OSError as error:
        raise StoreError(
            f"The noise key {str(path)!r} cannot be made: {error.strerror}. Set SMOOTHAPI_HOME to "
            "a folder that you can write to."
        ) from error
    return KeyRing.read(path)


def _open_to_others(path: Path, *, deployed: bool) -> str:
    said = (
        f"The noise key {str(path)!r} can be read by others, which voids the guarantee: whoever "
        "can predict the noise can defeat it. "
    )
    if deployed:
        return said + (
            "Take their right away (chmod 640; in Kubernetes defaultMode: 0440 of the secret's "
            "volume, in Compose mode: 0400 of the secret)."
        )
    return said + "Delete it and the answers beside it, or, if nobody read it, run chmod 600 on it."
