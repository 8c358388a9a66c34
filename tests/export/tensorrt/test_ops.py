"""What TensorRT's parser does not take, by its table, is named and refused."""

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto

from export.audit import AuditError, audit_graph, examine_graph
from export.graph_checks import FORBIDDEN_OPERATORS
from export.tensorrt.ops import PARSER_OPSETS, operators
from export.tensorrt.restrictions import checked_operators
from export.tensorrt.rules import SHAPE_INPUTS
from tests.export.made_graphs import (
    FLOAT,
    LAST,
    RELU,
    UINT8,
    faults,
    floats,
    int8_linear,
    node,
    save,
    sole_fault,
)


def test_the_table_is_that_of_the_parser() -> None:
    """Facts from onnx-tensorrt's documentation, read by eye."""
    table = operators()
    assert len(table) == 201
    assert table["Attention"].since == "10.14"
    assert table["Attention"].types == {"FLOAT", "FLOAT16", "BFLOAT16", "INT8", "FLOAT8E4M3FN"}
    assert table["Cast"].types == {"FLOAT", "FLOAT16", "BFLOAT16", "INT32", "INT64", "UINT8", "BOOL"}
    assert table["DequantizeLinear"].restrictions == "`x_zero_point` must be zero"
    names = {
        version: {row.name for row in table.values() if version in row.versions} for version in PARSER_OPSETS
    }
    assert names["11.0"] - names["10.1"] == {
        "Attention",
        "BlackmanWindow",
        "HammingWindow",
        "HannWindow",
        "RMSNormalization",
        "RotaryEmbedding",
        "STFT",
        "Swish",
        "TensorScatter",
    }
    assert names["10.1"] <= names["11.0"]


def test_every_restriction_of_the_table_is_checked() -> None:
    restricted = {name for name, row in operators().items() if row.restrictions}
    quantised = {"QuantizeLinear", "DequantizeLinear"}
    assert (
        restricted - checked_operators() - set(SHAPE_INPUTS) - set(FORBIDDEN_OPERATORS) - quantised == set()
    )


@pytest.mark.parametrize(
    ("kind", "attributes"),
    [("Det", {}), ("DynamicQuantizeLinear", {}), ("NoSuchOperator", {}), ("BitwiseNot", {})],
)
def test_an_unsupported_operator_fails(kind: str, attributes: dict[str, Any], tmp_path: Path) -> None:
    path = save(tmp_path, [node(kind, "audio", **attributes), LAST], infer=False)
    assert f"{kind} 'planted' is not supported by TensorRT 11.0; write it in other operators" in faults(path)
    with pytest.raises(AuditError, match=f"{kind} 'planted' is not supported"):
        audit_graph(path)


@pytest.mark.parametrize("kind", ["MatMulInteger", "ConvInteger"])
def test_integer_products_outside_qdq_fail(kind: str, tmp_path: Path) -> None:
    nodes = [
        node("Cast", "audio", "u", name="cast", to=UINT8),
        node(kind, "u w", "i"),
        node("Cast", "i", "x", name="b", to=FLOAT),
    ]
    found = faults(save(tmp_path, [*nodes, LAST], weights={"w": np.ones((8, 8, 3), np.uint8)}, infer=False))
    assert f"{kind} 'planted' is not supported by TensorRT 11.0; write it in other operators" in found


def test_an_operator_that_came_later_fails_for_the_older_version(tmp_path: Path) -> None:
    path = save(
        tmp_path, [node("HannWindow", "n", "x", output_datatype=FLOAT), LAST], weights={"n": np.int64(8)}
    )
    newer, older = (faults(path, tensorrt=version) for version in ("11.0", "10.1"))
    assert [x for x in older if x not in newer] == [
        "HannWindow 'planted' is not supported by TensorRT 10.1; write it in other operators, or wait for "
        "10.4"
    ]


def test_a_version_that_is_not_known_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"tensorrt='9\.0' is not known; give one of 11\.0, 10\.1"):
        examine_graph(save(tmp_path, [RELU, LAST]), tensorrt="9.0")


def test_an_element_type_that_is_not_taken_fails(tmp_path: Path) -> None:
    nodes = [
        node("Cast", "audio", "d", name="to double", to=TensorProto.DOUBLE),
        node("Conv", "d kernel", "c", name="conv"),
        node("Cast", "c", "x", name="back", to=FLOAT),
        LAST,
    ]
    path = save(tmp_path, nodes, weights={"kernel": np.ones((4, 4, 1))})
    assert faults(path) == [
        "Cast 'to double' has DOUBLE in 'd'; TensorRT takes FP32, FP16, BF16, INT32, INT64, BOOL, UINT8 "
        "there",
        "Conv 'conv' has DOUBLE in 'd'; TensorRT takes FP32, FP16, BF16 there",
        "Cast 'back' has DOUBLE in 'c'; TensorRT takes FP32, FP16, BF16, INT32, INT64, BOOL, UINT8 there",
    ]
    unknown = save(tmp_path, nodes, weights={"kernel": np.ones((4, 4, 1))}, infer=False)
    assert faults(path)[1] in faults(unknown), "types are inferred where the file does not tell them"


def test_int8_outside_of_qdq_fails(tmp_path: Path) -> None:
    made = int8_linear()
    made["nodes"][1] = node("Relu", "q", "r", name="relu")
    made["nodes"].insert(2, node("DequantizeLinear", "r scale zero", "dq", name="dequantise"))
    assert sole_fault(save(tmp_path, **made)) == (
        "Relu 'relu' has INT8 in 'q'; TensorRT takes FP32, FP16, BF16, INT32, INT64 there"
    )


