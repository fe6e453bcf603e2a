"""The signing key: its files, its commands, what cannot serve as one, and that it never shows."""

from __future__ import annotations

import base64
import hashlib
import json
import logging
import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization as ser
from cryptography.hazmat.primitives.asymmetric import ec, ed448, ed25519, rsa, x25519
from PIL import Image

from smoothapi import (
    Certificate,
    MissingExtraError,
    PublicKey,
    SignedCertificate,
    SigningKey,
    Smoother,
    verify,
)
from smoothapi.certificates import unchecked
from smoothapi.certify import Presence, TopK
from smoothapi.errors import CertificateError, SigningKeyError
from smoothapi_adapters.mock import MockAdapter
from tests.conftest import invoke

KEY = SigningKey.generate()
ED25519 = ed25519.Ed25519PrivateKey.generate()


@pytest.fixture(autouse=True)
def _folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SMOOTHAPI_HOME", str(tmp_path / "home"))


def secret_pem(key, encryption=None, format_=ser.PrivateFormat.PKCS8):
    return key.private_bytes(ser.Encoding.PEM, format_, encryption or ser.NoEncryption())


def public_pem(key):
    form = ser.PublicFormat.SubjectPublicKeyInfo
    return key.public_key().public_bytes(ser.Encoding.PEM, form)


def write(name, content, mode=0o600):
    Path(name).write_bytes(content)
    Path(name).chmod(mode)
    return name


def test_a_new_key_is_the_owners_alone_and_replaces_nothing():
    before = os.umask(0)
    try:
        made = invoke("key", "new", "--signing")
    finally:
        os.umask(before)
    assert made.exit_code == 0, made.output
    secret, public = Path("home/signing.key"), Path("home/signing.key.pub")
    assert stat.S_IMODE(secret.stat().st_mode) == 0o600
    assert PublicKey.read(public) == SigningKey.read(secret).public
    assert secret.read_bytes().startswith(b"-----BEGIN PRIVATE KEY-----")
    assert sorted(Path("home").iterdir()) == [secret, public]
    kept = secret.read_bytes(), public.read_bytes()
    for gone in (None, secret, public):
        if gone:
            gone.rename("moved")
        again = invoke("key", "new", "--signing")
        assert again.exit_code == 2
        assert "never overwritten" in again.stderr
        if gone:
            Path("moved").rename(gone)
        assert (secret.read_bytes(), public.read_bytes()) == kept


def test_a_link_is_not_followed_and_half_a_pair_is_not_left():
    Path("link").symlink_to("elsewhere")
    assert invoke("key", "new", "--signing", "link").exit_code == 2
    assert not Path("elsewhere").exists()
    for name in ("no/folder/key", "bad\0name"):
        with pytest.raises(SigningKeyError):
            KEY.write(name)
    assert list(Path().iterdir()) == [Path("link")]


def test_of_a_pair_that_cannot_be_finished_nothing_stays(monkeypatch):
    from smoothapi import signing

    make = signing.create

    def fails(path, content, *, mode):
        if path.suffix == ".pub":
            raise OSError(28, "No space left on device")
        make(path, content, mode=mode)

    monkeypatch.setattr(signing, "create", fails)
    with pytest.raises(SigningKeyError, match="No space left"):
        KEY.write("key")
    assert list(Path().iterdir()) == []


def test_show_prints_what_verifies_and_openssl_reads_it():
    KEY.write("key")
    for file in ("key", "key.pub"):
        shown = invoke("key", "show", file)
        assert shown.exit_code == 0
        assert KEY.public.id in shown.stdout
        write("shown.pub", shown.stdout.encode())
        assert PublicKey.read("shown.pub") == KEY.public
        told = json.loads(invoke("key", "show", file, "--json").stdout)
        assert told == {"id": KEY.public.id, "public_key": KEY.public.pem, "file": file}
    der = ser.load_pem_public_key(KEY.public.pem.encode()).public_bytes(
        ser.Encoding.DER, ser.PublicFormat.SubjectPublicKeyInfo
    )
    assert hashlib.sha256(der).hexdigest() == KEY.public.id


def test_a_public_key_has_32_bytes():
    for raw in (b"", bytes(31), bytes(33), "x" * 32):
        with pytest.raises(SigningKeyError, match="32 bytes"):
            PublicKey(raw)


def test_there_is_no_key_yet():
    for arguments in (("key", "show"), ("certify", "p.png", "--sign", "--json")):
        Image.new("RGB", (16, 16)).save("p.png")
        said = invoke(*arguments)
        assert said.exit_code == 2
        assert "smoothapi key new --signing" in said.stderr
    assert invoke("key", "show").exit_code == 2
    assert not Path("home/signing.key").exists()
    said = invoke("key", "new")
    assert said.exit_code == 2
    assert "--signing" in said.stderr


