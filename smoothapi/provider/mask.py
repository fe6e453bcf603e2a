"""What must not be shown, masked on every way out of an adapter.

A service, or a proxy before it, may repeat a key that it was sent: in a body, a header, a status
line, the name of a label; whole or cut short, as it is or encoded. And an SDK's own error holds
the request that it was about, headers and all. So an adapter's `ask` is `masked`: what it returns
and what it raises hold no secret any more, nor anything that does.
"""

from __future__ import annotations

import functools
import re
import traceback
from collections.abc import Mapping, MutableMapping
from contextlib import suppress
from dataclasses import replace
from functools import partial
from itertools import pairwise
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias, TypeVar, runtime_checkable

from smoothapi.answer import Answer
from smoothapi.errors import PermanentError, ProviderError
from smoothapi.provider.chain import chain
from smoothapi.provider.guards import stopped_by_guard
from smoothapi.provider.secrets import (
    LOWER,
    forms_of,
    is_secret_name,
    parts_of,
    runs_of,
    secrets_in_url,
    views_of,
)
from smoothapi.text import printable

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

MASK = "***"
LEFT_OUT = "(left out, as it repeats a secret)"

_LONG_SECRET = 12  # characters
_LONGEST = 20_000  # characters of a service's words, or of what may be headers, that are looked at
_QUOTED = 300
_FRAMES = 8
_DEPTH = 6

_LOGIN = re.compile(r"(?<=://)[^/\s@]+(?=@)")
_LONG = re.compile(r"[A-Za-z0-9+/=_%-]{40,}")
_SOLID = re.compile(r"\S{40,}")

# Where SDKs keep what an error is about; never the client, which has to go on working.
_ABOUT = frozenset(
    {"request", "_request", "response", "_response", "http_request", "http_response"}
    | {"internal_response", "_internal_response", "inner_exception", "error", "_error", "model"}
    | {"errors", "_errors", "details", "_details", "_state", "exc_value", "original_error"}
)


_Forms: TypeAlias = "frozenset[tuple[str, int]]"
"""How secrets look, and how many characters of that in a row tell them."""


class MaskedError(Exception):
    """What another library raised, as text alone: its class, and its words without secrets.

    Stands in for that error as the cause of one of smoothapi's. Its notes say where it was raised.
    """


