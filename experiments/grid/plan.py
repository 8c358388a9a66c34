"""The runs: what differs from run to run, and nothing else does."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from models.mask import Masking
from training.recipe import Recipe

RECIPES = Path(__file__).parent
SEEDS = (0, 1, 2)

BACKBONES: dict[str, dict[str, Any]] = {
    "swin": {
        "backbone": "swin", "embed_dim": 64, "num_heads": 2, "patch_size": [8, 8], "tubelet_size": [4, 8, 8],
        "swin": {"depths": [2, 2], "audio_window": [8, 5], "video_window": [4, 4, 4]},
    },
    "hip": {
        "backbone": "hip", "embed_dim": 128,
        "hip": {
            "num_groups": [4, 1], "num_latents": [8, 16], "dims": [128, 128], "depths": [1, 2],
            "num_heads": [4, 4],
        },
    },
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Experiment:
    """One run by name."""

    name: str
    recipe: Recipe
    start_from: str | None = None
    """Name of the run whose checkpoint it starts from."""


def experiments() -> Iterator[Experiment]:
    """All runs, in an order in which each comes after the one it starts from."""
    names = ("supervised", "contrastive", "sentences")
    supervised, contrastive, sentences = (Recipe.load(RECIPES / f"{name}.toml") for name in names)
    yield Experiment("best-0", Recipe.load("training/recipes/grid-words.toml"))
    for seed in SEEDS:
        for masking in Masking:
            yield Experiment(f"supervised-{masking}-{seed}", _with(supervised, seed, masking=masking))
            yield Experiment(f"contrastive-{masking}-{seed}", _with(contrastive, seed, masking=masking))
        yield Experiment(f"untrained-{seed}", replace(_with(contrastive, seed), num_steps=1))
        yield Experiment(f"finetuned-{seed}", _with(supervised, seed), start_from=f"contrastive-zorro-{seed}")
        for modality in ("audio", "video"):
            yield Experiment(f"only-{modality}-{seed}", replace(_with(supervised, seed), modality=modality))
        for backbone, changes in BACKBONES.items():
            yield Experiment(f"{backbone}-{seed}", _with(supervised, seed, **changes))
        yield Experiment(f"sentences-{seed}", _with(sentences, seed))


def _with(recipe: Recipe, seed: int, **model: Any) -> Recipe:
    return replace(recipe, seed=seed, model=recipe.model | model)
