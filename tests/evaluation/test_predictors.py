"""Answers of a checkpoint and of a bundle: equal, whole, and refused where the stream has nothing to read."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from evaluation.predictors import ModelPredictor
from media import Clip, ClipSpec, Modality, read_clips
from models import Masking, ZorroModel, preset
from models.weights import load_checkpoint
from runtime import Zorro
from runtime.errors import InvalidOption
from tests.small_models import SMALL


@pytest.fixture(scope="module")
def clips(film: Path, spec: ClipSpec) -> list[Clip]:
    return list(read_clips(film, spec))


@pytest.mark.parametrize("modality", list(Modality))
def test_answers_are_those_of_the_stream(
    clips: Sequence[Clip], checkpoint: Path, bundle: Path, modality: Modality
) -> None:
    model = ModelPredictor(load_checkpoint(checkpoint).model, max_batch_size=2)
    ours, theirs = model.outputs(modality, clips), Zorro.open(bundle).outputs(modality, clips)
    assert {k: v.shape for k, v in ours.items()} == {
        "features": (3, 32),
        "embedding": (3, 16),
        "logits": (3, 4),
    }
    for kind, values in ours.items():
        np.testing.assert_allclose(values, theirs[kind], atol=2e-4)
    assert np.array_equal(ours["logits"], model.logits(modality, clips))


def test_fusion_answers_with_a_modality_missing(clips: Sequence[Clip], checkpoint: Path) -> None:
    model = load_checkpoint(checkpoint).model
    deaf = [replace(clip, audio=None) for clip in clips]
    with torch.no_grad():
        expected = model(
            None, torch.from_numpy(np.stack([clip.video for clip in clips]))
        ).fusion.logits.numpy()
    np.testing.assert_allclose(ModelPredictor(model).logits(Modality.FUSED, deaf), expected, atol=1e-6)
    assert not np.allclose(ModelPredictor(model).logits(Modality.FUSED, clips), expected, atol=1e-4)


def test_a_leaking_model_is_asked_with_its_fusion_tokens(clips: Sequence[Clip]) -> None:
    torch.manual_seed(0)
    model = ZorroModel(preset("vit-tiny", num_classes=4, masking=Masking.BOTTLENECK, **SMALL)).eval()
    with torch.no_grad():
        expected = model(torch.from_numpy(np.stack([clip.audio for clip in clips]))).audio.logits.numpy()
    np.testing.assert_allclose(ModelPredictor(model).logits(Modality.AUDIO, clips), expected, atol=1e-6)


def test_answers_fail(clips: Sequence[Clip], checkpoint: Path, bundle: Path) -> None:
    model, runtime = ModelPredictor(load_checkpoint(checkpoint).model), Zorro.open(bundle)
    deaf = replace(clips[0], audio=None)
    with pytest.raises(ValueError, match="0 clips"):
        model.outputs(Modality.AUDIO, [])
    with pytest.raises(InvalidOption, match="0 clips"):
        runtime.outputs(Modality.AUDIO, [])
    with pytest.raises(ValueError, match="no audio to answer from"):
        model.outputs(Modality.AUDIO, [deaf])
    with pytest.raises(InvalidOption, match="fused reads audio"):
        runtime.outputs(Modality.FUSED, [deaf])
    with pytest.raises(ValueError, match="1 of 2 clips lack"):
        model.outputs(Modality.FUSED, [clips[0], deaf])
    with pytest.raises(ValueError, match="give audio, video or both"):
        model.outputs(Modality.FUSED, [replace(deaf, video=None)])
