"""What TensorRT would take and our graphs must not hold is named and refused."""

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from tests.export.made_graphs import (
    FLOAT,
    HALF,
    INT64,
    LAST,
    RELU,
    UINT8,
    X,
    Y,
    faults,
    floats,
    int8_linear,
    node,
    save,
    sole_fault,
)


@pytest.mark.parametrize("type_", [INT64, TensorProto.INT32, HALF])
def test_an_input_of_another_type_fails(type_: int, tmp_path: Path) -> None:
    path = save(tmp_path, [node("Cast", "audio", to=FLOAT), LAST], inputs={"audio": (type_, X["audio"][1])})
    name = TensorProto.DataType.Name(type_)
    assert sole_fault(path) == f"input 'audio' is {name}; make it FLOAT or UINT8 by a Cast inside"
    assert faults(path, for_tensorrt=False) == []


def test_an_input_of_bytes_passes_and_an_output_of_bytes_fails(tmp_path: Path) -> None:
    inputs, outputs = ({name: (UINT8, dims) for name, (_, dims) in side.items()} for side in (X, Y))
    assert faults(save(tmp_path, [node("Cast", "audio", to=FLOAT), LAST], inputs=inputs)) == []
    path = save(tmp_path, [RELU, node("Cast", "x", "audio_logits", to=UINT8)], outputs=outputs)
    assert sole_fault(path) == "output 'audio_logits' is UINT8; make it FLOAT by a Cast inside"


@pytest.mark.parametrize("metadata", [{}, {"clip_spec_hash": ""}])
def test_a_graph_that_does_not_say_its_preprocessing_fails(metadata: dict[str, str], tmp_path: Path) -> None:
    assert "has no clip_spec_hash" in sole_fault(save(tmp_path, [RELU, LAST], metadata=metadata))


def test_a_chain_that_computes_a_shape_fails(tmp_path: Path) -> None:
    nodes = [
        node("Shape", "audio", "s", name="shape"),
        node("Gather", "s zero", "b", name="batch"),
        node("Concat", "b rest", "target", name="target", axis=0),
        node("Reshape", "audio target", "x"),
        LAST,
    ]
    found = faults(save(tmp_path, nodes, weights={"zero": np.array([0]), "rest": np.array([4, 8])}))
    assert found[0].startswith(
        "Reshape 'planted' takes a shape computed at run time from Shape 'shape'; make it"
    )
    assert len(found) == 1


def test_a_shape_that_is_computed_with_fails(tmp_path: Path) -> None:
    nodes = [
        node("Size", "audio", "n", name="size"),
        node("Cast", "n", "f", name="cast", to=FLOAT),
        node("Div", "audio f", "x", name="divide"),
        LAST,
    ]
    assert (
        sole_fault(save(tmp_path, nodes))
        == "Size 'size' computes a shape at run time; write the shape as a number"
    )


@pytest.mark.parametrize(
    "kind", ["ReduceMean", "Unsqueeze", "Squeeze", "Tile", "Expand", "Slice", "Pad", "Reshape"]
)
def test_axes_and_sizes_that_depend_on_values_fail(kind: str, tmp_path: Path) -> None:
    nodes = [
        node("Cast", "audio", "i", name="cast", to=INT64),
        node(kind, "audio i i" if kind == "Slice" else "audio i"),
        LAST,
    ]
    found = faults(save(tmp_path, nodes, infer=False))
    assert (
        f"{kind} 'planted' takes a shape or axes from 'i', which depends on values; make it an initialiser"
        in found
    )


def test_axes_of_a_constant_node_pass(tmp_path: Path) -> None:
    constant = node("Constant", "", "a", name="axes", value_ints=[2])
    nodes = [constant, node("ReduceMean", "audio a", "m"), node("Sub", "audio m", "x", name="centre"), LAST]
    assert faults(save(tmp_path, nodes)) == []
    text = node("Constant", "", "t", name="text", value_string="a")
    assert any(
        "Constant 'text' has value_string='a', wanted none" in x
        for x in faults(save(tmp_path, [*nodes, text]))
    )


@pytest.mark.parametrize("value", [-np.inf, np.inf, np.nan])
@pytest.mark.parametrize("form", ["initialiser", "Constant", "external"])
def test_a_value_that_is_not_finite_fails(value: float, form: str, tmp_path: Path) -> None:
    mask = np.zeros((4, 8), np.float32)
    mask[1, 2] = value
    add, constant = (
        node("Add", "audio mask"),
        node("Constant", "", "mask", name="c", value=numpy_helper.from_array(mask)),
    )
    nodes = [constant, add, LAST] if form == "Constant" else [add, LAST]
    path = save(tmp_path, nodes, weights={} if form == "Constant" else {"mask": mask})
    if form == "external":
        onnx.save(onnx.load(path), path, save_as_external_data=True, location="weights.bin", size_threshold=0)
    assert sole_fault(path).startswith(
        "weight 'mask' holds NaN or infinite values, as of a mask; leave the mask out"
    )
    assert faults(path, for_tensorrt=False) == []


@pytest.mark.parametrize(
    ("value", "fails"), [(-65504, True), (-40_000, True), (-100, False), (40_000, False)]
)
def test_a_mask_in_half_precision_that_adds_up_to_infinity_fails(
    value: float, fails: bool, tmp_path: Path
) -> None:
    nodes = [
        node("Cast", "audio", "h", name="halve", to=HALF),
        node("Add", "h mask", "m"),
        node("Cast", "m", "x", name="widen", to=FLOAT),
        LAST,
    ]
    found = faults(save(tmp_path, nodes, weights={"mask": np.array([0, value], np.float16).repeat(4)}))
    assert [x.split(" in fp16")[0] for x in found] == (
        [f"weight 'mask' holds {np.float16(value):g}"] if fails else []
    )


