#!/usr/bin/env bash
# The installation without extras, so without torch, on each newer Python that is at hand: what it keeps,
# sends, verifies and leaves open. With torch nothing is tested here: for these Pythons the package index has
# it with CUDA alone, half a gigabyte and several more of libraries.
set -euo pipefail
cd "$(dirname "$0")/.."
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
tested=""
for version in 3.12 3.13 3.14; do
    python=""
    for found in "python$version" "${PYENV_ROOT:-$HOME/.pyenv}/versions/$version".*/bin/python; do
        if "$found" -c 'import sqlite3, ssl' 2>/dev/null; then
            python=$found
        fi
    done
    [ -n "$python" ] || continue
    "$python" -m venv "$work/$version"
    "$python" - >"$work/needs" <<'PY'
import tomllib

project = tomllib.load(open("pyproject.toml", "rb"))["project"]
print(*project["dependencies"], sep="\n")
PY
    "$work/$version/bin/python" -m pip install --quiet --disable-pip-version-check -c constraints.txt \
        -r "$work/needs" hypothesis opentelemetry-sdk pytest pytest-timeout 2>"$work/log" || {
        echo "Python $version: what it needs cannot be installed here: skipped."
        continue
    }
    "$work/$version/bin/python" -m pip install --quiet --disable-pip-version-check --no-deps -e . 2>>"$work/log"
    "$work/$version/bin/python" -m pytest -q -p no:cacheprovider \
        tests/unit/store/test_{answers,closing}.py tests/unit/dispatch/test_{dispatcher,writing}.py tests/unit/test_{async,without_torch,radius}.py
    tested+=" $version"
done
if [ -n "$tested" ]; then
    echo "Tested on Python$tested."
else
    echo "No newer Python is at hand: skipped."
fi
