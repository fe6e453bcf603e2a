"""The pytest plugin, in test runs of its own: fixtures, the guard, and what it leaves alone."""

from __future__ import annotations

import subprocess
import sys

import pytest

pytest_plugins = ["pytester"]

LOST = """
import socket
from decimal import Decimal
import numpy as np
import pytest
from smoothapi import Limits, Price, Smoother

PHOTO = np.zeros((8, 8, 3), dtype=np.uint8)

class Far:
    "An adapter that takes any failure of the network for a passing one, as SDKs do."
    name, identity, limits, price = "far", {"operation": "label"}, Limits(), Price(Decimal(1))
    def __init__(self, address=("cloud.invalid", 443)):
        self.address, self.asked = address, 0
    def ask(self, payloads):
        from smoothapi.errors import TransientError
        self.asked += 1
        try:
            socket.create_connection(self.address, timeout=0.05).close()
        except Exception as error:
            raise TransientError("no way there") from error
        raise AssertionError("never answers")
    def close(self):
        pass

def certify(adapter, **options):
    with Smoother(adapter, denoiser="none", size=8, **options) as smoother:
        return smoother.certify(PHOTO)
"""


@pytest.fixture
def outcomes(pytester, monkeypatch):
    """Run a module of tests in a process of its own, with warnings as errors.

    Others' plugins, which are most of what such a process takes, are left out unless `installed`.
    """

    def outcomes(text, *arguments, ini="", env=(), installed=False):
        if not installed:
            monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")
            arguments = ("-p", "smoothapi.testing.plugin", *arguments)
        for name, value in dict(env).items():
            monkeypatch.setenv(name, value)
        pytester.makeini(
            f"[pytest]\nfilterwarnings = error\naddopts = --strict-markers -p no:cacheprovider\n{ini}"
        )
        pytester.makepyfile(LOST + text)
        return pytester.runpytest_subprocess("-q", *arguments)

    return outcomes


def test_importing_it_is_light():
    script = """
import sys, smoothapi.testing.plugin
heavy = {"torch", "numpy", "PIL", "scipy", "boto3", "google", "azure", "grpc", "requests", "starlette",
         "diskcache", "pydantic", "smoothapi_adapters", "smoothapi.smoother"} & set(sys.modules)
assert not heavy, heavy
"""
    subprocess.run([sys.executable, "-W", "error", "-c", script], check=True)


def test_it_is_loaded_by_its_entry_point_and_says_what_it_adds(outcomes):
    said = outcomes("", "--markers", installed=True).stdout.str()
    assert "@pytest.mark.smoothapi_network: smoothapi may reach" in said


def test_a_cloud_is_refused_at_once_unless_the_test_is_marked_and_others_are_left_alone(outcomes):
    result = outcomes(
        """
from smoothapi.errors import ProviderError

def test_accident(smoothapi_home):
    far = Far()
    try:
        certify(far, concurrency=3)
    finally:
        assert far.asked <= 3  # nothing is tried again

@pytest.mark.smoothapi_network
def test_marked(smoothapi_home):
    with pytest.raises(ProviderError):
        Smoother(Far(), denoiser="none").session.adapter.ask([b""])

def test_directly(smoothapi_home):
    certify(Far(("192.0.2.1", 443)))

def test_others_connect_as_they_like():
    with pytest.raises(OSError):
        socket.create_connection(("cloud.invalid", 443), timeout=0.05)
    with pytest.raises(OSError), socket.socket() as s:
        s.settimeout(0.05)
        s.connect(("192.0.2.1", 443))

def test_the_environment_is_as_it_was():
    import os
    assert os.environ["SMOOTHAPI_SIGMA"] == "0.5"
""",
        env={"SMOOTHAPI_SIGMA": "0.5"},
    )
    result.assert_outcomes(failed=2, passed=3)
    result.stdout.fnmatch_lines(["*Failed: smoothapi was about to connect to cloud.invalid:443*"])
    result.stdout.fnmatch_lines(["*Failed: smoothapi was about to connect to 192.0.2.1:443*"])
    result.stdout.fnmatch_lines(["*@pytest.mark.smoothapi_network*smoothapi_network = allow*"])


