"""What is worked out for a certificate is kept in the home, and decides about time alone."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
from scipy import special

from smoothapi import Certificate, Smoother, numbers
from smoothapi.certify.arithmetic import _REACH
from smoothapi.numbers import kept_numbers
from smoothapi.store import Home
from smoothapi.worked_out import held, worked_out
from smoothapi_adapters.mock import MockAdapter

# Its photo is resized, and some votes are against the label: so that all that is kept is needed.
CERTIFY = """
import itertools
import sys
import numpy as np
from smoothapi import Smoother
from smoothapi.numbers import kept_numbers
from smoothapi_adapters.mock import MockAdapter

def certificate(home):
    photo = np.random.default_rng(0).integers(0, 256, (40, 60, 3), dtype=np.uint8)
    count = itertools.count()
    labeller = lambda picture: [("van" if next(count) % 15 == 7 else "bus", 0.9)]
    adapter = MockAdapter(labeller, labeller_id="bus")
    options = {"size": 32, "radius": 0.2, "denoiser": "none", "home": home, "max_votes": 300,
               "concurrency": 1}
    with Smoother(adapter, **options) as smoother, kept_numbers(smoother.session.store):
        return smoother.certify(photo)

if __name__ == "__main__":
    print(certificate(sys.argv[1]).to_json())
    sys.exit("scipy" in sys.modules)
"""


def certified(home):
    """Return the certificate of a program of its own, and whether that imported scipy."""
    done = subprocess.run(
        [sys.executable, "-c", CERTIFY, str(home)], capture_output=True, text=True, check=False
    )
    assert done.returncode in {0, 1}, done.stderr
    return Certificate.from_json(done.stdout), bool(done.returncode)


def same(one, other):
    """Whether two certificates say the same; when they were issued and what was sent may differ."""
    facts = {"issued": "", "seconds": 0.0, "queries": 0, "attempts": 0, "cached": 0, "cost": 0.0}
    return replace(one, **facts) == replace(other, **facts)


@pytest.fixture(scope="module")
def first(tmp_path_factory):
    """The home, and what was certified there first."""
    home = tmp_path_factory.mktemp("home")
    certificate, imported = certified(home)
    assert imported
    return home, certificate


def test_a_stored_certificate_is_the_same_and_needs_no_scipy(first):
    home, paid = first
    assert paid.label == "bus"
    assert len(paid.votes) > 1  # with losses among them
    again, imported = certified(home)
    assert not imported
    assert same(again, paid)


@pytest.fixture
def note(first, tmp_path):
    """The kept numbers as JSON, and a home to keep them in, changed."""
    store = Home(first[0])
    return json.loads(store.note("numbers")), Home(tmp_path)


def loaded(store, data):
    store.keep_note("numbers", data if isinstance(data, str) else json.dumps(data))
    with kept_numbers(store):
        return worked_out("joint", (0.0, 0.0, 0.0), lambda: 1.5), numbers._load(
            store, numbers._made_by()
        )


def test_numbers_are_read_as_they_were_written(note):
    data, store = note
    assert loaded(store, data)[1] == data["numbers"]
    assert store.note("numbers") != json.dumps(data)  # with the one that was added
    assert {name.split()[0] for name in data["numbers"]} == {
        "boundary", "fewest", "joint", "ndtr", "ndtri", "p_lower", "resize",
    }  # fmt: skip


@pytest.mark.parametrize(
    "damage",
    [
        lambda data: "",
        lambda data: "[1]",
        lambda data: json.dumps(data)[:-9],
        lambda data: data | {"numbers": data["numbers"] | {"ndtr -0.5": 0.1}},
        lambda data: data | {"numbers": dict.fromkeys(data["numbers"], 0.5)},
        lambda data: data | {"schema": "smoothapi.numbers/0"},
        lambda data: data | {"numbers": [1, 2]},
        lambda data: {"numbers": data["numbers"]},
    ],
)
def test_numbers_that_were_damaged_are_not_used(note, damage):
    data, store = note
    assert loaded(store, damage(data))[1] == {}


@pytest.mark.parametrize("value", [float("nan"), float("inf"), True, "1", None, [1.5], {}])
def test_what_is_no_number_is_not_used(note, value):
    _, store = note
    made_by = numbers._made_by()
    assert loaded(store, numbers._note({"ndtr -0.5": value}, made_by))[1] == {}


@pytest.mark.parametrize("other", ["__version__", "_VERSIONS"])
def test_numbers_of_another_version_are_not_used(note, other, monkeypatch):
    data, store = note
    monkeypatch.setattr(
        numbers, other, {"__version__": "9", "_VERSIONS": ("numpy/version.py",)}[other]
    )
    assert loaded(store, data)[1] == {}


def test_numbers_of_other_code_are_not_used(note, monkeypatch):
    _, store = note
    monkeypatch.setattr(numbers, "__file__", numbers.__file__.replace("numbers", "cli/options"))
    with kept_numbers(store):  # there is no such code: nothing is kept
        assert worked_out("ndtr", (-0.125,), lambda: 2.0) == 2.0


def test_a_home_that_cannot_be_written_is_no_reason_to_fail(note, monkeypatch):
    _, store = note
    monkeypatch.setattr(Home, "folder", "/dev/null/home", raising=False)
    with kept_numbers(store):
        assert worked_out("ndtr", (-9.0,), lambda: 2.0) == 2.0


def test_the_numbers_added_last_are_kept(note, monkeypatch):
    _, store = note
    monkeypatch.setattr(numbers, "_MOST", 3)
    with kept_numbers(store):
        for n in range(5):
            worked_out("ndtr", (n,), lambda n=n: n)
    assert json.loads(store.note("numbers"))["numbers"] == {"ndtr 2": 2, "ndtr 3": 3, "ndtr 4": 4}


def test_nothing_is_held_but_where_it_is_asked_for():
    table = {}
    with held(table):
        assert worked_out("square", (3,), lambda: 9) == 9
        assert worked_out("square", (3,), lambda: 10) == 9
    assert worked_out("square", (3,), lambda: 10) == 10
    assert table == {"square 3": 9}


def test_where_53_bits_end_is_what_scipy_says():
    assert pytest.approx(-float(special.ndtri(2.0**-52)), rel=1e-15) == _REACH


def test_a_python_program_keeps_none(tmp_path):
    with Smoother(
        MockAdapter(lambda _: [("bus", 0.9)], labeller_id="bus"), denoiser="none", home=tmp_path
    ) as smoother:
        smoother.certify(np.zeros((8, 8, 3), np.uint8))
    assert Home(tmp_path).note("numbers") is None
