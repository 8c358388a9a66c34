"""The self-test fails on golden clips that are missing, none, of another shape, or answered otherwise."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from export.bundle_writer import seal_bundle
from runtime import Zorro
from runtime.errors import BundleIncompatible, SelfTestFailed

Arrays = dict[str, np.ndarray]


@pytest.fixture
def copy(bundle: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(bundle, tmp_path / "copy"))


def _change(folder: Path, file: str, change: Callable[[Arrays], Arrays]) -> Zorro:
    with np.load(folder / "golden" / file) as arrays:
        content = dict(arrays)
    np.savez(folder / "golden" / file, **change(content))
    seal_bundle(folder, json.loads((folder / "bundle.json").read_text()))
    return Zorro.open(folder)


def test_all_graphs_are_tested(bundle: Path) -> None:
    model = Zorro.open(bundle)
    report = model.self_test()
    assert set(report.max_abs_error) == set(model.providers) == {"audio", "video", "fused"}
    assert report.clips == 4


def test_an_answer_that_is_off_fails(copy: Path) -> None:
    model = _change(
        copy, "outputs.npz", lambda x: x | {"fused.audio_features": x["fused.audio_features"] + 0.5}
    )
    with pytest.raises(
        SelfTestFailed, match=r"fused: audio_features is off by 0\.5, .* allowed are 0\.001 .* on CPUEx"
    ):
        model.self_test()


def test_nan_fails(copy: Path) -> None:
    model = _change(
        copy, "outputs.npz", lambda x: x | {"audio.audio_logits": x["audio.audio_logits"] * np.nan}
    )
    with pytest.raises(SelfTestFailed, match="off by nan"):
        model.self_test()


def test_an_answer_of_another_shape_fails_though_it_would_broadcast(copy: Path) -> None:
    model = _change(copy, "outputs.npz", lambda x: x | {"audio.audio_logits": x["audio.audio_logits"][:1]})
    with pytest.raises(SelfTestFailed, match=r"shape \(4, 4\), the stored answer \(1, 4\)"):
        model.self_test()


def test_an_answer_that_is_not_stored_fails(copy: Path) -> None:
    model = _change(copy, "outputs.npz", lambda x: {k: v for k, v in x.items() if k != "video.video_logits"})
    with pytest.raises(SelfTestFailed, match=r"video_logits has shape .* None"):
        model.self_test()


def test_no_golden_clips_prove_nothing(copy: Path) -> None:
    model = _change(copy, "inputs.npz", lambda x: {name: array[:0] for name, array in x.items()})
    with pytest.raises(BundleIncompatible, match="0 golden clips"):
        model.self_test()


def test_golden_clips_that_are_not_there_fail(copy: Path) -> None:
    (copy / "golden" / "inputs.npz").unlink()
    seal_bundle(copy, json.loads((copy / "bundle.json").read_text()))
    with pytest.raises(BundleIncompatible, match="no golden clips"):
        Zorro.open(copy).self_test()
