"""What several test modules share: a scriptable adapter, and a home of its own for each test."""

from __future__ import annotations

import hashlib
import importlib.util
import itertools
import os
import secrets
import signal
import sys
import threading
import time
from collections import Counter, defaultdict
from decimal import Decimal
from functools import cache
from types import SimpleNamespace

import pytest
from click.testing import CliRunner
from hypothesis import HealthCheck, settings

from smoothapi import cli
from smoothapi.answer import Answer, Label
from smoothapi.provider import Limits, Price, registry

# Each worker has a core; torch, before it is imported here or in a child, must not ask for all.
os.environ.setdefault("OMP_NUM_THREADS", "1")

# The same examples each time: a change is not refused for what it did not do. To look for new
# ones, `pytest --hypothesis-profile=default`.
# How long drawing takes, or one example, says how busy the machine is.
settings.register_profile(
    "same",
    derandomize=True,
    database=None,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
)
settings.load_profile("same")


def answer(name="bus", version="v1", score=0.9):
    return Answer(labels=(Label(name, score),), model_version=version)


def with_noise_key(home, key=bytes(range(32))):
    """Give a home its noise key, so that votes are the same in every run; return the home."""
    home.mkdir(parents=True, exist_ok=True)
    (home / "noise.key").write_bytes(key)
    (home / "noise.key").chmod(0o600)
    return home


class Clock:
    """A clock that stands still until a test sets it, in seconds since the epoch."""

    def __init__(self):
        self.now = time.time()

    def __call__(self):
        return self.now


class Ticks:
    """Seconds that only count on, and some more that a test lets pass."""

    def __init__(self):
        self.passed = 0.0

    def __call__(self):
        return time.monotonic() + self.passed


class ScriptedAdapter:
    """Answers as `script(payload, attempt)` says; raises what it returns if that is an error."""

    name = "scripted"

    def __init__(self, script=None, *, batch=1, price="1.00", delay=0.0, max_bytes=10**6):
        self._script = script or (lambda payload, attempt: answer())
        self.identity = {"operation": "label"}
        self.limits = Limits(batch=batch, max_bytes=max_bytes)
        self.price = Price(Decimal(price))
        self._delay = delay
        self._lock = threading.Lock()
        self.attempts: Counter[bytes] = Counter()
        self.requests: list[list[bytes]] = []
        self.in_flight = self.most_in_flight = 0
        self.closed = False

    @property
    def sent(self):
        return sum(self.attempts.values())

    def ask(self, payloads):
        with self._lock:
            self.in_flight += len(payloads)
            self.most_in_flight = max(self.most_in_flight, self.in_flight)
            self.requests.append(list(payloads))
            for payload in payloads:
                self.attempts[payload] += 1
            numbers = [self.attempts[payload] for payload in payloads]
        try:
            if self._delay:
                time.sleep(self._delay)
            outcomes = [self._script(p, n) for p, n in zip(payloads, numbers, strict=True)]
        finally:
            with self._lock:
                self.in_flight -= len(payloads)
        if len(outcomes) == 1 and isinstance(outcomes[0], BaseException):
            raise outcomes[0]
        return outcomes

    def close(self):
        self.closed = True


class _Command:
    """The command as a shell runs it, for click's CliRunner."""

    name = "smoothapi"

    def main(self, args, **_):
        sys.exit(cli.run(list(args)))


def invoke(*arguments):
    """Run `smoothapi ARGUMENTS`; return exit_code, stdout and stderr."""
    return CliRunner().invoke(_Command(), [str(argument) for argument in arguments])


@pytest.fixture(autouse=True, scope="session")
def _ctrl_c():
    """Let Ctrl-C reach the programs that tests start, though a shell started us in the background."""
    if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(autouse=True, scope="session")
def _models_of_aws():
    """Each client of boto3 parses the same megabytes of JSON, its own models: here once for all."""
    if importlib.util.find_spec("botocore") is None:
        yield
        return
    from botocore import loaders

    load = loaders.JSONFileLoader.load_file
    known = {}

    def load_once(self, file_path):
        if not str(file_path).startswith(loaders.Loader.BUILTIN_DATA_PATH):
            return load(self, file_path)
        if file_path not in known:
            known[file_path] = load(self, file_path)
        return known[file_path]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loaders.JSONFileLoader, "load_file", load_once)
        yield


@pytest.fixture(autouse=True, scope="session")
def _installed():
    """Nothing is installed meanwhile: the metadata of all packages is read once, not at each use."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(registry, "entry_points", cache(registry.entry_points))
        yield


@pytest.fixture(autouse=True, scope="session")
def _drawn_keys():
    """Keys that a test has drawn are the same in each run: so are its votes, and what they say.

    A provider that is right in 95 of 100 pictures is abstained on with one key in some thousands.
    """
    from smoothapi import keyring, noise

    drawn, process = defaultdict(itertools.count), os.getpid()

    def token_bytes(length):
        if os.getpid() != process:
            return secrets.token_bytes(length)
        test = os.environ.get("PYTEST_CURRENT_TEST", "")
        text = f"{test} {next(drawn[test])}"
        return hashlib.shake_256(text.encode(errors="surrogateescape")).digest(length)

    with pytest.MonkeyPatch.context() as patch:
        for module in (keyring, noise):
            patch.setattr(module, "secrets", SimpleNamespace(token_bytes=token_bytes))
        yield


@pytest.fixture(autouse=True)
def _own_home(tmp_path_factory, monkeypatch):
    """No test reads or writes the settings, key or answers of whoever runs it."""
    for name in [name for name in os.environ if name.startswith("SMOOTHAPI_")]:
        monkeypatch.delenv(name)
    home = tmp_path_factory.mktemp("home")
    key = home / "smoothapi" / "noise.key"
    key.parent.mkdir()
    key.write_bytes(bytes(range(32)))  # the same noise in every run of the tests
    key.chmod(0o600)
    monkeypatch.setenv("SMOOTHAPI_HOME", str(home / "smoothapi"))
    monkeypatch.chdir(home)


@pytest.fixture(scope="session")
def postgres():
    """A PostgreSQL of this session's own; what needs one is skipped where none is installed."""
    pytest.importorskip("psycopg", reason="psycopg is not installed (extra postgres)")
    from tests.postgres import Postgres, binaries

    if binaries() is None:
        pytest.skip("PostgreSQL is not installed (Debian's package postgresql)")
    server = Postgres()
    yield server
    server.close()


@pytest.fixture
def database(postgres):
    """The address of a database with nothing in it."""
    return postgres.empty()


@pytest.fixture
def noise_key_file(tmp_path):
    """The file of a deployment's noise key: the same noise as in a home of the tests."""
    file = tmp_path / "deployed.key"
    file.write_text(bytes(range(32)).hex())
    file.chmod(0o600)
    return file
