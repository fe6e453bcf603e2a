"""The contract of stores, against the one that ships and against ones with a defect each."""

from __future__ import annotations

import subprocess
import sys
from collections import defaultdict
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest

from tests.contract import store_mutants as mutants

ROOT = Path(__file__).parents[2]


class TestHome(mutants.Base):
    """The store of one machine keeps the contract."""


@pytest.fixture(scope="module")
def failed(tmp_path_factory):
    """Class -> names of the tests that failed in one run of all mutants."""
    report = tmp_path_factory.mktemp("mutants") / "report.xml"
    # Tests that start processes take long: only those who break them run them.
    slow = "kill_9 or killed or processes or crash or dead_holder"
    chosen = f"not Sound and (not ({slow}) or Forgetful or OfItsOwn)"
    options = ["-q", "--tb=no", f"--junitxml={report}", "-k", chosen]
    plugins = ["-p", "no:cacheprovider", "-p", "no:hypothesispytest"]
    done = subprocess.run(
        [sys.executable, "-m", "pytest", *options, *plugins, "tests/contract/store_mutants.py"],
        cwd=ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 1, done.stdout + done.stderr
    found = defaultdict(set)
    for case in ET.parse(report).iter("testcase"):
        if any(child.tag in ("failure", "error") for child in case):
            found[case.attrib["classname"].rpartition(".")[2]].add(
                case.attrib["name"].split("[")[0]
            )
    return found


@pytest.mark.parametrize("mutant", mutants.CAUGHT_BY, ids=lambda mutant: mutant.__name__)
def test_each_mutant_fails_what_it_breaks(mutant, failed):
    assert failed[f"Test{mutant.__name__}"] == mutants.CAUGHT_BY[mutant]
