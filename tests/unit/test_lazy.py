"""Names and modules that are loaded when they are first used."""

from __future__ import annotations

import copy
import pickle
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from types import ModuleType

import pytest

from smoothapi._lazy import later, lazy_names

# Loading its module `part` begins with the package, which loads `base`, which takes from `part`.
# Another thread that loads `base` meanwhile waits for `part`, and the first for `base`: what
# Python's own locks, one for each module, end as a deadlock.
PACKAGE = """
import time
time.sleep(0.2)
from halves.base import whole
"""


@pytest.fixture
def halves(tmp_path, monkeypatch):
    folder = tmp_path / "halves"
    folder.mkdir()
    (folder / "__init__.py").write_text(PACKAGE)
    (folder / "base.py").write_text("from halves.part import x\nwhole = x + 1\n")
    (folder / "part.py").write_text("x = 2\n")
    monkeypatch.syspath_prepend(tmp_path)
    yield
    for name in ("halves", "halves.base", "halves.part"):
        sys.modules.pop(name, None)


@pytest.mark.timeout(60)
@pytest.mark.parametrize("kind", ["names", "modules"])
def test_threads_that_load_something_at_once_get_all_of_it(kind, halves, monkeypatch):
    monkeypatch.setitem(sys.modules, "front", ModuleType("front"))
    load, _ = lazy_names("front", {"halves.part": ["x"], "halves.base": ["whole"]})
    with ThreadPoolExecutor(2) as threads:
        if kind == "names":
            x = threads.submit(load, "x")
            time.sleep(0.1)
            whole = threads.submit(load, "whole")
        else:
            x = threads.submit(lambda: later("halves.part").x)
            time.sleep(0.1)
            whole = threads.submit(lambda: later("halves.base").whole)
        assert (x.result(30), whole.result(30)) == (2, 3)


def test_a_stand_in_for_a_module_can_be_copied_and_sent_to_another_process():
    stand_in = later("math")
    assert copy.deepcopy(stand_in).pi == pickle.loads(pickle.dumps(stand_in)).pi == stand_in.pi


def test_no_module_of_the_house_uses_a_lazy_name_while_it_is_imported():
    # It would hold Python's lock of that module and wait for the one of lazy names, whose holder
    # may wait for that module.
    program = """
import pkgutil, sys, threading
from importlib import import_module
import smoothapi
from smoothapi import _lazy

used = []
class Watched:
    def __enter__(self): used.append(sys._getframe(2).f_code.co_name)
    def __exit__(self, *_): pass
_lazy._loading = Watched()
for at in ("smoothapi.gateway", "smoothapi.study", "smoothapi.wrapping", "smoothapi.services",
           "smoothapi.adapting", "smoothapi.cli.certify", "smoothapi.testing",
           "smoothapi_adapters.mock.adapter", "smoothapi.many.cluster"):
    import_module(at)
assert not used, used
"""
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=False
    )
    assert not done.returncode, done.stderr
