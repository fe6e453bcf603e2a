"""Certifying many photos on Ray itself: two nodes on this machine, each process one to be killed.

Starting Ray takes most of the time, so all tests share one cluster.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from smoothapi import Budget, Cluster, Smoother
from tests.unit.many.conftest import save
from tests.unit.many.labelling import Labelling

# Nodes at 127.0.0.1 alone, no reports to Ray's makers, workers that get their share of the cores.
ENVIRONMENT = {
    "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_prestart_worker_first_driver": "0",
    "RAY_worker_niceness": "0",
    "RAY_AUTH_MODE": "disabled",  # else a token is written to the user's folder
    "PYTHONPATH": str(Path(__file__).parents[3]),
    "STARTED_BY_THE_TESTS_OF": str(os.getpid()),
}

pytestmark = [
    pytest.mark.slow,  # Ray's start: `make ray`
    pytest.mark.timeout(900),
    # Of Ray's own making, and of the grpc that it brings.
    pytest.mark.filterwarnings("ignore"),
]

PHOTOS = 6
OPTIONS = {"sigma": 0.25, "radius": 0.1, "size": 8, "plain": False, "denoiser": "none"}
# A driver of its own; argv: address, home, photos.
DRIVER = """
import sys
from smoothapi import Smoother
options = {"sigma": 0.25, "radius": 0.1, "size": 8, "plain": False, "denoiser": "none"}
with Smoother("http", home=sys.argv[2], **options) as s:
    for result in s.certify_many(sys.argv[3:], cluster=sys.argv[1], photos_at_once=2):
        print(result.outcome, flush=True)
"""


@pytest.fixture(scope="module")
def service():
    made = Labelling(latency=0.01)
    yield made
    made.close()


@pytest.fixture(scope="module", autouse=True)
def nodes(service):
    """A head and another node; the test's own process is connected to them."""
    with pytest.MonkeyPatch.context() as patch:
        # Ray reads some when it is imported, and its processes inherit them.
        for name, value in (ENVIRONMENT | service.settings).items():
            patch.setenv(name, value)
        ray = pytest.importorskip("ray", reason="Ray is not installed (extra ray)")
        from ray.cluster_utils import Cluster as Nodes

        with socket.create_server(("127.0.0.1", 0)) as free:
            port = free.getsockname()[1]
        options = {"num_cpus": 1, "include_dashboard": False, "object_store_memory": 80 * 2**20}
        head = {**options, "ray_client_server_port": port}
        made = Nodes(initialize_head=True, head_node_args=head)
        made.client_url = f"ray://127.0.0.1:{port}"
        try:
            made.other = made.add_node(num_cpus=1, object_store_memory=80 * 2**20)
            before = signal.getsignal(signal.SIGTERM)
            ray.init(address=made.address, log_to_driver=False, configure_logging=False)
            signal.signal(signal.SIGTERM, before)
            yield made
        finally:
            ray.shutdown()
            made.shutdown()


@pytest.fixture(autouse=True)
def settings_(service, monkeypatch):
    """Settings of the environment are taken from each test."""
    for name, value in service.settings.items():
        monkeypatch.setenv(name, value)


@pytest.fixture
def photos(tmp_path):
    return [save(tmp_path / f"{n}.png", n) for n in range(PHOTOS)]


@pytest.fixture
def home(tmp_path):
    def make(name="home"):
        folder = tmp_path / name
        folder.mkdir()
        (folder / "noise.key").write_bytes(bytes(range(32)))
        (folder / "noise.key").chmod(0o600)
        return folder

    return make


@pytest.fixture
def calm(home, photos, service):
    """The certificates that one machine issues, and how many requests they took."""
    before = service.arrived
    with Smoother("http", home=home("calm"), **OPTIONS) as s:
        certificates = [result.certificate for result in s.certify_many(photos)]
    return certificates, service.arrived - before