def test_a_mask_that_a_cast_makes_infinite_fails(tmp_path: Path) -> None:
    nodes = [
        node("Cast", "audio", "h", name="halve", to=HALF),
        node("Cast", "mask", "mh", name="halve the mask", to=HALF),
        node("Add", "h mh", "m"),
        node("Cast", "m", "x", name="widen", to=FLOAT),
        LAST,
    ]
    assert "weight 'mask' is cast to fp16" in sole_fault(
        save(tmp_path, nodes, weights={"mask": np.float32([-1e9])})
    )
    assert faults(save(tmp_path, nodes, weights={"mask": np.float32([-100])})) == []


L2 = [node("ReduceL2", "h axes", "n"), node("Div", "h n", "y", name="divide")]
RMS = [
    node("Mul", "h h", "sq", name="square"),
    node("ReduceMean", "sq axes", "n"),
    node("Div", "h n", "y", name="divide"),
]
VARIANCE = [
    node("Pow", "h two", "sq", name="square"),
    node("ReduceMean", "sq axes", "n"),
    node("Div", "h n", "y", name="divide"),
]
NORMS = {
    "LayerNorm": [node("LayerNormalization", "h gain", "y")],
    "softmax": [node("Softmax", "h", "y")],
    "L2 norm": L2,
    "L2 norm of a row": [node("LpNormalization", "h", "y", axis=2)],
    "mean of squares": RMS,
    "mean of squares, Pow": VARIANCE,
}


@pytest.mark.parametrize("kind", NORMS)
@pytest.mark.parametrize("type_", [HALF, FLOAT])
def test_a_norm_in_half_precision_fails(kind: str, type_: int, tmp_path: Path) -> None:
    nodes = [
        node("Cast", "audio", "h", name="cast", to=type_),
        *NORMS[kind],
        node("Cast", "y", "x", name="back", to=FLOAT),
        LAST,
    ]
    read = {name for n in nodes for name in n.input}
    dtype = helper.tensor_dtype_to_np_dtype(type_)
    weights = {"gain": np.ones(8, dtype), "axes": np.array([2]), "two": np.array(2, dtype)}
    path = save(tmp_path, nodes, weights={name: array for name, array in weights.items() if name in read})
    if type_ == FLOAT:
        assert faults(path) == []
    else:
        words = kind.split(" of a row")[0].split(",")[0]
        assert (
            f"'planted' is an fp16 {words}: its sums overflow or lose what is small; keep it in fp32 by a "
            "Cast" in sole_fault(path)
        )


def test_a_mean_in_half_precision_that_is_no_norm_passes(tmp_path: Path) -> None:
    nodes = [
        node("Cast", "audio", "h", name="cast", to=HALF),
        node("ReduceMean", "h axes", "m"),
        node("Sub", "h m", "y", name="centre"),
        node("Cast", "y", "x", name="back", to=FLOAT),
        LAST,
    ]
    assert faults(save(tmp_path, nodes, weights={"axes": np.array([2])})) == []


@pytest.mark.parametrize(
    ("planted", "node_name", "reason"),
    [
        ({"zero": np.int8(3)}, "quantise", "has the zero point 3"),
        ({"zero": np.uint8(128)}, "quantise", "is of uint8"),
        ({"zero": np.uint8(0)}, "quantise", "is of uint8"),
        ({"scale": np.float32(0)}, "dequantise", "has a scale that is not above 0"),
        ({"w_scale": np.full(8, np.nan, np.float32)}, "weights", "has a scale that is not above 0"),
    ],
)
def test_quantisation_that_is_not_symmetric_fails(
    planted: dict[str, np.ndarray], node_name: str, reason: str, tmp_path: Path
) -> None:
    path = save(tmp_path, **int8_linear(**planted))
    assert any(f"{node_name!r} {reason}; " in x for x in faults(path))
    assert faults(path, for_tensorrt=False) == []


def test_scales_of_each_channel_are_for_weights(tmp_path: Path) -> None:
    made = int8_linear(scale=floats(8), zero=np.zeros(8, np.int8))
    for each in made["nodes"][:2]:
        each.attribute.append(helper.make_attribute("axis", 2))
    assert [x.split(";")[0] for x in faults(save(tmp_path, **made))] == [
        "QuantizeLinear 'quantise' has 8 scales, and is not of weights",
        "DequantizeLinear 'dequantise' has 8 scales, and is not of weights",
    ]


def test_scales_and_zero_points_are_constant(tmp_path: Path) -> None:
    made = int8_linear()
    del made["weights"]["scale"], made["weights"]["zero"]
    late = [
        node("ReduceMax", "audio", "scale", name="range", keepdims=0),
        node("Cast", "scale", "zero", name="zero", to=TensorProto.INT8),
    ]
    found = faults(save(tmp_path, [*late, *made["nodes"]], weights=made["weights"]))
    assert sum("takes a scale that is not constant; measure ranges beforehand" in x for x in found) == 2
    assert sum("takes a zero point that is not constant; quantise symmetrically" in x for x in found) == 2


def test_a_zero_point_left_out_is_unsigned(tmp_path: Path) -> None:
    made = int8_linear()
    del made["weights"]["zero"]
    made["nodes"][0], made["nodes"][1] = (
        node("QuantizeLinear", "audio scale", "q", name="quantise"),
        node("DequantizeLinear", "q scale", "dq", name="dequantise"),
    )
    assert "QuantizeLinear 'quantise' is of uint8; quantise symmetrically to int8" in faults(
        save(tmp_path, **made)
    )
