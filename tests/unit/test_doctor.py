"""`smoothapi doctor`: what it finds, says and leaves alone."""

from __future__ import annotations

import json
import socket
import sqlite3
import ssl
import threading
from contextlib import closing, contextmanager, suppress
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from shutil import disk_usage
from urllib.error import URLError

import numpy as np
import pytest
from PIL import Image

from smoothapi import config, doctor, parts
from smoothapi.doctor import denoiser, home, machine, network
from smoothapi.doctor.network import Unreachable, reach
from smoothapi.provider import Credentials, HasEndpoint, make_adapter
from smoothapi.store import Home, StoredAnswer
from tests.conftest import ScriptedAdapter, answer, invoke

SECRET = "0123456789abcdef0123456789abcdef"


class Reachable(ScriptedAdapter):
    def __init__(self, place, *, signed_in=True, **options):
        super().__init__(**options)
        self._place, self._signed_in = place, signed_in

    def credentials(self):
        return Credentials(self._signed_in, "the environment")

    def endpoint(self):
        return self._place


@contextmanager
def host(*, status=204, ahead=0.0, headers=()):
    """A host that answers everything alike; yields its origin and what it was asked."""
    asked = []

    class Handler(BaseHTTPRequestHandler):
        def do_HEAD(self):
            asked.append((self.requestline, dict(self.headers)))
            self.send_response_only(status)
            for name, value in headers:
                self.send_header(name, value)
            if ahead is not None:
                now = datetime.now(UTC) + timedelta(seconds=ahead)
                self.send_header("Date", format_datetime(now, usegmt=True))
            self.end_headers()

        def log_message(self, *_):
            pass

    server = HTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", asked
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.fixture
def fast(monkeypatch):
    """A denoiser whose speed is known."""
    monkeypatch.setattr(denoiser, "_milliseconds", lambda *_: 7.0)


@pytest.fixture
def provider(monkeypatch):
    def use(adapter):
        monkeypatch.setattr(parts, "make_adapter", lambda *_, **__: adapter)
        return adapter

    return use


def found(**arguments):
    return {finding.name: finding for finding in doctor.examine(arguments)}


def test_a_sound_installation_is_ready(fast, provider):
    with host() as (place, asked):
        adapter = provider(Reachable(place))
        result = invoke("doctor", "--json")
    told = json.loads(result.stdout)
    assert result.exit_code == 0
    assert told["schema"] == "smoothapi.doctor/1"
    assert told["ok"] is True
    states = {finding["name"]: finding["state"] for finding in told["checks"]}
    assert states.pop("money") == "warning"  # no budget is set
    assert states == dict.fromkeys(
        (
            *("python", "packages", "settings", "home", "disk"),
            *("noise key", "denoiser", "provider", "endpoint", "clock"),
        ),
        "ok",
    )
    assert adapter.sent == 0
    assert adapter.closed
    assert [line for line, _ in asked] == ["HEAD / HTTP/1.1"]
    assert "Authorization" not in asked[0][1]


def test_a_problem_exits_with_2_and_says_what_to_do(fast, provider):
    provider(Reachable("", signed_in=False))
    result = invoke("doctor")
    assert result.exit_code == 2
    assert "no credentials" in result.stdout
    assert "Sign in" in result.stdout
    assert "a run would fail" in result.stdout


def test_offline_asks_nobody(fast, provider):
    with host() as (place, asked):
        provider(Reachable(place))
        assert "not tried" in invoke("doctor", "--offline").stdout
    assert asked == []


@pytest.mark.parametrize(("ahead", "state"), [(180.0, "warning"), (-7200.0, "problem")])
def test_a_clock_that_is_off_is_told(fast, provider, ahead, state):
    with host(ahead=ahead) as (place, _):
        provider(Reachable(place))
        clock = found()["clock"]
    assert clock.state == state
    assert ("behind" if ahead > 0 else "ahead of") in clock.said


@pytest.mark.parametrize("status", [200, 301, 400, 403, 404, 500])
def test_any_status_is_an_answer_and_no_redirect_is_followed(status):
    with (
        host() as (other, asked_other),
        host(status=status, headers=[("Location", f"{other}/elsewhere")]) as (place, asked),
    ):
        assert reach(place).ahead is not None
    assert len(asked) == 1
    assert asked_other == []


def test_a_host_that_does_not_tell_the_time_is_reached(fast, provider):
    with host(ahead=None) as (place, _):
        provider(Reachable(place))
        told = found()
    assert told["endpoint"].state == "ok"
    assert "clock" not in told


def test_a_refused_connection():
    with closing(socket.socket()) as unused:
        unused.bind(("127.0.0.1", 0))
        with pytest.raises(Unreachable, match="refused"):
            reach(f"http://127.0.0.1:{unused.getsockname()[1]}")


