"""Training on sounds and pictures that are files of their own: pairs are made by label."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch

from datasets.manifests import Item, label_table
from datasets.unpaired import load_unpaired
from evaluation.calibration import calibrate
from evaluation.predictors import ModelPredictor
from evaluation.unpaired_scores import evaluate_split
from media.progress import OnProgress
from models.config import Centre
from models.zorro import ZorroModel

from .batch import TrainingBatch
from .recipe import Recipe
from .task import items_of_split
from .unpaired_batches import UnpairedBatches


class UnpairedTask:
    """Sounds and sights that were not recorded together: pairs are made by label; `names` as in `label_table`."""

    def __init__(
        self,
        recipe: Recipe,
        items: list[Item],
        cache_dir: Path,
        on_progress: OnProgress,
        *,
        names: Mapping[str, str] | None = None,
    ) -> None:
        self.recipe, self.labels = recipe, label_table(items, names)
        self.targets = {str(label["id"]): i for i, label in enumerate(self.labels)}
        self.validation, self._clips = items_of_split(items, "val"), None
        material = load_unpaired(
            items_of_split(items, "train"),
            recipe.spec,
            self.targets,
            cache_dir,
            lambda done, total: on_progress("decode", done, total, {}),
        )
        self.generator = torch.Generator().manual_seed(recipe.seed)
        self.maker = UnpairedBatches(material, recipe, len(self.labels), self.generator)

    def prepare(self, model: ZorroModel) -> None:
        """See `Task`.

        Raises:
            ValueError: the model subtracts a mean picture, of which pictures of different things have none.
        """
        if model.config.centre == Centre.PICTURE:
            raise ValueError("centre = 'picture' is for films framed alike; a patchwork has no mean picture")

    def batches(self, first_step: int) -> Iterator[list[TrainingBatch]]:
        """See `Task`."""
        for _ in range(first_step, self.recipe.num_steps):
            yield [self.maker.draw()]

    def validate(self, model: ZorroModel) -> dict[str, float]:
        """Top-1 of sounds, sights and pairs."""
        found = evaluate_split(
            ModelPredictor(model), self.validation, self.targets, self.recipe.spec, clips=self._clips
        )
        self._clips = found.clips
        return {f"{name}_top1": table["top1"] for name, table in found.tables.items() if "top1" in table}

    def calibrate(self, model: ZorroModel) -> dict[str, float]:
        """See `Task`; labels that do not compete need none."""
        if self.recipe.multi_label:
            return {}
        return calibrate(model, self.validation, self.targets, self.recipe.spec, clips=self._clips)

    def state(self) -> dict[str, Any]:
        """See `Task`."""
        return {"sampler_rng": self.generator.get_state()}

    def restore(self, state: dict[str, Any]) -> None:
        """See `Task`."""
        self.generator.set_state(state["sampler_rng"])