@pytest.mark.parametrize(
    ("address", "refused"),
    [
        (("192.0.2.1", 443), True),
        (("2001:db8::1", 443), True),
        (("::ffff:192.0.2.1", 443), True),
        (("127.0.0.1.evil.invalid", 443), True),
        (("127.0.0.1", 9), False),
        (("127.9.9.9", 9), False),
        (("::1", 9), False),
        (("localhost", 9), False),
        (("api.localhost", 9), False),
        (("::ffff:127.0.0.1", 9), False),
    ],
)
def test_what_is_this_machine(address, refused, monkeypatch):
    import socket

    from smoothapi.testing.network import NetworkGuard

    seen = []
    guard = NetworkGuard(seen.append)
    namespace = {"__name__": "smoothapi.pretended", "guard": guard}
    exec("def check(address):\n    guard._check(address)", namespace)
    namespace["check"](address)
    assert bool(seen) is refused
    guard._check(("192.0.2.1", 1))  # none of smoothapi's frames but those of the guard
    assert len(seen) == refused
    guard.allowed = True
    namespace["check"](("192.0.2.1", 1))
    namespace["check"]("/a/unix/socket")
    assert len(seen) == refused
    guard.allowed = False
    monkeypatch.setenv("https_proxy", "http://127.0.0.1:3128")
    namespace["check"](("127.0.0.1", 3128))  # the way out of this machine
    assert len(seen) == refused + 1
    assert not hasattr(socket.socket.connect, "__wrapped__")


@pytest.mark.parametrize(
    ("target", "refused"),
    [
        ("vision.googleapis.com:443", True), ("dns:///vision.googleapis.com", True),
        ("dns://8.8.8.8/vision.googleapis.com:443", True), ("ipv4:192.0.2.1:443", True),
        ("[2001:db8::1]:443", True), ("127.0.0.1:5000", False), ("localhost:5000", False),
        ("ipv4:127.0.0.1:5000", False), ("[::1]:5000", False), ("unix:/tmp/socket", False),
        ("dns:///localhost:5000", False),
    ],
)  # fmt: skip
def test_channels_of_grpc(target, refused):
    from smoothapi.testing.network import NetworkGuard

    seen = []
    guard = NetworkGuard(seen.append)
    namespace = {"__name__": "smoothapi_adapters.pretended", "guard": guard}
    exec("def check(target):\n    guard._check_target(target)", namespace)
    namespace["check"](target)
    assert bool(seen) is refused


def test_real_sdks_are_refused_too(outcomes):
    result = outcomes(
        """
@pytest.mark.parametrize("name", ["aws", "google", "google rest", "azure", "azure4", "clarifai"])
def test_it(name, smoothapi_home, monkeypatch):
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIA" + "X" * 16)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "x" * 40)
    from smoothapi.provider import make_adapter
    from smoothapi_adapters.google import GoogleAdapter
    if name == "aws":
        adapter = make_adapter("aws", region="eu-west-1")
    elif name.startswith("google"):
        from google.auth.credentials import AnonymousCredentials
        from google.cloud import vision
        options = {"transport": "rest" if "rest" in name else "grpc"}
        adapter = make_adapter("google", credentials=AnonymousCredentials(), **options)
    elif name == "clarifai":
        adapter = make_adapter(name, pat="x" * 32)
    else:
        adapter = make_adapter(name, endpoint="https://x.cognitiveservices.azure.com", key="x" * 32)
    from smoothapi.encode import Codec
    adapter.ask([Codec(min_side=80).encode(PHOTO)])
""",
        "--tb=short",
    )
    assert result.stdout.str().count("was about to connect to") >= 6
    result.assert_outcomes(failed=6)


def test_it_can_be_switched_off_and_a_slip_is_said(outcomes):
    text = """
from smoothapi.errors import TransientError
def test_it(smoothapi_home):
    before = socket.getaddrinfo
    assert before.__module__ == "socket"
"""
    outcomes(text, ini="smoothapi_network = allow\n").assert_outcomes(passed=1)
    result = outcomes(text, ini="smoothapi_network = off\n")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(["*smoothapi_network = off: it is block or allow*"])