def working():
    """Return the processes that do tasks, as the operating system knows them."""
    found, mark = [], f"STARTED_BY_THE_TESTS_OF={os.getpid()}".encode()
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            name = (folder / "cmdline").read_bytes()
            is_ours = mark in (folder / "environ").read_bytes().split(b"\0")
        except OSError:
            continue
        if is_ours and b"ray::Workplace" in name:
            found.append(int(folder.name))
    return found


def await_the_end_of_all():
    while working():
        time.sleep(0.1)


def test_machines_on_one_database_pay_once_though_one_is_killed(
    nodes, service, database, noise_key_file, photos, calm
):
    """Each node has a worker; both have one home and one budget."""
    certificates, once = calm
    before, killed = service.arrived, []

    def disturb(state):
        if state.votes > 10 and not killed:
            killed.extend(working())
            os.kill(killed[0], signal.SIGKILL)

    budget = Budget(attempts=once + 200, name="shared")
    shared = {"home": database, "noise_key_file": noise_key_file, "budget": budget}
    with Smoother("http", **shared, **OPTIONS) as s:
        there = s.certify_many(
            photos, cluster=Cluster("auto", workers=2), photos_at_once=1, on_progress=disturb
        )
        results = list(there)
        [account] = s.session.store.accounts()
    assert [result.certificate for result in results] == certificates
    assert len(killed) == 2  # there was one on each node
    arrived = service.arrived - before
    assert once <= arrived <= once + 12  # what the one had under way
    assert arrived <= account.attempts <= budget.attempts
    await_the_end_of_all()
    with Smoother("http", **shared, **OPTIONS) as s:
        again = [result.certificate for result in s.certify_many(photos)]
    assert again == certificates
    assert service.arrived - before == arrived  # all of it is kept


def test_machines_die_and_the_certificates_are_those_of_a_calm_run(
    nodes, service, home, photos, calm, caplog
):
    """A process is killed, then a whole node; what they had under way is done again."""
    certificates, once = calm
    before, killed = service.arrived, []

    def disturb(state):
        if state.votes > 10 and not killed:
            killed.append(working()[0])
            os.kill(killed[0], signal.SIGKILL)
        elif state.done >= PHOTOS // 2 and len(killed) == 1:
            nodes.remove_node(nodes.other, allow_graceful=False)
            killed.append("node")

    with Smoother("http", home=home(), **OPTIONS) as s:
        there = s.certify_many(
            photos, cluster=Cluster("auto", workers=2), photos_at_once=1, on_progress=disturb
        )
        results = list(there)
    assert [result.certificate for result in results] == certificates
    assert len(killed) == 2
    assert "died" in caplog.text
    # Each of the two took along at most what it had under way: 8 requests, and 4 that were ready.
    assert once <= service.arrived - before <= once + 2 * 12
    await_the_end_of_all()


def test_a_driver_that_is_killed_is_continued_by_the_next(nodes, service, home, photos, calm):
    """The first is on a machine of the cluster, the next reaches it by Ray's client."""
    certificates, once = calm
    before, where = service.arrived, home()
    command = [sys.executable, "-W", "ignore", "-c", DRIVER]
    driver = subprocess.Popen(
        [*command, "auto", where, *photos],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "RAY_ADDRESS": nodes.address},
    )
    with driver.stdout:
        assert "certified\n" in driver.stdout  # up to the first; Ray says things there, too
        driver.kill()
    driver.wait()
    await_the_end_of_all()  # Ray ends the processes of a driver that is gone
    following = [*command, nodes.client_url, where, *photos]
    said = subprocess.run(following, capture_output=True, text=True, check=True).stdout
    assert said.count("certified\n") == PHOTOS
    await_the_end_of_all()
    with Smoother("http", home=where, **OPTIONS) as s:
        results = list(s.certify_many(photos))
    assert [result.certificate for result in results] == certificates
    assert [result.certificate.attempts for result in results] == [0] * PHOTOS
    assert once <= service.arrived - before <= once + 12