def test_indices_are_not_taken_for_what_they_index(tmp_path: Path) -> None:
    gather = node("Gather", "audio i", axis=1)
    assert faults(save(tmp_path, [gather, LAST], weights={"i": np.arange(4)})) == []
    condition = node("Gather", "flags i", axis=1)
    inputs = {"flags": (TensorProto.BOOL, ["batch", 4, 8])}
    found = faults(
        save(
            tmp_path,
            [condition, node("Cast", "x", "audio_logits", to=FLOAT, name="c")],
            inputs=inputs,
            weights={"i": np.arange(4)},
        )
    )
    assert found == ["input 'flags' is BOOL; make it FLOAT or UINT8 by a Cast inside"]


Restricted = tuple[list[onnx.NodeProto], dict[str, np.ndarray], str]
TO_4D = node("Reshape", "audio s4", "i4", name="to 4-D")
S4 = {"s4": np.array([-1, 1, 4, 8])}

RESTRICTED: dict[str, Restricted] = {
    "LayerNormalization": (
        [node("LayerNormalization", "audio g", "x mean", axis=-1)],
        {"g": floats(8)},
        "more than its first output",
    ),
    "Resize": (
        [TO_4D, node("Resize", "i4 - scales", "r", mode="cubic"), node("Reshape", "r s3", name="back")],
        S4 | {"scales": np.array([1, 1, 1, 1], np.float32), "s3": np.array([-1, 4, 8])},
        "has mode='cubic', wanted nearest or linear",
    ),
    "Resize ": (
        [
            TO_4D,
            node("Resize", "i4 - scales", "r", antialias=1, mode="linear"),
            node("Reshape", "r s3", name="back"),
        ],
        S4 | {"scales": np.array([1, 1, 1, 1], np.float32), "s3": np.array([-1, 4, 8])},
        "has antialias=1, wanted 0",
    ),
    "Resize  ": (
        [TO_4D, node("Resize", "i4 - scales", "r", axes=[2, 3]), node("Reshape", "r s3", name="back")],
        S4 | {"scales": np.array([1, 1], np.float32), "s3": np.array([-1, 4, 8])},
        "has scales and axes=[2, 3], wanted all axes in order",
    ),
    "MaxPool": (
        [
            TO_4D,
            node("MaxPool", "i4", "r", kernel_shape=[1, 1], dilations=[1, 2]),
            node("Reshape", "r s3", name="back"),
        ],
        S4 | {"s3": np.array([-1, 4, 8])},
        "has dilations=[1, 2], wanted ones",
    ),
    "AveragePool": (
        [node("AveragePool", "audio", kernel_shape=[1])], {}, "has 3 axes in 'audio', wanted 4 or 5",
    ),
    "TopK": (
        [node("TopK", "audio k", "x indices", sorted=0)], {"k": np.array([8])}, "has sorted=0, wanted 1",
    ),
    "ScatterND": (
        [node("ScatterND", "w i u", "s", reduction="add"), node("Add", "audio s", name="sum")],
        {"w": floats(4, 8), "i": np.array([[0]]), "u": floats(1, 8)},
        "has reduction='add', wanted none",
    ),
    "Hardmax": ([node("Hardmax", "audio", axis=0)], {}, "over an axis whose length is not constant"),
    "GRU": (
        [node("Transpose", "audio", "t", perm=[1, 0, 2], name="time first"),
         node("GRU", "t w recurrent", "- h", hidden_size=8, direction="bidirectional",
              activations=["Sigmoid", "Tanh", "Relu", "Tanh"]),
         node("ReduceSum", "h a", "r", name="sum"), node("Unsqueeze", "r b", "u", name="u"),
         node("Add", "u audio", name="add")],
        {"w": floats(2, 24, 8), "recurrent": floats(2, 24, 8), "a": np.array([0]), "b": np.array([1])},
        "wanted the same both ways",
    ),
}  # fmt: skip


@pytest.mark.parametrize("kind", RESTRICTED)
def test_a_form_that_is_not_taken_fails(kind: str, tmp_path: Path) -> None:
    nodes, weights, expected = RESTRICTED[kind]
    found = sole_fault(save(tmp_path, [*nodes, LAST], weights=weights))
    assert found.startswith(f"{kind.strip()} 'planted' ")
    assert expected in found


@pytest.mark.parametrize(
    ("shape", "options", "expected"),
    [
        ([-1, 1, 4, 8], {}, None),
        ([-1, 4, 8], {"q_num_heads": 1, "kv_num_heads": 1}, "has 3 axes in 'q', wanted 4"),
        ([-1, 1, 4, 8], {"softcap": 1.0}, "has softcap=1.0, wanted 0.0"),
    ],
)
def test_attention_is_taken_over_four_axes(
    shape: list[int], options: dict[str, Any], expected: str | None, tmp_path: Path
) -> None:
    nodes = [
        node("Reshape", "audio s", "q", name="split heads"),
        node("Attention", "q q q", "a", **options),
        node("Reshape", "a back", "x", name="merge heads"),
        LAST,
    ]
    path = save(tmp_path, nodes, weights={"s": np.array(shape), "back": np.array([-1, 4, 8])}, opset=23)
    found = faults(path, max_opset=23)
    assert all(expected is not None and expected in x for x in found)
    assert bool(found) == (expected is not None)
    assert any(
        "not supported by TensorRT 10.1" in x and "wait for 10.14" in x
        for x in faults(path, max_opset=23, tensorrt="10.1")
    )


def test_einsum_with_a_diagonal_came_later(tmp_path: Path) -> None:
    path = save(
        tmp_path, [node("Einsum", "audio w", equation="...i,ij->...j"), LAST], weights={"w": floats(8, 8)}
    )
    assert faults(path) == []
    assert "with an ellipsis or a diagonal" in sole_fault(path, tensorrt="10.1")
