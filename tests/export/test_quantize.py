"""Int8: Q/DQ around linear maps alone, as TensorRT wants it or as CPUs do, and layers that do harm are
found."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from export.quantize import (
    SCHEMES,
    QuantisationError,
    Scheme,
    cosine,
    find_sensitive,
    layers_of,
    measure_ranges,
    quantise,
)
from media.progress import NO_FIGURES

RANDOM = np.random.default_rng(0)
WIDTH = 16


@pytest.fixture
def chain(tmp_path: Path) -> Path:
    """Three linear maps, of which the second has one huge channel among small ones that matter: int8 ruins
    it."""
    weights = [RANDOM.standard_normal((WIDTH, WIDTH)).astype(np.float32) for _ in range(3)]
    spread = np.ones((WIDTH, WIDTH), np.float32)
    spread[0] = 3000
    weights[0][:, 0] *= 1000
    weights[1] /= spread
    nodes = [
        helper.make_node("MatMul", [x, f"w{i}"], [y], name=f"map {i}")
        for i, (x, y) in enumerate([("x", "a"), ("a", "b"), ("b", "y")])
    ]
    x, y = (helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", WIDTH]) for name in ("x", "y"))
    stored = [numpy_helper.from_array(w, f"w{i}") for i, w in enumerate(weights)]
    model = helper.make_model(
        helper.make_graph(nodes, "chain", [x], [y], stored),
        opset_imports=[helper.make_opsetid("", 20)],
        ir_version=10,
    )
    helper.set_model_props(model, {"clip_spec_hash": "abc"})
    onnx.save(onnx.shape_inference.infer_shapes(model), tmp_path / "chain.onnx")
    return tmp_path / "chain.onnx"


@pytest.fixture(scope="module")
def batches() -> list[dict[str, np.ndarray]]:
    return [{"x": RANDOM.standard_normal((4, WIDTH)).astype(np.float32)} for _ in range(5)]


def _answers(model: onnx.ModelProto | Path, batches: Sequence[dict[str, np.ndarray]]) -> np.ndarray:
    source = str(model) if isinstance(model, Path) else model.SerializeToString()
    session = onnxruntime.InferenceSession(source, providers=["CPUExecutionProvider"])
    return np.concatenate([session.run(None, batch)[0] for batch in batches])


def test_ranges_are_the_extremes_over_all_batches(chain: Path, batches: list[dict[str, np.ndarray]]) -> None:
    ranges = measure_ranges(chain, batches)
    values = np.concatenate([batch["x"] for batch in batches])
    low, high = ranges["x"].range_value
    assert (low.item(), high.item()) == pytest.approx((values.min(), values.max()))
    with pytest.raises(QuantisationError, match=r"chain\.onnx: got 0 clips"):
        measure_ranges(chain, [])


@pytest.mark.parametrize("name", SCHEMES)
def test_weights_are_int8_around_zero_by_channel(
    name: str, chain: Path, batches: list[dict[str, np.ndarray]]
) -> None:
    model = quantise(chain, measure_ranges(chain, batches), SCHEMES[name])
    onnx.checker.check_model(model, full_check=True)
    stored = {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
    reads = [
        node for node in model.graph.node if node.op_type == "DequantizeLinear" and node.input[0] in stored
    ]
    assert len(reads) == 3
    limit = 64 if SCHEMES[name].reduce_range else 127
    for node in reads:
        weight, scale, zero = (stored[x] for x in node.input)
        assert weight.dtype == np.int8
        assert np.abs(weight).max() <= limit
        assert scale.shape == (WIDTH,)
        assert not zero.any()
    assert {entry.key for entry in model.metadata_props} == {"clip_spec_hash"}


def test_activations_are_what_the_scheme_says(chain: Path, batches: list[dict[str, np.ndarray]]) -> None:
    ranges = measure_ranges(chain, batches)
    for name, dtype in (("int8-cpu", np.uint8), ("int8-qdq", np.int8)):
        model = quantise(chain, ranges, SCHEMES[name])
        stored = {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
        zeros = [stored[node.input[2]] for node in model.graph.node if node.op_type == "QuantizeLinear"]
        assert {zero.dtype for zero in zeros} == {np.dtype(dtype)}
        assert any(zero.any() for zero in zeros) == (name == "int8-cpu")


def test_nothing_but_the_layers_is_quantised(chain: Path, batches: list[dict[str, np.ndarray]]) -> None:
    ranges = measure_ranges(chain, batches)
    model = quantise(chain, ranges, SCHEMES["int8-qdq"], without=["w1"])
    assert "w1" in {tensor.name for tensor in model.graph.initializer}
    assert sum(node.op_type == "QuantizeLinear" for node in model.graph.node) == 2
    unchanged = quantise(chain, ranges, SCHEMES["int8-qdq"], without=["w0", "w1", "w2"])
    np.testing.assert_array_equal(_answers(unchanged, batches), _answers(chain, batches))
    assert layers_of(onnx.load(chain).graph) == {"w0": ["map 0"], "w1": ["map 1"], "w2": ["map 2"]}


def test_the_layer_that_does_harm_is_left_out(chain: Path, batches: list[dict[str, np.ndarray]]) -> None:
    ranges, scheme = measure_ranges(chain, batches), SCHEMES["int8-cpu"]
    told: list[tuple[str, int, int]] = []
    cosines: list[float] = []

    def on_progress(stage: str, done: int, total: int, figures: Mapping[str, float] = NO_FIGURES) -> None:
        told.append((stage, done, total))
        cosines.extend(figures.values())

    kept = find_sensitive(chain, ranges, scheme, batches, min_cosine=0.99, on_progress=on_progress)
    assert kept == ["w1"]
    assert told == [*(("sensitive layers", i, 3) for i in range(4)), ("float32 layers", 1, 3)]
    assert cosines[-1] >= 0.99
    wanted = _answers(chain, batches)
    assert cosine(_answers(quantise(chain, ranges, scheme), batches), wanted).min() < 0.99
    assert cosine(_answers(quantise(chain, ranges, scheme, without=kept), batches), wanted).min() >= 0.99


def test_nothing_is_left_out_where_nothing_does_harm(
    chain: Path, batches: list[dict[str, np.ndarray]]
) -> None:
    assert (
        find_sensitive(chain, measure_ranges(chain, batches), SCHEMES["int8-cpu"], batches, min_cosine=-1)
        == []
    )


@pytest.mark.parametrize("scheme", SCHEMES.values())
def test_what_cannot_be_had_is_not_made(
    scheme: Scheme, chain: Path, batches: list[dict[str, np.ndarray]]
) -> None:
    with pytest.raises(
        QuantisationError, match=r"2 of 3 layers in float32 the cosine is .*, wanted 1; leave int8 out"
    ):
        find_sensitive(chain, measure_ranges(chain, batches), scheme, batches, min_cosine=1)
