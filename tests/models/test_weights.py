"""Checkpoints: written and read, refused where weights do not fit, and read by later versions of the code."""

import hashlib
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from models import ZorroModel
from models.weights import CheckpointError, copy_checkpoint, float_weights, halve_checkpoint, load_checkpoint
from tests.small_models import small_config

BUNDLES = sorted((Path(__file__).parents[2] / "bundles").glob("*/1"))


def test_a_checkpoint_answers_as_it_was_saved(checkpoint: Path) -> None:
    first, second = load_checkpoint(checkpoint).model, load_checkpoint(checkpoint).model
    audio = torch.randn(2, 64, 32)
    assert isinstance(first, ZorroModel)
    assert torch.equal(first(audio).audio.logits, second(audio).audio.logits)


def test_weights_that_do_not_fit_are_listed(checkpoint: Path, tmp_path: Path) -> None:
    weights = load_file(checkpoint / "model.safetensors")
    weights["stray"] = weights.pop("fusion_tokens")
    weights["trunk.norm.bias"] = torch.zeros(7)
    save_file(weights, tmp_path / "model.safetensors")
    (tmp_path / "checkpoint.json").write_text((checkpoint / "checkpoint.json").read_text())
    with pytest.raises(CheckpointError) as caught:
        load_checkpoint(tmp_path)
    for word in ("fusion_tokens", "stray", "trunk.norm.bias: got (7,), wanted (32,)"):
        assert word in str(caught.value)


def test_a_folder_that_is_no_checkpoint_fails(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="no checkpoint"):
        load_checkpoint(tmp_path)


def test_a_copy_has_the_checkpoints_files_alone(checkpoint: Path, tmp_path: Path) -> None:
    source = Path(shutil.copytree(checkpoint, tmp_path / "source"))
    (source / "notes.txt").touch()
    copy_checkpoint(source, tmp_path / "copy")
    assert {path.name: path.read_bytes() for path in (tmp_path / "copy").iterdir()} == {
        path.name: path.read_bytes() for path in checkpoint.iterdir()
    }


def test_a_copy_of_no_checkpoint_fails(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="is no checkpoint"):
        copy_checkpoint(tmp_path, tmp_path / "copy")


def test_a_halved_checkpoint_is_the_same_but_for_rounding(checkpoint: Path, tmp_path: Path) -> None:
    halve_checkpoint(checkpoint, tmp_path / "half")
    size, half = ((x / "model.safetensors").stat().st_size for x in (checkpoint, tmp_path / "half"))
    assert half < 0.62 * size
    weights, rounded = (float_weights(load_checkpoint(x).model) for x in (checkpoint, tmp_path / "half"))
    for name, x in weights.items():
        wanted = x.half().float() if x.dim() > 1 else x
        assert rounded[name].dtype == torch.float32
        assert torch.equal(rounded[name], wanted), name
    assert any(not torch.equal(x, rounded[name]) for name, x in weights.items())


def test_weights_too_large_for_half_are_named(checkpoint: Path, tmp_path: Path) -> None:
    source = Path(shutil.copytree(checkpoint, tmp_path / "source"))
    weights = load_file(source / "model.safetensors")
    weights["fusion_tokens"] = torch.full_like(weights["fusion_tokens"], 1e5)
    save_file(weights, source / "model.safetensors")
    with pytest.raises(CheckpointError, match="fusion_tokens do not fit float16"):
        halve_checkpoint(source, tmp_path / "half")


@pytest.mark.parametrize("bundle", BUNDLES, ids=lambda path: path.parent.name)
def test_checkpoints_of_shipped_bundles_load_and_give_their_golden_outputs(bundle: Path) -> None:
    """Weights keep their names: a checkpoint of an older version of the code still fits."""
    model = load_checkpoint(bundle / "checkpoint").model
    with np.load(bundle / "golden" / "inputs.npz") as inputs:
        audio, video = (torch.from_numpy(inputs[name]) for name in ("audio", "video"))
    with torch.no_grad():
        out = model(audio, video)
    with np.load(bundle / "golden" / "outputs.npz") as expected:
        for stream, output in (("audio", out.audio), ("video", out.video), ("fusion", out.fusion)):
            assert output is not None
            golden = expected[f"fused.{stream}_logits"]
            np.testing.assert_allclose(output.logits.numpy(), golden, atol=1e-3, rtol=0)


@pytest.mark.parametrize(
    ("name", "digest"),
    [
        ("vit-tiny", "c2570c94f565"),
        ("vit-small", "5c93ec24c2f9"),
        ("swin-tiny", "a984dfe14f37"),
        ("hip-mini", "540ed873cdf6"),
    ],
)
def test_names_of_weights_do_not_change(name: str, digest: str) -> None:
    """Where this fails, checkpoints that have been written before no longer load."""
    names = "\n".join(float_weights(ZorroModel(small_config(name))))
    assert hashlib.sha256(names.encode()).hexdigest()[:12] == digest
