"""Graphs: pure by reachability and by running, equal to the model, and the same bytes each time."""

from collections import Counter
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import TensorProto, helper

from export.bundle_writer import export_checkpoint
from export.golden import golden_inputs
from export.parity import ParityCheck, ParityError
from export.purity import ImpureGraphError, prove_purity
from export.stream_flow import trace_flow
from export.variants import TOLERANCES
from media import Clip, ClipSpec, Modality
from models.weights import load_checkpoint
from tests.tiny_bundle import graphs_in


def _inputs(spec: ClipSpec) -> dict[str, np.ndarray]:
    return golden_inputs(spec)


def test_graph_is_pure_by_reachability(bundle: Path) -> None:
    reads = prove_purity(bundle / "fp32" / "fused.onnx", Modality.FUSED)
    assert reads["audio_embedding"] == ["audio"]
    assert reads["video_logits"] == ["video"]
    assert reads["fusion_features"] == ["audio", "video"]


def test_graph_is_pure_when_run(bundle: Path, spec: ClipSpec) -> None:
    inputs = _inputs(spec)
    fused = onnxruntime.InferenceSession(bundle / "fp32" / "fused.onnx")
    names = [value.name for value in fused.get_outputs()]
    before = dict(zip(names, fused.run(names, inputs), strict=True))
    other = dict(zip(names, fused.run(names, inputs | {"video": 255 - inputs["video"]}), strict=True))
    alone = onnxruntime.InferenceSession(bundle / "fp32" / "audio.onnx").run(
        ["audio_logits"], {"audio": inputs["audio"]}
    )[0]
    for name in names:
        assert np.array_equal(before[name], other[name]) == name.startswith("audio")
    np.testing.assert_array_equal(before["audio_logits"], alone)


def test_a_leak_is_found(tmp_path: Path) -> None:
    inputs = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1]) for name in ("audio", "video")]
    outputs = [helper.make_tensor_value_info("audio_logits", TensorProto.FLOAT, [1])]
    nodes = [
        helper.make_node("Mul", ["video", "video"], ["x"]),
        helper.make_node("Add", ["audio", "x"], ["audio_logits"]),
    ]
    onnx.save(helper.make_model(helper.make_graph(nodes, "leaky", inputs, outputs)), tmp_path / "leaky.onnx")
    with pytest.raises(ImpureGraphError, match="audio_logits reads \\['audio', 'video'\\]"):
        prove_purity(tmp_path / "leaky.onnx", Modality.FUSED)


def test_graph_holds_no_mask_and_no_guard(bundle: Path) -> None:
    for modality in Modality:
        graph = onnx.load(bundle / "fp32" / f"{modality}.onnx", load_external_data=False)
        operators = Counter(node.op_type for node in graph.graph.node)
        assert not operators.keys() & {"Where", "IsNaN", "IsInf", "If", "Loop", "NonZero", "Not", "And", "Or"}
        assert {opset.version for opset in graph.opset_import if not opset.domain} == {20}
        for value in (*graph.graph.input, *graph.graph.output):
            dims = value.type.tensor_type.shape.dim
            assert dims[0].dim_param == "batch"
            assert all(d.dim_value > 0 for d in dims[1:])


def test_nodes_are_named_by_their_modules(bundle: Path) -> None:
    graph = onnx.load(bundle / "fp32" / "fused.onnx", load_external_data=False).graph
    names = [node.name for node in graph.node]
    assert len(set(names)) == len(names)
    assert all(name.startswith("model") for name in names)
    reads = {node.input[1]: node.name for node in graph.node if node.op_type == "MatMul"}
    assert reads["model.trunk.blocks.1.mlp.0.weight.T"].startswith("model.trunk.blocks.1.mlp.0/MatMul")


def test_nothing_is_computed_that_depends_on_weights_alone(bundle: Path) -> None:
    for modality in Modality:
        assert "constant" not in trace_flow(bundle / "fp32" / f"{modality}.onnx").nodes


def test_the_number_of_clips_is_read_of_floats(bundle: Path) -> None:
    graph = onnx.load(bundle / "fp32" / "fused.onnx", load_external_data=False).graph
    assert [list(node.input) for node in graph.node if node.op_type == "Shape"] == [["audio"]]


def test_weights_are_stored_once(bundle: Path, checkpoint: Path) -> None:
    assert (bundle / "fp32" / "weights.bin").stat().st_size < 1.5 * (
        checkpoint / "model.safetensors"
    ).stat().st_size


def test_another_model_fails_parity(bundle: Path, checkpoint: Path, spec: ClipSpec) -> None:
    model = load_checkpoint(checkpoint).model
    graphs = graphs_in(bundle / "fp32")
    arrays = _inputs(spec)
    clips = [
        Clip(0, 1, a, v, 1, 1, False, False) for a, v in zip(arrays["audio"], arrays["video"], strict=True)
    ]
    assert len(ParityCheck(model, dict.fromkeys(Modality, clips)).run(graphs, TOLERANCES["fp32"])) == 5
    with torch.no_grad():
        model.trunk.blocks[0].mlp[2].weight *= -3
    with pytest.raises(ParityError, match="audio.onnx"):
        ParityCheck(model, {Modality.AUDIO: clips}).run(graphs, TOLERANCES["fp32"])


def test_an_existing_bundle_is_not_overwritten(bundle: Path, checkpoint: Path) -> None:
    with pytest.raises(FileExistsError, match="force"):
        export_checkpoint(checkpoint, bundle, name="small", version="1")
