"""Azure's resource: its endpoint and key, and where they are found."""

from __future__ import annotations

import os
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

from smoothapi.errors import FatalError
from smoothapi.provider import Credentials, Mask
from smoothapi_adapters._common import options
from smoothapi_adapters._common.endpoints import read_endpoint

if TYPE_CHECKING:
    from collections.abc import Sequence

ENDPOINT_VARIABLES = ("VISION_ENDPOINT", "COMPUTER_VISION_ENDPOINT")
KEY_VARIABLES = ("VISION_KEY", "COMPUTER_VISION_SUBSCRIPTION_KEY", "COMPUTER_VISION_KEY")
"""Where Azure's own quickstarts, the present and the older ones, have their readers put them."""

ADVICE = (
    "Give endpoint and key, or set VISION_ENDPOINT and VISION_KEY to what the Azure portal shows "
    'under "Keys and Endpoint" of the resource.'
)


_EXAMPLE = "https://NAME.cognitiveservices.azure.com, as the Azure portal shows it"
_LONGEST = 900  # characters of an error


@dataclass(frozen=True)
class Resource:
    """Endpoint and key, and where each is from.

    Attributes:
        endpoint: without a slash at its end; "" if it was not found.
        key: never shown.
        where: in words, for `Credentials`.
    """

    endpoint: str
    key: str
    where: str

    def __repr__(self) -> str:
        return f"Resource(endpoint={self.endpoint!r})"

    @property
    def complete(self) -> bool:
        """Whether there is both."""
        return bool(self.endpoint and self.key)

    @property
    def credentials(self) -> Credentials:
        """Whether both were found, and where."""
        return Credentials(found=self.complete, where=self.where)

    def required(self) -> Resource:
        """Return this, if it is complete.

        Raises:
            FatalError: says what is missing, and where it was looked for.
        """
        if not self.complete:
            raise FatalError(
                f"Credentials for Azure were not found: {self.where}. {ADVICE}", sent=False
            )
        return self

    @cached_property
    def mask(self) -> Mask:
        """Masks the key."""
        return Mask([self.key])

    def clean(self, text: object) -> str:
        """Return a message in one line, fit to be shown: the provider may repeat the key."""
        return self.mask.quoted(str(text), _LONGEST)


def find_resource(endpoint: str | None, key: str | None) -> Resource:
    """Return endpoint and key: what was given, else from the environment.

    Raises:
        UsageError: the endpoint is not a URL, or would send the key unencrypted; or the key
            holds what no key has.
    """
    url, url_from = _first(endpoint, "endpoint", ENDPOINT_VARIABLES)
    secret, secret_from = _first(key, "key", KEY_VARIABLES)
    return Resource(
        read_endpoint(url, _EXAMPLE),
        options.secret("key", secret),
        f"endpoint {url_from}; key {secret_from}",
    )


def _first(given: str | None, option: str, variables: Sequence[str]) -> tuple[str, str]:
    if given:
        return given, f"from the option {option}"
    for name in variables:
        if os.environ.get(name):
            return os.environ[name], f"from {name}"
    return "", f"not found (the option {option}, {', '.join(variables)})"
