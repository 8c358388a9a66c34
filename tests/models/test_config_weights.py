"""Configs that contradict themselves, and checkpoints that do not fit."""

import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from models import ZorroConfig, ZorroModel, preset
from models.registry import build_trunk
from models.tokens import ConvStem
from models.weights import CheckpointError, copy_checkpoint, load_checkpoint


def test_dict_there_and_back() -> None:
    config = preset("vit-tiny", num_classes=3, drop_path_rate=0.1)
    assert ZorroConfig.from_dict(config.to_dict()) == config


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"patch_size": (30, 16)}, "audio_shape"),
        ({"video_shape": (3, 128, 128, 3)}, "video_shape"),
        ({"num_heads": 5}, "num_heads"),
        ({"num_fusion_tokens": 0}, "num_fusion_tokens"),
        ({"drop_path_rate": 1.0}, "drop_path_rate"),
        ({"stem": "magic"}, "magic"),
    ],
)
def test_contradictions_fail(changes: dict[str, object], match: str) -> None:
    with pytest.raises(ValueError, match=match):
        preset("vit-tiny", num_classes=3, **changes)


def test_unknown_names_fail() -> None:
    with pytest.raises(ValueError, match="no preset 'vit-huge'"):
        preset("vit-huge", num_classes=3)
    with pytest.raises(ValueError, match="'cnn' is not a valid BackboneName"):
        build_trunk(preset("vit-tiny", num_classes=3, backbone="cnn"))
    with pytest.raises(ValueError, match="powers of two"):
        ConvStem(1, 32, (12, 16))
    with pytest.raises(ValueError, match="missing=\\['depth'\\]"):
        ZorroConfig.from_dict(
            {k: v for k, v in preset("vit-tiny", num_classes=3).to_dict().items() if k != "depth"}
        )


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
