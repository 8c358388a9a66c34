"""The config of the model that a recipe trains."""

from dataclasses import fields

from models.config import ZorroConfig
from models.presets import preset

from .recipe import Recipe

FROM_CLIP_SPEC = ("audio_shape", "video_shape", "audio_mean", "audio_std", "video_mean", "video_std")


def model_config(recipe: Recipe, num_classes: int) -> ZorroConfig:
    """The recipe's preset with its changes, shaped and normalised by its ClipSpec.

    Raises:
        ValueError: `[model]` has an unknown key or one that follows from `[clip_spec]`, or numbers that
            contradict each other.
    """
    known = {field.name for field in fields(ZorroConfig)} - {"num_classes", *FROM_CLIP_SPEC}
    unknown = sorted(recipe.model.keys() - known)
    if unknown:
        raise ValueError(
            f"unknown keys {unknown} in [model]; shapes, means and deviations go into [clip_spec]"
        )
    spec = recipe.spec
    numbers = {name: getattr(spec, name) for name in FROM_CLIP_SPEC}
    return preset(recipe.preset, num_classes=num_classes, **numbers, **recipe.model)
