"""What is said where ONNX classifiers cannot be read."""

import sys

import pytest

from smoothapi.denoise.training import surrogates
from smoothapi.errors import MissingExtraError


def test_the_extra_that_is_named_brings_the_package(tmp_path, monkeypatch):
    path = tmp_path / "classifier.onnx"
    path.write_bytes(b"")
    monkeypatch.setitem(sys.modules, "onnx", None)
    with pytest.raises(MissingExtraError, match=r"smoothapi-vision\[onnx\]"):
        surrogates.load_onnx(path)
