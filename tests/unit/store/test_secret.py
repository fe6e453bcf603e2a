"""The secret that noise is drawn from: made once, agreed on, private."""

from __future__ import annotations

import stat
import threading

import pytest

from smoothapi.errors import StoreError
from smoothapi.noise import NoiseKey
from smoothapi.store.local.secret import read_secret


def test_the_key_is_made_once_and_kept_private(tmp_path):
    path = tmp_path / "deep" / "noise.key"
    first = read_secret(path)
    assert read_secret(path) == first
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    key = NoiseKey(first)
    assert first.hex() not in repr(key) + key.id
    assert list(path.parent.iterdir()) == [path]


def test_two_first_runs_at_once_agree_on_one_key(tmp_path):
    keys = []
    barrier = threading.Barrier(8)

    def first_run():
        barrier.wait()
        keys.append(read_secret(tmp_path / "noise.key"))

    threads = [threading.Thread(target=first_run) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(keys) == 8
    assert len(set(keys)) == 1


def test_a_key_that_others_can_read_is_refused(tmp_path):
    path = tmp_path / "noise.key"
    read_secret(path)
    path.chmod(0o644)
    with pytest.raises(StoreError, match="read by others"):
        read_secret(path)


def test_a_damaged_key_is_refused(tmp_path):
    path = tmp_path / "noise.key"
    path.write_bytes(b"short")
    path.chmod(0o600)
    with pytest.raises(StoreError, match="damaged"):
        read_secret(path)
