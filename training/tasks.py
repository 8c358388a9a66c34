"""What a run learns from: a patchwork of sounds and sights, or co-recorded clips. Both draw batches and score a model."""

import gc
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Protocol

import torch
from torch.utils.data import DataLoader

from datasets.manifests import Item, Listing, ManifestError, label_table, whole_files
from datasets.recordings import Recordings, load_recordings, mean_picture
from datasets.shard_reader import StoredItems
from datasets.unpaired import load_material
from evaluation.calibration import calibrate, fit_temperature, fold_temperatures
from evaluation.predictors import ModelPredictor
from evaluation.unpaired_scores import evaluate_split
from models.config import Centre
from models.zorro import ZorroModel

from .batch import Batch, BatchMaker
from .clip_batch import ClipBatches, DecodedClips
from .distributed import Ranks, union_over_ranks
from .recipe import Pairs, Recipe
from .streamed_clips import StreamedClips, StreamTable
from .validation import STREAMS, ClipTable

Progress = Callable[[str, int, int, dict[str, float]], None]
"""Called with the stage, how much is done, of how much, and figures worth showing."""


class Task(Protocol):
    """Where batches come from, and how well a model does."""

    labels: list[dict[str, Any]]
    """`{"id", "label", "modalities"}` of each class."""

    def prepare(self, model: ZorroModel) -> None:
        """Give a new model what it takes from the training data before the first step."""
        ...

    def batches(self, first_step: int) -> Iterator[list[Batch]]:
        """Batches from this step to the recipe's last, each in parts of which one is in memory at a time."""
        ...

    def validate(self, model: ZorroModel) -> dict[str, float]:
        """Scores on the validation split."""
        ...

    def calibrate(self, model: ZorroModel) -> dict[str, float]:
        """Temperatures by stream, fitted on the validation split and folded into the model."""
        ...

    def state(self) -> dict[str, Any]:
        """What `restore` needs to draw on as if nothing had happened."""
        ...

    def restore(self, state: dict[str, Any]) -> None:
        """Inverse of `state`."""
        ...


def open_task(
    recipe: Recipe, data: Listing | StoredItems, cache_dir: Path, report: Progress, ranks: Ranks
) -> Task:
    """The task that `recipe.pairs` names, over a collection or shards of it.

    Raises:
        ValueError: a patchwork, whose pairs are drawn from all of it, from shards or on several ranks.
        ManifestError: clips of several labels, where the recipe wants one; or see `manifests.whole_files`.
    """
    items = _as_learned(data.items, recipe)
    if isinstance(data, StoredItems):
        if recipe.pairs != Pairs.BY_CLIP:
            raise ValueError(
                f"pairs = '{recipe.pairs}' draws from all of a collection at once; train on its folder instead"
            )
        return StreamTask(recipe, data, items, report, ranks)
    if recipe.pairs == Pairs.BY_CLIP:
        return ClipTask(recipe, items, cache_dir, report, ranks, names=data.names)
    if ranks.world_size > 1:
        raise ValueError(
            f"pairs = 'by_label' trains in one process, got {ranks.world_size} ranks; start without torchrun"
        )
    return PatchworkTask(recipe, items, cache_dir, report, names=data.names)


def _split(items: list[Item], split: str) -> list[Item]:
    return [item for item in items if item.split == split]


def _as_learned(items: list[Item], recipe: Recipe) -> list[Item]:
    """Spans or whole files, by sound or by sight alone, as the recipe says; whole files, where no labels are read."""
    if recipe.modality != "both":
        items = [replace(item, modality=recipe.modality) for item in items]
    if not recipe.supervised:
        return [replace(item, labels=()) for item in whole_files(items)]
    items = recipe.spans.of(items)
    several = [item.path for item in items if len(item.labels) > 1]
    if several and not recipe.multi_label:
        raise ManifestError(
            f"{len(several)} clips have several labels, the first is {several[0]}; set multi_label = true"
        )
    return items


class PatchworkTask:
    """Sounds and sights that were not recorded together: pairs are made by label; `names` as in `label_table`."""

    def __init__(
        self,
        recipe: Recipe,
        items: list[Item],
        cache_dir: Path,
        report: Progress,
        *,
        names: Mapping[str, str] | None = None,
    ) -> None:
        self.recipe, self.labels = recipe, label_table(items, names)
        self.targets = {str(label["id"]): i for i, label in enumerate(self.labels)}
        self.validation, self._clips = _split(items, "val"), None
        material = load_material(
            _split(items, "train"),
            recipe.spec,
            self.targets,
            cache_dir,
            lambda done, total: report("decode", done, total, {}),
        )
        self.generator = torch.Generator().manual_seed(recipe.seed)
        self.maker = BatchMaker(material, recipe, len(self.labels), self.generator)

    def prepare(self, model: ZorroModel) -> None:
        """See `Task`.

        Raises:
            ValueError: the model subtracts a mean picture, of which pictures of different things have none.
        """
        if model.config.centre == Centre.PICTURE:
            raise ValueError("centre = 'picture' is for films framed alike; a patchwork has no mean picture")

    def batches(self, first_step: int) -> Iterator[list[Batch]]:
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


