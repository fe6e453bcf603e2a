"""A child of a fork ends as any program does, and leaves alone what is its parent's."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

from smoothapi.store import Home

pytestmark = [
    pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here"),
    pytest.mark.timeout(240),
]

HEAD = """
import json, multiprocessing, os, signal, sys, threading, time, warnings
from decimal import Decimal
import numpy as np
from smoothapi import Answer, Budget, Label, Smoother
from smoothapi.errors import UsageError
from smoothapi.provider import Limits, Price

home, how = sys.argv[1:]
photo = np.zeros((8, 8, 3), np.uint8)
warnings.simplefilter("ignore", DeprecationWarning)  # Python's own, of forks with threads

class Fine:
    name = "fine"; identity = {"op": "x"}; price = Price(Decimal(1))
    limits = Limits(batch=1, max_bytes=10**7)
    closed_in = None
    def ask(self, payloads):
        time.sleep(0.01)
        return [Answer((Label("bus", 0.9),), "v", "") for _ in payloads]
    def close(self):
        print("closed by", "parent" if os.getpid() == parent else "child", flush=True)

parent = os.getpid()
children, ends = [], []

def forked():
    child = os.fork()
    if child:
        children.append(child)
    else:
        signal.alarm(60)  # ends what hangs
    return not child

def wait():
    for child in children:
        ends.append(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""

IN_A_RUN = (
    HEAD
    + """
def on_progress(progress):
    if progress.votes % 3 == 1 and forked():
        if how == "exit": sys.exit(0)
        if how == "close": smoother.close(); os._exit(0)
        if how == "error": raise SystemExit(0)
        if how == "use":
            for use in (smoother.certify, smoother.predict, smoother.plan):
                try: use(photo)
                except UsageError as error: assert "forked" in str(error), error
                else: os._exit(3)
            smoother.close()
            os._exit(0)
        if how == "session":
            try: smoother.session.dispatcher.room(); os._exit(3)
            except UsageError: pass
            smoother.session.close(); smoother.session.dispatcher.close()
            smoother.session.dispatcher.route.ledger.close(); smoother.session.answers.close()
            sys.exit(0)
        # "go on": the callback returns, and the run is refused

with Smoother(Fine(), home=home, denoiser="none", plain=False, concurrency=8, record=home + "/r.jsonl",
              budget=Budget(attempts=900, name="all")) as smoother:
    try:
        certificate = smoother.certify(photo, radius=0.25, on_progress=on_progress)
    except UsageError as error:
        if os.getpid() != parent:
            assert "forked" in str(error)
            sys.exit(0)
        raise
    wait()
if os.getpid() == parent:
    print(json.dumps({"ends": ends, "votes": certificate.total_votes}))
"""
)


def end_of(program, home, how):
    process = subprocess.run(
        [sys.executable, "-c", program, str(home), how],
        check=False, capture_output=True, text=True, timeout=200,
    )  # fmt: skip
    assert process.returncode == 0, process.stderr[-2000:]
    assert "Traceback" not in process.stderr, process.stderr[-2000:]
    lines = process.stdout.splitlines()
    assert "closed by child" not in lines
    return json.loads(lines[-1]), process.stderr


def nothing_was_touched(home, votes):
    with Home(home) as opened:
        [account] = opened.accounts()
        assert (account.attempts, account.reserved) == (votes, 0)
        assert len(opened.answers) == votes
    recorded = (home / "r.jsonl").read_text().splitlines()
    assert len(recorded) == votes + 1


@pytest.mark.parametrize("how", ["exit", "close", "use", "session", "go on"])
def test_a_child_of_a_run(tmp_path, how):
    found, _ = end_of(IN_A_RUN, tmp_path, how)
    assert len(found["ends"]) >= 8
    assert set(found["ends"]) == {0}
    nothing_was_touched(tmp_path, found["votes"])


BESIDE_A_RUN = (
    HEAD
    + """
smoother = Smoother(Fine(), home=home, denoiser="none", plain=False, concurrency=8, sigma=0.5,
                    record=home + "/r.jsonl", budget=Budget(attempts=900, name="all"))
with smoother:
    certificates = []
    thread = threading.Thread(
        target=lambda: certificates.append(smoother.certify(photo, radius=0.3))
    )
    thread.start()
    if how == "pool":
        with multiprocessing.get_context("fork").Pool(3) as pool:
            assert pool.map(abs, range(50)) == list(range(50))
    elif how == "process":
        for _ in range(5):
            child = multiprocessing.get_context("fork").Process(target=time.sleep, args=[0.01])
            child.start()
            child.join(60)
            ends.append(child.exitcode)
    else:
        while thread.is_alive() and len(children) < 20:
            time.sleep(0.002)
            if forked():
                if how == "close": smoother.close()
                sys.exit(0)
    thread.join()
    wait()
if os.getpid() == parent:
    print(json.dumps({"ends": ends, "votes": certificates[0].total_votes}))
"""
)


@pytest.mark.parametrize("how", ["exit", "close", "pool", "process"])
def test_a_child_while_another_thread_runs(tmp_path, how):
    found, _ = end_of(BESIDE_A_RUN, tmp_path, how)
    assert set(found["ends"]) <= {0}
    nothing_was_touched(tmp_path, found["votes"])


AT_REST = (
    HEAD
    + """
adapter = Fine()
with Smoother(adapter, home=home, denoiser="none", plain=False, record=home + "/r.jsonl",
              budget=Budget(attempts=900, name="all")) as smoother:
    certificate = smoother.certify(photo, radius=0.1)
    if forked():
        sys.exit(0)
    wait()
    certificate = smoother.certify(photo, radius=0.15)
print(json.dumps({"ends": ends, "votes": certificate.total_votes}))
"""
)


def test_a_child_within_the_with_block_leaves_with_what_it_exits_with(tmp_path):
    found, _ = end_of(AT_REST, tmp_path, "exit")
    assert found["ends"] == [0]
    nothing_was_touched(tmp_path, found["votes"])


WRAPPED = (
    HEAD
    + """
from smoothapi.wrapping import certifier as module
from smoothapi.wrapping.certifier import Certifier
opened = []

class NoLog:
    def __init__(self, *_, **__): pass
    def begin(self): return self

module.RunLog = NoLog  # what is opened here has no store to write to

class Kept:
    def __init__(self): self.pid = os.getpid(); opened.append(self)
    def close(self): print("closed by", "parent" if os.getpid() == parent else "child")

certifier = Certifier(lambda adapter: Kept())
certifier._lock.acquire()  # as a thread of the parent may hold it at the fork
if forked():
    assert certifier._opened(None).pid == os.getpid()
    os._exit(0)
certifier._lock.release()
wait()
print(json.dumps({"ends": ends}))
"""
)


def test_a_client_that_was_wrapped_before_the_fork_and_not_used_works_in_the_child(tmp_path):
    found, _ = end_of(WRAPPED, tmp_path, "")
    assert found["ends"] == [0]


SERVICE = (
    HEAD
    + """
from smoothapi.services import serve
import urllib.request
with serve("azure4", lambda picture: [("bus", 0.9)]) as service:
    if forked():
        sys.exit(0)
    wait()
    try: urllib.request.urlopen(service.url + "/nothing", timeout=60)
    except urllib.error.HTTPError: pass
print(json.dumps({"ends": ends}))
"""
)


def test_a_child_within_a_local_service_leaves_it_running(tmp_path):
    found, _ = end_of(SERVICE, tmp_path, "")
    assert found["ends"] == [0]
