"""What a graph is said to hold and to cost, against arithmetic on small graphs and against torch's own count
on a model."""

import json
from dataclasses import asdict
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from export.inspection import GraphFacts, inspect_graph
from models.size import model_size
from models.weights import load_checkpoint

FLOAT = TensorProto.FLOAT


def save(
    path: Path, nodes: list[onnx.NodeProto], inputs: dict, outputs: dict, weights: dict | None = None, **model
) -> Path:
    """Write a graph; inputs and outputs are shapes by name, float32."""
    graph = helper.make_graph(
        nodes,
        "made",
        [helper.make_tensor_value_info(name, FLOAT, shape) for name, shape in inputs.items()],
        [helper.make_tensor_value_info(name, FLOAT, shape) for name, shape in outputs.items()],
        [numpy_helper.from_array(array, name) for name, array in (weights or {}).items()],
    )
    made = helper.make_model(
        graph, opset_imports=[helper.make_opsetid("", 20)], producer_name="hand", producer_version="3"
    )
    for key, value in model.items():
        helper.set_model_props(made, {key: value})
    path.write_bytes(made.SerializeToString())
    return path


def one(
    tmp_path: Path, node: onnx.NodeProto, inputs: dict, output: list, weights: dict | None = None
) -> GraphFacts:
    return inspect_graph(save(tmp_path / "one.onnx", [node], inputs, {"y": output}, weights))


def zeros(*shape: int) -> np.ndarray:
    return np.zeros(shape, np.float32)


@pytest.mark.parametrize(
    ("left", "right", "out", "products"),
    [
        (["batch", 5], [5, 7], ["batch", 7], 5 * 7),
        (["batch", 3, 5], [5, 7], ["batch", 3, 7], 3 * 5 * 7),
        ([3, 5], ["batch", 5, 7], ["batch", 3, 7], 3 * 5 * 7),
        (["batch", 4, 3, 5], ["batch", 4, 5, 7], ["batch", 4, 3, 7], 4 * 3 * 5 * 7),
        (["batch", 4, 3, 5], ["batch", 1, 5, 7], ["batch", 4, 3, 7], 4 * 3 * 5 * 7),
        ([2, 3, 5], [5], [2, 3], 2 * 3 * 5),
        ([5], [5, 7], [7], 5 * 7),
    ],
)
def test_products_of_matrices(left: list, right: list, out: list, products: int, tmp_path: Path) -> None:
    facts = one(tmp_path, helper.make_node("MatMul", ["a", "b"], ["y"]), {"a": left, "b": right}, out)
    assert facts.gflops * 1e9 == pytest.approx(2 * products)


@pytest.mark.parametrize(
    ("flags", "left", "right"),
    [
        ({}, [4, 5], [5, 7]),
        ({"transA": 1}, [5, 4], [5, 7]),
        ({"transB": 1}, [4, 5], [7, 5]),
        ({"transA": 1, "transB": 1}, [5, 4], [7, 5]),
    ],
)
def test_products_of_gemm(flags: dict, left: list, right: list, tmp_path: Path) -> None:
    """A bias is no product."""
    node = helper.make_node("Gemm", ["a", "b", "c"], ["y"], **flags)
    facts = one(tmp_path, node, {"a": left, "b": right}, [4, 7], {"c": zeros(7)})
    assert facts.gflops * 1e9 == pytest.approx(2 * 4 * 5 * 7)


@pytest.mark.parametrize(
    ("flags", "weight", "out", "products"),
    [
        ({}, (8, 6, 3, 3), ["batch", 8, 10, 12], 8 * 10 * 12 * 6 * 9),
        ({"strides": [2, 2], "pads": [1, 1, 1, 1]}, (8, 6, 3, 3), ["batch", 8, 6, 7], 8 * 6 * 7 * 6 * 9),
        ({"group": 3}, (9, 2, 3, 3), ["batch", 9, 10, 12], 9 * 10 * 12 * 2 * 9),
        ({"group": 6, "strides": [4, 7]}, (6, 1, 4, 7), ["batch", 6, 3, 2], 6 * 3 * 2 * 4 * 7),
    ],
)
def test_products_of_convolutions(
    flags: dict, weight: tuple, out: list, products: int, tmp_path: Path
) -> None:
    node = helper.make_node("Conv", ["x", "w", "b"], ["y"], **flags)
    facts = one(
        tmp_path, node, {"x": ["batch", 6, 12, 14]}, out, {"w": zeros(*weight), "b": zeros(weight[0])}
    )
    assert facts.gflops * 1e9 == pytest.approx(2 * products)
    assert facts.parameters == np.prod(weight) + weight[0]


