"""The pytest plugin: a mock and local services as fixtures, and a guard before the network.

It is loaded into every test run of an environment that has smoothapi, so it does as little as it
can: it imports neither torch nor a cloud SDK, it adds two names to pytest's configuration (the
option and the marker `smoothapi_network`), and the guard refuses only what smoothapi itself would
send to another machine. Everything else that a test suite does is left alone.
"""

from __future__ import annotations

from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

import pytest

from smoothapi.testing.network import NetworkGuard

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator
    from pathlib import Path

    from smoothapi.provider import Adapter
    from smoothapi.services import Service

_NAME = "smoothapi_network"
_GUARD = pytest.StashKey[NetworkGuard]()


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the setting of the guard."""
    parser.addini(
        _NAME,
        "block (default): smoothapi reaches no other machine in tests without the marker "
        f"{_NAME}; allow: it does.",
        default="block",
    )


def pytest_configure(config: pytest.Config) -> None:
    """Register the marker, put up the guard."""
    config.addinivalue_line(
        "markers", f"{_NAME}: smoothapi may reach a provider over the network in this test."
    )
    mode = str(config.getini(_NAME))
    if mode not in ("block", "allow"):
        raise pytest.UsageError(f"{_NAME} = {mode}: it is block or allow.")
    if mode == "block":
        guard = config.stash[_GUARD] = NetworkGuard(_refuse)
        guard.install()


def pytest_unconfigure(config: pytest.Config) -> None:
    """Take the guard away."""
    guard = config.stash.get(_GUARD, None)
    if guard is not None:
        guard.remove()


@pytest.hookimpl(hookwrapper=True)  # the newer kind would not load with an older pluggy
def pytest_runtest_protocol(item: pytest.Item) -> Generator[None, object, None]:
    """Open the guard for a test that is marked, with its fixtures."""
    guard = item.config.stash.get(_GUARD, None)
    if guard is not None:
        guard.allowed = item.get_closest_marker(_NAME) is not None
    yield
    if guard is not None:
        guard.allowed = False


def _refuse(address: str) -> None:
    # What pytest raises does not inherit from Exception, so no SDK takes it for a lost connection
    # and no layer tries again; through the threads that send it comes out as the test's failure.
    pytest.fail(
        f"smoothapi was about to connect to {address}, and tests reach no other machine unless "
        f"they say so. Use the fixture smoothapi_mock or smoothapi_service, mark the test with "
        f"@pytest.mark.{_NAME}, or set {_NAME} = allow in pytest's configuration."
    )


class MockFactory:
    """What the fixture `smoothapi_mock` is: makes mocks, and puts them in a provider's place."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self._monkeypatch = monkeypatch
        self._instead: dict[str, Any] = {}

    def __call__(self, labeller: Any = None, **options: Any) -> Any:
        """Return a `MockAdapter`; takes what it takes, such as {"bus": 0.97, None: 0.03}."""
        from smoothapi.provider import make_adapter  # noqa: PLC0415

        return make_adapter("mock", labeller=labeller, **options)

    def instead_of(self, provider: str, labeller: Any = None, **options: Any) -> Any:
        """Return a mock that code under test gets wherever it asks smoothapi for `provider`.

        It goes by the provider's name, so that prices and budgets of the settings hold; the
        provider's options in the settings are ignored.
        """
        from smoothapi.provider import make_adapter  # noqa: PLC0415

        mock = self._instead[provider] = self(labeller, **options)
        mock.name = provider

        def make(name: str, **given: Any) -> Adapter:
            return self._instead[name] if name in self._instead else make_adapter(name, **given)

        self._monkeypatch.setattr("smoothapi.parts.make_adapter", make)
        return mock


@pytest.fixture
def smoothapi_home(
    tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> Path:
    """A folder of this test's own for noise key, answers and ledger; SMOOTHAPI_* is cleared.

    The noise key is the same in each test and each run, so that a test with a seeded labeller
    always sees the same votes.
    """
    import os  # noqa: PLC0415

    for name in [name for name in os.environ if name.startswith("SMOOTHAPI_")]:
        monkeypatch.delenv(name)
    home = tmp_path_factory.mktemp("smoothapi")
    key = home / "noise.key"
    key.touch(mode=0o600)
    key.write_bytes(bytes(range(32)))
    monkeypatch.setenv("SMOOTHAPI_HOME", str(home))
    return home


@pytest.fixture
def smoothapi_mock(smoothapi_home: Path, monkeypatch: pytest.MonkeyPatch) -> MockFactory:
    """Make mocks: `smoothapi_mock({"bus": 0.97, None: 0.03}, faults="2% timeout")`.

    No denoiser is put in front unless a test names one: a mock's answers do not depend on it, and
    to load and run it takes seconds.
    """
    del smoothapi_home
    monkeypatch.setenv("SMOOTHAPI_PROVIDER", "mock")
    monkeypatch.setenv("SMOOTHAPI_DENOISER", "none")
    return MockFactory(monkeypatch)


@pytest.fixture
def smoothapi_service(smoothapi_home: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """Start local services that speak a provider's protocol: `smoothapi_service("aws", backend)`.

    Takes what `smoothapi.services.serve` takes and returns the service; it ends with the test. No
    denoiser is put in front unless a test names one.
    Where the environment names a proxy, what is on this machine is reached without it.
    """
    import os  # noqa: PLC0415

    del smoothapi_home
    monkeypatch.setenv("SMOOTHAPI_DENOISER", "none")
    # Programs differ in which spelling they read first.
    for name in ("no_proxy", "NO_PROXY"):
        without = os.environ.get(name) or os.environ.get(name.swapcase()) or ""
        if without != "*":
            here = filter(None, (without, "localhost", "127.0.0.1", "::1"))
            monkeypatch.setenv(name, ",".join(here))
    with ExitStack() as services:

        def start(provider: str, backend: Any, **options: Any) -> Service:
            from smoothapi.services import serve  # noqa: PLC0415

            return services.enter_context(serve(provider, backend, **options))

        yield start
