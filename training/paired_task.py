"""Training on co-recorded clips, whose recordings are decoded once and kept as arrays."""

import gc
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from torch.utils.data import DataLoader

from datasets.manifests import Item, label_table
from datasets.read_failure import log_failures
from datasets.recordings import Recordings, load_recordings, mean_picture
from evaluation.calibration import fit_temperature, fold_temperatures
from media.progress import OnProgress
from models.config import Centre
from models.zorro import ZorroModel

from .batch import TrainingBatch
from .interrupts import ignore_interrupts
from .paired_batches import PairedBatches, RecordedClips
from .ranks import Ranks
from .recipe import Recipe
from .shard_clips import ShardValidationTable
from .task import items_of_split
from .validation import CALIBRATED_STREAMS, ValidationTable


class PairedTask:
    """Co-recorded clips: a sound's picture is its own; `names` as in `label_table`."""

    def __init__(
        self,
        recipe: Recipe,
        items: list[Item],
        cache_dir: Path,
        on_progress: OnProgress,
        ranks: Ranks,
        *,
        names: Mapping[str, str] | None = None,
    ) -> None:
        self.recipe, self.labels = recipe, label_table(items, names)
        self.targets = {str(label["id"]): i for i, label in enumerate(self.labels)}

        self.clips_per_step = recipe.num_clips

        def load(split: str) -> tuple[list[Item], Recordings]:
            chosen, stage = items_of_split(items, split), f"decode {split}"
            found = load_recordings(chosen, recipe.spec, cache_dir, on_progress, stage=stage)
            log_failures(found.failures)
            num_files = sum(found.counts.values())
            on_progress(stage, num_files, num_files, found.counts)
            return chosen, found

        learned, recordings = load("train")
        clips = RecordedClips(learned, recordings, recipe)
        mean = mean_picture(recordings) if recipe.model.get("centre") == Centre.PICTURE else None
        self.drawn = PairedBatches(clips, self.targets, recipe, ranks, mean=mean)
        self.validation: ValidationTable | ShardValidationTable = ValidationTable(
            *load("val"), self.targets, recipe
        )

    def prepare(self, model: ZorroModel) -> None:
        """The mean picture, if the model subtracts one."""
        if model.config.centre == Centre.PICTURE:
            assert self.drawn.mean is not None
            model.video_tokens.mean.copy_(self.drawn.mean)

    def batches(self, first_step: int) -> Iterator[list[TrainingBatch]]:
        """See `Task`; a worker draws ahead, if the recipe says so."""
        # A decoder in a cycle of garbage must go before workers are forked: collected in one of them, it
        # would wait for ever for its threads, which are not there.
        gc.collect()
        steps = range(first_step, self.recipe.num_steps)
        yield from DataLoader(
            self.drawn,
            batch_size=None,
            sampler=steps,
            num_workers=self.recipe.num_workers,
            worker_init_fn=ignore_interrupts,
        )

    def validate(self, model: ZorroModel) -> dict[str, float]:
        """Accuracy or mean average precision by stream, or recall@1 in all directions."""
        return self.validation.scores(model)

    def calibrate(self, model: ZorroModel) -> dict[str, float]:
        """See `Task`; sets of many labels, and pre-training, need none."""
        if self.recipe.multi_label or not self.recipe.supervised:
            return {}
        answers, truth = self.validation.outputs(model), self.validation.labels.argmax(1).numpy()
        fitted = {
            stream: fit_temperature(answers[stream.key].logits, truth[answers[stream.key].clips])
            for stream in CALIBRATED_STREAMS
            if stream.key in answers
        }
        fold_temperatures(model, fitted)
        return {stream.key: temperature for stream, temperature in fitted.items()}

    def state(self) -> dict[str, Any]:
        """Nothing: a batch depends on its number alone."""
        return {}

    def restore(self, state: dict[str, Any]) -> None:
        """See `Task`.

        Raises:
            ValueError: the run was on shards.
        """
        if state:
            raise ValueError(
                "the run was on shards, so its clips would be others; give these, or choose another run "
                "folder"
            )
