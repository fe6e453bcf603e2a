"""Clients of SDKs that are given: those that cannot be used are recognised before a call."""

from __future__ import annotations

import inspect
from typing import Any

from smoothapi.errors import UsageError

_INSTEAD = {
    "aiobotocore": 'boto3.client("rekognition")',
    "aioboto3": 'boto3.client("rekognition")',
    "google": "google.cloud.vision.ImageAnnotatorClient",
    "azure": "the client of the same name from the package without .aio",
    "aiohttp": "requests.Session",
    "httpx": "requests.Session",
}
"""Top package of an asynchronous client -> what smoothapi takes."""


def check_client(client: Any, *methods: str, wanted: str) -> None:
    """Refuse what cannot be the client that an adapter calls.

    Args:
        client: what was given as the option `client`.
        methods: of it that will be called.
        wanted: what to give, for errors.

    Raises:
        UsageError: it is asynchronous, or lacks the methods.
    """
    refuse_async(client, *methods)
    if isinstance(client, type):
        raise UsageError(f"client: it is the class {client.__qualname__} itself. Give {wanted}.")
    if not all(callable(getattr(client, name, None)) for name in methods):
        kind = type(client).__qualname__
        raise UsageError(f"client: a {kind} cannot be asked about pictures. Give {wanted}.")


def refuse_async(client: Any, *methods: str) -> None:
    """Refuse a client whose methods have to be awaited, or what only makes a client.

    smoothapi sends from threads of its own. No package is imported to find this out.

    Args:
        client: any object.
        methods: of it that would be called.

    Raises:
        UsageError: says what to give instead.
    """
    kind = _kind_of(client)
    if _makes_one(client):
        start = f"This is no client yet: {_shown(kind)} makes one when it is awaited or entered"
    elif _is_async(client, methods):
        start = f"This is an asynchronous client ({_shown(kind)})"
    else:
        return
    top = kind.__module__.partition(".")[0]
    instead = _INSTEAD.get(top, "the synchronous client of the same SDK")
    raise UsageError(
        f"{start}. smoothapi sends from threads of its own and takes synchronous ones: give "
        f"{instead}, and where nothing may block, call it in a thread (asyncio.to_thread)."
    )


def refuse_unmade(client: Any) -> None:
    """Refuse what only makes a client, when it is awaited or entered.

    Args:
        client: any object.

    Raises:
        UsageError: says what to do.
    """
    if _makes_one(client):
        raise UsageError(
            f"This is no client yet: {_shown(_kind_of(client))} makes one when it is awaited or "
            "entered. Wrap what it gives: async with ... as client, and then wrap(client, ...)."
        )


def _kind_of(client: Any) -> type:
    return client if isinstance(client, type) else type(client)


def _shown(kind: type) -> str:
    return f"{kind.__module__}.{kind.__qualname__}"


def _makes_one(client: Any) -> bool:
    module = _kind_of(client).__module__
    return (
        inspect.isawaitable(client)
        or inspect.isasyncgen(client)
        or inspect.iscoroutinefunction(client)
        or inspect.isasyncgenfunction(client)
        or module == "aiobotocore.session"  # as aioboto3 returns it, too
        or (module == "contextlib" and inspect.isasyncgen(getattr(client, "gen", None)))
    )


def _is_async(client: Any, methods: tuple[str, ...]) -> bool:
    kind = _kind_of(client)
    enters = hasattr(kind, "__aenter__")
    # aiohttp's has an __enter__ that only says to use the other one.
    if enters and (not hasattr(kind, "__enter__") or kind.__module__.startswith("aiohttp.")):
        return True
    if kind.__module__.startswith("google."):  # its synchronous class takes a transport that is not
        transport = getattr(client, "transport", None)
        if "asyncio" in str(getattr(transport, "kind", "")):
            return True
    # All methods of a client of botocore's go through the last one.
    names = (*methods, "_make_api_call")
    return any(inspect.iscoroutinefunction(getattr(client, name, None)) for name in names)
