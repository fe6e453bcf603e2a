"""A contract that could not be broken would say nothing: each mutant fails just what it breaks."""

from __future__ import annotations

import socket
import subprocess
import sys
from collections import defaultdict
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest

from smoothapi.testing import unused_port
from tests.contract import mutants

FAULTS = "test_each_fault_becomes_the_right_error"
ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def failed(tmp_path_factory):
    """Class -> names of the tests that failed in one run of all mutants; and what was skipped."""
    report = tmp_path_factory.mktemp("mutants") / "report.xml"
    # The tests of faults are most of all: only those who break them run them.
    concerned = [name for name, tests in mutants.CAUGHT_BY.items() if FAULTS in tests]
    chosen = f"not importing and (not {FAULTS} or {' or '.join(['TestSound', *concerned])})"
    done = subprocess.run(
        [
            *(
                sys.executable,
                "-m",
                "pytest",
                "-q",
                "--tb=no",
                "-k",
                chosen,
                f"--junitxml={report}",
            ),
            *("-p", "no:cacheprovider", "-p", "no:hypothesispytest", "tests/contract/mutants.py"),
        ],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1, done.stdout + done.stderr
    found: dict[str, dict[str, set[str]]] = defaultdict(lambda: defaultdict(set))
    for case in ET.parse(report).iter("testcase"):
        outcome = next((child.tag for child in case), "passed")
        name = case.attrib["name"].split("[")[0]
        found[case.attrib["classname"].rpartition(".")[2]][outcome].add(name)
    return found


def test_the_sound_one_passes_all(failed):
    outcomes = failed["TestSound"]
    assert set(outcomes) == {"passed"}
    assert len(outcomes["passed"]) >= 20


@pytest.mark.parametrize("mutant", mutants.CAUGHT_BY)
def test_each_mutant_fails_what_it_breaks(mutant, failed):
    outcomes = failed[mutant]
    assert outcomes["failure"] | outcomes["error"] == mutants.CAUGHT_BY[mutant]


def test_every_test_of_the_contract_catches_something():
    tests = {name for name in dir(mutants.Base) if name.startswith("test_")}
    caught = set().union(*mutants.CAUGHT_BY.values())
    assert tests - caught == {"test_importing_it_opens_no_connection"}


def test_an_unused_port_is_none_that_a_server_is_given_by_chance():
    ports = {unused_port() for _ in range(20)}
    assert len(ports) > 10
    assert all(20_000 <= port < 32_000 for port in ports)
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", ports.pop()))


def test_a_module_that_connects_when_it_is_imported(tmp_path, monkeypatch):
    module = tmp_path / "acme_eager.py"
    module.write_text(
        "import socket\n"
        "from tests.contract.mutants import Sound\n"
        "try:\n    socket.create_connection(('127.0.0.1', 9), timeout=0.1)\n"
        "except OSError:\n    pass\n"
        "class Eager(Sound):\n    pass\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.syspath_prepend(ROOT)
    import acme_eager

    eager = acme_eager.Eager(mutants.Service())
    with pytest.raises(AssertionError, match=r"socket\.(connect|getaddrinfo)"):
        mutants.Base().test_importing_it_opens_no_connection(eager)
    mutants.Base().test_importing_it_opens_no_connection(mutants.Sound(mutants.Service()))
