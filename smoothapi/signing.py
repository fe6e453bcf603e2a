"""Signed certificates: keys of Ed25519 in PEM files, and envelopes of DSSE.

A certificate that is handed on as a bare file is as honest as whoever had it last. A signature
says whose it is: the holder of the key made this file, and nobody changed it since. It does not
say that the votes were given.

The envelope (https://github.com/secure-systems-lab/dsse, as in-toto and Sigstore use it) carries
the signed bytes as they were signed, so a reader need not canonicalise anything.
"""

from __future__ import annotations

import base64
import hashlib
import os
import stat
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from smoothapi.errors import (
    CertificateError,
    MissingExtraError,
    SigningKeyError,
    UnreadableCertificateError,
)
from smoothapi.files import create, parse_json, to_json
from smoothapi.text import shortened

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from cryptography.hazmat.primitives.asymmetric.ed25519 import (
        Ed25519PrivateKey,
        Ed25519PublicKey,
    )

PAYLOAD_TYPE = "application/vnd.smoothapi.certificate+json"
_LONGEST = 2**16  # bytes of a key's file; real ones have a few hundred
_SHORT_ID = 16
_KEY_BYTES = 32
_MOST_SIGNATURES = 100
_PUBLIC, _PRIVATE = b"PUBLIC KEY-----", b"PRIVATE KEY-----"
_MAKE = "`smoothapi key new --signing` makes one."


@dataclass(frozen=True)
class PublicKey:
    """Whom to trust: the public half of a `SigningKey`.

    Attributes:
        raw: the 32 bytes of the Ed25519 key.
    """

    raw: bytes

    def __post_init__(self) -> None:
        if not isinstance(self.raw, bytes) or len(self.raw) != _KEY_BYTES:
            raise SigningKeyError(f"A public key of Ed25519 has {_KEY_BYTES} bytes.")

    @classmethod
    def read(cls, path: str | Path) -> PublicKey:
        """Read the key in a PEM file ("BEGIN PUBLIC KEY").

        Raises:
            SigningKeyError: the file cannot be read, or holds something else.
            MissingExtraError: `cryptography` is not installed.
        """
        _require_cryptography()
        loaded = _load_public(Path(path))
        if isinstance(loaded, str):
            raise SigningKeyError(f"{str(path)!r} cannot serve as a public key: {loaded}")
        return cls(loaded.public_bytes_raw())

    @property
    def id(self) -> str:
        """SHA-256 (hex) of the key as DER, as `openssl pkey -pubin -outform DER` writes it."""
        from cryptography.hazmat.primitives.serialization import (  # noqa: PLC0415
            Encoding,
            PublicFormat,
        )

        der = self._key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
        return hashlib.sha256(der).hexdigest()

    @property
    def pem(self) -> str:
        """The key as a PEM file has it."""
        from cryptography.hazmat.primitives.serialization import (  # noqa: PLC0415
            Encoding,
            PublicFormat,
        )

        pem = self._key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
        return pem.decode()

    def verifies(self, signature: bytes, message: bytes) -> bool:
        """Whether `signature` is this key's, of this message."""
        from cryptography.exceptions import InvalidSignature  # noqa: PLC0415

        try:
            self._key().verify(signature, message)
        except InvalidSignature:
            return False
        return True

    def _key(self) -> Ed25519PublicKey:
        from cryptography.hazmat.primitives.asymmetric.ed25519 import (  # noqa: PLC0415
            Ed25519PublicKey,
        )

        return Ed25519PublicKey.from_public_bytes(self.raw)


