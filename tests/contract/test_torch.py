"""The torch adapter keeps the contract, with a module and with a file."""

from __future__ import annotations

import numpy as np
import pytest

from smoothapi.testing import AdapterContract
from smoothapi_adapters.torch import TorchAdapter
from tests.contract.colour_models import COLOURS, colour_module, write_onnx


class TestModule(AdapterContract):
    @pytest.fixture
    def make(self):
        module = colour_module()
        return lambda: TorchAdapter(module, labels=COLOURS, size=32)


class TestOnnx(AdapterContract):
    @pytest.fixture
    def make(self, tmp_path):
        path = write_onnx(tmp_path / "colours.onnx", side=16)
        return lambda: TorchAdapter(path, labels=COLOURS, batch=3)

    @pytest.fixture
    def pictures(self):
        return [
            np.full((20, 24, 3), [40 + 170 * (i >> b & 1) for b in (2, 1, 0)], np.uint8)
            for i in range(8)
        ]
