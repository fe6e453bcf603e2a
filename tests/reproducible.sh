#!/usr/bin/env bash
# Two checkouts of one commit, at other places and times and under another umask, build the same
# wheel and the same sdist, byte by byte.
set -euo pipefail
python=$(realpath -s "${PYTHON:-python3}")
cd "$(dirname "$0")/.."
# An unpacked archive has no commit, whose time the files are given.
if ! git log -1 --format=%ct >/dev/null 2>&1; then
    echo "No git checkout: not built twice."
    exit 0
fi
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
SOURCE_DATE_EPOCH=$(git log -1 --format=%ct)
export SOURCE_DATE_EPOCH PIP_DISABLE_PIP_VERSION_CHECK=1

"$python" -m venv --system-site-packages "$work/venv"
"$work/venv/bin/python" -m pip install --quiet build 'hatchling>=1.25'
build() { # FOLDER UMASK TIME
    mkdir -p "$work/$1"
    git ls-files -z --cached --others --exclude-standard | while IFS= read -r -d '' file; do
        if [ -f "$file" ]; then printf '%s\0' "$file"; fi
    done | (umask "$2" && tar --null -T - -cf - | tar -xf - -C "$work/$1" --no-same-permissions --touch)
    find "$work/$1" -exec touch -h -d "$3" {} +
    (umask "$2" && "$work/venv/bin/python" -m build --no-isolation --outdir "$work/$1.dist" "$work/$1") >"$work/$1.log" 2>&1 ||
        { cat "$work/$1.log"; exit 1; }
    (cd "$work/$1.dist" && sha256sum -- *.whl *.tar.gz)
}
mkdir "$work/another"
build first 022 2026-01-02 >"$work/digests"
build another/place 077 2026-03-04 | diff "$work/digests" -
cat "$work/digests"
echo "Wheel and sdist are the same, built twice."
