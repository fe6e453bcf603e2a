"""A guard: while it is on, smoothapi connects to nothing but this machine.

Only connections that smoothapi itself is about to make are refused, those with one of its frames
on the stack: what the rest of a test suite does is its own business. gRPC connects outside of
Python, so its channels are refused when they are made.
"""

from __future__ import annotations

import importlib.util
import ipaddress
import re
import socket
import sys
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit
from urllib.request import getproxies_environment

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from importlib.machinery import ModuleSpec
    from types import FrameType, ModuleType

_OURS = ("smoothapi", "smoothapi_adapters")
_CHANNELS = ("secure_channel", "insecure_channel")


class NetworkGuard:
    """Refuses connections of smoothapi to other machines.

    Args:
        refused: called with the address, as text; raises what ends the test.

    Attributes:
        allowed: whether the guard is off for now.
    """

    def __init__(self, refused: Callable[[str], object]) -> None:
        self.allowed = False
        self._refused = refused
        self._undo: list[Callable[[], None]] = []

    def install(self) -> None:
        """Put the guard before the socket module and gRPC."""
        for name in ("connect", "connect_ex"):
            self._wrap(socket.socket, name, lambda _self, address, *_: self._check(address))
        self._wrap(
            socket, "getaddrinfo", lambda host, port=None, *_, **__: self._check((host, port))
        )
        if "grpc" in sys.modules:
            self._guard_grpc(sys.modules["grpc"])
        else:
            finder = _OnImport("grpc", self._guard_grpc)
            sys.meta_path.insert(0, finder)
            self._undo.append(lambda: sys.meta_path.remove(finder))

    def remove(self) -> None:
        """Take the guard away again."""
        while self._undo:
            self._undo.pop()()

    def _guard_grpc(self, grpc: ModuleType) -> None:
        for owner in (grpc, getattr(grpc, "aio", None)):
            for name in _CHANNELS if owner is not None else ():
                self._wrap(owner, name, lambda target, *_, **__: self._check_target(target))

    def _wrap(self, owner: Any, name: str, check: Callable[..., None]) -> None:
        original = getattr(owner, name)
        own = name in vars(owner)

        def guarded(*args: Any, **keywords: Any) -> Any:
            check(*args, **keywords)
            return original(*args, **keywords)

        def undo() -> None:
            if getattr(owner, name) is not guarded:
                return  # somebody else has put theirs before it since: leave it alone
            setattr(owner, name, original) if own else delattr(owner, name)

        setattr(owner, name, guarded)
        self._undo.append(undo)

    def _check_target(self, target: str) -> None:
        """Check a gRPC target: "host:port", "dns:///host:port", "ipv4:1.2.3.4:5", "unix:path"."""
        if str(target).startswith("unix"):
            return
        name = re.sub(r"^(dns:(//[^/]*/)?|ipv[46]:|passthrough:/+)", "", str(target))
        host, _, port = name.rpartition(":") if not name.endswith("]") else (name, "", "")
        self._check(((host or name).strip("[]"), port))

    def _check(self, address: object) -> None:
        if self.allowed or not isinstance(address, (tuple, list)) or not address:
            return  # a Unix socket's address is text
        host, port = address[0], address[1] if len(address) > 1 else None
        if _is_here(host) and not _is_proxy(port):
            return
        if _asked_by_smoothapi(sys._getframe(1)):  # noqa: SLF001  the only way to see who asks
            host = host.decode(errors="replace") if isinstance(host, bytes) else str(host)
            self._refused(f"{host}:{port}" if port else host)


class _OnImport:
    """A finder that finds nothing itself, and calls back once a module has been loaded."""

    def __init__(self, name: str, then: Callable[[ModuleType], None]) -> None:
        self._name = name
        self._then = then
        self._busy = False

    def find_spec(
        self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        del path, target
        if name != self._name or self._busy:
            return None
        self._busy = True
        try:
            spec = importlib.util.find_spec(name)
        finally:
            self._busy = False
        if spec is None or spec.loader is None:
            return None
        load, then = spec.loader.exec_module, self._then

        def exec_module(module: ModuleType) -> None:
            load(module)
            then(module)

        spec.loader.exec_module = exec_module  # type: ignore[method-assign]
        return spec


def _is_here(host: object) -> bool:
    text = host.decode(errors="replace") if isinstance(host, bytes) else host
    if text is None or text in ("", "localhost"):
        return True
    if not isinstance(text, str):
        return False
    try:
        address = ipaddress.ip_address(text.partition("%")[0])
    except ValueError:
        return text.lower().rstrip(".").endswith(".localhost")
    mapped = getattr(address, "ipv4_mapped", None) or address
    return bool(mapped.is_loopback or mapped.is_unspecified)


def _is_proxy(port: object) -> bool:
    """Return whether a port of this machine is the way out that the environment names."""
    for url in getproxies_environment().values():
        parts = urlsplit(url if "//" in url else f"//{url}")
        try:
            if _is_here(parts.hostname) and parts.port and str(parts.port) == str(port):
                return True
        except ValueError:  # no proxy can have such a port
            continue
    return False


def _asked_by_smoothapi(frame: FrameType | None) -> bool:
    while frame is not None:
        module = str(frame.f_globals.get("__name__", ""))
        if module.partition(".")[0] in _OURS and not module.startswith("smoothapi.testing"):
            return True
        frame = frame.f_back
    return False