class Mask:
    """Masks secrets, and what tells them, in texts, answers and errors. Its repr shows none.

    A secret is found in any case and in any of the usual encodings, also if it is cut short: eight
    characters of it in a row are enough, of a long one an eighth.

    Args:
        secrets: values, such as a key or the value of a header; shorter ones than four characters
            are not masked.
    """

    def __init__(self, secrets: Iterable[str | None]) -> None:
        self._secrets = frozenset(part for secret in secrets for part in parts_of(secret or ""))

    @functools.cached_property
    def _forms(self) -> _Forms:
        return _lowered(form for secret in self._secrets for form in forms_of(secret))

    @functools.cached_property
    def _long_forms(self) -> _Forms:
        """Those by which no ordinary word is taken for a secret."""
        long = [secret for secret in self._secrets if len(secret) >= _LONG_SECRET]
        return _lowered(form for s in long for form in forms_of(s, max(_LONG_SECRET, len(s) // 2)))

    def __repr__(self) -> str:
        return f"Mask({len(self._secrets)} secrets)"

    def knowing(self, secrets: Iterable[str | None]) -> Mask:
        """Return one that masks these, too; itself if it knows them."""
        more = {part for secret in secrets for part in parts_of(secret or "")}
        return self if more <= self._secrets else Mask(self._secrets | more)

    def knowing_those_of(self, error: BaseException) -> Mask:
        """Return one that knows the secrets, too, in the requests that an error is about."""
        return self.knowing((*_sent_with(error), *_of_proxies()))

    def text(self, text: str) -> str:
        """Return a text with each secret masked; all of it where one is hidden too well."""
        return self._masked(text, self._forms)

    def _masked(self, text: str, forms: _Forms) -> str:
        if not forms:
            return text
        masked, last = "", 0
        for start, end in _told(text, forms):
            if start > last or not masked:
                masked += text[last:start] + MASK
            last = max(last, end)
        masked += text[last:]
        return LEFT_OUT if any(map(partial(_told, forms=forms), views_of(masked))) else masked

    def quoted(self, text: str, longest: int = _QUOTED) -> str:
        """Return a service's own words in one line, short, without whatever looks like a key."""
        words = _LOGIN.sub(MASK, self.text(" ".join(text[:_LONGEST].split())))
        return printable(_LONG.sub(MASK, words))[:longest]

    def outcomes(self, outcomes: Iterable[Answer | ProviderError]) -> list[Answer | ProviderError]:
        """Return answers and errors that tell nothing.

        A label is never changed, which could make one of two: an answer with a label that tells a
        long secret, half of it or more, becomes a PermanentError.
        """
        outcomes = list(outcomes)
        answers = [outcome for outcome in outcomes if isinstance(outcome, Answer)]
        told = "\n".join({text for answer in answers for text in _texts(answer)})
        clean = self._masked(told, self._long_forms) == told  # at once: labels come again and again
        return [
            self.error(outcome)
            if isinstance(outcome, ProviderError)
            else (outcome if clean else self._answer(outcome))
            for outcome in outcomes
        ]

    def error(self, error: ProviderError) -> ProviderError:
        """Return `error`, masked, and cut off from the live errors and frames that it came of.

        Its cause becomes a `MaskedError`.
        """
        mask = self.knowing_those_of(error)
        cause = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
        error.args = tuple(mask._value(item) for item in error.args)  # noqa: SLF001  one of us
        for name, value in vars(error).items():
            vars(error)[name] = mask._value(value)  # noqa: SLF001
        error.__cause__ = None if cause is None else mask.stand_in(cause)
        error.__context__ = None
        return error.with_traceback(None)

    def stand_in(self, error: BaseException) -> MaskedError:
        """Return what is left of another's error, and of those that it came of, as text."""
        link: BaseException | None = error
        masked: list[MaskedError] = []
        seen: set[int] = set()
        while link is not None and id(link) not in seen and len(masked) < _DEPTH:
            seen.add(id(link))
            masked.append(self._as_text(link))
            link = link.__cause__ or (None if link.__suppress_context__ else link.__context__)
        for outer, inner in pairwise(masked):
            outer.__cause__ = inner
        return masked[0]

    def scrub(self, error: BaseException) -> BaseException:
        """Mask in place all that an error of another library holds, and return it.

        For callers that expect its class. Frames become notes, since they hold whatever was local.
        An error whose text cannot be changed is returned, and chained, as a `MaskedError`.
        """
        mask = self.knowing_those_of(error)
        links = chain(error)
        for link in links:
            where = _where(link)
            notes = [mask.quoted(note) for note in _notes(link)]
            mask._scrub_one(link, _DEPTH)  # noqa: SLF001  one of us
            link.__notes__ = [*notes, *([where] if where else [])]
        for link in links:
            link.__cause__, context = mask._safe(link.__cause__), link.__context__  # noqa: SLF001
            link.__context__ = mask._safe(context)  # noqa: SLF001
        return mask._safe(error)  # noqa: SLF001

    def _answer(self, answer: Answer) -> Answer | PermanentError:
        forms = self._long_forms
        request_id = self._masked(answer.request_id, forms)
        named = "\n".join(_label_texts(answer))
        if self._masked(named, forms) != named:
            return PermanentError(
                "A label of the answer repeats a secret that was sent with the picture, so the "
                "answer can neither be shown nor kept. Ask the provider why, and change the key.",
                request_id=request_id,
            )
        version = self._masked(answer.model_version, forms)
        return replace(answer, model_version=version, request_id=request_id)

    def _value(self, value: Any, depth: int = _DEPTH) -> Any:
        """Return a value with the secrets in it masked; what is no collection or text, in place."""
        found = value
        if isinstance(value, str):
            found = self.text(value)
        elif isinstance(value, (bytes, bytearray)):
            found = self._bytes(bytes(value))
        elif isinstance(value, TracebackType):
            found = None
        elif not depth:
            pass
        elif type(value) is dict:
            found = {
                self._value(name, depth - 1): self._member(name, item, depth - 1)
                for name, item in value.items()
            }
        elif type(value) in (list, tuple, set, frozenset):
            found = type(value)(self._value(item, depth - 1) for item in value)
        elif isinstance(value, BaseException):
            self._scrub_one(value, depth - 1)
            found = self._safe(value)
        elif isinstance(value, MutableMapping):  # headers
            with suppress(Exception):
                for name in list(value):
                    value[name] = self._member(name, value[name], 1)
        return found

    def _member(self, name: object, value: Any, depth: int) -> Any:
        if isinstance(name, str) and isinstance(value, (str, bytes)) and is_secret_name(name):
            return MASK
        return self._value(value, depth)

    def _bytes(self, value: bytes) -> bytes:
        if len(value) > _LONGEST:  # a picture
            return value
        text = value.decode("latin-1")
        masked = self.text(text)
        return value if masked == text else masked.encode("latin-1", "replace")

    def _safe(self, error: _Error) -> _Error | MaskedError:
        """Return an error, or what stands in for one that still tells what it was to forget."""
        if error is not None and any(map(self._tells, (_words(error), repr(error)))):
            return self.stand_in(error)
        return error

    def _tells(self, text: str) -> bool:
        return self.text(text) != text

    def _scrub_one(self, error: BaseException, depth: int) -> None:
        with suppress(TypeError, AttributeError):
            error.args = tuple(self._value(item, depth) for item in error.args)
        self._scrub_members(error, depth)
        error.__traceback__ = None

    def _scrub_members(self, thing: object, depth: int) -> None:
        members = getattr(thing, "__dict__", {})
        for name, member in list(members.items()):
            with suppress(Exception):  # whatever an SDK's objects do not let happen
                if name in ("cookies", "_cookies"):
                    member.clear()
                members[name] = self._value(member, depth)
                if name in _ABOUT and depth:
                    for item in member if isinstance(member, (list, tuple)) else (member,):
                        self._scrub_members(item, depth - 1)

    def _as_text(self, error: BaseException) -> MaskedError:
        if isinstance(error, MaskedError):
            return error
        kind = type(error)
        words = _words(error)
        for inner in getattr(error, "exceptions", ())[:_FRAMES]:  # of a group
            words += f"; {type(inner).__name__}: {_words(inner)}"
        said = _SOLID.sub("...", self.quoted(words, _LONGEST))[:_QUOTED]
        name = f"{kind.__module__}.{kind.__qualname__}"
        masked = MaskedError(f"{name}: {said}" if said else name)
        for note in (*map(self.quoted, _notes(error)), _where(error)):
            if note:
                masked.add_note(note)
        return masked


@runtime_checkable
class KeepsSecrets(Protocol):
    """What an adapter has besides if it signs in with something that must not be shown."""

    def mask(self) -> Mask:
        """Return what masks it; called where something is shown, and sends nothing."""


_Error = TypeVar("_Error", BaseException, BaseException | None)
_Adapter = TypeVar("_Adapter", bound=KeepsSecrets)


def masked(
    ask: Callable[[_Adapter, Sequence[bytes]], Sequence[Answer | ProviderError]],
) -> Callable[[_Adapter, Sequence[bytes]], list[Answer | ProviderError]]:
    """Decorate an adapter's `ask`, so that it neither returns nor raises what holds a secret."""

    @functools.wraps(ask)
    def without_secrets(adapter: _Adapter, payloads: Sequence[bytes]) -> Any:
        failed: BaseException
        try:
            outcomes = ask(adapter, payloads)
        except BaseException as error:
            if (stopped := stopped_by_guard(error)) is not None:  # while it has class and frames
                stopped.__cause__ = error
                failed = adapter.mask().error(stopped)
            elif isinstance(error, ProviderError):
                failed = adapter.mask().error(error)
            elif isinstance(error, Exception):  # a defect of the adapter
                failed = adapter.mask().scrub(error)
            else:
                raise
        else:
            return adapter.mask().outcomes(outcomes)
        raise failed  # here, where no live error is its context

    return without_secrets


def _lowered(forms: Iterable[tuple[str, int]]) -> _Forms:
    return frozenset((form.translate(LOWER), least) for form, least in forms)


def _told(text: str, forms: _Forms) -> list[tuple[int, int]]:
    """Return where a text tells a secret, in order of place."""
    low = text.translate(LOWER)
    return sorted({run for form, least in forms for run in runs_of(low, form, least)})


def _texts(answer: Answer) -> Iterator[str]:
    yield answer.model_version
    yield answer.request_id
    yield from _label_texts(answer)


def _label_texts(answer: Answer) -> Iterator[str]:
    for label in answer.labels:
        yield from (label.name, *label.parents, *label.categories)


def _sent_with(error: BaseException) -> Iterator[str]:
    """Yield the secrets in the requests that an error, and those that it came of, are about."""
    for link in chain(error):
        response = getattr(link, "response", None)
        for thing in (link, response):
            request = getattr(thing, "request", None)
            headers = getattr(request, "headers", None)
            if isinstance(headers, Mapping):
                for name, value in headers.items():
                    if isinstance(value, (str, bytes)) and is_secret_name(str(name)):
                        yield value if isinstance(value, str) else value.decode("latin-1")
            url = getattr(request, "url", None)
            if isinstance(url, str):
                yield from secrets_in_url(url)


def _of_proxies() -> Iterator[str]:
    from urllib.request import getproxies  # noqa: PLC0415  with http and email, only for an error

    for url in getproxies().values():
        yield from secrets_in_url(url)


def _words(error: BaseException) -> str:
    try:
        return str(error)
    except Exception:  # noqa: BLE001  of a broken __str__ nothing is known
        return ""


def _notes(error: BaseException) -> list[str]:
    return [note for note in getattr(error, "__notes__", ()) if isinstance(note, str)]


def _where(error: BaseException) -> str:
    """Return the last frames of an error's traceback, without what was local in them."""
    frames = traceback.extract_tb(error.__traceback__)[-_FRAMES:]
    places = [
        f"{'/'.join(Path(frame.filename).parts[-3:])}:{frame.lineno} in {frame.name}"
        for frame in frames
    ]
    return f"raised at {', '.join(places)}" if places else ""
