"""Where what was found about a response is kept: in the response itself, or beside it."""

from __future__ import annotations

import json
import weakref
from collections import OrderedDict
from typing import TYPE_CHECKING, Any, TypeAlias

from smoothapi.certify.certificate import Certificate
from smoothapi.errors import CertificateError, UsageError
from smoothapi.wrapping import protobuf
from smoothapi.wrapping.finding import Finding

if TYPE_CHECKING:
    from collections.abc import Sequence

    Findings: TypeAlias = Finding | tuple[Finding | None, ...]

KEY = "Smoothapi"
ATTRIBUTE = "smoothapi"

_MOST_PARTS = 4096


def finding_of(response: object, picture: int = 0) -> Finding:
    """Return what a wrapped client found about the labels of a response.

    Args:
        response: what it returned, or one picture's part of it.
        picture: which, for a response about several pictures.

    Raises:
        UsageError: the response is not a wrapped client's, or nothing in the call was to be
            certified.
        CertificateError: what it holds in its place is malformed.
    """
    found: Any = _beside.get(response)
    if found is None:
        found = _inside(response)
    if isinstance(found, tuple):
        found = _of_picture(found, picture)
    elif picture:
        found = None
    if isinstance(found, Certificate):  # as in a response that an earlier version wrote
        found = Finding(not found.abstained, certificate=found)
    if not isinstance(found, Finding):
        raise UsageError(
            "This response has no such certificate. Responses of a client from smoothapi.wrap do, "
            "if the call asked for labels and held the picture. With attach=False that is so of "
            "the response itself, as long as it lives, and of no copy."
        )
    return found


def certificate_of(response: object, picture: int = 0) -> Certificate:
    """Return the certificate that a wrapped client put into a response.

    Args:
        response: what it returned, or one picture's part of it.
        picture: which, for a response about several pictures.

    Raises:
        UsageError: the response is not a wrapped client's, nothing in the call was to be
            certified, or something ended it before the votes did; says what.
        CertificateError: what it holds in its place is not a certificate.
    """
    finding = finding_of(response, picture)
    if finding.certificate is None:
        raise UsageError(f"This response has no such certificate. {finding.why}".rstrip())
    return finding.certificate


def attach(response: Any, findings: Findings, *, inside: bool) -> Any:
    """Put findings where `finding_of` looks, and return the response.

    Args:
        response: of the SDK.
        findings: about it.
        inside: whether they become part of it, and of its copies: a key of a dict, which can be
            written as JSON as before; a field of a message of protobuf; else an attribute. What
            has no room for one has them kept beside it.
    """
    if inside and isinstance(response, dict):
        response[KEY] = _written(findings)
        return response
    if inside and (message := protobuf.message_of(response)) is not None:
        protobuf.put(message, json.dumps(_written(findings)).encode())
        return response
    if inside:
        try:
            object.__setattr__(response, ATTRIBUTE, findings)
        except (AttributeError, TypeError):
            pass
        else:
            return response
    if type(response) is dict:
        response = _Dict(response)
    _beside.put(response, findings)
    return response


def attach_parts(
    parts: Sequence[Any], findings: tuple[Finding | None, ...], *, inside: bool
) -> None:
    """Put findings about the parts of a response where `finding_of` looks.

    Parts may be made anew whenever they are read: then what lasts is the message behind them.
    """
    for part, finding in zip(parts, findings, strict=False):
        if finding is None:
            continue
        if inside and protobuf.message_of(part) is not None:
            attach(part, finding, inside=True)
        else:
            _beside.put_part(part, finding)


def _of_picture(found: tuple[Any, ...], picture: int) -> Any:
    """Return what was found about one of several pictures; raises UsageError where it is none."""
    if not 0 <= picture < len(found):
        raise UsageError(
            f"picture={picture!r}: this response is about {len(found):,}, counted from 0. It has "
            "no such certificate."
        )
    if found[picture] is None:
        raise UsageError(
            f"In picture {picture} of this response nothing was to be certified: it was not asked "
            "for labels, or it failed. It has no such certificate."
        )
    return found[picture]


class _Dict(dict[Any, Any]):
    """A response that is a dict, and can be referred to weakly; a copy of it is a dict."""

    def __reduce__(self) -> tuple[type, tuple[dict[Any, Any]]]:
        return dict, (dict(self),)


class _Beside:
    """Findings about responses that do not carry them, by the response's identity.

    One for all clients, since `finding_of` is given nothing but the response. An entry lives as
    long as its response. Parts of Google's responses cannot be referred to weakly: of these the
    last few thousand are kept, together with their messages.
    """

    def __init__(self) -> None:
        self._whole: dict[int, tuple[weakref.ref[Any], Findings]] = {}
        self._parts: OrderedDict[int, tuple[Any, Finding]] = OrderedDict()

    def get(self, response: object) -> Findings | None:
        """Return what is kept about a response or a part of one."""
        whole = self._whole.get(id(response))
        if whole is not None and whole[0]() is response:
            return whole[1]
        message = _message(response)
        part = self._parts.get(id(message))
        return None if part is None or part[0] is not message else part[1]

    def put(self, response: Any, findings: Findings) -> None:
        """Keep findings about a response, as long as it lives."""
        key = id(response)
        self._whole[key] = (weakref.ref(response, lambda _: self._whole.pop(key, None)), findings)

    def put_part(self, part: Any, finding: Finding) -> None:
        """Keep a finding about a part of a response."""
        message = _message(part)
        self._parts[id(message)] = (message, finding)
        if len(self._parts) > _MOST_PARTS:
            self._parts.popitem(last=False)


_beside = _Beside()


def _message(response: object) -> object:
    """Return what stays the same of a response: the message behind its view, if it is one."""
    message = protobuf.message_of(response)
    return response if message is None else message


def _inside(response: object) -> Any:
    """Return what is part of a response."""
    if isinstance(response, dict):
        return _read(response.get(KEY))
    message = protobuf.message_of(response)
    if message is None:
        return getattr(response, ATTRIBUTE, None)
    if (value := protobuf.get(message)) is None:
        return None
    try:
        return _read(json.loads(value))
    except (ValueError, RecursionError) as error:
        raise CertificateError(
            f"What this response says of its labels is malformed: {error}"
        ) from None


def _written(findings: Findings) -> Any:
    if isinstance(findings, Finding):
        return findings.to_dict()
    return [None if finding is None else finding.to_dict() for finding in findings]


def _read(written: object) -> Any:
    if isinstance(written, list):
        return tuple(map(_read, written))
    if not isinstance(written, dict):
        return written
    if "schema" in written:  # as earlier versions wrote it
        return Certificate.from_dict(written)
    return Finding.from_dict(written)