def test_sockets_are_given_back(pytester):
    script = """
import socket, sys, pytest
before = (socket.getaddrinfo, dict(vars(socket.socket)), list(sys.meta_path))
pytest.main(["-q", "-p", "no:cacheprovider", "--collect-only"])
assert socket.getaddrinfo is before[0]
assert dict(vars(socket.socket)) == before[1]
assert not [f for f in sys.meta_path if type(f).__module__.startswith("smoothapi")]
"""
    subprocess.run(
        [sys.executable, "-c", script], check=True, cwd=pytester.path, stdout=subprocess.DEVNULL
    )


def test_the_mock_has_a_home_and_a_key_of_its_own(outcomes, monkeypatch):
    monkeypatch.setenv("SMOOTHAPI_SIGMA", "nonsense")
    result = outcomes("""
import os
keys = set()

@pytest.mark.parametrize("n", range(2))
def test_each(n, smoothapi_mock, smoothapi_home):
    adapter = smoothapi_mock({"bus": 0.97, None: 0.03}, seed=1)
    certificate = certify(adapter, radius=0.1)
    assert certificate.label == "bus"
    assert certificate.queries == adapter.billed == certificate.total_votes + 1
    assert certificate.cached == 0
    assert os.environ["SMOOTHAPI_HOME"] == str(smoothapi_home)
    assert (smoothapi_home / "noise.key").stat().st_mode & 0o777 == 0o600
    keys.add((certificate.noise_key, certificate.votes))
    assert len(keys) == 1

def test_by_setting(smoothapi_mock, monkeypatch):
    monkeypatch.setenv("SMOOTHAPI_PROVIDERS__MOCK__LABELLER", "probabilities:bus 100%")
    assert certify(None).label == "bus"

def test_in_a_providers_place(smoothapi_mock):
    aws = smoothapi_mock.instead_of("aws", {"bus": 1.0}, faults="1x429")
    google = smoothapi_mock.instead_of("google", {"van": 1.0})
    certificate = certify("aws")
    assert (certificate.label, certificate.provider) == ("bus", "aws")
    assert certify("google").label == "van"
    assert aws.requests == certificate.attempts == certificate.queries + 1
    assert certify(smoothapi_mock({"x": 1.0})).provider == "mock"

def test_a_folder_of_ones_own_is_untouched(smoothapi_mock, tmp_path):
    assert not list(tmp_path.iterdir())
""")
    result.assert_outcomes(passed=5)


def test_services_speak_and_end_with_the_test(outcomes):
    result = outcomes("""
from smoothapi.services import by_colour
ports = []

def test_it(smoothapi_service, monkeypatch):
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIA" + "X" * 16)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "x" * 40)
    from smoothapi.provider import make_adapter
    service = smoothapi_service("aws", by_colour, faults="1x429")
    other = smoothapi_service("clarifai", by_colour)
    ports.extend([service.url, other.url])
    adapter = make_adapter("aws", endpoint=service.url, region="eu-west-1")
    certificate = certify(adapter)
    assert certificate.label
    assert len(service.received) == certificate.attempts

def test_it_has_ended():
    for url in ports:
        host, port = url.removeprefix("http://").split(":")
        with pytest.raises(OSError):
            socket.create_connection((host, int(port)), timeout=0.2)
    assert len(ports) == 2
""")
    result.assert_outcomes(passed=2)


@pytest.mark.parametrize("spelling", [str.lower, str.upper])
def test_services_are_reached_past_a_proxy(outcomes, monkeypatch, spelling):
    for name in ("http_proxy", "https_proxy", "all_proxy"):
        monkeypatch.setenv(spelling(name), "http://127.0.0.1:9")
    monkeypatch.setenv(spelling("no_proxy"), "example.com")
    result = outcomes("""
import urllib.request
from smoothapi.services import by_colour

def test_it(smoothapi_service, monkeypatch):
    monkeypatch.setenv("CLARIFAI_PAT", "x" * 32)
    from smoothapi.provider import make_adapter
    service = smoothapi_service("clarifai", by_colour)
    assert urllib.request.proxy_bypass("example.com")
    assert certify(make_adapter("clarifai", endpoint=service.url)).label
""")
    result.assert_outcomes(passed=1)