@pytest.mark.parametrize(
    ("reason", "said"),
    [
        (socket.gaierror(-2, "Name or service not known"), "name is not known"),
        (ssl.SSLCertVerificationError(1, "self-signed"), "certificate is not accepted"),
        (ssl.SSLError(1, "wrong version number"), "handshake failed"),
        (TimeoutError(), "no answer came in time"),
    ],
)
def test_why_no_connection_came_about(monkeypatch, reason, said):
    def fail(*_):
        raise URLError(reason)

    monkeypatch.setattr(network, "_ask", fail)
    with pytest.raises(Unreachable, match=said):
        reach("https://example.invalid")


def test_a_host_that_drips_its_answer_does_not_hold_us_up():
    stop = threading.Event()

    def drip():
        # Until it is stopped, or nobody listens any more.
        with suppress(ConnectionError), closing(listener.accept()[0]) as line:
            while not stop.wait(0.05):
                line.sendall(b"H")

    with closing(socket.create_server(("127.0.0.1", 0))) as listener:
        thread = threading.Thread(target=drip)
        thread.start()
        try:
            with pytest.raises(Unreachable, match="in time"):
                reach(f"http://127.0.0.1:{listener.getsockname()[1]}", seconds=0.5)
        finally:
            stop.set()
            thread.join()


@pytest.mark.smoothapi_network
def test_the_login_of_a_proxy_is_not_told(monkeypatch):
    with closing(socket.socket()) as unused:
        unused.bind(("127.0.0.1", 0))
        proxy = f"http://user:{SECRET}@127.0.0.1:{unused.getsockname()[1]}"
        monkeypatch.setenv("https_proxy", proxy)
        with pytest.raises(Unreachable) as caught:
            reach("https://example.invalid")
    assert SECRET not in str(caught.value) + caught.value.advice
    assert caught.value.__cause__ is None


def test_every_other_failure_of_the_line_is_told(monkeypatch):
    for error in (OSError(5, SECRET), ValueError(SECRET), TimeoutError(), ConnectionResetError()):

        def fail(*_, error=error):
            raise error

        monkeypatch.setattr(network, "_ask", fail)
        with pytest.raises(Unreachable) as caught:
            reach("https://example.invalid")
        assert SECRET not in str(caught.value)


def test_settings_that_cannot_be_read_are_a_finding(fast):
    Path("smoothapi.toml").write_text("sigma = 9\n")
    told = found()
    assert told["settings"].state == "problem"
    assert "sigma" in told["settings"].said
    assert "python" in told
    assert "denoiser" not in told


def test_settings_that_nobody_vouches_for_are_told(fast):
    Path("smoothapi.toml").write_text('record = "answers.jsonl"\n')
    told = found()
    assert told["settings"].state == "warning"
    assert "record" in told["settings"].said
    assert "config trust" in told["settings"].advice


def test_a_denoiser_that_cannot_be_used_is_a_finding_and_the_rest_goes_on():
    told = found(denoiser="nowhere.safetensors")
    assert told["denoiser"].state == "problem"
    assert told["provider"].state == "ok"


def test_no_denoiser_is_a_warning():
    told = found(denoiser="none")
    assert told["denoiser"].state == "warning"
    assert "abstain" in told["denoiser"].advice


def test_the_speed_is_that_of_the_denoiser(monkeypatch):
    class Runtime:
        name, device, precision = "mine", "cpu", "fp32"

        def variants(self, noisy, sigma):
            assert noisy.shape == (4, 24, 24, 3)
            assert noisy.dtype == np.float32
            now[0] += 4 * 0.3  # seconds

    now = [0.0]
    monkeypatch.setattr(denoiser.denoise, "load", lambda *_, **__: Runtime())
    monkeypatch.setattr(denoiser.time, "perf_counter", lambda: now[0])
    [finding] = denoiser.examine(config.resolve(size=24))
    assert finding.state == "warning"
    assert "300.0 ms a variant of 24 x 24" in finding.said


def test_a_card_that_was_asked_for_and_is_not_here(fast, monkeypatch):
    monkeypatch.setattr(denoiser, "choose_device", lambda _: "cpu")
    [finding] = denoiser.examine(config.resolve(device="cuda:0", denoiser="small"))
    assert finding.state == "warning"
    assert "cuda:0 was asked for" in finding.said


def test_nothing_is_made_in_a_home_that_is_not_there(tmp_path):
    place = tmp_path / "new" / "home"
    told = {finding.name: finding for finding in home.examine(place)}
    assert told["home"].state == "ok"
    assert "will make" in told["home"].said
    assert list(tmp_path.iterdir()) == []