class SigningKey:
    """The secret key that certificates are signed with. It shows its public half only."""

    def __init__(self, private: Ed25519PrivateKey) -> None:
        self._private = private

    @classmethod
    def generate(cls) -> SigningKey:
        """Draw a fresh key; raises MissingExtraError if `cryptography` is not installed."""
        _require_cryptography()
        from cryptography.hazmat.primitives.asymmetric.ed25519 import (  # noqa: PLC0415
            Ed25519PrivateKey,
        )

        return cls(Ed25519PrivateKey.generate())

    @classmethod
    def read(cls, path: str | Path) -> SigningKey:
        """Read the key in a PEM file ("BEGIN PRIVATE KEY", PKCS#8).

        Raises:
            SigningKeyError: the file cannot be read, can be read by others, or holds something
                else.
            MissingExtraError: `cryptography` is not installed.
        """
        _require_cryptography()
        loaded = _load_private(Path(path))  # so that no frame of the error's holds the file
        if isinstance(loaded, str):
            raise SigningKeyError(f"{str(path)!r} cannot serve as a signing key: {loaded}")
        return cls(loaded)

    def write(self, path: str | Path) -> None:
        """Write the key to a new file (mode 0600), and its public half to `public_file(path)`.

        Raises:
            SigningKeyError: one of the files is there already, or cannot be made; then neither is
                made.
        """
        secret, public = Path(path), public_file(path)
        for file in (secret, public):
            if os.path.lexists(file):
                raise SigningKeyError(
                    f"{str(file)!r} is there already, and a key is never overwritten: what it "
                    "signed could not be vouched for again. Name another file, or move it away."
                )
        problem = self._written(secret, public)  # so that no frame of the error's holds the key
        if problem:
            raise SigningKeyError(f"The signing key {str(secret)!r} cannot be made: {problem}.")

    @property
    def public(self) -> PublicKey:
        """The public half, which others verify with."""
        return PublicKey(self._private.public_key().public_bytes_raw())

    def sign(self, message: bytes) -> bytes:
        """Return the signature (64 bytes; the same for the same message)."""
        return self._private.sign(message)

    def _written(self, secret: Path, public: Path) -> str:
        """Write both files, or neither; return what stood in the way, "" if nothing did."""
        from cryptography.hazmat.primitives.serialization import (  # noqa: PLC0415
            Encoding,
            NoEncryption,
            PrivateFormat,
        )

        pem = self._private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        try:
            create(secret, pem, mode=0o600)
            try:
                create(public, self.public.pem.encode(), mode=0o644)
            except OSError:
                secret.unlink()
                raise
        except (OSError, ValueError) as error:  # a ValueError: no file has such a name
            reason = error.strerror if isinstance(error, OSError) else None
            return reason or str(error)
        return ""

    def __repr__(self) -> str:
        return f"<SigningKey {self.public.id[:_SHORT_ID]}>"

    def __reduce__(self) -> NoReturn:
        raise TypeError("A SigningKey is not copied or pickled: read it where it is needed.")


@dataclass(frozen=True)
class Signature:
    """One signature of a certificate.

    Attributes:
        key: the id of the key that it says it is by; "" if it says none. A hint: nothing proves it.
        value: the signature.
    """

    key: str
    value: bytes = field(repr=False)


