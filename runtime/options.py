"""Options of a question, checked before any work is done: each is honoured or refused, none is ignored."""

import math
from collections.abc import Iterable
from enum import StrEnum
from typing import TypeVar

from media import Modality, TimeRange

from .errors import InvalidOption

ChoiceT = TypeVar("ChoiceT", bound=StrEnum)


class Space(StrEnum):
    """Which vector an embedding is."""

    SHARED = "shared"  # the contrastive space in which audio, video and fusion compare
    FEATURES = "features"  # of the backbone


class WeightMemory(StrEnum):
    """How graphs hold their weights on a CPU."""

    FAST = "fast"  # packed for the processor, a copy in each process
    LOW = "low"  # as in the file, which is mapped and shared by processes; a few per cent slower


def check_time_range(time_range: TimeRange) -> None:
    """Raise InvalidOption unless `time_range` is a `TimeRange`, which has checked its numbers itself."""
    if not isinstance(time_range, TimeRange):
        raise InvalidOption(
            f"time_range={time_range!r}; give a TimeRange of start_seconds, end_seconds, stride_seconds"
        )


def check_top_k(top_k: int) -> None:
    """Raise InvalidOption unless `top_k` counts something."""
    if not isinstance(top_k, int) or isinstance(top_k, bool) or top_k < 1:
        raise InvalidOption(f"top_k={top_k!r}; ask for at least 1 label, as a whole number")


def check_threshold(threshold: float | None) -> None:
    """Raise InvalidOption unless `threshold` is a probability, or None for the bundle's."""
    if threshold is not None and not (_is_number(threshold) and 0 <= threshold <= 1):
        raise InvalidOption(f"threshold={threshold!r}; give a probability from 0 to 1")


def check_space(space: Space | str) -> Space:
    """The space with this name.

    Raises:
        InvalidOption: there is none.
    """
    return _choose(Space, "space", space)


def check_num_threads(num_threads: int | None) -> None:
    """Raise InvalidOption unless `num_threads` is None or counts something."""
    if num_threads is not None and num_threads < 1:
        raise InvalidOption(f"num_threads={num_threads}; give at least 1, or None for all cores")


def check_memory(memory: WeightMemory | str) -> WeightMemory:
    """The way of holding weights with this name.

    Raises:
        InvalidOption: there is none.
    """
    return _choose(WeightMemory, "memory", memory)


def parse_modalities(modalities: Iterable[Modality | str] | Modality | str | None) -> list[Modality]:
    """Modalities in their fixed order, each once; one name stands for itself, None for all.

    Raises:
        InvalidOption: one that is unknown, or none at all.
    """
    if modalities is None:
        return list(Modality)
    asked = [modalities] if isinstance(modalities, str) else list(modalities)
    unknown = [name for name in asked if name not in list(Modality)]
    if unknown or not asked:
        raise InvalidOption(
            f"modalities={[str(a) for a in asked]}; give one or more of {', '.join(Modality)}"
        )
    return [modality for modality in Modality if modality in asked]


def _choose(choices: type[ChoiceT], name: str, value: str) -> ChoiceT:
    if value not in list(choices):
        raise InvalidOption(f"{name}={value!r}; there are {', '.join(choices)}")
    return choices(value)


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