def test_a_home_in_which_a_run_kept_answers(fast, provider):
    provider(ScriptedAdapter())
    photo = Path("photo.png")
    Image.new("RGB", (24, 24), "red").save(photo)
    assert invoke(
        *f"certify {photo} --denoiser none --budget 500 --radius 0.02".split()
    ).exit_code in (
        0,
        1,
    )
    before = sorted(Path().rglob("*"))
    told = found()
    assert told["answers"].state == "ok"
    assert not told["answers"].said.startswith("0 ")
    assert told["ledger"].state == "ok"
    assert sorted(Path().rglob("*")) == before


def test_a_key_that_others_can_read_is_a_problem(fast):
    key = Path("smoothapi/noise.key")
    key.chmod(0o644)
    told = found()
    assert told["home"].state == "problem"
    assert "voids the guarantee" in told["home"].said
    assert told["provider"].state == "ok"


def test_damaged_answers_are_counted(fast):
    with Home(Path("smoothapi")) as opened:
        for number in range(3):
            opened.answers.put(StoredAnswer({"n": number}, answer()))
    with closing(sqlite3.connect("smoothapi/answers/cache.db")) as database, database:
        database.execute("UPDATE Cache SET value = 'x' WHERE rowid = 2")
    told = found()
    assert told["answers"].state == "warning"
    assert "of 3 that were read, 1 cannot be used" in told["answers"].said


def test_little_room_is_told(monkeypatch, tmp_path):
    usage = type(disk_usage(tmp_path))
    for free, state in ((2**20, "problem"), (2**29, "warning"), (2**34, "ok")):
        monkeypatch.setattr(home.shutil, "disk_usage", lambda _, free=free: usage(2**40, 0, free))
        assert home._disk(tmp_path).state == state


def test_a_home_on_another_machine_is_told(monkeypatch, tmp_path):
    mounts = tmp_path / "mounts"
    place = tmp_path / "my share"
    place.mkdir()
    mounts.write_text(
        f"/dev/sda / ext4 rw 0 0\nserver:/x {str(place).replace(' ', chr(92) + '040')} nfs4 rw 0 0\n"
    )
    monkeypatch.setattr(home, "_MOUNTS", mounts)
    told = {finding.name: finding for finding in home.examine(place)}
    assert told["home"].state == "warning"
    assert "nfs4" in told["home"].said


def test_a_package_that_is_missing_is_a_problem(monkeypatch):
    monkeypatch.setattr(machine.metadata, "requires", lambda _: ["numpy>=1", "gone-package>=2"])
    finding = list(machine.examine())[1]
    assert finding.state == "problem"
    assert "gone-package" in finding.advice


def test_metadata_that_is_gone_is_a_warning(monkeypatch):
    def gone(_):
        raise machine.metadata.PackageNotFoundError

    monkeypatch.setattr(machine.metadata, "requires", gone)
    assert list(machine.examine())[1].state == "warning"


@pytest.mark.parametrize(
    ("name", "options", "place"),
    [
        ("aws", {"region": "eu-west-1"}, "https://rekognition.eu-west-1.amazonaws.com"),
        (
            "aws",
            {"endpoint": "http://127.0.0.1:8000", "region": "eu-west-1"},
            "http://127.0.0.1:8000",
        ),
        ("google", {}, "https://vision.googleapis.com"),
        ("google", {"endpoint": "eu-vision.googleapis.com"}, "https://eu-vision.googleapis.com"),
        (
            "azure",
            {"endpoint": "https://me.cognitiveservices.azure.com/", "key": SECRET},
            "https://me.cognitiveservices.azure.com",
        ),
        (
            "azure4",
            {"endpoint": "https://me.cognitiveservices.azure.com/", "key": SECRET},
            "https://me.cognitiveservices.azure.com",
        ),
        ("azure4", {}, ""),
        ("clarifai", {"pat": SECRET}, "https://api.clarifai.com"),
        (
            "http",
            {"url": f"https://mine.example:8443/label?key={SECRET}", "labels": "labels"},
            "https://mine.example:8443",
        ),
    ],
)
def test_an_adapter_says_where_requests_go_and_nothing_secret(monkeypatch, name, options, place):
    for variable in ("VISION_ENDPOINT", "COMPUTER_VISION_ENDPOINT"):
        monkeypatch.delenv(variable, raising=False)
    with closing(make_adapter(name, **options)) as adapter:
        assert isinstance(adapter, HasEndpoint)
        assert adapter.endpoint() == place


@pytest.mark.parametrize("name", ["mock"])
def test_what_is_on_this_machine_has_no_endpoint(name):
    with closing(make_adapter(name)) as adapter:
        assert not isinstance(adapter, HasEndpoint)
