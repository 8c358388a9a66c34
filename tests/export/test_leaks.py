"""Leaks planted in the real fused graph: each is found by following edges, however it is hidden."""

import shutil
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper

from export.golden import golden_inputs
from export.purity import ImpureGraphError, prove_purity, reached_inputs
from media import ClipSpec, Modality


@pytest.fixture
def folder(bundle: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(bundle, tmp_path / "copy"))


def plant(path: Path, output: str, leak: list[onnx.NodeProto]) -> None:
    """Add to `output` what `leak` makes, which must be named `leaked`."""
    model = onnx.load(path, load_external_data=False)
    for node in model.graph.node:
        for i, name in enumerate(node.output):
            if name == output:
                node.output[i] = "pure"
        for i, name in enumerate(node.input):
            if name == output:
                node.input[i] = "pure"
    model.graph.node.extend([*leak, helper.make_node("Add", ["pure", "leaked"], [output], name="planted")])
    path.write_bytes(model.SerializeToString())


def of_values(source: str) -> list[onnx.NodeProto]:
    """The mean of an input, scaled to almost nothing."""
    return [
        helper.make_node("Cast", [source], ["as_float"], to=TensorProto.FLOAT),
        helper.make_node("ReduceMean", ["as_float"], ["mean"], keepdims=0),
        helper.make_node(
            "Constant", [], ["little"], value=helper.make_tensor("v", TensorProto.FLOAT, [], [1e-9])
        ),
        helper.make_node("Mul", ["mean", "little"], ["leaked"]),
    ]


def of_shape(source: str) -> list[onnx.NodeProto]:
    """The number of rows of an input."""
    return [
        helper.make_node("Shape", [source], ["rows"], start=0, end=1),
        helper.make_node("Cast", ["rows"], ["leaked"], to=TensorProto.FLOAT),
    ]


@pytest.mark.parametrize("leak", [of_values, of_shape])
@pytest.mark.parametrize(("output", "source"), [("audio_logits", "video"), ("video_embedding", "audio")])
def test_a_planted_leak_is_found(leak, output: str, source: str, folder: Path) -> None:
    plant(folder / "fp32" / "fused.onnx", output, leak(source))
    with pytest.raises(
        ImpureGraphError, match=rf"fused: {output} reads \['audio', 'video'\], its stream reads"
    ):
        prove_purity(folder / "fp32" / "fused.onnx", Modality.FUSED)


def test_a_planted_leak_is_a_leak_when_run(folder: Path, spec: ClipSpec) -> None:
    """The proof's finding is no artefact: the same graph, run with another film, gives other audio
    answers."""
    leak = [
        helper.make_node("Cast", ["video"], ["as_float"], to=TensorProto.FLOAT),
        helper.make_node("ReduceMean", ["as_float"], ["leaked"], keepdims=0),
    ]
    plant(folder / "fp32" / "fused.onnx", "audio_logits", leak)
    inputs = golden_inputs(spec)
    session = onnxruntime.InferenceSession(folder / "fp32" / "fused.onnx", providers=["CPUExecutionProvider"])
    before, after = (
        session.run(["audio_logits"], {"audio": inputs["audio"], "video": video})[0]
        for video in (inputs["video"], 255 - inputs["video"])
    )
    assert not np.array_equal(before, after)


@pytest.mark.parametrize("batch", [1, 4])
def test_purity_is_bit_for_bit_when_run(batch: int, bundle: Path, spec: ClipSpec) -> None:
    """Other films and other sounds of every kind, noise, black, rows in another order: the other stream
    stays."""
    inputs = {name: array[:batch] for name, array in golden_inputs(spec).items()}
    session = onnxruntime.InferenceSession(bundle / "fp32" / "fused.onnx", providers=["CPUExecutionProvider"])
    names = [value.name for value in session.get_outputs()]
    random = np.random.default_rng(0)
    films = [
        random.integers(0, 256, inputs["video"].shape, np.uint8),
        np.zeros_like(inputs["video"]),
        inputs["video"][::-1],
    ]
    sounds = [
        random.standard_normal(inputs["audio"].shape).astype(np.float32),
        np.full_like(inputs["audio"], np.nan),
    ]
    before = dict(zip(names, session.run(names, inputs), strict=True))
    for stays, changes in (
        ("audio", [{"video": x} for x in films]),
        ("video", [{"audio": x} for x in sounds]),
    ):
        for change in changes:
            after = dict(zip(names, session.run(names, inputs | change), strict=True))
            for name in (name for name in names if name.startswith(stays)):
                np.testing.assert_array_equal(after[name], before[name])


def test_a_fusion_that_reads_one_modality_alone_fails(folder: Path) -> None:
    model = onnx.load(folder / "fp32" / "fused.onnx", load_external_data=False)
    for node in model.graph.node:
        for i, name in enumerate(node.output):
            if name == "fusion_logits":
                node.output[i] = "unused"
    model.graph.node.append(helper.make_node("Identity", ["audio_logits"], ["fusion_logits"]))
    (folder / "fp32" / "fused.onnx").write_bytes(model.SerializeToString())
    with pytest.raises(ImpureGraphError, match=r"fusion_logits reads \['audio'\]"):
        prove_purity(folder / "fp32" / "fused.onnx", Modality.FUSED)


def test_a_graph_that_cannot_be_followed_fails() -> None:
    values = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, [1]) for name in ("audio", "audio_logits")
    ]
    inner = helper.make_graph([helper.make_node("Neg", ["audio"], ["y"])], "inner", [], [values[1]])
    hidden = helper.make_node(
        "If", ["audio"], ["audio_logits"], name="hidden", then_branch=inner, else_branch=inner
    )
    with pytest.raises(ImpureGraphError, match="'hidden' holds a subgraph"):
        reached_inputs(helper.make_graph([hidden], "g", values[:1], values[1:]))
    late = [
        helper.make_node("Neg", ["x"], ["audio_logits"], name="early"),
        helper.make_node("Neg", ["audio"], ["x"]),
    ]
    with pytest.raises(ImpureGraphError, match="'early' reads 'x' before anything makes it"):
        reached_inputs(helper.make_graph(late, "g", values[:1], values[1:]))
