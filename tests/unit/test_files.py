"""Files of people: whatever they hold is read or refused in words; what is written is whole."""

import json
import os
import stat
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from smoothapi import Certificate
from smoothapi.denoise.adaptation import Adaptation
from smoothapi.denoise.storage import read_header, read_tensors
from smoothapi.errors import SmoothAPIError, StoreError
from smoothapi.files import (
    SyntaxOfJsonError,
    parse_json,
    parse_toml,
    read_csv,
    read_text,
    replacing,
    shown_name,
    to_json,
)
from smoothapi.keyring import KeyRing
from smoothapi.label_file import read_label_space
from smoothapi.services import Table
from smoothapi.store import Replay
from smoothapi.study import Shares, StudyResult
from smoothapi.study.certified import read_truth as read_class_numbers
from smoothapi.study.folder import read_truth

HOSTILE = {
    "no UTF-8": b'{"a": "\xff"}',
    "UTF-16": '{"a": 1}'.encode("utf-16"),
    "a name twice": b'{"a": 1, "a": 2}',
    "NaN": b'{"a": NaN}',
    "Infinity": b'{"a": -Infinity}',
    "beyond a float": b'{"a": 1e999}',
    "400 digits": b'{"a": 1' + b"0" * 400 + b"}",
    "5,000 digits": b'{"a": 1' + b"0" * 5000 + b"}",
    "nested 200,000 deep": b"[" * 200_000 + b"]" * 200_000,
    "objects 200,000 deep": b'{"a":' * 200_000,
    "nothing": b"",
    "cut off": b'{"a": [1, 2',
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_json_is_refused_in_words(name):
    with pytest.raises(ValueError, match=r"\w+ \w+") as caught:
        parse_json(HOSTILE[name])
    assert len(str(caught.value)) < 200
    assert isinstance(caught.value, SyntaxOfJsonError) is (name in ("nothing", "cut off"))


@pytest.mark.parametrize(
    "text",
    ["a = " + "[" * 200_000, "a = 0x" + "f" * 6000, "a = 1" + "0" * 400, "a = 1\na = 2", "a = "],
    ids=["deep", "hex", "digits", "twice", "cut"],
)
def test_hostile_toml_is_refused_in_words(text):
    with pytest.raises(ValueError, match=r"\w+ \w+"):
        parse_toml(text)


def test_a_byte_order_mark_is_no_part_of_the_text(tmp_path):
    file = tmp_path / "file"
    file.write_bytes(b'\xef\xbb\xbf{"a": 1}')
    assert read_text(file) == '{"a": 1}'
    assert parse_json(file.read_bytes()) == {"a": 1}


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"file,label\n\xff,b\n", "UTF-8"),
        ("file,label\na,b\n".encode("utf-16"), "UTF-8"),
        (b'file,label\n"a\x00b,' + b"x" * 200_000, "CSV"),
        (b"file,label,Label\na,b,c\n", "'label' twice"),
    ],
)
def test_hostile_csv_is_refused_in_words(content, said, tmp_path):
    file = tmp_path / "file.csv"
    file.write_bytes(content)
    with pytest.raises(ValueError, match=said):
        read_csv(file)


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(10**200), 10**200)
    | st.text(st.characters())
    | st.floats(allow_nan=False, allow_infinity=False),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(st.characters()), inner, max_size=3)
    ),
    max_leaves=8,
)


@settings(max_examples=100, deadline=None)
@given(JSON)
def test_all_that_json_can_hold_can_be_written_and_comes_back(value):
    text = to_json(value)
    text.encode("utf-8")
    assert parse_json(text) == value


@pytest.mark.parametrize("half", ["\ud800", "a\udce9b", "\udfff\ud800"])
def test_halves_of_surrogate_pairs_are_escaped(half):
    assert json.loads(to_json({half: [half]})) == {half: [half]}
    to_json({half: half}).encode("utf-8")
    shown_name(half).encode("utf-8")


def test_a_file_is_the_old_one_or_the_new_one(tmp_path):
    file = tmp_path / "file"
    file.write_text("old")
    file.chmod(0o640)
    with pytest.raises(ZeroDivisionError), replacing(file) as stream:
        stream.write("new")
        stream.flush()
        assert file.read_text() == "old"
        raise ZeroDivisionError
    assert file.read_text() == "old"
    with replacing(file) as stream:
        stream.write("new")
    assert file.read_text() == "new"
    assert stat.S_IMODE(file.stat().st_mode) == 0o640
    assert list(tmp_path.iterdir()) == [file]


