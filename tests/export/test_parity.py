"""Parity: every clip at every batch size, and nothing that loses a comparison by being NaN."""

import shutil
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import helper

from export.golden import golden_inputs
from export.parity import ParityCheck, ParityError
from export.variants import TOLERANCES
from media import Clip, ClipSpec, Modality
from models.weights import load_checkpoint
from models.zorro import ZorroModel
from tests.tiny_bundle import graphs_in


@pytest.fixture(scope="module")
def model(checkpoint: Path) -> ZorroModel:
    return load_checkpoint(checkpoint).model


@pytest.fixture(scope="module")
def clips(spec: ClipSpec) -> list[Clip]:
    arrays = golden_inputs(spec)
    return [
        Clip(0, 1, a, v, 1, 1, False, False) for a, v in zip(arrays["audio"], arrays["video"], strict=True)
    ][:3]


def test_the_report_names_every_stream_of_every_graph(
    model: ZorroModel, bundle: Path, clips: list[Clip]
) -> None:
    reports = ParityCheck(model, dict.fromkeys(Modality, clips)).run(
        graphs_in(bundle / "fp32"), TOLERANCES["fp32"]
    )
    assert [(r["graph"], r["stream"]) for r in reports] == [
        ("audio", "audio"),
        ("video", "video"),
        ("fused", "audio"),
        ("fused", "video"),
        ("fused", "fusion"),
    ]
    for report in reports:
        assert report["max_abs_error"] <= 1e-4
        assert report["min_cosine"] > 1 - 1e-5
        assert report["top1_agreement"] == 1
        assert (report["clips"], report["batch_sizes"]) == (3, [1, 2, 8])


def test_each_size_has_full_batches_and_the_largest_sees_every_clip(
    model: ZorroModel, bundle: Path, clips: list[Clip], monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes = []

    class Watched(onnxruntime.InferenceSession):
        def run(self, names: list[str], inputs: dict[str, np.ndarray]) -> list[np.ndarray]:
            sizes.append(len({row.tobytes() for row in inputs["audio"]}))
            return super().run(names, inputs)

    monkeypatch.setattr(onnxruntime, "InferenceSession", Watched)
    ParityCheck(model, {Modality.AUDIO: clips * 3}).run(graphs_in(bundle / "fp32"), TOLERANCES["fp32"])
    assert sizes == [1, 1, 2, 2, 3, 3]  # of nine clips, three of which are different


@pytest.mark.parametrize(
    ("factor", "match"), [(1.01, "video.onnx, video: .*allowed is"), (np.nan, "max_abs_error=inf")]
)
def test_a_damaged_graph_fails(
    factor: float, match: str, model: ZorroModel, bundle: Path, clips: list[Clip], tmp_path: Path
) -> None:
    copy = Path(shutil.copytree(bundle, tmp_path / "copy"))
    graph = onnx.load(copy / "fp32" / "video.onnx", load_external_data=False)
    for node in graph.graph.node:
        for i, name in enumerate(node.output):
            if name == "video_logits":
                node.output[i] = "right"
    scale = helper.make_tensor("scale", onnx.TensorProto.FLOAT, [], [factor])
    graph.graph.node.append(helper.make_node("Constant", [], ["factor"], value=scale))
    graph.graph.node.append(helper.make_node("Mul", ["right", "factor"], ["video_logits"]))
    (copy / "fp32" / "video.onnx").write_bytes(graph.SerializeToString())
    with pytest.raises(ParityError, match=match):
        ParityCheck(model, {Modality.VIDEO: clips}).run(graphs_in(copy / "fp32"), TOLERANCES["fp32"])


def test_no_clips_prove_nothing(model: ZorroModel, bundle: Path) -> None:
    with pytest.raises(ParityError, match=r"fused\.onnx: got 0 clips"):
        ParityCheck(model, {Modality.FUSED: []}).run(graphs_in(bundle / "fp32"), TOLERANCES["fp32"])
