"""Training on co-recorded clips in shards, decoded when they are drawn."""

from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any

from datasets.manifests import Item, label_table
from datasets.shard_reader import ShardReader
from media.progress import OnProgress
from models.config import Centre
from models.zorro import ZorroModel

from .batch import TrainingBatch
from .paired_batches import PairedBatches
from .paired_task import PairedTask
from .ranks import Ranks, union_over_ranks
from .recipe import Recipe
from .shard_clips import ShardClips, ShardValidationTable
from .task import items_of_split


class ShardedTask(PairedTask):
    """Co-recorded clips in shards, decoded when they are drawn.

    Files that turn out broken, mute or blind are told of.
    """

    def __init__(
        self, recipe: Recipe, stored: ShardReader, items: list[Item], on_progress: OnProgress, ranks: Ranks
    ) -> None:
        if recipe.model.get("centre") == Centre.PICTURE:
            raise ValueError(
                "centre = 'picture' wants the mean of all pictures first; from shards choose centre = "
                "'motion'"
            )
        self.recipe, self.labels = recipe, label_table(items, stored.index.names)
        self.targets = {str(label["id"]): i for i, label in enumerate(self.labels)}
        self.clips_per_step = recipe.num_clips
        self.drawn = PairedBatches(
            ShardClips(stored, items_of_split(items, "train"), recipe), self.targets, recipe, ranks
        )
        self._shard_validation = ShardValidationTable(
            ShardClips(stored, items_of_split(items, "val"), recipe), self.targets
        )
        self.validation = self._shard_validation
        self._faults: dict[str, str] = {}
        self._shards, self._on_progress = stored.index.items_sha256, on_progress
        self._num_files = len({item.path for item in items})

    def batches(self, first_step: int) -> Iterator[list[TrainingBatch]]:
        """See `Task`."""
        for chunks in super().batches(first_step):
            for chunk in chunks:
                self._tell(chunk.faults)
            yield chunks

    def validate(self, model: ZorroModel) -> dict[str, float]:
        """See `Task`."""
        scores = super().validate(model)
        self._tell(self._shard_validation.faults)
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
            self._on_progress(
                "faults", len(self._faults), self._num_files, dict(Counter(self._faults.values()))
            )
