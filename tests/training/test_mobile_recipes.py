"""Recipes of models with mobile stems: their clips, and fine-tuning on other labels."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from datasets.manifests import Item
from models import ZorroModel
from models.transfer import transfer
from models.weights import Checkpoint
from tests.small_models import as_if_trained, small_config, spec_of
from training.finetune import finetuning_recipe
from training.model_config import model_config
from training.recipe import Recipe, preset_clip_spec


def test_clips_of_the_preset_are_normalised_as_its_stems_were() -> None:
    spec = preset_clip_spec("mobile")
    assert (spec.audio_shape, spec.video_shape) == ((512, 128), (2, 224, 224, 3))
    assert (spec.audio_mean, spec.audio_std) == (-4.5, 5.0)
    assert (spec.video_mean, spec.video_std) == ((127.0,) * 3, (128.0,) * 3)
    config = model_config(Recipe(preset="mobile", model={}), 3)
    assert (config.audio_mean, config.video_std) == (-4.5, (128.0,) * 3)


def test_fine_tuning_on_other_labels_keeps_the_stems_and_drops_their_classifiers() -> None:
    config = small_config("mobile")
    old = as_if_trained(ZorroModel(config))
    spec = replace(spec_of(config), audio_mean=-4.5, audio_std=5.0)
    start = Checkpoint(old, config, spec.to_dict(), [{"id": x} for x in "abcde"])
    items = [Item(path=Path(f"{i}.mp4"), modality="both", labels=("new",), split="train") for i in range(4)]
    recipe = finetuning_recipe(start, items)
    model = ZorroModel(model_config(recipe, 2)).eval()
    assert model.stem_classifiers is None
    transfer(start, model)
    audio = torch.randn(1, *config.audio_shape)
    assert torch.equal(model.audio_tokens.map(audio), old.audio_tokens.map(audio))
    assert model(audio).audio.logits.shape == (1, 2)


@pytest.mark.parametrize(("capability", "is_fast"), [("AVX2", False), ("AVX512", True)])
def test_fine_tuning_takes_what_the_processor_is_fast_with(
    capability: str, is_fast: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: capability)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    items = [Item(path=Path("a.mp4"), modality="both", labels=("new",), split="train")]
    for name, has_norms_of_its_own in (("mobile", True), ("vit-tiny", False)):
        config = small_config(name)
        start = Checkpoint(ZorroModel(config), config, spec_of(config).to_dict(), [])
        recipe = finetuning_recipe(start, items)
        assert recipe.bfloat16 == is_fast
        assert recipe.freeze_statistics == has_norms_of_its_own