class ClipTask:
    """Co-recorded clips: a sound's picture is its own; `names` as in `label_table`."""

    def __init__(
        self,
        recipe: Recipe,
        items: list[Item],
        cache_dir: Path,
        report: Progress,
        ranks: Ranks,
        *,
        names: Mapping[str, str] | None = None,
    ) -> None:
        self.recipe, self.labels = recipe, label_table(items, names)
        self.targets = {str(label["id"]): i for i, label in enumerate(self.labels)}

        def load(split: str) -> tuple[list[Item], Recordings]:
            chosen, stage = _split(items, split), f"decode {split}"
            found = load_recordings(
                chosen, recipe.spec, cache_dir, lambda done, total: report(stage, done, total, {})
            )
            num_files = sum(found.counts.values())
            report(
                stage, num_files, num_files, dict(found.counts)
            )  # what is broken or lacks a modality is said
            return chosen, found

        learned, recordings = load("train")
        clips = DecodedClips(learned, recordings, recipe)
        mean = mean_picture(recordings) if recipe.model.get("centre") == Centre.PICTURE else None
        self.drawn = ClipBatches(clips, self.targets, recipe, ranks, mean=mean)
        self.validation: ClipTable | StreamTable = ClipTable(*load("val"), self.targets, recipe)

    def prepare(self, model: ZorroModel) -> None:
        """The mean picture, if the model subtracts one."""
        if model.config.centre == Centre.PICTURE:
            model.video_tokens.mean.copy_(self.drawn.mean)

    def batches(self, first_step: int) -> Iterator[list[Batch]]:
        """See `Task`; a worker draws ahead, if the recipe says so."""
        # A decoder in a cycle of garbage must go before workers are forked: collected in one of them, it
        # would wait for ever for its threads, which are not there.
        gc.collect()
        steps = range(first_step, self.recipe.num_steps)
        yield from DataLoader(self.drawn, batch_size=None, sampler=steps, num_workers=self.recipe.num_workers)

    def validate(self, model: ZorroModel) -> dict[str, float]:
        """Accuracy or mean average precision by stream, or recall@1 in all directions."""
        return self.validation.scores(model)

    def calibrate(self, model: ZorroModel) -> dict[str, float]:
        """See `Task`; sets of many labels, and pre-training, need none."""
        if self.recipe.multi_label or not self.recipe.supervised:
            return {}
        answers, truth = self.validation.answers(model), self.validation.labels.argmax(1).numpy()
        fitted = {
            stream: fit_temperature(answers[stream.key].logits, truth[answers[stream.key].clips])
            for stream in STREAMS
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
                "the run was on shards, so its clips would be others; give these, or choose another run folder"
            )


class StreamTask(ClipTask):
    """Co-recorded clips in shards, decoded when they are drawn; files that turn out broken, mute or blind are told of."""

    def __init__(
        self, recipe: Recipe, stored: StoredItems, items: list[Item], report: Progress, ranks: Ranks
    ) -> None:
        if recipe.model.get("centre") == Centre.PICTURE:
            raise ValueError(
                "centre = 'picture' wants the mean of all pictures first; from shards choose centre = 'motion'"
            )
        self.recipe, self.labels = recipe, label_table(items, stored.index.names)
        self.targets = {str(label["id"]): i for i, label in enumerate(self.labels)}
        self.drawn = ClipBatches(
            StreamedClips(stored, _split(items, "train"), recipe), self.targets, recipe, ranks
        )
        self.validation = StreamTable(StreamedClips(stored, _split(items, "val"), recipe), self.targets)
        self._faults: dict[str, str] = {}
        self._shards, self._report = stored.index.items_sha256, report
        self._num_files = len({item.path for item in items})

    def batches(self, first_step: int) -> Iterator[list[Batch]]:
        """See `Task`."""
        for chunks in super().batches(first_step):
            for chunk in chunks:
                self._tell(chunk.faults)
            yield chunks

    def validate(self, model: ZorroModel) -> dict[str, float]:
        """See `Task`."""
        scores = super().validate(model)
        self._tell(self.validation.faults)
        return scores

    def state(self) -> dict[str, Any]:
        """Which shards, since batches are drawn from their order; and the faults that any rank has found."""
        self._tell(union_over_ranks(self._faults))
        return {"shards": self._shards, "faults": self._faults}

    def restore(self, state: dict[str, Any]) -> None:
        """See `Task`.

        Raises:
            ValueError: the run was on other shards.
        """
        if state.get("shards") != self._shards:
            raise ValueError(
                "the run was not on these shards, so its clips would be others; choose another run folder"
            )
        self._tell(state["faults"])

    def _tell(self, faults: Mapping[str, str]) -> None:
        if new := {path: fault for path, fault in faults.items() if path not in self._faults}:
            self._faults |= new
            self._report("faults", len(self._faults), self._num_files, dict(Counter(self._faults.values())))
