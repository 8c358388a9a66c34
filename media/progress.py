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


def as_stage(
    on_progress: OnProgress, name: str, *, done_before: int = 0, total_of_all: int | None = None
) -> OnProgress:
    """An `OnProgress` for work that is a stage of something larger, or a part of that stage.

    Args:
        on_progress: told of the larger stage.
        name: of the larger stage.
        done_before: how much of it was done before this part.
        total_of_all: how much there is of it; default as much as of this part.
    """

    def part(stage: str, done: int, total: int, figures: Mapping[str, float] = NO_FIGURES) -> None:  # noqa: ARG001
        on_progress(name, done_before + done, total if total_of_all is None else total_of_all, figures)

    return part
