# make demo    certify a photo that ships here, offline
# make test    all tests
# Both set themselves up in .venv; Python 3.11 or newer and make are all they need.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PHOTO ?= examples/photos/school_bus.jpg

# The AWS SDK for JavaScript, which a test runs where there is Node.
NODE := $(if $(shell command -v npm),tests/node/node_modules/.ready)

.PHONY: demo test lint types wheel reproducible newcomer ray pythons docs look links bench clean

demo: $(VENV)/.ready
	$(BIN)/smoothapi certify $(PHOTO) --home .cache/demo

# The programs that tests start are not to compile the package each time: bytecode is written.
# Files run in their order, not those of most tests first: the last are short pages, not long files.
test: $(VENV)/.ready-dev $(NODE)
	PYTHONDONTWRITEBYTECODE= $(BIN)/python -m pytest -n auto --maxprocesses 4 --dist loadfile --no-loadscope-reorder

lint: $(VENV)/.ready-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports

types: $(VENV)/.ready-dev
	$(BIN)/mypy
	$(BIN)/basedpyright

# Build the wheel, install it away from the sources, and certify one photo with it.
wheel: $(VENV)/.ready-dev
	PYTHON=$(BIN)/python tests/wheel.sh

# Build wheel and sdist twice, elsewhere and at other times, and compare them byte by byte.
reproducible: $(VENV)/.ready-dev
	PYTHON=$(BIN)/python tests/reproducible.sh

# A newcomer's first hour from the wheel: init, doctor, a folder, an abstention, a study, verify.
newcomer: $(VENV)/.ready-dev
	$(BIN)/python -m pytest -q -m slow tests/newcomer

# Certifying and studies on Ray itself, several nodes on this machine. Only these tests need it.
ray: $(VENV)/.ready-dev
	$(BIN)/python -m pip install --quiet -c constraints.txt -e '.[ray]'
	$(BIN)/python -m pytest -q -m slow tests/unit/many/test_on_ray.py

# What runs without torch, on the newer Pythons that are at hand.
pythons:
	tests/other_pythons.sh

# Any warning is an error: a reference that leads nowhere, a page in no table of contents.
docs: $(VENV)/.ready-dev
	$(BIN)/sphinx-build -W --keep-going -q -b html docs docs/_build

# Every page in a browser at three widths: nothing is cut off, and search finds pages.
look: $(VENV)/.ready-dev
	$(BIN)/python -m pytest -q -m slow tests/browser

# Whether what the pages name elsewhere is still there; needs a network.
links: $(VENV)/.ready-dev
	$(BIN)/sphinx-build -q -b linkcheck docs docs/_build/linkcheck

bench: $(VENV)/.ready-dev
	$(BIN)/python benchmarks/overhead.py

$(VENV)/bin/python:
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "smoothapi needs Python 3.11 or newer: make PYTHON=python3.11")'
	$(PYTHON) -m venv $(VENV)

# Editable, so that a stamp is stale only when the metadata or the pins change.
$(VENV)/.ready: $(VENV)/bin/python pyproject.toml constraints.txt
	@echo "Installing smoothapi and torch into $(VENV): some minutes, once."
	$(BIN)/python -m pip install --quiet -c constraints.txt -e '.[demo]'
	touch $@

$(VENV)/.ready-dev: $(VENV)/bin/python pyproject.toml constraints.txt
	@echo "Installing smoothapi, torch and all that its tests use into $(VENV): some minutes, once."
	$(BIN)/python -m pip install --quiet -c constraints.txt -e '.[dev]'
	touch $@ $(VENV)/.ready

$(NODE): tests/node/package-lock.json
	cd tests/node && npm ci --silent && touch node_modules/.ready || \
		echo "The AWS SDK for JavaScript could not be installed: the test with it will be skipped."

clean:
	rm -rf $(VENV) .cache build dist docs/_build tests/node/node_modules