@dataclass(frozen=True)
class SignedCertificate:
    """A certificate with signatures, as `Certificate.sign` makes it: an envelope of DSSE.

    Attributes:
        payload: the certificate's JSON, byte for byte as it was signed; `Certificate.from_json`
            reads it.
        signatures: those that are on it, none of them checked.
    """

    payload: bytes = field(repr=False)
    signatures: tuple[Signature, ...]

    @classmethod
    def make(cls, payload: bytes, key: SigningKey) -> SignedCertificate:
        """Sign a certificate's JSON."""
        return cls(payload, (Signature(key.public.id, key.sign(_signed_bytes(payload))),))

    def signer(self, keys: Iterable[PublicKey]) -> PublicKey | None:
        """Return which of `keys` signed this; None if none did.

        Raises:
            CertificateError: a signature says that it is by one of them, or does not say whose it
                is, and is not by one of them: what was signed has been changed, or the signature
                is forged.
        """
        trusted = tuple(keys)
        message = _signed_bytes(self.payload)
        for key in trusted:
            if any(key.verifies(signature.value, message) for signature in self.signatures):
                return key
        named = {signature.key for signature in self.signatures}
        for key in trusted:
            if key.id in named:
                raise CertificateError(
                    "The certificate does not hold: its signature names the key "
                    f"{key.id[:_SHORT_ID]}..., and is not by it. The certificate was changed after "
                    "it was signed, or the signature is forged."
                )
        if trusted and "" in named:
            raise CertificateError(
                "The certificate does not hold: it has a signature that does not say whose it is, "
                "and that is by none of the keys given. The certificate was changed after it was "
                "signed, the signature is forged, or its key is another and its name was left out."
            )
        return None

    @property
    def named(self) -> str:
        """The keys that the signatures say they are by, shortened, as messages show them."""
        ids = dict.fromkeys(signature.key[:_SHORT_ID] for signature in self.signatures)
        return ", ".join(f"{shortened(key)}..." for key in ids)

    def to_dict(self) -> dict[str, Any]:
        """Return the envelope, JSON-ready; `from_dict` is its inverse."""
        return {
            "payloadType": PAYLOAD_TYPE,
            "payload": base64.b64encode(self.payload).decode(),
            "signatures": [
                {"keyid": signature.key, "sig": base64.b64encode(signature.value).decode()}
                for signature in self.signatures
            ],
        }

    def to_json(self, *, indent: int | None = None) -> str:
        """Return the envelope as JSON text. How it is laid out does not matter to a signature."""
        return to_json(self.to_dict(), indent=indent)

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> SignedCertificate:
        """Rebuild an envelope; raises UnreadableCertificateError if `data` is something else."""
        kind = data.get("payloadType") if isinstance(data, dict) else type(data).__name__
        if kind != PAYLOAD_TYPE:
            raise UnreadableCertificateError(
                f"This is not a signed certificate that this version reads: expected payloadType "
                f"{PAYLOAD_TYPE!r}, found {shortened(kind)}."
            )
        try:
            payload, signatures = _decoded(data["payload"], "payload"), data["signatures"]
            if not isinstance(signatures, list) or len(signatures) > _MOST_SIGNATURES:
                raise ValueError(  # noqa: TRY301
                    f"its signatures are not a list of at most {_MOST_SIGNATURES}"
                )
            return cls(payload, tuple(map(_signature, signatures)))
        except KeyError as error:
            problem = f"it lacks {error}"
        except (TypeError, ValueError, AttributeError) as error:
            problem = str(error)
        raise UnreadableCertificateError(f"The signed certificate cannot be read: {problem}.")

    @classmethod
    def from_json(cls, text: str | bytes) -> SignedCertificate:
        """Rebuild an envelope from JSON text; raises UnreadableCertificateError."""
        try:
            data = parse_json(text)
        except ValueError as error:
            raise UnreadableCertificateError(
                f"The signed certificate cannot be read: {error}."
            ) from error
        return cls.from_dict(data)


def is_envelope(data: object) -> bool:
    """Whether JSON looks like an envelope, whatever is in it."""
    return isinstance(data, dict) and "payloadType" in data


def public_file(path: str | Path) -> Path:
    """Return where the public half of a signing key's file is written."""
    return Path(f"{os.fspath(path)}.pub")


def public_key(path: str | Path) -> PublicKey:
    """Return the public key of a file that holds it, or the signing key; raises as reading does."""
    return SigningKey.read(path).public if _is_secret(Path(path)) else PublicKey.read(path)


def short_id(key: PublicKey) -> str:
    """Return the beginning of a key's id, as messages show it."""
    return f"{key.id[:_SHORT_ID]}..."


def _signed_bytes(payload: bytes) -> bytes:
    """Return DSSE's pre-authentication encoding, which the signature covers."""
    kind = PAYLOAD_TYPE.encode()
    return b"DSSEv1 %d %b %d %b" % (len(kind), kind, len(payload), payload)


def _signature(data: Mapping[str, Any]) -> Signature:
    key = data.get("keyid", "")
    if not isinstance(key, str):
        raise TypeError("a keyid is not text")
    return Signature(key, _decoded(data["sig"], "sig"))


def _decoded(text: object, name: str) -> bytes:
    """Return what base64 says, of either alphabet; each value is written in one way only."""
    if not isinstance(text, str):
        raise TypeError(f"{name} is not text")
    standard = text.replace("-", "+").replace("_", "/")
    try:
        data = base64.b64decode(standard, validate=True)
    except ValueError:
        data = b""
    if base64.b64encode(data).decode() != standard:
        raise ValueError(f"{name} is not base64")
    return data


