"""Which task a recipe and a collection make."""

from dataclasses import replace
from pathlib import Path

from datasets.manifests import Item, Listing, ManifestError, whole_files
from datasets.shard_reader import ShardReader
from media.progress import OnProgress

from .distillation.task import DistillationTask
from .paired_task import PairedTask
from .ranks import Ranks
from .recipe import Pairs, Recipe
from .sharded_task import ShardedTask
from .task import Task
from .unpaired_task import UnpairedTask


def open_task(
    recipe: Recipe,
    data: Listing | ShardReader,
    data_dir: Path,
    cache_dir: Path,
    on_progress: OnProgress,
    ranks: Ranks,
) -> Task:
    """A distillation, or the task that `recipe.pairs` names, over a collection or shards of it.

    Raises:
        TeacherError: a teacher of a distillation is not there.
        ValueError: pairs by label, which are drawn from all of a collection, from shards or on several ranks.
        ManifestError: clips of several labels, where the recipe wants one; or see `manifests.whole_files`.
    """
    if recipe.distillation is not None:
        if isinstance(data, ShardReader) or ranks.world_size > 1:
            raise ValueError("[distillation] trains on folders, in one process: no shards, no torchrun")
        return DistillationTask(recipe, data.items, data_dir, cache_dir, on_progress)
    items = _as_learned(data.items, recipe)
    if isinstance(data, ShardReader):
        if recipe.pairs == Pairs.AUTO:
            recipe = replace(recipe, pairs=Pairs.BY_CLIP)
        if recipe.pairs != Pairs.BY_CLIP:
            raise ValueError(
                f"pairs = '{recipe.pairs}' draws from all of a collection at once; train on its folder "
                "instead"
            )
        return ShardedTask(recipe, data, items, on_progress, ranks)
    recipe = recipe.with_pairs_for(items)
    if recipe.pairs == Pairs.BY_CLIP:
        return PairedTask(recipe, items, cache_dir, on_progress, ranks, names=data.names)
    if ranks.world_size > 1:
        raise ValueError(
            f"pairs = 'by_label' trains in one process, got {ranks.world_size} ranks; start without torchrun"
        )
    return UnpairedTask(recipe, items, cache_dir, on_progress, names=data.names)


def _as_learned(items: list[Item], recipe: Recipe) -> list[Item]:
    """Spans or whole files, of one modality or both, as the recipe says.

    Whole files, where no labels are read.
    """
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