OTHER_KINDS = {
    "RSA": rsa.generate_private_key(65537, 2048),
    "elliptic": ec.generate_private_key(ec.SECP256R1()),
    "Ed448": ed448.Ed448PrivateKey.generate(),
    "X25519": x25519.X25519PrivateKey.generate(),
}
LOCKED = ser.BestAvailableEncryption(b"passphrase")
SECRETS = {
    **{name: (secret_pem(key), "signatures are Ed25519") for name, key in OTHER_KINDS.items()},
    "encrypted": (secret_pem(ED25519, LOCKED), "encrypted"),
    "public": (public_pem(ED25519), "holds a public key"),
    "two": (secret_pem(ED25519) * 2, "more than one"),
    "raw": (ED25519.private_bytes_raw(), "no PEM"),
    "empty": (b"", "no PEM"),
    "cut": (secret_pem(ED25519)[:60], "no PEM"),
    "large": (b"x" * 2**20, "too large"),
}
PUBLICS = {
    **{name: (public_pem(key), "signatures are Ed25519") for name, key in OTHER_KINDS.items()},
    "secret": (secret_pem(ED25519), "holds a private key"),
    "encrypted": (secret_pem(ED25519, LOCKED), "holds a private key"),
    "openssh secret": (
        secret_pem(ED25519, format_=ser.PrivateFormat.OpenSSH),
        "holds a private key",
    ),
    "two": (public_pem(ED25519) * 2, "more than one"),
    "openssh": (b"ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAI me@here", "no PEM"),
    "empty": (b"", "no PEM"),
    "cut": (public_pem(ED25519)[:50], "no PEM"),
    "large": (b"x" * 2**20, "too large"),
}


def frames(error):
    """Return what a tool that shows local variables would show of an error, and of its causes."""
    shown, seen = [str(error)], {id(error)}
    while error is not None:
        trace = error.__traceback__
        while trace is not None:
            if "smoothapi" in trace.tb_frame.f_globals.get("__name__", ""):
                shown.append(repr(trace.tb_frame.f_locals))
            trace = trace.tb_next
        error = error.__cause__ or error.__context__
        if id(error) in seen:
            break
        seen.add(id(error))
    return "\n".join(shown)


def tells(text, pem):
    return any(line in text for line in pem.decode("latin-1").splitlines()[1:-1] if len(line) > 10)


@pytest.mark.parametrize("name", SECRETS)
def test_what_cannot_sign_is_refused_in_words(name):
    content, said = SECRETS[name]
    write("key", content)
    with pytest.raises(SigningKeyError, match=said) as raised:
        SigningKey.read("key")
    assert not tells(frames(raised.value), content)
    Image.new("RGB", (16, 16)).save("p.png")
    for arguments in (["p.png", "--json", "--sign", "key"], ["--sign=key", "--json", "p.png"]):
        result = invoke("certify", *arguments)
        assert result.exit_code == 2
        assert said in result.stderr
        assert not tells(result.output, content)
    assert not Path("home/ledger.db").exists()  # nothing was paid for first


@pytest.mark.parametrize("name", PUBLICS)
def test_what_cannot_verify_is_refused_in_words(name):
    content, said = PUBLICS[name]
    write("key.pub", content)
    with pytest.raises(SigningKeyError, match=said) as raised:
        PublicKey.read("key.pub")
    assert not tells(frames(raised.value), content)
    result = invoke("verify", "any.json", "--key", "key.pub", "--json")
    assert result.exit_code == 5
    assert json.loads(result.stdout)["error"] == "SigningKeyError"
    assert not tells(result.output, content)


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o620, 0o644, 0o777])
def test_a_key_that_others_can_read_is_refused(mode):
    KEY.write("key")
    Path("key").chmod(mode)
    with pytest.raises(SigningKeyError, match="chmod 600"):
        SigningKey.read("key")
    Path("key").chmod(0o400)
    assert SigningKey.read("key").public == KEY.public


@pytest.mark.parametrize("name", ["missing", "folder", "bad\0name"])
def test_no_file(name):
    Path("folder").mkdir()
    for read in (SigningKey.read, PublicKey.read):
        with pytest.raises(SigningKeyError):
            read(name)


def test_a_word_after_sign_is_its_key_and_never_a_photo():
    Image.new("RGB", (16, 16)).save("p.png")
    invoke("key", "new", "--signing")
    for arguments in (["--sign", "p.png"], ["--sign", "p.png", "p.png"], ["--sign", "", "p.png"]):
        said = invoke("certify", "--json", *arguments)
        assert said.exit_code == 2
        assert "behind the photos" in said.stderr
    said = invoke("certify", "p.png", "--sign")
    assert said.exit_code == 2
    assert "--json" in said.stderr