def _require_cryptography() -> None:
    try:
        import cryptography  # noqa: F401, PLC0415
    except ImportError as error:
        raise MissingExtraError(
            "Signatures need the package cryptography. Install it with: "
            "pip install 'smoothapi-vision[sign]'"
        ) from error


def _is_secret(path: Path) -> bool:
    pem, _ = _pem(path)
    return isinstance(pem, str) or _PRIVATE in pem


def _load_private(path: Path) -> Ed25519PrivateKey | str:  # noqa: PLR0911  one for each fault
    """Return the private key of a file, or what is wrong with it."""
    from cryptography.exceptions import UnsupportedAlgorithm  # noqa: PLC0415
    from cryptography.hazmat.primitives.asymmetric.ed25519 import (  # noqa: PLC0415
        Ed25519PrivateKey,
    )
    from cryptography.hazmat.primitives.serialization import load_pem_private_key  # noqa: PLC0415

    pem, mode = _pem(path)
    if isinstance(pem, str):
        return f"{pem} {_MAKE}"
    if _PUBLIC in pem:
        return "it holds a public key. The signing key is the file beside it, without .pub."
    try:
        key = load_pem_private_key(pem, password=None)
    except TypeError:
        return (
            "it is encrypted, and smoothapi asks for no passphrase. Decrypt it to a file that only "
            "you can read: openssl pkey -in KEY -out DECRYPTED"
        )
    except (ValueError, UnsupportedAlgorithm):
        return (
            "it is no PEM file of a private key (PKCS#8). `smoothapi key new --signing` makes one."
        )
    if not isinstance(key, Ed25519PrivateKey):
        return f"it is {_kind(key)}, and signatures are Ed25519. {_MAKE}"
    if os.name == "posix" and stat.S_ISREG(mode) and mode & 0o077:
        return (
            "it can be read by others, who could sign in your name. If nobody read it, run chmod "
            "600 on it; otherwise make another."
        )
    return key


def _load_public(path: Path) -> Ed25519PublicKey | str:
    """Return the public key of a file, or what is wrong with it."""
    from cryptography.exceptions import UnsupportedAlgorithm  # noqa: PLC0415
    from cryptography.hazmat.primitives.asymmetric.ed25519 import (  # noqa: PLC0415
        Ed25519PublicKey,
    )
    from cryptography.hazmat.primitives.serialization import load_pem_public_key  # noqa: PLC0415

    pem, _ = _pem(path)
    if isinstance(pem, str):
        return pem
    if _PRIVATE in pem:
        return (
            "it holds a private key, which only its owner should have. The public key is the file "
            "beside it that ends in .pub; `smoothapi key show` prints it."
        )
    try:
        key = load_pem_public_key(pem)
    except (ValueError, UnsupportedAlgorithm):
        return (
            'it is no PEM file of a public key ("BEGIN PUBLIC KEY"). `smoothapi key show` has it.'
        )
    if not isinstance(key, Ed25519PublicKey):
        return f"it is {_kind(key)}, and signatures are Ed25519. {_MAKE}"
    return key


def _pem(path: Path) -> tuple[bytes | str, int]:
    """Return a file's content, or what is wrong with it, and its mode."""
    try:
        with path.open("rb") as file:
            content, mode = file.read(_LONGEST + 1), os.fstat(file.fileno()).st_mode
    except (OSError, ValueError) as error:  # a ValueError: no file has such a name
        reason = error.strerror if isinstance(error, OSError) else None
        return f"{reason or error}.", 0
    if len(content) > _LONGEST:
        return "it is too large for a key's file.", mode
    if content.count(b"-----BEGIN ") > 1:
        return "it holds more than one key or certificate: one to a file, please.", mode
    return content, mode


def _kind(key: object) -> str:
    name = type(key).__name__.lstrip("_").removesuffix("PrivateKey").removesuffix("PublicKey")
    return f"a key of {name}"
