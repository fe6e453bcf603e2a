"""Azure's resource: its endpoint, and its key or an identity that may use it."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from smoothapi.errors import FatalError, UsageError
from smoothapi.provider import Credentials, Mask
from smoothapi_adapters._common import options
from smoothapi_adapters._common.endpoints import read_endpoint
from smoothapi_adapters.azure.tokens import (
    Tokens,
    can_sign_in,
    checked_credential,
    in_environment,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

ENDPOINT_VARIABLES = ("VISION_ENDPOINT", "COMPUTER_VISION_ENDPOINT")
KEY_VARIABLES = ("VISION_KEY", "COMPUTER_VISION_SUBSCRIPTION_KEY", "COMPUTER_VISION_KEY")
"""Where Azure's own quickstarts, the present and the older ones, have their readers put them."""

ADVICE = (
    "Give endpoint and key, or set VISION_ENDPOINT and VISION_KEY to what the Azure portal shows "
    'under "Keys and Endpoint" of the resource. Without keys: credential="default", or '
    "AZURE_TENANT_ID, AZURE_CLIENT_ID and AZURE_CLIENT_SECRET."
)


_EXAMPLE = "https://NAME.cognitiveservices.azure.com, as the Azure portal shows it"
_LONGEST = 900  # characters of an error


@dataclass(frozen=True)
class Resource:
    """Endpoint and key or identity, and where each is from.

    Attributes:
        endpoint: without a slash at its end; "" if it was not found.
        key: never shown.
        where: in words, for `Credentials`.
        tokens: of an identity, which sign instead of a key.
    """

    endpoint: str
    key: str
    where: str
    tokens: Tokens | None = None

    def __repr__(self) -> str:
        return f"Resource(endpoint={self.endpoint!r})"

    @property
    def complete(self) -> bool:
        """Whether requests can be sent and signed."""
        return bool(self.endpoint and (self.key or self.tokens))

    @property
    def secrets(self) -> tuple[str, ...]:
        """What no message may show."""
        keys = (self.key,) if self.key else ()
        return keys + (self.tokens.secrets if self.tokens else ())

    @property
    def credentials(self) -> Credentials:
        """Whether both were found, and where."""
        return Credentials(found=self.complete, where=self.where)

    def required(self) -> Resource:
        """Return this, if it is complete, and a token is at hand where there is no key.

        Raises:
            FatalError: says what is missing, and where it was looked for; or signing in failed.
            TransientError: who issues tokens could not be reached.
        """
        if not self.complete:
            raise FatalError(
                f"Credentials for Azure were not found: {self.where}. {ADVICE}", sent=False
            )
        if self.tokens is not None:
            self.tokens.current()
        return self

    @property
    def mask(self) -> Mask:
        """Masks the key, and the tokens signed with so far."""
        return Mask(self.secrets)

    def clean(self, text: object) -> str:
        """Return a message in one line, fit to be shown: the provider may repeat the key."""
        return self.mask.quoted(str(text), _LONGEST)


def find_resource(endpoint: str | None, key: str | None, credential: Any = None) -> Resource:
    """Return endpoint and key or identity: what was given, else from the environment.

    Args:
        endpoint: URL of the resource.
        key: of the resource.
        credential: a token credential, or "default", instead of a key.

    Raises:
        UsageError: the endpoint is not a URL, or would send the key unencrypted; the key holds
            what no key has; or the credential is none.
        MissingExtraError: "default" needs azure-identity.
    """
    url, url_from = _first(endpoint, "endpoint", ENDPOINT_VARIABLES)
    option = "endpoint" if endpoint or not url else url_from.removeprefix("from ")
    place = read_endpoint(url, _EXAMPLE, option=option, bare=True)
    if credential is not None and key:
        raise UsageError("Give key or credential, not both.")
    if credential is None:
        secret, secret_from = _first(key, "key", KEY_VARIABLES)
        if secret or not in_environment():
            return Resource(
                place,
                options.secret("key", secret),
                f"endpoint {url_from}; key {secret_from}",
            )
        if not can_sign_in():
            where = f"endpoint {url_from}; {in_environment()} need azure-identity, which is not"
            return Resource(
                place, "", f"{where} installed (pip install 'smoothapi-vision[azure-identity]')"
            )
        given, signing = None, f"identity from {in_environment()}"
    else:
        given, signing = checked_credential(credential), "identity from the option credential"
    _check_takes_tokens(place)
    return Resource(place, "", f"endpoint {url_from}; {signing}", Tokens(given, place))


def _check_takes_tokens(endpoint: str) -> None:
    host = urlsplit(endpoint).hostname or ""
    if ".api.cognitive." in host:
        raise UsageError(
            f"{endpoint} is a region's endpoint, which takes keys only. Without a key, give the "
            f"resource's own: {_EXAMPLE}."
        )


def _first(given: str | None, option: str, variables: Sequence[str]) -> tuple[str, str]:
    if given:
        return given, f"from the option {option}"
    for name in variables:
        if os.environ.get(name):
            return os.environ[name], f"from {name}"
    return "", f"not found (the option {option}, {', '.join(variables)})"
