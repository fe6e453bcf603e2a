"""What boto3 has no setting for: sending once through any client, and credentials unasked."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import boto3
from botocore.credentials import create_credential_resolver
from botocore.exceptions import BotoCoreError

from smoothapi.errors import UsageError
from smoothapi.provider import Credentials
from smoothapi.provider.secrets import secrets_in_url
from smoothapi_adapters._common.aio import BoundedSession, SeenFromThread
from smoothapi_adapters._common.bounds import Exchange
from smoothapi_adapters._common.twins import twin_of

if TYPE_CHECKING:
    from botocore.awsrequest import AWSPreparedRequest, AWSResponse
    from botocore.client import BaseClient
    from botocore.hooks import BaseEventHooks
    from botocore.httpsession import URLLib3Session
    from urllib3 import PoolManager
    from urllib3.connectionpool import HTTPConnectionPool


def sending_once(client: BaseClient, seconds: float) -> BaseClient:
    """Return a client that does as `client` does, except that it sends each request only once.

    Connections, credentials and event handlers are shared, also those that are registered later;
    `client` itself is not changed.

    Args:
        client: any client of boto3; one of aiobotocore as threads see it.
        seconds: the longest that a whole exchange may take. The timeout of botocore is one for
            each read, which an answer that drips in never meets.

    Raises:
        UsageError: this botocore is built otherwise.
    """
    awaited = isinstance(client, SeenFromThread)
    given = client.client if awaited else client
    try:
        events = (_AsyncOnce if awaited else _Once)(given.meta.events)
        twin, meta = twin_of(given), twin_of(given.meta)
        endpoint = twin_of(given._endpoint)  # noqa: SLF001  there is no public way
        session = (
            _async_bounded(endpoint.http_session)
            if awaited
            else _BoundedSession(endpoint.http_session, seconds)
        )
        vars(endpoint).update(_event_emitter=events, http_session=session)
        vars(meta)["events"] = events
        vars(twin).update(_endpoint=endpoint, meta=meta)
    except (AttributeError, TypeError, KeyError) as error:
        raise UsageError(
            "This version of botocore is built otherwise than any that smoothapi knows, so its "
            "retries cannot be switched off, and each would be an attempt that no budget counts. "
            "Install another one, such as botocore 1.44."
        ) from error
    return client.holding(twin, seconds) if awaited else twin


class _Once:
    """A client's events as they are at any moment, but that nobody may ask to send again."""

    def __init__(self, events: BaseEventHooks) -> None:
        self._events = events
        self.emit_until_response = events.emit_until_response

    def emit(self, event_name: str, **details: Any) -> Any:
        retries = event_name.startswith("needs-retry.")
        return [] if retries else self._events.emit(event_name, **details)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._events, name)


class _AsyncOnce(_Once):
    """The same for aiobotocore, whose handlers may have to be awaited."""

    async def emit(self, event_name: str, **details: Any) -> Any:
        answers = super().emit(event_name, **details)
        return answers if isinstance(answers, list) else await answers


def _async_bounded(session: Any) -> Any:
    """Return aiobotocore's HTTP session, held to a size; its time limit is the portal's.

    One that is not of aiohttp is returned as it is: httpx follows no redirects by itself.
    """
    sessions = getattr(session, "_get_session", None)
    if sessions is None:
        return session
    once = twin_of(session)

    async def lend(*place: Any) -> BoundedSession:
        return BoundedSession(await sessions(*place))

    once._get_session = lend  # noqa: SLF001
    return once


class _BoundedSession:
    """botocore's HTTP session, with an end to how long and how much an answer is."""

    def __init__(self, session: URLLib3Session, seconds: float) -> None:
        self._session = session
        self._manager_for = session._get_connection_manager  # noqa: SLF001  checks that it is there
        self._seconds = seconds

    def send(self, request: AWSPreparedRequest) -> AWSResponse:
        """Send as the session does, with its connections held to one deadline."""
        exchange = Exchange(self._seconds)
        once = twin_of(self._session)
        once._get_connection_manager = lambda *place: _Manager(  # noqa: SLF001
            self._manager_for(*place), exchange
        )
        try:
            answer: AWSResponse = once.send(request)
        except BaseException:
            exchange.leave()  # botocore leaves what it cannot unpack open
            raise
        exchange.let_go()
        return answer

    def close(self) -> None:
        self._session.close()


class _Manager:
    """A manager of pools, each of which is lent to one exchange."""

    def __init__(self, manager: PoolManager, exchange: Exchange) -> None:
        self._manager = manager
        self._exchange = exchange

    def connection_from_url(self, url: str) -> HTTPConnectionPool:
        return self._exchange.over(self._manager.connection_from_url(url))


def secrets_of(client: BaseClient | None) -> list[str]:
    """Return what a client signs with, as far as it is known without asking a server."""
    signer = getattr(client, "_request_signer", None)
    kept = getattr(getattr(signer, "_credentials", None), "__dict__", {})
    names = ("access_key", "secret_key", "token")  # private where they can be refreshed
    return [
        *(os.environ.get(name, "") for name in ("AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN")),
        *(kept.get(name) or kept.get(f"_{name}") or "" for name in names),
        *secrets_in_url(str(getattr(getattr(client, "meta", None), "endpoint_url", ""))),
    ]


# What a profile's table holds if its credentials are made when they are needed.
_MADE_LATER = {
    "role_arn": "a role",
    "credential_process": "a credential_process",
    "sso_session": "a single sign-on session",
    "sso_start_url": "a single sign-on session",
    "login_session": "a login session",
}
_OF_A_CONTAINER = ("AWS_CONTAINER_CREDENTIALS_RELATIVE_URI", "AWS_CONTAINER_CREDENTIALS_FULL_URI")
_AT_REST = ("env", "shared-credentials-file", "config-file")


def find_credentials(profile: str | None) -> Credentials:
    """Say where boto3 would find credentials; run no command and ask no server."""
    try:
        session = boto3.session.Session(profile_name=profile)._session  # noqa: SLF001  the documented one hides it
        table = session.get_scoped_config()
        name = profile or session.profile or "default"
        resolver = create_credential_resolver(session)
        # The others run a command or ask a server.
        resolver.providers = [p for p in resolver.providers if p.METHOD in _AT_REST]
        found = resolver.load_credentials()
    except BotoCoreError as error:
        return Credentials(found=False, where=f"{type(error).__name__}: {error}")
    if found is not None:
        places = {"env": "AWS_* variables"}
        where = places.get(found.method, f"profile {name!r} ({found.method})")
        return Credentials(found=True, where=where)
    for key, what in _MADE_LATER.items():
        if key in table:
            return Credentials(found=True, where=f"profile {name!r}: {what}")
    if os.environ.get("AWS_WEB_IDENTITY_TOKEN_FILE") and os.environ.get("AWS_ROLE_ARN"):
        return Credentials(found=True, where="AWS_WEB_IDENTITY_TOKEN_FILE")
    if any(os.environ.get(variable) for variable in _OF_A_CONTAINER):
        return Credentials(found=True, where="the container's role")
    return Credentials(
        found=False,
        where=f"not in AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, not in profile {name!r} of "
        "~/.aws/credentials and ~/.aws/config; an instance's role is only asked for when it is "
        "needed",
    )
