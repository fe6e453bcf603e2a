"""The unmodified tests of an application with thresholds pass plain and wrapped."""

from __future__ import annotations

import importlib.util
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from smoothapi.services import serve

FOLDER = Path(__file__).parents[1] / "examples" / "photo_sorter"


@pytest.fixture(scope="module")
def labels():
    spec = importlib.util.spec_from_file_location("photo_sorter_service", FOLDER / "service.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.labels


def passed(url, *arguments):
    """Run the application's tests; return how many passed."""
    environment = {
        **os.environ,
        "AWS_ENDPOINT_URL_REKOGNITION": url,
        "AWS_DEFAULT_REGION": "eu-west-1",
        "AWS_ACCESS_KEY_ID": "nobody",
        "AWS_SECRET_ACCESS_KEY": "nothing",
    }
    python = [sys.executable, "-W", "error", "-m", "pytest", "-q", "-p", "no:cacheprovider"]
    done = subprocess.run(
        [*python, "-c", os.devnull, f"--rootdir={FOLDER}", *arguments],
        capture_output=True, text=True, check=False, cwd=FOLDER, env=environment, timeout=240,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    [number] = re.findall(r"(\d+) passed", done.stdout)
    return int(number)


def test_the_photo_sorters_own_tests_pass_plain_and_wrapped(labels):
    with serve("aws", labels) as service:
        plain = passed(service.url)
        asked = len(service.received)
        wrapped = passed(service.url, "-p", "certified")
        more = len(service.received) - asked
    assert plain == wrapped > 0
    assert more > 5 * asked  # votes were bought: it was not the plain client twice
