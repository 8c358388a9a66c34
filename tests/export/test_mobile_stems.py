"""Graphs of a model with mobile stems: equal to the model, pure, and of operators that every engine takes.

The exporter itself compares the graphs with the model at batches of 1, 2 and 8, and audits them.
"""

import json
from collections import Counter
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from safetensors.torch import load_file

from export.audit import examine_graph
from export.bundle_writer import ExportOptions, export_checkpoint
from export.golden import golden_inputs
from export.purity import prove_purity
from media import Modality
from models import ZorroModel
from models.weights import load_checkpoint, save_checkpoint
from tests.small_models import as_if_trained, settle, small_config, spec_of

pytestmark = [pytest.mark.slow, pytest.mark.exhaustive]

CONFIG = small_config("mobile", depth=1)
SPEC = spec_of(CONFIG)


@pytest.fixture(scope="module")
def mobile_bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small model, whose batch norms have seen the golden clips, by the real exporter."""
    model, golden = as_if_trained(ZorroModel(CONFIG)), golden_inputs(SPEC)
    settle(model, torch.from_numpy(golden["audio"]), torch.from_numpy(golden["video"]))
    folder = tmp_path_factory.mktemp("mobile")
    labels = [{"id": x, "label": x.upper(), "modalities": ["audio", "video"]} for x in "abcde"]
    save_checkpoint(folder / "checkpoint", model, clip_spec=SPEC.to_dict(), labels=labels)
    return export_checkpoint(
        folder / "checkpoint",
        folder / "mobile" / "1",
        name="mobile",
        version="1",
        options=ExportOptions(half_checkpoint=True),
    )


@pytest.fixture(scope="module")
def sessions(mobile_bundle: Path) -> dict[Modality, onnxruntime.InferenceSession]:
    return {
        modality: onnxruntime.InferenceSession(
            mobile_bundle / "fp32" / f"{modality}.onnx", providers=["CPUExecutionProvider"]
        )
        for modality in Modality
    }


def _run(session: onnxruntime.InferenceSession, inputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    names = [value.name for value in session.get_outputs()]
    return dict(zip(names, session.run(names, inputs), strict=True))


def test_parity_is_written_down(mobile_bundle: Path) -> None:
    manifest = json.loads((mobile_bundle / "bundle.json").read_text())
    reports = manifest["variants"]["fp32"]["parity"]["golden"]
    assert {(report["graph"], report["stream"]) for report in reports} >= {
        ("audio", "audio"), ("video", "video"), ("fused", "audio"), ("fused", "video"), ("fused", "fusion"),
    }  # fmt: skip
    assert all(report["max_abs_error"] < 1e-4 for report in reports)


def test_the_graphs_are_those_of_the_checkpoint_in_16_bits(mobile_bundle: Path) -> None:
    """Parity, above, is with these weights."""
    weights = load_file(mobile_bundle / "checkpoint" / "model.safetensors")
    assert {x.dtype for x in weights.values() if x.dim() > 1} == {torch.float16}
    assert {x.dtype for x in weights.values() if x.dim() == 1} == {torch.float32}


@pytest.mark.parametrize("tensorrt", ["11.0", "10.1"])
def test_no_graph_has_a_fault(tensorrt: str, mobile_bundle: Path) -> None:
    for modality in Modality:
        report = examine_graph(mobile_bundle / "fp32" / f"{modality}.onnx", tensorrt=tensorrt)
        assert report.faults == ()
        assert report.opset == 20


def test_activations_are_single_operators_and_norms_and_paddings_are_folded(mobile_bundle: Path) -> None:
    found = {}
    for modality in (Modality.AUDIO, Modality.VIDEO):
        graph = onnx.load(mobile_bundle / "fp32" / f"{modality}.onnx", load_external_data=False).graph
        found[modality] = Counter(node.op_type for node in graph.node)
        assert found[modality]["BatchNormalization"] == 0
        assert found[modality]["Pad"] == 1  # of the logits of the stem, to all classes
        assert found[modality]["Shape"] == 0
    assert found[Modality.AUDIO]["HardSwish"] == 21
    assert found[Modality.AUDIO]["HardSigmoid"] == 0
    # ReLU6: two in each of seven blocks but the first, and two beside them. One more is of the embedding.
    assert found[Modality.VIDEO]["Clip"] == 2 * 7 - 1 + 2 + 1


@pytest.mark.parametrize("batch", [1, 3, 4])
def test_purity_holds_on_the_graph_and_bit_for_bit_when_run(
    batch: int, mobile_bundle: Path, sessions: dict[Modality, onnxruntime.InferenceSession]
) -> None:
    reads = prove_purity(mobile_bundle / "fp32" / "fused.onnx", Modality.FUSED)
    assert reads["audio_logits"] == ["audio"]
    assert reads["video_logits"] == ["video"]
    assert reads["fusion_logits"] == ["audio", "video"]
    inputs = {name: array[:batch] for name, array in golden_inputs(SPEC).items()}
    before = _run(sessions[Modality.FUSED], inputs)
    for stays, change in (
        ("audio", {"video": 255 - inputs["video"]}),
        ("video", {"audio": inputs["audio"] * 2}),
        ("video", {"audio": np.full_like(inputs["audio"], np.nan)}),
    ):
        after = _run(sessions[Modality.FUSED], inputs | change)
        for name in before:
            assert np.array_equal(before[name], after[name]) == name.startswith(stays)
    for modality in (Modality.AUDIO, Modality.VIDEO):
        alone = _run(sessions[modality], {modality: inputs[modality]})
        np.testing.assert_allclose(alone[f"{modality}_logits"], before[f"{modality}_logits"], atol=1e-5)


def test_a_batch_equals_its_items(
    mobile_bundle: Path, sessions: dict[Modality, onnxruntime.InferenceSession]
) -> None:
    inputs = golden_inputs(SPEC)
    together = _run(sessions[Modality.FUSED], inputs)
    for i in range(4):
        alone = _run(sessions[Modality.FUSED], {name: array[i : i + 1] for name, array in inputs.items()})
        for name, value in alone.items():
            np.testing.assert_allclose(value[0], together[name][i], atol=2e-5, rtol=1e-4)
    model = load_checkpoint(mobile_bundle / "checkpoint").model
    with torch.no_grad():
        out = model(*map(torch.from_numpy, inputs.values()))
    np.testing.assert_allclose(together["fusion_logits"], out.fusion.logits.numpy(), atol=1e-4, rtol=1e-4)
