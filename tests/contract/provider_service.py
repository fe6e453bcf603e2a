"""What the adapters of SDKs have in common: the contract against a local service, and more."""

from __future__ import annotations

import gc
import http.server
import json
import threading
import warnings
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest

from smoothapi.certify.labels import top1
from smoothapi.encode import Codec
from smoothapi.errors import FatalError, PermanentError, ProviderError, TransientError
from smoothapi.services import by_colour, serve
from smoothapi.services.faults import Fault
from smoothapi.testing import AdapterContract
from smoothapi.testing.contract import unused_port
from tests.waiting import PATIENCE, seconds_for, until

PNG = Codec("png").encode(np.full((96, 96, 3), 90, np.uint8))
ANSWERS = Path(__file__).parents[3] / "shared" / "data" / "answers"
AT_ONCE = 32

PROXY = [
    (200, b"<html>", TransientError, "text/html"),
    (200, b"{", TransientError, "application/json"),
    (200, b"", TransientError, "application/json"),
    (200, b"[]", TransientError, "application/json"),
    (200, b"null", TransientError, "application/json"),
    (200, b"{}", TransientError, "application/json"),
    (302, b"", FatalError, "text/html"),
    (307, b"", FatalError, "text/html"),
    (401, b"<html>", FatalError, "text/html"),
    (403, b"", FatalError, "text/html"),
    (403, b'"text"', FatalError, "application/json"),
    (403, b'{"error": 3}', FatalError, "application/json"),
    (403, b'{"error": "text"}', FatalError, "application/json"),
    (404, b"{", FatalError, "application/json"),
    (413, b"too large", PermanentError, "text/plain"),
    (502, b"<html>", TransientError, "text/html"),
    (503, b"[]", TransientError, "application/json"),
    (503, b"{", TransientError, "application/json"),
    (503, b'{"error": {"details": [3]}}', TransientError, "application/json"),
]
"""Status, body, what it means, and its media type: of what stands between, or breaks."""


