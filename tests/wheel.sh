#!/usr/bin/env bash
# The wheel, installed into an empty environment away from the sources, certifies a photo.
set -euo pipefail
python=$(realpath -s "${PYTHON:-python3}")
repository=$(git rev-parse --show-toplevel)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

"$python" -m build --wheel --outdir "$work/dist" "$repository" >"$work/build.log" 2>&1 || { cat "$work/build.log"; exit 1; }
"$python" -m venv "$work/venv"
wheel=$(echo "$work"/dist/smoothapi_vision-*.whl)
"$work/venv/bin/python" -m pip install --quiet -c "$repository/constraints.txt" "$wheel[demo]"
cp "$repository/examples/photos/school_bus.jpg" "$work/photo.jpg"
cd "$work"
venv/bin/python - <<'PY'
import smoothapi, smoothapi_adapters
from pathlib import Path

here = Path.cwd() / "venv"
for package in (smoothapi, smoothapi_adapters):
    assert here in Path(package.__file__).parents, package.__file__
    assert (Path(package.__file__).parent / "py.typed").exists()
PY
SMOOTHAPI_HOME="$work/home" venv/bin/smoothapi certify photo.jpg --json >certificate.json
SMOOTHAPI_HOME="$work/home" venv/bin/smoothapi verify certificate.json --photo photo.jpg
echo "The wheel $(basename "$wheel") certifies a photo away from its sources."
