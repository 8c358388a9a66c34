"""Training on sounds and pictures that are files of their own: pairs are made by label."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch

from datasets.manifests import Item, label_table
from datasets.read_failure import log_failures
from datasets.unpaired import load_unpaired
from evaluation.calibration import calibrate
from evaluation.pairing import read_windows_where_possible
from evaluation.predictors import ModelPredictor
from evaluation.unpaired_scores import evaluate_split
from media.clip import Clip
from media.progress import OnProgress
from models.config import Centre
from models.zorro import ZorroModel

from .batch import TrainingBatch
from .recipe import Recipe
from .task import items_of_split
from .unpaired_batches import UnpairedBatches


class UnpairedTask:
    """Sounds and pictures that were not recorded together: pairs are made by label.

    `names` as in `label_table`.
    """

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
        learned = items_of_split(items, "train")
        material = load_unpaired(
            learned, recipe.spec, self.targets, cache_dir, on_progress, stage="decode train"
        )
        log_failures(material.failures)
        counts = {"sounds": len(material.audio), "pictures": len(material.video)}
        on_progress(
            "decode train", len(learned), len(learned), counts | {"passed over": len(material.failures)}
        )
        self._validation_items = items_of_split(items, "val")
        self._validation_windows: list[list[Clip]] | None = None
        self.generator = torch.Generator().manual_seed(recipe.seed)
        self.maker = UnpairedBatches(material, recipe, len(self.labels), self.generator)
        self.clips_per_step = self.maker.num_audio + self.maker.num_video

    def prepare(self, model: ZorroModel) -> None:
        """See `Task`.

        Raises:
            ValueError: the model subtracts a mean picture, of which pictures of different things have none.
        """
        if model.config.centre == Centre.PICTURE:
            raise ValueError(
                "centre = 'picture' is for films framed alike, by_clip; choose centre = 'colour'"
            )

    def batches(self, first_step: int) -> Iterator[list[TrainingBatch]]:
        """See `Task`."""
        for _ in range(first_step, self.recipe.num_steps):
            yield [self.maker.draw()]

    def validate(self, model: ZorroModel) -> dict[str, float]:
        """Top-1 of sounds, pictures and pairs; nothing where no clip of the split decodes."""
        items, windows = self._validation()
        if not items:
            return {}
        spec = self.recipe.spec
        found = evaluate_split(ModelPredictor(model), items, self.targets, spec, clips=windows)
        return {f"{name}_top1": table["top1"] for name, table in found.tables.items() if "top1" in table}

    def calibrate(self, model: ZorroModel) -> dict[str, float]:
        """See `Task`; labels that do not compete need none."""
        items, windows = self._validation()
        if self.recipe.multi_label or not items:
            return {}
        return calibrate(model, items, self.targets, self.recipe.spec, clips=windows)

    def _validation(self) -> tuple[list[Item], list[list[Clip]]]:
        """The validation clips that decode, and their windows, decoded when first asked for and kept."""
        if self._validation_windows is None:
            found = read_windows_where_possible(self._validation_items, self.recipe.spec)
            self._validation_items, self._validation_windows, failures = found
            log_failures(failures)
        return self._validation_items, self._validation_windows

    def state(self) -> dict[str, Any]:
        """See `Task`."""
        return {"sampler_rng": self.generator.get_state()}

    def restore(self, state: dict[str, Any]) -> None:
        """See `Task`."""
        self.generator.set_state(state["sampler_rng"])
