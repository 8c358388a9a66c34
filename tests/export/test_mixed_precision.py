"""Mixed precision: what must be exact stays float32, each tensor is cast once, and the answers stay where
they were."""

from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from export.mixed_precision import FULL, to_mixed_float16
from media import Modality
from tests.tiny_bundle import graphs_in

FLOAT, HALF = TensorProto.FLOAT, TensorProto.FLOAT16


@pytest.fixture(scope="module", params=Modality)
def pair(request: pytest.FixtureRequest, bundle: Path) -> tuple[onnx.ModelProto, onnx.ModelProto]:
    full = onnx.load(graphs_in(bundle / "fp32")[request.param])
    return full, to_mixed_float16(full)


def _types(model: onnx.ModelProto) -> dict[str, int]:
    graph = model.graph
    values = (*graph.input, *graph.value_info, *graph.output)
    return {x.name: x.type.tensor_type.elem_type for x in values} | {
        x.name: x.data_type for x in graph.initializer
    }


def test_borders_are_kept_and_the_graph_is_valid(pair: tuple[onnx.ModelProto, onnx.ModelProto]) -> None:
    full, mixed = pair
    onnx.checker.check_model(mixed, full_check=True)
    assert list(mixed.graph.input) == list(full.graph.input)
    assert list(mixed.graph.output) == list(full.graph.output)
    assert list(mixed.metadata_props) == list(full.metadata_props)


def test_sums_over_many_values_read_and_make_float32(pair: tuple[onnx.ModelProto, onnx.ModelProto]) -> None:
    types = _types(pair[1])
    checked = [node for node in pair[1].graph.node if node.op_type in FULL - {"Cast", "Shape"}]
    assert {"LayerNormalization", "Softmax", "ReduceL2", "Gemm"} <= {node.op_type for node in checked}
    for node in checked:
        assert HALF not in {types[name] for name in (*node.input, *node.output) if name}, node.name


def test_products_read_float16(pair: tuple[onnx.ModelProto, onnx.ModelProto]) -> None:
    types = _types(pair[1])
    products = [node for node in pair[1].graph.node if node.op_type in ("MatMul", "Conv")]
    assert products
    for node in products:
        assert {types[name] for name in (*node.input, *node.output)} == {HALF}, node.name


def test_no_tensor_is_cast_twice_and_none_back_and_forth(
    pair: tuple[onnx.ModelProto, onnx.ModelProto],
) -> None:
    casts = [node for node in pair[1].graph.node if node.op_type == "Cast"]
    assert len({(node.input[0], node.attribute[0].i) for node in casts}) == len(casts)
    made = {node.output[0] for node in casts if node.name.endswith("/Cast") and "." in node.output[0]}
    assert not [node.name for node in casts if node.input[0] in made - {"_to_copy"}]


def test_answers_stay(pair: tuple[onnx.ModelProto, onnx.ModelProto], bundle: Path) -> None:
    golden = np.load(bundle / "golden" / "inputs.npz")
    sessions = [
        onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
        for model in pair
    ]
    inputs = {x.name: golden[x.name] for x in sessions[0].get_inputs()}
    wanted, got = (session.run(None, inputs) for session in sessions)
    for x, y in zip(wanted, got, strict=True):
        assert 0 < np.abs(x - y).max() < 0.02


def _graph(op_type: str, weight: np.ndarray) -> onnx.ModelProto:
    x, y = (helper.make_tensor_value_info(name, FLOAT, ["batch", 2]) for name in ("x", "y"))
    nodes = [helper.make_node(op_type, ["x", "w"], ["y"], name="the node")]
    graph = helper.make_graph(nodes, "one", [x], [y], [numpy_helper.from_array(weight, "w")])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)


def test_an_output_that_half_precision_makes_is_cast_back() -> None:
    mixed = to_mixed_float16(_graph("Add", np.ones((1, 2), np.float32)))
    assert [node.op_type for node in mixed.graph.node] == ["Cast", "Add", "Cast"]
    session = onnxruntime.InferenceSession(mixed.SerializeToString(), providers=["CPUExecutionProvider"])
    (y,) = session.run(None, {"x": np.array([[1, 2]], np.float32)})
    assert y.dtype == np.float32
    assert y.tolist() == [[2, 3]]


def test_an_operator_that_nobody_thought_of_fails() -> None:
    with pytest.raises(ValueError, match=r"'the node' is Pow; say in mixed_precision\.py how precise"):
        to_mixed_float16(_graph("Pow", np.ones((1, 2), np.float32)))


def test_a_weight_that_overflows_fails() -> None:
    with pytest.raises(ValueError, match="w holds 70000, which float16 cannot"):
        to_mixed_float16(_graph("Mul", np.full((1, 2), 7e4, np.float32)))
