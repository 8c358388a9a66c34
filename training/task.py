"""What every task of a run has: where batches come from, and how well a model does."""

from collections.abc import Iterator
from typing import Any, Protocol

from datasets.manifests import Item
from models.zorro import ZorroModel

from .batch import TrainingBatch
from .recipe import Recipe


class Task(Protocol):
    """Where batches come from, and how well a model does."""

    recipe: Recipe
    """The run's, with `pairs` decided."""
    clips_per_step: int
    """Over all ranks; where sounds and pictures are files of their own, both are counted."""
    labels: list[dict[str, Any]]
    """`{"id", "label", "modalities"}` of each class."""

    def prepare(self, model: ZorroModel) -> None:
        """Give a new model what it takes from the training data before the first step."""
        ...

    def batches(self, first_step: int) -> Iterator[list[TrainingBatch]]:
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


def items_of_split(items: list[Item], split: str) -> list[Item]:
    """The items of one split, in their order."""
    return [item for item in items if item.split == split]