def of_bundle(bundle: Path, name: str) -> Path:
    """The float32 graph."""
    return min(bundle.rglob(f"{name}.onnx"), key=lambda path: (path.parent.name != "fp32", path))


def test_operations_of_a_model_as_torch_counts_them(bundle: Path, checkpoint: Path) -> None:
    """The same but for what a graph leaves out: the global answer, and output queries, which the exporter
    computes once."""
    config = load_checkpoint(checkpoint).config
    size = model_size(config)
    dim, tokens = config.features_dim, sum(size.tokens)
    query = 2 * dim * dim
    read = (
        2 * tokens * dim * 2 * dim + 2 * 2 * tokens * dim + 2 * dim * dim
    )  # keys and values, attention, projection
    heads = 2 * dim * (config.projection_dim + config.num_classes)
    facts = inspect_graph(of_bundle(bundle, "fused"))
    assert facts.gflops * 1e9 == pytest.approx(size.gflops * 1e9 - 4 * query - read - heads)
    alone = [inspect_graph(of_bundle(bundle, name)).gflops for name in ("audio", "video")]
    assert sum(alone) < facts.gflops


def quantised(tmp_path: Path) -> Path:
    """One linear map whose activations and weights go through int8, with a scale per output channel."""
    nodes = [
        helper.make_node("QuantizeLinear", ["x", "x_scale", "x_zero"], ["x_int8"]),
        helper.make_node("DequantizeLinear", ["x_int8", "x_scale", "x_zero"], ["x_float"]),
        helper.make_node("DequantizeLinear", ["w", "w_scale", "w_zero"], ["w_float"], axis=1),
        helper.make_node("MatMul", ["x_float", "w_float"], ["product"]),
        helper.make_node("DequantizeLinear", ["b", "b_scale"], ["b_float"]),
        helper.make_node("Add", ["product", "b_float"], ["sum"]),
        helper.make_node("Mul", ["sum", "half"], ["y"]),
    ]
    weights = {
        "x_scale": np.float32(0.1),
        "x_zero": np.uint8(128),
        "w": np.zeros((16, 5), np.int8),
        "w_scale": zeros(5),
        "w_zero": np.zeros(5, np.int8),
        "b": np.zeros(5, np.int32),
        "b_scale": np.float32(0.1),
        "half": np.float32(0.5),
    }
    weights = {name: np.asarray(array) for name, array in weights.items()}
    return save(tmp_path / "int8.onnx", nodes, {"x": ["batch", 16]}, {"y": ["batch", 5]}, weights)


def test_int8_counts_as_what_it_stands_for(tmp_path: Path) -> None:
    facts = inspect_graph(quantised(tmp_path))
    assert facts.gflops * 1e9 == pytest.approx(2 * 16 * 5)
    assert facts.parameters == 16 * 5 + 5
    assert facts.weight_bytes == {"int8": 16 * 5, "int32": 5 * 4}
    assert facts.operators == {"DequantizeLinear": 3, "QuantizeLinear": 1, "MatMul": 1, "Add": 1, "Mul": 1}
    assert next(iter(facts.operators)) == "DequantizeLinear"


def test_weights_made_of_weights_are_no_activations(tmp_path: Path) -> None:
    """Most is x of 16, which stays, x back from int8, and the product of 5.

    The weights as floats would be 80 more.
    """
    memory = inspect_graph(quantised(tmp_path), batch=3).memory
    assert (memory.peak_bytes, memory.peak_node) == (3 * (16 + 16 + 5) * 4, "MatMul")
    assert memory.largest.name == "x_float"


