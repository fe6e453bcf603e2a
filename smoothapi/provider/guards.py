"""Network guards of tests: what they say should reach whoever wrote the test."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from smoothapi.errors import FatalError, SmoothAPIError
from smoothapi.text import printable

if TYPE_CHECKING:
    from collections.abc import Iterator

_MOST_SHOWN = 1000
_ON_THE_WAY = frozenset(
    ("azure", "botocore", "google", "grpc", "http", "httpcore", "httpx", "msrest", "requests")
).union(("socket", "ssl", "urllib3"))


def stopped_by_guard(error: BaseException, provider: str) -> FatalError | None:
    """Return what to raise if a network guard of pytest stopped a request; None if none did.

    Guards (pytest-socket, pytest-recording, a fixture) put a function that raises in the place of
    one of the socket module. So it is a guard's error if a plugin of pytest defines or raises it,
    or if code that belongs to no library on the way raised it where a connection was to be made.

    Args:
        error: what the request raised, with its traceback.
        provider: who was to be asked.
    """
    if "pytest" not in sys.modules:
        return None
    for link in _chain(error):
        if not isinstance(link, (SmoothAPIError, OSError)) and _is_of_guard(link):
            said = printable(str(link).replace("\n", " "))[:_MOST_SHOWN]
            return FatalError(
                f"A test's network guard stopped the request to {provider!r}: {said}",
                sent=False,
                provider=provider,
            )
    return None


def _is_of_guard(error: BaseException) -> bool:
    modules = list(_modules(error))
    innermost = modules[-1] if modules else ""
    if any(name.lstrip("_").startswith("pytest") for name in (type(error).__module__, innermost)):
        return True
    roots = [name.partition(".")[0] for name in modules]
    known = _ON_THE_WAY | sys.stdlib_module_names | {"smoothapi", "smoothapi_adapters"}
    return not _ON_THE_WAY.isdisjoint(roots[:-1]) and roots[-1] not in known


def _modules(error: BaseException) -> Iterator[str]:
    """Yield the names of the modules that an error came through, the innermost last."""
    step = error.__traceback__
    while step is not None:
        yield str(step.tb_frame.f_globals.get("__name__", ""))
        step = step.tb_next


def _chain(error: BaseException) -> list[BaseException]:
    found: list[BaseException] = []
    ahead: list[object] = [error]
    while ahead:
        link = ahead.pop()
        if isinstance(link, BaseException) and link not in found:
            found.append(link)
            ahead += [link.__cause__, link.__context__, *link.args]
    return found
