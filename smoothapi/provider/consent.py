"""Which of an adapter's options a folder's settings may give without the user's consent."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import unquote, urlsplit

_LABEL = re.compile(r"[a-z0-9](?:[a-z0-9-]*[a-z0-9])?")
_REGION = re.compile(r"[a-z]{2,}(?:-[a-z]+)+-[0-9]{1,2}")
_URL = re.compile(r"[\x21-\x7e]+")
_WILD = {"*": _LABEL, "{region}": _REGION}
_REFERENCE = "env:"


@dataclass(frozen=True, slots=True)
class SafeOptions:
    """Options that need no consent (`smoothapi config trust`) in a folder's settings file.

    An adapter has it as its class attribute `safe_options`. What is not named here may send
    credentials or pictures elsewhere, read files, run code, change what is paid or state which
    labels there are, and needs consent; so does any value that refers to a variable of the
    environment (`env:NAME`). An adapter without the attribute has none that are safe.

    Attributes:
        names: options that decide what is asked, and neither where, how safely nor at what price.
        values: option -> whether a value of it is as harmless, where that depends on the value.
        endpoint: the option that says where requests go; "" if there is none. It is safe if it
            is one of `hosts`, or if the file holds what signs the requests, too.
        hosts: the provider's own, reached by TLS: such as ``*.cognitiveservices.azure.com``,
            where a star is exactly one label of the name, and ``{region}`` one that is a region.
        credentials: options each of which signs all requests in the place of what is found
            elsewhere.
    """

    names: frozenset[str] = frozenset()
    values: Mapping[str, Callable[[Any], bool]] = field(default_factory=dict)
    endpoint: str = ""
    hosts: tuple[str, ...] = ()
    credentials: frozenset[str] = frozenset()

    def doubtful(self, options: Mapping[str, Any]) -> list[str]:
        """Return the names of the options that need consent."""
        return [name for name, value in options.items() if not self._is_safe(name, value, options)]

    def _is_safe(self, name: str, value: Any, options: Mapping[str, Any]) -> bool:
        if _refers(value):
            return False
        if name == self.endpoint:
            beside = any(_is_given(options.get(key)) for key in self.credentials)
            return beside or not value or is_own_host(value, self.hosts)
        if name in self.values:
            return self.values[name](value)
        return name in self.names or name in self.credentials


def is_own_host(url: Any, hosts: tuple[str, ...]) -> bool:
    """Whether a URL is certainly one of a provider's own hosts, reached by TLS.

    Strict where programs that read URLs differ: a login, a port other than 443, a dot at the end,
    a backslash, a host in other letters than ASCII or any space are not certain.

    Args:
        url: of the endpoint; a bare host means https.
        hosts: their names in small letters, as in `SafeOptions`.
    """
    if not isinstance(url, str) or not _URL.fullmatch(url) or set(url) & set("\\@%"):
        return False
    try:
        parts = urlsplit(url if "://" in url else f"https://{url}")
        host, port = parts.hostname or "", parts.port
    except ValueError:
        return False
    if parts.scheme != "https" or port not in (None, 443) or parts.netloc.endswith(":"):
        return False
    return any(_is_of(host.split("."), pattern.split(".")) for pattern in hosts)


def _is_of(labels: list[str], pattern: list[str]) -> bool:
    return len(labels) == len(pattern) and all(
        label == one or ((known := _WILD.get(one)) is not None and bool(known.fullmatch(label)))
        for label, one in zip(labels, pattern, strict=True)
    )


def _refers(value: Any) -> bool:
    """Whether a value refers to the environment, also once its URL or its JSON is decoded."""
    if isinstance(value, str):
        return _REFERENCE in unquote(value) or _refers_as_json(value)
    parts = value if isinstance(value, (list, tuple)) else ()
    if isinstance(value, Mapping):
        parts = (*value, *value.values())
    return any(map(_refers, parts))


def _refers_as_json(text: str) -> bool:
    if "\\" not in text:
        return False
    try:
        return _refers(json.loads(text))
    except ValueError:
        return False  # nor can an adapter read it
    except RecursionError:
        return True


def _is_given(credential: Any) -> bool:
    return isinstance(credential, str) and bool(credential.strip())
