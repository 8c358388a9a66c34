"""Shapes are inferred as onnx infers them, and weights are as they were."""

from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from export.shapes import infer_shapes


def make_graph() -> onnx.ModelProto:
    """[batch, 64] -> [batch, 32] by a matrix of 8 kB -> [batch, 4, 8] by a shape of 24 bytes."""
    matrix = np.arange(64 * 32, dtype=np.float32).reshape(64, 32)
    stored = [numpy_helper.from_array(matrix, "w"), numpy_helper.from_array(np.array([-1, 4, 8]), "shape")]
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["y"]),
        helper.make_node("Reshape", ["y", "shape"], ["z"]),
    ]
    given = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", 64])
    answer = helper.make_tensor_value_info("z", TensorProto.FLOAT, None)
    graph = helper.make_graph(nodes, "made", [given], [answer], initializer=stored)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)


def test_shapes_are_those_that_onnx_infers_and_weights_stay() -> None:
    model, wanted = make_graph(), onnx.shape_inference.infer_shapes(make_graph(), data_prop=True)
    infer_shapes(model)
    assert model.SerializeToString(deterministic=True) == wanted.SerializeToString(deterministic=True)
    assert [axis.dim_value for axis in model.graph.output[0].type.tensor_type.shape.dim[1:]] == [4, 8]


def test_weights_that_lie_in_a_file_stay_there(tmp_path: Path) -> None:
    path = tmp_path / "made.onnx"
    onnx.save(make_graph(), path, save_as_external_data=True, size_threshold=1024)
    model = onnx.load(path, load_external_data=False)
    before = [tensor.SerializeToString(deterministic=True) for tensor in model.graph.initializer]
    infer_shapes(model)
    assert [tensor.SerializeToString(deterministic=True) for tensor in model.graph.initializer] == before
