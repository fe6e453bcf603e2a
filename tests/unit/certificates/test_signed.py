"""Signed certificates: what a signature covers, whom it names, and how `verify` tells apart."""

from __future__ import annotations

import base64
import copy
import json
import pickle
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from smoothapi import (
    Certificate,
    CertificateError,
    PublicKey,
    SignedCertificate,
    SigningKey,
    UnreadableCertificateError,
    UntrustedCertificateError,
    UsageError,
    verify,
)
from smoothapi.certificates import read, unchecked
from smoothapi.files import canonical_json
from smoothapi.signing import Signature
from tests.conftest import invoke

VALID, UNREADABLE, FORGED, UNTRUSTED = 0, 5, 6, 7
KEY, OTHER = SigningKey.generate(), SigningKey.generate()


@pytest.fixture(autouse=True)
def _files(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    KEY.write("mine")
    OTHER.write("other")


@pytest.fixture
def signed(certificate):
    return certificate.sign(KEY)


def code(content, *arguments):
    Path("c.json").write_text(content)
    result = invoke("verify", "c.json", *arguments)
    assert invoke("verify", "c.json", *arguments, "--json").exit_code == result.exit_code
    return result.exit_code


def envelope(signed, **changes):
    return json.dumps({**signed.to_dict(), **changes})


def payload_of(text):
    return base64.b64encode(text if isinstance(text, bytes) else text.encode()).decode()


def test_there_and_back(certificate, signed):
    again = SignedCertificate.from_json(signed.to_json(indent=2))
    assert again == signed == certificate.sign(KEY)
    assert Certificate.from_json(again.payload) == certificate
    assert again.signer([OTHER.public, KEY.public]) == KEY.public
    assert again.signer([OTHER.public]) is None
    assert "the signature" in verify(again, keys=[KEY.public])[-1]
    assert verify(again) == verify(certificate)  # a signature is no reason to refuse


def test_the_bytes_that_are_signed_are_those_of_dsse(signed):
    kind = b"application/vnd.smoothapi.certificate+json"
    message = b"DSSEv1 42 " + kind + b" %d " % len(signed.payload) + signed.payload
    (signature,) = signed.signatures
    assert len(kind) == 42
    assert KEY.public.verifies(signature.value, message)
    assert not KEY.public.verifies(signature.value, signed.payload)


def test_no_field_can_be_changed(certificate, signed):
    for name, value in certificate.to_dict().items():
        changed = {**certificate.to_dict(), name: [value, "changed"]}
        forged = SignedCertificate(canonical_json(changed), signed.signatures)
        with pytest.raises(CertificateError, match="forged") as raised:
            verify(forged, keys=[KEY.public])
        assert raised.value.exit_code == FORGED


@given(st.data())
def test_no_bit_can_be_changed(data):
    payload = b'{"schema": "smoothapi.certificate/3"}'
    signed = SignedCertificate.make(payload, KEY)
    (signature,) = signed.signatures
    both = bytearray(payload + signature.value)
    bit = data.draw(st.integers(0, 8 * len(both) - 1))
    both[bit // 8] ^= 1 << bit % 8
    changed = SignedCertificate(
        bytes(both[: len(payload)]), (Signature(signature.key, bytes(both[len(payload) :])),)
    )
    with pytest.raises(CertificateError, match="forged"):
        changed.signer([KEY.public, OTHER.public])


def test_no_character_of_an_envelope_can_be_changed_but_the_hint(signed):
    text = signed.to_json()
    hint = text.index(KEY.public.id)
    step = max(1, len(text) // 150)
    for place in [*range(0, len(text), step), *range(len(text) - 120, len(text))]:
        changed = text[:place] + ("A" if text[place] != "A" else "B") + text[place + 1 :]
        if text[place] == " " or text.index('"keyid"') <= place < hint + 64:
            continue
        with pytest.raises(CertificateError):
            verify(read(changed), keys=[KEY.public])


def test_the_hint_decides_nothing(signed):
    (signature,) = signed.signatures
    renamed = SignedCertificate(signed.payload, (Signature(OTHER.public.id, signature.value),))
    assert renamed.signer([KEY.public, OTHER.public]) == KEY.public
    with pytest.raises(CertificateError, match="forged"):
        renamed.signer([OTHER.public])
    unnamed = SignedCertificate(signed.payload, (Signature("", signature.value),))
    assert unnamed.signer([KEY.public]) == KEY.public


def test_leaving_the_hint_out_hides_no_forgery(signed):
    (signature,) = signed.signatures
    for payload, keys in [(signed.payload + b" ", KEY), (signed.payload, OTHER)]:
        unnamed = SignedCertificate(payload, (Signature("", signature.value),))
        with pytest.raises(CertificateError, match="does not say whose it is"):
            verify(unnamed, keys=[keys.public])
        assert unnamed.signer([]) is None
    renamed = SignedCertificate(signed.payload, (Signature("ab" * 32, signature.value),))
    with pytest.raises(UntrustedCertificateError, match=r"names 'ab.*anybody can write"):
        verify(renamed, keys=[OTHER.public])


def test_one_of_several_signatures_suffices(signed):
    other = SignedCertificate.make(signed.payload, OTHER)
    both = SignedCertificate(signed.payload, other.signatures + signed.signatures)
    assert both.signer([KEY.public]) == KEY.public
    assert code(both.to_json(), "--key", "mine.pub") == VALID
    assert SignedCertificate(signed.payload, ()).signer([KEY.public]) is None


def without_hints(text):
    data = json.loads(text)
    for signature in data["signatures"]:
        del signature["keyid"]
    return json.dumps(data)


def test_the_exit_codes_tell_apart(certificate, signed):
    by_other = certificate.sign(OTHER)
    bad = {**certificate.to_dict(), "radius": certificate.radius * 2}
    changed = envelope(signed, payload=payload_of(json.dumps(bad)))
    keys = ("--key", "mine.pub")
    both = (*keys, "--key", "other.pub")
    for content, arguments, wanted in [
        (signed.to_json(), (), VALID),
        (signed.to_json(), keys, VALID),
        (signed.to_json(indent=2), keys, VALID),
        (signed.to_json(), both, VALID),
        (by_other.to_json(), both, VALID),
        (by_other.to_json(), keys, UNTRUSTED),
        (without_hints(changed), keys, FORGED),
        (without_hints(by_other.to_json()), keys, FORGED),
        (without_hints(signed.to_json()), keys, VALID),
        (certificate.to_json(), (), VALID),
        (certificate.to_json(), keys, UNTRUSTED),
        (certificate.to_json(indent=2), keys, UNTRUSTED),
        (envelope(signed, signatures=[]), keys, UNTRUSTED),
        (changed, keys, FORGED),
        (changed, ("--key", "other.pub"), FORGED),  # what it says does not add up
        (changed, (), FORGED),
        (json.dumps(bad), keys, FORGED),
        (envelope(signed, signatures=by_other.to_dict()["signatures"]), keys, UNTRUSTED),
        (envelope(signed, payload=payload_of("not JSON")), keys, FORGED),
        (envelope(signed, payload=payload_of("not JSON")), (), UNREADABLE),
        (envelope(signed, payload=payload_of(signed.to_json())), (), UNREADABLE),
        (envelope(signed, payload="?"), keys, UNREADABLE),
        (envelope(signed, payload=None), keys, UNREADABLE),
        (envelope(signed, payloadType="application/vnd.in-toto+json"), keys, UNREADABLE),
        (envelope(signed, payloadType=[]), keys, UNREADABLE),
        (envelope(signed, signatures=None), keys, UNREADABLE),
        (envelope(signed, signatures={}), keys, UNREADABLE),
        (envelope(signed, signatures="ab"), keys, UNREADABLE),
        (envelope(signed, signatures=[{}]), keys, UNREADABLE),
        (envelope(signed, signatures=[{"sig": "AAAA", "keyid": 1}]), keys, UNREADABLE),
        (envelope(signed, signatures=[{"sig": "AAB="}]), keys, UNREADABLE),  # slack bits are set
        (envelope(signed, signatures=[{"sig": "AAAA"}]), keys, FORGED),
        (envelope(signed, signatures=[{"sig": "AAAA"}] * 10**5), keys, UNREADABLE),
        (signed.to_json(), ("--key", "missing.pub"), UNREADABLE),
        (signed.to_json(), ("--key", "mine"), UNREADABLE),
        (signed.to_json(), (*keys, "--key", "mine"), UNREADABLE),
    ]:
        assert code(content, *arguments) == wanted, (content[:400], arguments)


def test_of_several_the_worst_decides(certificate, signed):
    good, plain, broken = signed.to_json(), certificate.to_json(), "{broken"
    forged = envelope(signed, payload=payload_of("{}"))
    for lines, wanted in [
        ([good, good], VALID),
        ([good, plain], UNTRUSTED),
        ([plain, good, broken], UNTRUSTED),
        ([broken, plain], UNTRUSTED),
        ([good, broken], UNREADABLE),
        ([forged, plain], FORGED),  # to add an unsigned one must not hide it
        ([plain, forged, broken], FORGED),
    ]:
        assert code("\n".join(lines), "--key", "mine.pub") == wanted
    marked = "\ufeff" + good + "\n" + good
    assert code(marked, "--key", "mine.pub") == VALID
    assert code(f"{good}\n{plain}") == VALID


@pytest.mark.parametrize("indent", [0, 1, 2, "\t"])
def test_several_may_be_pretty_printed(certificate, signed, indent):
    laid_out = [
        json.dumps(part.to_dict(), indent=indent, sort_keys=True) for part in (signed, certificate)
    ]
    assert code("\n".join(laid_out)) == VALID
    assert code("\n".join(laid_out), "--key", "mine.pub") == UNTRUSTED
    assert code("\n".join([laid_out[0]] * 2), "--key", "mine.pub") == VALID
    assert code("\n".join([*laid_out, "{broken"]), "--key", "mine.pub") == UNREADABLE
    assert len(invoke("verify", "c.json", "--json").stdout.splitlines()) == 1


def test_what_is_said_of_it(certificate, signed):
    Path("c.json").write_text(signed.to_json())
    told = json.loads(invoke("verify", "c.json", "--key", "mine.pub", "--json").stdout)
    assert told["signed_by"] == KEY.public.id
    assert "who signed it" not in told["unchecked"]
    assert any("provider gave these votes" in rest for rest in told["unchecked"])
    told = json.loads(invoke("verify", "c.json", "--json").stdout)
    assert told["signed_by"] is None
    assert "who signed it" in told["unchecked"]
    assert KEY.public.id in invoke("verify", "c.json", "--key", "mine.pub").stdout
    assert "--key" in invoke("verify", "c.json").stdout
    Path("c.json").write_text(certificate.to_json())
    error = json.loads(invoke("verify", "c.json", "--key", "mine.pub", "--json").stdout)
    assert error["error"] == "UntrustedCertificateError"
    assert "not signed" in error["message"]
    assert unchecked(certificate, photo=True, home=True) == []


@pytest.mark.parametrize("keys", [[], "mine.pub", KEY.public, [KEY], ["mine.pub"]])
def test_nobody_to_trust_is_not_everybody(signed, keys):
    with pytest.raises(UsageError, match="at least one PublicKey"):
        verify(signed, keys=keys)


def test_unsigned_and_unknown_in_python(certificate, signed):
    for what in (certificate, signed):
        with pytest.raises(UntrustedCertificateError):
            verify(what, keys=[OTHER.public])
    with pytest.raises(UnreadableCertificateError):
        SignedCertificate.from_json(certificate.to_json())
    for data in (None, [], "x", 1):
        with pytest.raises(UnreadableCertificateError):
            SignedCertificate.from_dict(data)


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)


@given(JSON)
def test_canonical_json_has_one_form_and_loses_nothing(data):
    def shuffled(value):
        if isinstance(value, dict):
            return {name: shuffled(value[name]) for name in reversed(value)}
        return [shuffled(item) for item in value] if isinstance(value, list) else value

    text = canonical_json(data)
    assert repr(json.loads(text)) == repr(json.loads(json.dumps(data, sort_keys=True)))
    assert canonical_json(json.loads(text)) == canonical_json(shuffled(data)) == text
    assert text.isascii()


def test_canonical_floats():
    assert canonical_json([0.1 + 0.2, 1.0, 1, 1e-7, -0.0, 1e22]) == (
        b"[0.30000000000000004,1.0,1,1e-07,-0.0,1e+22]"
    )
    with pytest.raises(ValueError):
        canonical_json(float("nan"))


def test_the_order_of_names_does_not_matter(certificate):
    again = Certificate.from_dict(dict(reversed(certificate.to_dict().items())))
    assert again.sign(KEY) == certificate.sign(KEY)


@pytest.mark.parametrize("copied", [copy.copy, copy.deepcopy, pickle.dumps])
def test_a_signing_key_is_not_copied(copied):
    with pytest.raises(TypeError, match="read it where it is needed"):
        copied(KEY)
    assert pickle.loads(pickle.dumps(KEY.public)) == KEY.public


def test_public_keys_are_what_their_bytes_are():
    assert PublicKey.read("mine.pub") == KEY.public == SigningKey.read("mine").public
    assert KEY.public != OTHER.public
    assert len({KEY.public, PublicKey.read("mine.pub")}) == 1
