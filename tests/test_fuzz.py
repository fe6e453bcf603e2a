"""A short run of benchmarks/fuzz.py: no input of any kind ends in a traceback or an exit of 70."""

import importlib.util
from pathlib import Path

import pytest

FILE = Path(__file__).parents[1] / "benchmarks" / "fuzz.py"
KINDS = (
    "images", "answers", "certificates", "settings", "recordings", "commands", "labels", "weights",
    "studies", "calls",
)  # fmt: skip


@pytest.fixture(scope="module")
def benchmark():
    spec = importlib.util.spec_from_file_location("fuzz", FILE)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.timeout(120)
@pytest.mark.parametrize("kind", KINDS)
def test_no_input_ends_in_a_traceback(kind, benchmark):
    assert {one.__name__ for one in benchmark.KINDS} == set(KINDS)
    outcomes, failures, _ = benchmark.fuzz(getattr(benchmark, kind), 100, seed=20)
    assert not outcomes["TRACEBACK"], failures[0][1]
    assert outcomes.total() == 100