@pytest.mark.parametrize("command", ["certify", "predict"])
def test_signed_on_the_command_line_and_the_key_is_nowhere(command, caplog, monkeypatch):
    monkeypatch.setenv("SMOOTHAPI_DEBUG", "1")
    caplog.set_level(logging.DEBUG)
    invoke("key", "new", "--signing")
    KEY.write("mine")
    Path("smoothapi.toml").write_text('providers.mock.labeller = "probabilities:bus 97%, van 3%"')
    for red, name in enumerate(("a.png", "b.png")):
        Image.new("RGB", (16, 16), (red, 9, 9)).save(name)
    for sign, public in ((["--sign"], "home/signing.key.pub"), (["--sign", "mine"], "mine.pub")):
        made = invoke(
            command, "a.png", "b.png", "--provider", "mock", "--size", "16", "--denoiser", "none",
            "--max-votes", "60", "--json", *sign, "--record", "r.jsonl",
        )  # fmt: skip
        assert made.exit_code in (0, 1), made.output
        lines = made.stdout.splitlines()
        assert len(lines) == 2
        assert all(SignedCertificate.from_json(line).signatures for line in lines)
        Path("c.jsonl").write_text(made.stdout)
        for arguments in (["--key", public], ["--key", public, "--home", "home"], []):
            said = invoke("verify", "c.jsonl", *arguments)
            assert said.exit_code == 0, said.output
        pem = Path(public.removesuffix(".pub")).read_bytes()
        raw = SigningKey.read(public.removesuffix(".pub"))._private.private_bytes_raw()
        for told in (made.output, said.output, caplog.text, repr(KEY)):
            assert not tells(told, pem)
        for file in [*Path("home").rglob("*"), Path("c.jsonl"), Path("r.jsonl")]:
            if file.is_file() and file.name != "signing.key":
                content = file.read_bytes()
                assert raw not in content
                assert base64.b64encode(raw) not in content
                assert not tells(content.decode("latin-1"), pem)


def test_without_the_package_it_says_which(monkeypatch):
    monkeypatch.setitem(sys.modules, "cryptography", None)
    for call in (SigningKey.generate, lambda: SigningKey.read("k"), lambda: PublicKey.read("k")):
        with pytest.raises(MissingExtraError, match=r"smoothapi-vision\[sign\]"):
            call()


def test_nothing_of_it_is_loaded_before_it_is_used():
    script = (
        "import sys, smoothapi, smoothapi.signing, smoothapi.certificates; smoothapi.SigningKey; "
        "sys.exit('cryptography' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", script], check=False, timeout=60).returncode == 0


def certificate_of(target="top1", **options):
    adapter = MockAdapter({"bus": 0.95, "van": 0.05}, labeller_id="x", seed=1)
    Image.new("RGB", (16, 16)).save("p.png")
    with Smoother(adapter, home="home", size=16, denoiser="none", sigma=0.25, **options) as one:
        return one.certify("p.png", radius=0.1, target=target)


@pytest.mark.parametrize(
    ("target", "classes"), [("top1", None), ("top1", {"car": ["bus", "van"]}), (TopK(1), None)]
)
def test_the_plain_label_is_compared_at_home(target, classes):
    options = {} if classes is None else {"classes": classes}
    made = certificate_of(target, **options)
    assert made.plain_label
    assert "the plain label against the answer stored for it" in verify(made, home="home")
    assert unchecked(made, photo=True, home=True) == []
    if classes:
        return
    other = {"plain_label": "van"} | ({"plain_agrees": False} if target == "top1" else {})
    forged = Certificate.from_dict({**made.to_dict(), **other})
    assert verify(forged)
    with pytest.raises(CertificateError, match="its plain label is 'van', and the home holds"):
        verify(forged, home="home")


def test_a_plain_label_that_cannot_be_compared_is_named():
    made = certificate_of(Presence("bus", 0.5), classes={"car": ["bus", "van"]})
    verify(made, home="home")
    assert unchecked(made, photo=True, home=True) == ["what the provider said plainly"]
    hidden = {**certificate_of().to_dict(), "plain_label": None, "plain_agrees": None}
    hidden = Certificate.from_dict(hidden)
    verify(hidden, home="home")
    assert unchecked(hidden, photo=True, home=True) == ["what the provider said plainly"]
    never = certificate_of(plain=False)
    verify(never, home="home")
    assert unchecked(never, photo=True, home=True) == []