class ServiceContract(AdapterContract):
    """The contract of an adapter whose SDK talks to a local service.

    Subclasses say what follows, and give `adapter_at`.

    Attributes:
        service: name for `serve`.
        key: what signs the requests.
        wrong_key: what the error of another key says.
        options: sets of options that go through code of their own.
        proxy: answers as in `PROXY`.
        recorded: pattern of the files of recorded answers.
        hasty: seconds after which a caller gives up who is to give up.
    """

    service: str
    key: str
    wrong_key: str
    options = ({},)
    proxy = PROXY
    recorded: str
    hasty = 0.4

    def adapter_at(self, url, **options):
        """Return an adapter with the key, unless `options` hold another."""
        raise NotImplementedError

    def reply_of(self, recorded):
        """Return what the service is to answer for a recorded answer."""
        return recorded

    def best_of(self, recorded):
        """Return the best label of a recorded answer, None if it holds no label."""
        raise NotImplementedError

    @pytest.fixture
    def served(self):
        with serve(self.service, by_colour, key=self.key) as service:
            yield service

    @pytest.fixture
    def make(self, served):
        return lambda: self.adapter_at(served.url)

    @pytest.fixture
    def secrets(self):
        return [self.key]

    @pytest.fixture
    def sent(self, served):
        return lambda: len(served.received)

    @pytest.fixture
    def unreachable(self):
        return self.adapter_at(f"http://127.0.0.1:{unused_port()}", timeout=3)

    @pytest.fixture
    def faulty(self):
        services = []

        def make(fault):
            services.append(
                serve(self.service, by_colour, faults=f"@1- {fault}", late=600.0, drip=3.0)
            )
            return self.adapter_at(services[-1].url, timeout=seconds_for(fault))

        yield make
        for service in services:
            service.close()

    def pytest_generate_tests(self, metafunc):
        if "said_by_proxy" in metafunc.fixturenames:
            metafunc.parametrize("said_by_proxy", self.proxy)
            metafunc.parametrize("options", self.options)

    @pytest.mark.parametrize("fault", [*map(str, Fault)])
    def test_each_fault_is_met_with_one_request(self, fault):
        # What drips in does so at shorter intervals than the timeout.
        drip = 12 * self.hasty
        with serve(self.service, by_colour, faults=f"@1- {fault}", late=600, drip=drip) as service:
            adapter = self.adapter_at(service.url, timeout=seconds_for(fault, self.hasty))
            outcome = outcome_of(adapter)
            adapter.close()
            until(lambda: service.received)
        assert len(service.received) == 1
        assert isinstance(outcome, ProviderError)  # what drips in is not waited for, either

    def test_a_wrong_key_is_fatal(self):
        with serve(self.service, by_colour, key="another") as service:
            adapter = self.adapter_at(service.url)
            with pytest.raises(FatalError, match=self.wrong_key) as caught:
                adapter.ask([PNG])
            adapter.close()
            assert self.key not in str(caught.value)
            assert len(service.received) == 1

    def test_what_a_proxy_says_is_judged_by_its_status(self, said_by_proxy, options):
        status, body, kind, content = said_by_proxy
        elsewhere = f"http://127.0.0.1:{unused_port()}/"
        with answering(status, body, {"content-type": content, "location": elsewhere}) as server:
            adapter = self.adapter_at(server.url, timeout=PATIENCE, **options)
            with pytest.raises(ProviderError) as caught:
                adapter.ask([b"x"])
            adapter.close()
        assert server.requests == 1
        assert type(caught.value) is kind

    def test_threads_are_all_in_flight_at_once_and_leave_nothing_open(self):
        gate = threading.Barrier(AT_ONCE)

        def backend(picture):
            gate.wait(PATIENCE)  # passes only if all are being answered at the same time
            return by_colour(picture)

        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            gc.collect()  # what earlier tests left is not this one's
        with warnings.catch_warnings(record=True) as seen, serve(self.service, backend) as service:
            warnings.simplefilter("always")
            adapter = self.adapter_at(service.url, timeout=2 * PATIENCE)
            outcomes = []
            threads = [
                threading.Thread(target=lambda: outcomes.extend(adapter.ask([PNG])))
                for _ in range(AT_ONCE)
            ]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            adapter.close()
            gc.collect()
        assert len(outcomes) == AT_ONCE
        assert not [str(w.message) for w in seen if issubclass(w.category, ResourceWarning)]

    @pytest.mark.skipif(
        not ANSWERS.is_dir(), reason="shared/data/answers is not beside the project"
    )
    def test_all_recorded_answers_come_through(self):
        recorded = [json.loads(file.read_text()) for file in sorted(ANSWERS.glob(self.recorded))]
        assert len(recorded) == 23
        pictures = [
            Codec("png").encode(np.full((60, 60, 3), 9 * i, np.uint8)) for i in range(len(recorded))
        ]
        replies = dict(zip(pictures, map(self.reply_of, recorded), strict=True))
        with serve(self.service, None, replies=replies.get) as service:
            adapter = self.adapter_at(service.url)
            step = adapter.limits.batch
            answers = [
                answer
                for start in range(0, len(pictures), step)
                for answer in adapter.ask(pictures[start : start + step])
            ]
            adapter.close()
        assert [top1(answer) for answer in answers] == [self.best_of(said) for said in recorded]


def outcome_of(adapter):
    """Return what becomes of a picture: an answer or an error."""
    try:
        [outcome] = adapter.ask([PNG])
    except ProviderError as error:
        return error
    return outcome


@contextmanager
def answering(status, body, headers):
    """Serve as a proxy would: whatever is asked, it answers with this."""

    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        wbufsize = -1  # an answer in one piece

        def do_POST(self):
            self.server.requests += 1
            if length := self.headers["content-length"]:
                self.rfile.read(int(length))
            else:
                while size := int(self.rfile.readline(), 16):
                    self.rfile.read(size + 2)
                self.rfile.readline()
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            self.send_header("content-length", str(len(body)))
            self.send_header("connection", "close")
            self.end_headers()
            self.wfile.write(body)
            self.close_connection = True

        def log_message(self, *_):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.requests = 0
    server.url = f"http://127.0.0.1:{server.server_port}"
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
