"""The one shape of a progress callback, from decoding to training and export."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Protocol

NO_FIGURES: Mapping[str, float] = MappingProxyType({})


class OnProgress(Protocol):
    """Called with how far a stage of some work has come."""

    def __call__(self, stage: str, done: int, total: int, figures: Mapping[str, float] = NO_FIGURES) -> None:
        """Report progress.

        Args:
            stage: what is being done, in a word or two.
            done: how much of it is done.
            total: how much there is; 0 where nobody knows.
            figures: numbers worth showing beside it, by name.
        """


def ignore_progress(stage: str, done: int, total: int, figures: Mapping[str, float] = NO_FIGURES) -> None:
    """An `OnProgress` that does nothing."""