def test_weights_by_type_and_constants(tmp_path: Path) -> None:
    constant = numpy_helper.from_array(np.zeros((3, 4), np.float16))
    nodes = [
        helper.make_node("Constant", [], ["c"], value=constant),
        helper.make_node("Cast", ["c"], ["c_float"], to=FLOAT),
        helper.make_node("MatMul", ["x", "w"], ["wide"]),
        helper.make_node("MatMul", ["wide", "c_float"], ["flat"]),
        helper.make_node("Reshape", ["flat", "shape"], ["y"]),
    ]
    weights = {"w": zeros(5, 3), "shape": np.array([-1, 2, 2])}
    facts = inspect_graph(
        save(tmp_path / "c.onnx", nodes, {"x": ["batch", 5]}, {"y": ["batch", 2, 2]}, weights)
    )
    assert facts.parameters == 5 * 3 + 3 * 4
    assert facts.weight_bytes == {"float32": 5 * 3 * 4, "float16": 3 * 4 * 2}


def skipping(tmp_path: Path) -> Path:
    """x[10] -> a[20] -> b[40] -> c[20]; c + a -> y[20]."""
    nodes = [
        helper.make_node("MatMul", ["x", "w1"], ["a"], name="first"),
        helper.make_node("MatMul", ["a", "w2"], ["b"], name="widen"),
        helper.make_node("MatMul", ["b", "w3"], ["c"], name="narrow"),
        helper.make_node("Relu", ["c"], ["d"], name="bend"),
        helper.make_node("Add", ["d", "a"], ["y"], name="skip"),
    ]
    weights = {"w1": zeros(10, 20), "w2": zeros(20, 40), "w3": zeros(40, 20)}
    return save(
        tmp_path / "skip.onnx", nodes, {"x": ["batch", 10]}, {"y": ["batch", 20]}, weights, modality="audio"
    )


@pytest.mark.parametrize("batch", [1, 6])
def test_peak_memory_of_a_chain_with_a_skip(batch: int, tmp_path: Path) -> None:
    """Alive after each node, in floats: x a 30, x a b 70, x a b c 90, x a c d 70, x a d y 70."""
    memory = inspect_graph(skipping(tmp_path), batch=batch).memory
    assert (memory.batch, memory.peak_bytes, memory.peak_node) == (batch, batch * 90 * 4, "narrow")
    assert (memory.largest.name, memory.largest.shape, memory.largest_bytes) == (
        "b",
        (batch, 40),
        batch * 40 * 4,
    )


def test_the_batch_of_the_memory_is_not_that_of_the_operations(tmp_path: Path) -> None:
    facts = inspect_graph(skipping(tmp_path), batch=6)
    assert facts.gflops * 1e9 == pytest.approx(2 * (10 * 20 + 20 * 40 + 40 * 20))


def test_a_tensor_that_nothing_reads_dies_at_once(tmp_path: Path) -> None:
    halves = helper.make_node("Split", ["x"], ["a", "unread"], axis=1, num_outputs=2)
    nodes = [halves, helper.make_node("Relu", ["a"], ["y"])]
    memory = inspect_graph(save(tmp_path / "s.onnx", nodes, {"x": ["batch", 10]}, {"y": ["batch", 5]})).memory
    assert memory.peak_bytes == (10 + 5 + 5) * 4  # both nodes: x with both halves, then x, a and y


def test_what_a_graph_says_of_itself(tmp_path: Path) -> None:
    path = skipping(tmp_path)
    facts = inspect_graph(path)
    assert (facts.nodes, facts.operators) == (5, {"MatMul": 3, "Relu": 1, "Add": 1})
    assert (facts.opset, facts.producer, facts.metadata) == (20, "hand 3", {"modality": "audio"})
    assert [(x.name, x.dtype, x.shape) for x in facts.inputs + facts.outputs] == [
        ("x", "float32", ("batch", 10)),
        ("y", "float32", ("batch", 20)),
    ]
    assert (facts.file_bytes, facts.external_bytes) == (path.stat().st_size, {})
    assert json.loads(json.dumps(asdict(facts)))["memory"]["largest"]["shape"] == [1, 40]


