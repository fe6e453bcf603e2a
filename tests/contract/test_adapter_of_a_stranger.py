"""The adapter that the documentation shows: short, whole, found by its entry point, tested."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tomllib
from pathlib import Path

PROVIDERS = "from smoothapi.cli import run; raise SystemExit(run(['providers', '--json']))"
ACME = Path(__file__).parents[2] / "examples" / "acme"


def run(*arguments, path=(), **environment):
    paths = os.pathsep.join(map(str, (*path, *filter(None, sys.path))))
    return subprocess.run(
        [sys.executable, "-W", "error", *arguments],
        capture_output=True,
        text=True,
        check=False,
        cwd=ACME,
        env={**os.environ, "PYTHONPATH": paths, **environment},
    )


def test_it_takes_less_than_40_lines():
    assert len((ACME / "smoothapi_acme.py").read_text().splitlines()) < 40


def test_its_own_tests_pass_where_a_stranger_would_run_them():
    done = run("-m", "pytest", "-q", "-p", "no:cacheprovider", "--rootdir=.", "-c", os.devnull, ".")
    assert done.returncode == 0, done.stdout
    passed = int(done.stdout.splitlines()[-1].split(" passed")[0].split()[-1])
    assert passed >= 25, done.stdout


def test_it_is_found_by_name_once_it_is_installed(tmp_path):
    """As an installer would leave it: the module, and its entry point beside."""
    project = tomllib.loads((ACME / "pyproject.toml").read_text())["project"]
    (tmp_path / "smoothapi_acme.py").write_bytes((ACME / "smoothapi_acme.py").read_bytes())
    info = tmp_path / "smoothapi_acme-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(
        f"Metadata-Version: 2.1\nName: {project['name']}\nVersion: {project['version']}\n"
    )
    points = project["entry-points"]["smoothapi.adapters"]
    (info / "entry_points.txt").write_text(
        "[smoothapi.adapters]\n" + "".join(f"{k} = {v}\n" for k, v in points.items())
    )
    done = run("-c", PROVIDERS, path=[tmp_path])
    assert done.returncode == 0, done.stderr
    [acme] = [row for row in json.loads(done.stdout) if row["name"] == "acme"]
    assert acme["usable"]
    assert acme["package"] == "smoothapi-acme"
    assert acme["per_thousand"] == 0.8


def test_the_page_shows_these_files():
    page = (ACME.parents[1] / "docs" / "how-to" / "write_an_adapter.md").read_text()
    for name in ("smoothapi_acme.py", "test_acme.py", "pyproject.toml"):
        assert f"literalinclude}} ../../examples/acme/{name}" in page
        assert (ACME / name).is_file()