def test_a_link_stays_one_and_a_device_is_written_to(tmp_path):
    (tmp_path / "link").symlink_to("file")
    with replacing(tmp_path / "link") as stream:
        stream.write("new")
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "file").read_text() == "new"
    with replacing(Path("/dev/null")) as stream:
        stream.write("new")
    assert Path("/dev/null").is_char_device()


READERS = {
    "certificate": lambda file: Certificate.from_json(file.read_bytes()),
    "study": StudyResult.load,
    "distribution": Shares.load,
    "recording": lambda file: Replay(str(file)),
    "label file": read_label_space,
    "truth": read_truth,
    "truth in numbers": read_class_numbers,
    "table": Table.read,
    "adapted denoiser": Adaptation.read,
    "weights": read_header,
    "tensors": read_tensors,
}


@pytest.mark.parametrize("name", HOSTILE)
@pytest.mark.parametrize("reader", READERS)
def test_every_reader_refuses_it_in_an_error_of_ours(reader, name, tmp_path):
    file = tmp_path / "given.json"
    file.write_bytes(HOSTILE[name] + b"\n")
    with pytest.raises(SmoothAPIError) as caught:
        READERS[reader](file)
    assert len(str(caught.value)) < 1000


@pytest.mark.parametrize("kind", ["folder", "missing", "long", "circle", "NUL"])
@pytest.mark.parametrize("reader", [name for name in READERS if name != "certificate"])
def test_every_reader_says_what_is_no_file(reader, kind, tmp_path):
    (tmp_path / "circle").symlink_to("circle")
    file = {
        "folder": tmp_path, "missing": tmp_path / "no", "long": tmp_path / ("x" * 4000),
        "circle": tmp_path / "circle", "NUL": tmp_path / "a\0b",
    }[kind]  # fmt: skip
    with pytest.raises(SmoothAPIError):
        READERS[reader](file)


def owners(monkeypatch, path, *, uid, gid, may=True):
    """Have a file belong to others, whom drafts are given to if this process `may`."""
    looked, changed = Path.stat, []

    def as_others(self, **options):
        found = list(looked(self, **options))
        if self.name == path.name:
            found[4:6] = uid, gid
        return os.stat_result(found)

    def chown(draft, uid, gid):
        if not may:
            raise PermissionError(1, "Operation not permitted")
        changed.append((uid, gid))

    monkeypatch.setattr(Path, "stat", as_others)
    monkeypatch.setattr(os, "chown", chown)
    return changed


def test_a_file_that_is_replaced_keeps_owner_group_and_mode(tmp_path, monkeypatch):
    path = tmp_path / "file"
    path.write_text("old")
    path.chmod(0o640)
    changed = owners(monkeypatch, path, uid=12_345, gid=10_001)
    with replacing(path) as stream:
        [draft] = tmp_path.glob("*.partial")
        assert stat.S_IMODE(draft.stat().st_mode) == 0o640  # while it is written, too
        stream.write("new")
    assert set(changed) == {(-1, 10_001), (12_345, -1)}
    assert stat.S_IMODE(path.stat().st_mode) == 0o640
    assert path.read_text() == "new"


def test_a_group_that_cannot_be_kept_leaves_its_rights_to_no_other(tmp_path, monkeypatch):
    path = tmp_path / "file"
    path.write_text("old")
    path.chmod(0o664)
    owners(monkeypatch, path, uid=12_345, gid=10_001, may=False)
    with pytest.raises(PermissionError), replacing(path, same_owner=True) as stream:
        stream.write("new")
    assert path.read_text() == "old"
    with replacing(path) as stream:
        stream.write("new")
    assert stat.S_IMODE(path.stat().st_mode) == 0o644
    assert list(tmp_path.iterdir()) == [path]


def test_a_noise_key_is_not_replaced_by_one_that_its_readers_cannot_read(tmp_path, monkeypatch):
    path = tmp_path / "noise.key"
    KeyRing.generate().write(path)
    before = path.read_bytes()
    owners(monkeypatch, path, uid=0, gid=10_001, may=False)
    with pytest.raises(StoreError, match=r"Nothing was changed.*as root"):
        KeyRing.read(path).rotated().write(path, replace=True)
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]