def test_weights_beside_the_graph(bundle: Path) -> None:
    path = of_bundle(bundle, "audio")
    facts = inspect_graph(path)
    assert facts.external_bytes == {"weights.bin": (path.parent / "weights.bin").stat().st_size}
    assert facts.metadata["modality"] == "audio"


def test_weights_that_are_not_there_fail(bundle: Path, tmp_path: Path) -> None:
    (tmp_path / "audio.onnx").write_bytes(of_bundle(bundle, "audio").read_bytes())
    with pytest.raises(ValueError, match=r"weights\.bin is not there, which the graph keeps weights in"):
        inspect_graph(tmp_path / "audio.onnx")


def test_a_weight_among_the_inputs_is_a_weight(tmp_path: Path) -> None:
    """As graphs were written once: what has a value need not be given."""
    node = helper.make_node("MatMul", ["x", "w"], ["y"])
    facts = one(tmp_path, node, {"x": ["batch", 5], "w": [5, 7]}, ["batch", 7], {"w": zeros(5, 7)})
    assert [x.name for x in facts.inputs] == ["x"]
    assert facts.memory.peak_bytes == (5 + 7) * 4


def test_a_shape_that_is_not_known_fails(tmp_path: Path) -> None:
    """A shape that depends on values; nothing tells the product's size."""
    nodes = [
        helper.make_node("NonZero", ["x"], ["where"], name="find"),
        helper.make_node("Cast", ["where"], ["floats"], to=FLOAT, name="convert"),
        helper.make_node("MatMul", ["x", "floats"], ["y"], name="multiply"),
    ]
    path = save(tmp_path / "n.onnx", nodes, {"x": ["batch", 2]}, {"y": ["batch", "found"]})
    with pytest.raises(
        ValueError, match=r"the shape of 'where', made by node 'find' \(NonZero\), is not known at batch 1"
    ):
        inspect_graph(path)


@pytest.mark.parametrize(("kind", "domain"), [("Einsum", ""), ("FusedMatMul", "com.microsoft")])
def test_operations_that_are_not_known_fail(kind: str, domain: str, tmp_path: Path) -> None:
    flags = {"equation": "bi,bi->bi"} if kind == "Einsum" else {}
    node = helper.make_node(kind, ["x", "x"], ["y"], name="odd", domain=domain, **flags)
    wanted = rf"how many operations node 'odd' \({kind}\) of domain {domain or 'ai.onnx'} takes is not known"
    with pytest.raises(ValueError, match=wanted):
        one(tmp_path, node, {"x": [2, 2]}, [2, 2])


def test_a_free_axis_besides_the_batch_fails(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"input 'x' has shape \('batch', 'time'\); only its first axis"):
        one(tmp_path, helper.make_node("Relu", ["x"], ["y"]), {"x": ["batch", "time"]}, ["batch", "time"])


def test_a_graph_that_computes_nothing_fails(tmp_path: Path) -> None:
    node = helper.make_node("Relu", ["w"], ["y"])
    with pytest.raises(ValueError, match="no node of graph 'made' reads an input"):
        one(tmp_path, node, {"x": ["batch", 2]}, [2], {"w": zeros(2)})


def test_a_batch_that_cannot_be_fails(tmp_path: Path) -> None:
    path = save(
        tmp_path / "fixed.onnx", [helper.make_node("Relu", ["x"], ["y"])], {"x": [2, 3]}, {"y": [2, 3]}
    )
    assert inspect_graph(path).memory.peak_bytes == 2 * (2 * 3 * 4)
    with pytest.raises(ValueError, match="'made' have fixed shapes, so its memory at batch 8 is not known"):
        inspect_graph(path, batch=8)
    with pytest.raises(ValueError, match="got batch=0, wanted 1 or more"):
        inspect_graph(path, batch=0)
