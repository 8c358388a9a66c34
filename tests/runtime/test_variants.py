"""Which variant answers: the provider's by the bundle's table, the one asked for, never another in
silence."""

import logging
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest

from export.bundle_writer import ExportOptions, export_checkpoint
from export.golden import golden_inputs
from export.variants import GOLDEN_TOLERANCES, VARIANTS, Calibration, provider_table
from media import Clip, ClipSpec, Modality
from runtime import Zorro
from runtime.errors import InvalidOption, SelfTestFailed
from tests.known_graphs import known_graphs

pytestmark = pytest.mark.slow
CPU, CUDA = "CPUExecutionProvider", "CUDAExecutionProvider"


@pytest.fixture(scope="module")
def all_variants(
    tmp_path_factory: pytest.TempPathFactory, checkpoint: Path, bundle: Path, spec: ClipSpec
) -> Path:
    arrays = golden_inputs(spec)
    clips = [
        Clip(0, 1, a, v, 1, 1, False, False) for a, v in zip(arrays["audio"], arrays["video"], strict=True)
    ]
    with known_graphs(bundle):
        return export_checkpoint(
            checkpoint,
            tmp_path_factory.mktemp("bundles") / "small" / "1",
            name="small",
            version="1",
            options=ExportOptions(variants=VARIANTS, calibration=Calibration(dict.fromkeys(Modality, clips))),
        )


def _list_cuda(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """As onnxruntime-gpu without a GPU: CUDA is listed, and opens on the CPU.

    Returns what sessions were asked for.
    """
    real, asked = onnxruntime.InferenceSession, []

    def session(
        path: Path, options: object, *, providers: list[Any], **_: object
    ) -> onnxruntime.InferenceSession:
        asked.append((Path(path).parent.name, providers))
        return real(path, options, providers=[CPU])

    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: [CUDA, CPU])
    monkeypatch.setattr(onnxruntime, "InferenceSession", session)
    return asked


def test_every_variant_proves_itself_within_its_tolerance(all_variants: Path) -> None:
    stored = Zorro.open(all_variants).bundle
    assert list(stored.variants) == sorted(VARIANTS)
    for name in VARIANTS:
        model = Zorro.open(all_variants, variant=name)
        report = model.self_test()
        assert min(report.min_cosine.values()) >= GOLDEN_TOLERANCES[name].min_cosine
        assert (max(report.max_abs_error.values()) > 1e-3) == (name != "fp32"), "another precision shows"
        assert {graph.parent.name for graph in model.variant.graphs.values()} == {name}
        assert stored.manifest["variants"][name]["purity"]["fused"]["audio_logits"] == ["audio"]


def test_each_precision_has_its_own_weights_once(all_variants: Path) -> None:
    size = {name: (all_variants / name / "weights.bin").stat().st_size for name in VARIANTS}
    assert size["fp16"] < 0.62 * size["fp32"]
    assert size["int8-cpu"] < 0.55 * size["fp32"]
    assert {path.name for path in (all_variants / "fp16").iterdir()} == {
        "audio.onnx",
        "video.onnx",
        "fused.onnx",
        "weights.bin",
    }


def test_a_cpu_takes_fp32_and_a_gpu_fp16(all_variants: Path) -> None:
    bundle = Zorro.open(all_variants).bundle
    assert bundle.variant(None, provider=CPU).name == "fp32"
    assert bundle.variant(None, provider="OpenVINOExecutionProvider").name == "fp32"
    assert bundle.variant(None, provider=CUDA).name == "fp16"
    assert bundle.variant("int8-qdq", provider=CUDA).name == "int8-qdq"
    assert provider_table(["fp32"]) == {"*": "fp32"}


def test_a_variant_that_is_not_there_fails(bundle: Path) -> None:
    with pytest.raises(InvalidOption, match=r"variant='fp16'; small/1 has fp32"):
        Zorro.open(bundle, variant="fp16")


def test_a_variant_that_is_off_fails_its_self_test(all_variants: Path) -> None:
    model = Zorro.open(all_variants, variant="int8-cpu")
    object.__setattr__(model.variant, "tolerance", GOLDEN_TOLERANCES["fp32"])
    with pytest.raises(SelfTestFailed, match="use another provider or variant"):
        model.self_test()


def test_options_reach_their_provider(all_variants: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = _list_cuda(monkeypatch)
    providers = [(CUDA, {"device_id": 1, "use_tf32": False}), CPU]
    Zorro.open(all_variants, providers=providers, allow_fallback=True).session(Modality.AUDIO)
    assert asked[0] == ("fp16", [(CUDA, {"device_id": "1", "use_tf32": "False"}), (CPU, {})])


def test_a_fallback_is_said_and_takes_its_own_variant(
    all_variants: Path, song: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    asked = _list_cuda(monkeypatch)
    with caplog.at_level(logging.WARNING, logger="zorro.runtime"):
        model = Zorro.open(all_variants, providers=[CUDA], allow_fallback=True)
        assert model.variant.name == "fp16"
        answer = model.embed(song).whole["audio"].embedding
    assert model.variant.name == "fp32"
    assert [folder for folder, _ in asked] == ["fp16", "fp32"]
    assert (
        "audio.onnx: asked for ['CUDAExecutionProvider'], runs on ['CPUExecutionProvider']" in caplog.messages
    )
    monkeypatch.undo()
    np.testing.assert_array_equal(answer, Zorro.open(all_variants).embed(song).whole["audio"].embedding)


def test_a_fallback_keeps_the_variant_that_was_asked_for(
    all_variants: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = _list_cuda(monkeypatch)
    model = Zorro.open(all_variants, providers=[CUDA], allow_fallback=True, variant="fp16")
    model.session(Modality.AUDIO)
    assert [folder for folder, _ in asked] == ["fp16"]


@pytest.mark.parametrize(
    ("providers", "match"),
    [
        ([(CPU, {"x": None})], r"\['x'\] must be str"),
        ([(CPU, {"x": "1"}), CPU], "has CPUExecutionProvider twice, with different options"),
        ([(CPU,)], r"\[\('CPUExecutionProvider',\)\]; give a list of names among .*, or of pairs"),
        ([(CPU, "x")], "or of pairs"),
        ((CPU, {"x": "1"}), "or of pairs"),
        ([None], "or of pairs"),
    ],
)
def test_options_that_nobody_reads_fail(providers: Any, match: str, bundle: Path) -> None:
    with pytest.raises(InvalidOption, match=match):
        Zorro.open(bundle, providers=providers)


@pytest.mark.parametrize("variants", [(), ("fp16",), ("fp32", "fp8")])
def test_variants_that_cannot_be_written_fail(
    variants: tuple[str, ...], checkpoint: Path, tmp_path: Path
) -> None:
    with pytest.raises(ValueError, match="give some of fp32, fp16, int8-cpu, int8-qdq, fp32 among them"):
        export_checkpoint(
            checkpoint, tmp_path / "1", name="small", version="1", options=ExportOptions(variants=variants)
        )


def test_int8_without_clips_fails(checkpoint: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="int8-cpu must be calibrated on real clips"):
        export_checkpoint(
            checkpoint,
            tmp_path / "1",
            name="small",
            version="1",
            options=ExportOptions(variants=("fp32", "int8-cpu")),
        )
