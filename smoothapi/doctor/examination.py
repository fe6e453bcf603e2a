"""What is looked at, in the order in which a run would need it."""

from __future__ import annotations

from contextlib import closing
from typing import TYPE_CHECKING

from smoothapi import config
from smoothapi.doctor import denoiser, home, machine, provider
from smoothapi.doctor.result import CheckResult
from smoothapi.errors import SmoothAPIError
from smoothapi.parts import choose_adapter
from smoothapi.provider import refused_settings
from smoothapi.store.recording import PREFIX

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from typing import Any

    from smoothapi.config import Resolved


def examine(arguments: Mapping[str, Any], *, online: bool = True) -> Iterator[CheckResult]:
    """Look at the machine, the settings, the home, the denoiser and the provider.

    Nothing is sent to be labelled, nothing is changed, and no secret is shown. The denoiser is
    loaded and run on noise; with `online`, one request without credentials goes to the host of the
    provider that the settings name.

    Args:
        arguments: settings that were given, by name, which go before those of the environment.
        online: whether to see if the provider's host can be reached.

    Yields:
        What came of each check, at once. A failure is a result, and the rest goes on.
    """
    yield from machine.examine()
    try:
        resolved = config.resolve(**arguments)
    except SmoothAPIError as error:
        yield CheckResult("settings", "problem", str(error), "Mend it, and run this again.")
        return
    yield _settings(resolved)
    settings = resolved.settings
    yield from _guarded("home", lambda: home.examine(settings.home, settings.noise_key_file))
    yield from _guarded("denoiser", lambda: denoiser.examine(resolved))
    yield from _guarded("provider", lambda: _provider(resolved, online=online))


def _guarded(name: str, look: Callable[[], Iterator[CheckResult]]) -> Iterator[CheckResult]:
    try:
        yield from look()
    except SmoothAPIError as error:
        yield CheckResult(name, "problem", str(error))


def _settings(resolved: Resolved) -> CheckResult:
    origins = sorted({o for o in resolved.origins.values() if o not in ("default", "argument")})
    said = f"from {', '.join(origins)}" if origins else "the defaults: no file and no variable"
    if refused := refused_settings(resolved):
        return CheckResult(
            "settings",
            "warning",
            f"{said}; nobody vouches for {', '.join(refused)}",
            "They are refused when they are needed. If the file is yours: smoothapi config trust",
        )
    return CheckResult("settings", "ok", said)


def _provider(resolved: Resolved, *, online: bool) -> Iterator[CheckResult]:
    name = resolved.settings.provider
    if name.startswith(PREFIX):
        yield CheckResult("provider", "ok", "a recording: no provider is asked")
        return
    with closing(choose_adapter(None, resolved)) as adapter:
        yield from provider.examine(adapter, resolved.settings, online=online)
