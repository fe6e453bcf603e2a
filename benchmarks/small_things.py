"""How long small things take, beside a bare `python -c pass` of the same run.

    python benchmarks/small_things.py

Each is run several times, and the fastest counts: what a machine does besides only adds.
CPU seconds are of the process and its threads; they say more than the clock on a busy machine.
Bytecode is written, as an installation has it, whatever PYTHONDONTWRITEBYTECODE says.
"""

from __future__ import annotations

import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

TIMES = 5
PHOTO = Path(__file__).parents[1] / "examples" / "photos" / "school_bus.jpg"
CERTIFY = [
    sys.executable,
    "-m",
    "smoothapi",
    "certify",
    str(PHOTO),
    "--json",
    "--denoiser",
    "none",
    "--radius",
    "0.1",
]
TEST = """
def test_mock(smoothapi_mock):
    from smoothapi import Smoother
    import numpy as np
    smoothapi_mock.instead_of("aws", {"bus": 0.99, None: 0.01})
    with Smoother("aws", radius=0.1) as smoother:
        smoother.certify(np.zeros((32, 32, 3), np.uint8))
"""


def timed(command, **options):
    """Return the fewest seconds of the clock and of CPUs that a command takes."""
    clock, cpu = [], []
    for _ in range(TIMES):
        before, began = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
        done = subprocess.run(command, capture_output=True, check=False, **options)
        assert done.returncode in {0, 1}, done.stderr.decode()
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        clock.append(time.perf_counter() - began)
        cpu.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
    return min(clock), min(cpu)


def fixture(folder):
    """Return the seconds that a test with the fixture takes, the first of a session left out."""
    tests = folder / "test_it.py"
    tests.write_text(TEST + TEST.replace("test_mock", "test_again"))
    found = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "--durations=0", "-vv", "-p", "no:cacheprovider", str(tests)],
        capture_output=True, check=True, cwd=folder, text=True,
    ).stdout  # fmt: skip
    rows = [line.split() for line in found.splitlines() if "test_again" in line and "s " in line]
    return sum(float(row[0][:-1]) for row in rows if row[0].endswith("s"))


def main():
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
        certify = [*CERTIFY, "--home", str(folder / "home")]
        variable = {**os.environ, "SMOOTHAPI_SIGMA": "0.25"}
        subprocess.run(certify, capture_output=True, check=False)  # pays, offline
        rows = {
            "python -c pass": ([sys.executable, "-c", "pass"], {}),
            "import numpy": ([sys.executable, "-c", "import numpy"], {}),
            "import scipy.special": ([sys.executable, "-c", "import scipy.special"], {}),
            "import smoothapi": ([sys.executable, "-c", "import smoothapi"], {}),
            "from smoothapi import Smoother": (
                [sys.executable, "-c", "from smoothapi import Smoother"], {},
            ),
            "smoothapi --help": ([sys.executable, "-m", "smoothapi", "--help"], {}),
            "a stored certificate": (certify, {}),
            "the same, with a SMOOTHAPI_ variable": (certify, {"env": variable}),
        }  # fmt: skip
        print(f"{'fastest of ' + str(TIMES):38}{'clock':>9}{'CPU':>9}")
        for what, (command, options) in rows.items():
            clock, cpu = timed(command, **options)
            print(f"{what:38}{clock:8.2f}s{cpu:8.2f}s")
        print(f"{'a test with smoothapi_mock':38}{fixture(folder):8.2f}s")


if __name__ == "__main__":
    main()
