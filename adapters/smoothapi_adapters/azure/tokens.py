"""Signing in to Azure without a key: tokens of a credential that is given, or found."""

from __future__ import annotations

import inspect
import os
import threading
import time
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from smoothapi.errors import FatalError, MissingExtraError, TransientError, UsageError
from smoothapi.provider import Mask

if TYPE_CHECKING:
    from azure.core.credentials import AccessToken, TokenCredential

DEFAULT = "default"
"""As the option `credential`: what azure-identity's DefaultAzureCredential finds."""

_WHO = ("AZURE_TENANT_ID", "AZURE_CLIENT_ID")
_PROOFS = (
    ("AZURE_CLIENT_SECRET",),
    ("AZURE_CLIENT_CERTIFICATE_PATH",),
    ("AZURE_FEDERATED_TOKEN_FILE",),
    ("AZURE_USERNAME", "AZURE_PASSWORD"),
)
_SECRETS = ("AZURE_CLIENT_SECRET", "AZURE_PASSWORD", "AZURE_CLIENT_CERTIFICATE_PASSWORD")

# Top-level domain of the endpoint -> where tokens are for, and who issues them.
_CLOUDS = {
    "us": ("https://cognitiveservices.azure.us/.default", "login.microsoftonline.us"),
    "cn": ("https://cognitiveservices.azure.cn/.default", "login.chinacloudapi.cn"),
}
_PUBLIC = ("https://cognitiveservices.azure.com/.default", "login.microsoftonline.com")

_RENEWED = 300.0  # seconds before a token ends
_SHORTEST = 4  # characters of a secret: shorter ones are parts of any word
_LONGEST = 600  # characters of an error


class Tokens:
    """Tokens for one resource, renewed before they end. Threads share it.

    Args:
        credential: gives them; None for azure-identity's DefaultAzureCredential.
        endpoint: of the resource: it tells which of Azure's clouds they are for.
    """

    def __init__(self, credential: TokenCredential | None, endpoint: str) -> None:
        place = urlsplit(endpoint)
        cloud = (place.hostname or "").rpartition(".")[2]
        self._scope, self._authority = _CLOUDS.get(cloud, _PUBLIC)
        self._plain = place.scheme == "http"
        self._credential = credential
        self._token: AccessToken | None = None
        self._renew_at = 0.0
        self._lock = threading.Lock()

    def current(self) -> str:
        """Return a token that is valid for a while yet.

        Raises:
            FatalError: there is none to be had. Nothing was sent to the resource.
            TransientError: who issues them could not be reached.
        """
        with self._lock:
            if self._token is None or time.time() >= self._renew_at:
                self._token = self._fetched()
                left = self._token.expires_on - time.time()
                self._renew_at = time.time() + max(left - _RENEWED, left / 2)
            return self._token.token

    @property
    def secrets(self) -> tuple[str, ...]:
        """The token, and what the environment signs in with: what no message may show."""
        token = self._token  # no lock: a thread that is signing in must not wait for itself
        found = [os.environ.get(name, "") for name in _SECRETS]
        every = (token.token if token else "", *found)
        return tuple(secret for secret in every if len(secret) >= _SHORTEST)

    def _fetched(self) -> AccessToken:
        from azure.core.exceptions import AzureError, ClientAuthenticationError  # noqa: PLC0415

        if self._plain:
            raise FatalError(
                "Tokens are for all of an identity's resources, and are sent over https:// only. "
                "Give a key for an endpoint on this machine.",
                sent=False,
            )
        try:
            if self._credential is None:
                self._credential = _default(self._authority)
            token = self._credential.get_token(self._scope)
            _ = (token.token + "", token.expires_on + 0)  # before it is believed to be one
        except Exception as error:
            said = Mask(self.secrets).quoted(str(error), _LONGEST)
            if isinstance(error, AzureError) and not isinstance(error, ClientAuthenticationError):
                raise TransientError(
                    f"Who issues tokens for Azure gave none ({type(error).__name__}): {said}",
                    sent=False,
                ) from error
            raise FatalError(
                f"Signing in to Azure without a key failed ({type(error).__name__}): {said} Sign "
                "in (az login), set AZURE_TENANT_ID, AZURE_CLIENT_ID and AZURE_CLIENT_SECRET, or "
                "give a key. The identity needs the role Cognitive Services User.",
                sent=False,
            ) from error
        return token


def checked_credential(given: Any) -> TokenCredential | None:
    """Return the token credential that an option means; None for "default".

    Raises:
        UsageError: it is none. What it holds is not shown.
        MissingExtraError: azure-identity is not installed.
    """
    if given == DEFAULT:
        if not _installed():
            raise MissingExtraError(
                'credential="default" needs azure-identity. Install it with: '
                "pip install 'smoothapi-vision[azure-identity]'"
            )
        return None
    wanted = (
        f'Give "{DEFAULT}", or a token credential such as azure.identity.DefaultAzureCredential(); '
        "a key is given as key."
    )
    get_token = getattr(given, "get_token", None)
    if isinstance(given, type) or not callable(get_token):
        what = "another text" if isinstance(given, str) else f"a {type(given).__name__}"
        raise UsageError(f"credential: it is {what}. {wanted}")
    if inspect.iscoroutinefunction(get_token):
        raise UsageError(
            f"credential: it is an asynchronous one ({type(given).__module__}). {wanted}"
        )
    credential: TokenCredential = given
    return credential


def in_environment() -> str:
    """Return the variables of an identity that is in the environment, as words; or ""."""
    if not all(os.environ.get(name) for name in _WHO):
        return ""
    for proof in _PROOFS:
        if all(os.environ.get(name) for name in proof):
            return ", ".join((*_WHO, *proof))
    return ""


def _default(authority: str) -> TokenCredential:
    from azure.identity import DefaultAzureCredential  # noqa: PLC0415

    chosen: dict[str, Any] = {}
    if not os.environ.get("AZURE_AUTHORITY_HOST"):
        chosen["authority"] = authority
    credential: TokenCredential = DefaultAzureCredential(**chosen)
    return credential


def _installed() -> bool:
    try:
        return find_spec("azure.identity") is not None
    except ModuleNotFoundError:  # not even azure
        return False


def can_sign_in() -> bool:
    """Whether an identity of the environment could be used here."""
    return bool(in_environment()) and _installed()
