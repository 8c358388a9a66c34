"""Every preset, with small sizes, is exported, proven and served; tests/models test what it computes."""

from math import prod
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest

from export.audit import audit_graph
from export.bundle_writer import ExportOptions, export_checkpoint
from export.golden import golden_inputs
from export.parity import ParityCheck
from export.purity import prove_purity
from export.variants import TOLERANCES
from media import Clip, Modality
from models import BackboneName, ZorroModel
from models.config import Stem
from models.layers import TrunkStage
from models.swin import SwinTrunk, TowerStage, WindowBlock
from models.weights import load_checkpoint, save_checkpoint
from runtime import Zorro
from service.app import create_app
from service.settings import Settings
from tests.service.ready_client import ready_client
from tests.small_models import (
    DISTINCT_PRESETS,
    SMALL_HIP,
    SMALL_SWIN,
    as_if_trained,
    small_config,
    spec_of,
)
from tests.tiny_bundle import graphs_in

pytestmark = pytest.mark.slow
SHALLOW: dict[str, dict[str, Any]] = {
    "vit-small": {"depth": 1},  # another stem; the trunk is that of vit-tiny
    "swin-tiny": {"swin": SMALL_SWIN["swin"] | {"depths": (2, 1)}},
    "hip-mini": {"hip": SMALL_HIP["hip"] | {"depths": (1, 1)}},
}
"""Changes of the small models that make their export faster."""


@pytest.fixture(
    scope="module",
    params=[
        name if name.startswith("vit") else pytest.param(name, marks=pytest.mark.exhaustive)
        for name in DISTINCT_PRESETS
        if name != "mobile"  # which tests/export/test_mobile_stems.py exports
    ],
)
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, bundle: Path) -> Path:
    """A folder of bundles with one bundle, small/1: for vit-tiny, the one that tests share.

    The exporter refuses what is not equal to the model, not pure, or not for TensorRT.
    """
    if request.param == "vit-tiny":
        return bundle.parents[1]
    changes = SHALLOW.get(request.param, {})
    model = as_if_trained(ZorroModel(small_config(request.param, **changes)), std=0.1)
    checkpoint, out = (
        tmp_path_factory.mktemp(f"{request.param}-{name}") for name in ("checkpoint", "bundles")
    )
    labels = [{"id": x, "label": x.upper(), "modalities": ["audio", "video"]} for x in "abcde"]
    save_checkpoint(checkpoint, model, clip_spec=spec_of(model.config).to_dict(), labels=labels)
    options = ExportOptions(variants=("fp32", "fp16"))
    export_checkpoint(checkpoint, out / "small" / "1", name="small", version="1", options=options)
    return out


@pytest.fixture
def graphs(folder: Path) -> dict[Modality, Path]:
    return graphs_in(folder / "small" / "1" / "fp32")


@pytest.fixture
def model(folder: Path) -> ZorroModel:
    return load_checkpoint(folder / "small" / "1" / "checkpoint").model


def test_a_bundle_answers_with_its_labels(folder: Path, model: ZorroModel) -> None:
    """The bundle that tests share has four, the others five."""
    num_classes = model.config.num_classes
    assert num_classes == (4 if model.config.stem == Stem.CONV else 5)
    opened = Zorro.open(folder / "small" / "1")
    assert [label.id for label in opened.bundle.labels] == list("abcde")[:num_classes]
    assert opened.self_test().clips == 4


def test_a_bundle_is_served(folder: Path, film: Path) -> None:
    with ready_client(create_app(Settings(bundles=folder, num_decode_workers=1))) as client:
        answer = client.post("/v1/classify", files={"file": film.read_bytes()}).json()
    assert answer["streams"] == dict.fromkeys(("audio", "video", "fused"), "answered")


def test_graphs_are_pure_and_equal_the_model(model: ZorroModel, graphs: dict[Modality, Path]) -> None:
    for modality, path in graphs.items():
        audit_graph(path)
        prove_purity(path, modality)
    inputs = golden_inputs(spec_of(model.config))
    clips = [
        Clip(0, 1, a, v, 1, 1, False, False) for a, v in zip(inputs["audio"], inputs["video"], strict=True)
    ][:3]
    assert len(ParityCheck(model, dict.fromkeys(Modality, clips)).run(graphs, TOLERANCES["fp32"])) == 5


def test_the_audio_of_the_fused_graph_does_not_depend_on_the_video(
    model: ZorroModel, graphs: dict[Modality, Path]
) -> None:
    inputs = golden_inputs(spec_of(model.config))
    fused, alone = (onnxruntime.InferenceSession(graphs[m]) for m in (Modality.FUSED, Modality.AUDIO))
    before, after = (
        fused.run(["audio_logits"], inputs | {"video": v})[0]
        for v in (inputs["video"], 255 - inputs["video"])
    )
    np.testing.assert_array_equal(before, after)
    unimodal = alone.run(["audio_logits"], {"audio": inputs["audio"]})[0]
    if (
        model.config.backbone == BackboneName.SWIN
    ):  # ONNX Runtime orders its operations otherwise in each graph
        np.testing.assert_allclose(before, unimodal, rtol=0, atol=1e-6)
    else:
        np.testing.assert_array_equal(before, unimodal)


@pytest.mark.parametrize(("own", "other"), [(Modality.AUDIO, "video"), (Modality.VIDEO, "audio")])
def test_a_unimodal_graph_of_a_separable_trunk_holds_one_stream(
    own: Modality, other: str, model: ZorroModel, graphs: dict[Modality, Path]
) -> None:
    weights = onnx.load(graphs[own], load_external_data=False).graph.initializer
    assert not any(f"{other}_tokens" in w.name or "fusion" in w.name for w in weights)
    if not model.trunk.separable:
        return
    assert any(f".1.{own}." in w.name and w.name.startswith("model.trunk.") for w in weights)
    assert not any(other in w.name for w in weights)
    parts = (f"{own}_tokens.", f".{own}.", "pool.")
    numbers = sum(
        p.numel() for name, p in model.named_parameters() if any(part in f".{name}" for part in parts)
    )
    # Nor does it hold another stream's weights under a name that does not say so.
    assert sum(prod(w.dims) for w in weights) < 1.01 * (numbers + _num_constants(model, own))


def _num_constants(model: ZorroModel, modality: Modality) -> int:
    """Numbers that the exporter adds to a Swin: biases of all pairs of a window, and masks of windows."""
    if not isinstance(model.trunk, SwinTrunk):
        return 0
    count = 0
    for module in model.trunk.modules():
        if isinstance(module, TrunkStage):
            tower = getattr(module, modality)
            assert isinstance(tower, TowerStage)
            for block in tower.blocks:
                assert isinstance(block, WindowBlock)
                attention = block.attention
                count += attention.num_heads * prod(attention.window) ** 2
                count += 0 if attention.mask_W1TT is None else attention.mask_W1TT.numel()
    return count
