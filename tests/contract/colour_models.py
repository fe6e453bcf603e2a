"""A model that names colours, as a torch module and as an ONNX file."""

from __future__ import annotations

import numpy as np
import torch
from torch import nn

COLOURS = ["black", "blue", "green", "cyan", "red", "magenta", "yellow", "white"]
WEIGHTS = np.array([[1.0 if i >> b & 1 else -1.0 for b in (2, 1, 0)] for i in range(8)]) * 8


class Colours(nn.Module):
    """Mean colour -> eight logits, of which the nearest corner of the cube has the highest."""

    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(3, 8)
        self.dropout = nn.Dropout(0.5)
        self.register_buffer("middle", torch.full((3,), 0.5), persistent=False)
        with torch.no_grad():
            self.linear.weight.copy_(torch.tensor(WEIGHTS))
            self.linear.bias.zero_()

    def forward(self, x):
        return self.linear(self.dropout(x.mean(dim=(2, 3)) - self.middle))


def colour_module():
    return Colours()


def write_onnx(path, *, side, batch="N"):
    """Write the same model as ONNX; with batch=1 as a graph for one picture only."""
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    weights = numpy_helper.from_array(WEIGHTS.T.astype(np.float32), "weights")
    bias = numpy_helper.from_array((-WEIGHTS.sum(axis=1) / 2).astype(np.float32), "bias")
    shape = numpy_helper.from_array(np.array([batch if batch == 1 else -1, 3]), "shape")
    nodes = [
        helper.make_node("GlobalAveragePool", ["x"], ["pooled"]),
        helper.make_node("Reshape", ["pooled", "shape"], ["flat"]),
        helper.make_node("Gemm", ["flat", "weights", "bias"], ["y"]),
    ]
    graph = helper.make_graph(
        nodes,
        "colours",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [batch, 3, side, side])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [batch, 8])],
        [weights, bias, shape],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
    onnx.save(model, str(path))
    return path
