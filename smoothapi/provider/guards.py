"""Network guards of tests: what they say should reach whoever wrote the test.

Tools that play a service in a test (vcrpy, requests-mock, responses, botocore's Stubber) guard the
network, too: against requests that they were told nothing of.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from smoothapi.errors import FatalError, SmoothAPIError
from smoothapi.provider.chain import chain
from smoothapi.text import printable

if TYPE_CHECKING:
    from collections.abc import Iterator

_MOST_SHOWN = 1000
_ON_THE_WAY = frozenset(
    ("azure", "botocore", "google", "grpc", "http", "httpcore", "httpx", "msrest", "requests")
).union(("socket", "ssl", "urllib3"))
_PLAYING = frozenset(("httpretty", "pook", "requests_mock", "responses", "vcr"))


def stopped_by_guard(error: BaseException) -> FatalError | None:
    """Return what it means that a test's network guard stopped a request; None if none did.

    Guards (pytest-socket, pytest-recording, a fixture) put a function that raises in the place of
    one of the socket module. So it is a guard's error if a plugin of pytest defines or raises it,
    or if code that belongs to no library on the way raised it where a connection was to be made.
    Tools that play a service have errors of their own for what they do not expect; any other that
    they raise plays one, such as an outage, and is none of a guard.

    Args:
        error: as an SDK raised it: an error that is masked has no class and no frames any more.
    """
    for link in chain(error):
        if not isinstance(link, SmoothAPIError) and (_is_unexpected(link) or _is_of_guard(link)):
            said = printable(" ".join(str(link).split()))[:_MOST_SHOWN]
            return FatalError(f"A test's network guard stopped the request: {said}", sent=False)
    return None


def _is_unexpected(error: BaseException) -> bool:
    """Whether a tool that plays a service was asked what nobody had told it of."""
    if type(error).__module__.partition(".")[0] in _PLAYING:
        return True
    # These have no classes of their own for it.
    if isinstance(error, OSError):
        return str(error).startswith("Connection refused by Responses")
    return list(_modules(error))[-1:] == ["botocore.stub"]


def _is_of_guard(error: BaseException) -> bool:
    if isinstance(error, OSError) or "pytest" not in sys.modules:
        return False
    modules = list(_modules(error))
    innermost = modules[-1] if modules else ""
    if any(name.lstrip("_").startswith("pytest") for name in (type(error).__module__, innermost)):
        return True
    roots = [name.partition(".")[0] for name in modules]
    known = _ON_THE_WAY | _PLAYING | sys.stdlib_module_names | {"smoothapi", "smoothapi_adapters"}
    return not _ON_THE_WAY.isdisjoint(roots[:-1]) and roots[-1] not in known


def _modules(error: BaseException) -> Iterator[str]:
    """Yield the names of the modules that an error came through, the innermost last."""
    step = error.__traceback__
    while step is not None:
        yield str(step.tb_frame.f_globals.get("__name__", ""))
        step = step.tb_next
