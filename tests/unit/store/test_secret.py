"""The secret that noise is drawn from: made once, agreed on, private."""

from __future__ import annotations

import stat
import threading
from contextlib import closing

import pytest

from smoothapi.answer import Answer
from smoothapi.errors import StoreError
from smoothapi.keyring import KeyRing, own_keys
from smoothapi.noise import NoiseKey
from smoothapi.store import Home, StoredAnswer

KEY = b"ab" * 32 + b"\n"


def test_the_key_is_made_once_and_kept_private(tmp_path):
    path = tmp_path / "deep" / "noise.key"
    first = own_keys(path)
    assert own_keys(path) == first
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    key = NoiseKey(first.current)
    assert key.id == first.id
    assert first.current.hex() not in repr(key) + key.id + repr(first)
    assert list(path.parent.iterdir()) == [path]


def test_two_first_runs_at_once_agree_on_one_key(tmp_path):
    keys = []
    barrier = threading.Barrier(8)

    def first_run():
        barrier.wait()
        keys.append(own_keys(tmp_path / "noise.key").current)

    threads = [threading.Thread(target=first_run) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(keys) == 8
    assert len(set(keys)) == 1


def test_a_key_that_others_can_read_is_refused(tmp_path):
    path = tmp_path / "noise.key"
    own_keys(path)
    path.chmod(0o644)
    with pytest.raises(StoreError, match="read by others"):
        own_keys(path)


def test_a_damaged_key_is_refused(tmp_path):
    path = tmp_path / "noise.key"
    for content in (b"short", b"0" * 63, b"\xff" * 64, b"", b"0" * 64 + b"\nno key", KEY * 2):
        path.write_bytes(content)
        path.chmod(0o600)
        with pytest.raises(StoreError, match=r"damaged|twice") as caught:
            own_keys(path)
        assert KEY.decode().strip() not in str(caught.value)


def test_a_file_of_keys_is_text_with_the_one_in_use_first(tmp_path):
    path = tmp_path / "keys"
    made = KeyRing.generate()
    made.write(path)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert KeyRing.read(path, deployed=True) == made
    rotated = KeyRing.read(path).rotated()
    path.chmod(0o640)
    rotated.write(path, replace=True)
    found = KeyRing.read(path, deployed=True)
    assert found == rotated
    assert found.former == (made.current,)
    assert found.former_ids == (made.id,)
    assert stat.S_IMODE(path.stat().st_mode) == 0o640  # as the deployment had it
    with pytest.raises(StoreError, match="not replaced"):
        made.write(path)
    assert KeyRing.read(path, deployed=True) == rotated
    assert list(tmp_path.iterdir()) == [path]


def test_the_bytes_of_an_installation_become_a_file_of_keys(tmp_path):
    path = tmp_path / "noise.key"
    first = own_keys(path)
    first.rotated().write(path, replace=True)
    assert own_keys(path).former == (first.current,)


def test_a_deployed_key_may_be_its_groups_but_not_everybodys(tmp_path):
    path = tmp_path / "keys"
    KeyRing.generate().write(path)
    path.chmod(0o640)
    KeyRing.read(path, deployed=True)
    with pytest.raises(StoreError, match="read by others"):
        KeyRing.read(path)
    path.chmod(0o644)
    with pytest.raises(StoreError, match="defaultMode: 0440"):
        KeyRing.read(path, deployed=True)


def test_a_folder_says_that_its_answers_are_of_another_key(tmp_path, caplog):
    """As after `cache copy` without noise.key: photos are then paid for again."""
    old, new = Home(tmp_path / "old"), Home(tmp_path / "new")
    with closing(old), closing(new):
        key = old.keys().id
        new.answers.put(StoredAnswer({"noise": key, "index": 1}, Answer(())))
        own = new.keys().id
        assert f"{own}, and the last answers" in caplog.text
        assert key in caplog.text
        caplog.clear()
        new.answers.put(StoredAnswer({"noise": own, "index": 1}, Answer(())))
        KeyRing.read(new.noise_key_file).rotated().write(new.noise_key_file, replace=True)
        new.keys()
    assert not caplog.text
