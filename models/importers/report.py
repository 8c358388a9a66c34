"""What every importer into a `ZorroModel` does: check all keys and shapes, write, and report."""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from models.weights import CheckpointError, float_weights, mismatches
from models.zorro import ZorroModel


@dataclass(frozen=True, slots=True, kw_only=True)
class ImportReport:
    """What an import did; each weight of the model is in one of the first three."""

    loaded: tuple[str, ...]
    """Weights of the model that were imported."""
    zeroed: tuple[str, ...]
    """Weights set to zero, so that they add nothing to what was imported."""
    kept: tuple[str, ...]
    """Weights that the import left as they were."""
    unused: tuple[str, ...]
    """Keys of the state dict that were not imported."""


def check_source(
    source: Mapping[str, Tensor], wanted: Mapping[str, tuple[int, ...]], *, ignored: tuple[str, ...] = ()
) -> tuple[str, ...]:
    """Check every key and shape.

    Returns:
        The keys that are not wanted, each of which starts with one of `ignored`.

    Raises:
        CheckpointError: lists what is missing, unknown or of another shape.
    """
    unused = {name for name in source if name not in wanted and name.startswith(ignored)}
    if found := mismatches({name: x for name, x in source.items() if name not in unused}, wanted):
        raise CheckpointError(f"weights do not fit the model: {found}")
    return tuple(sorted(unused))


@torch.no_grad()
def write(
    model: ZorroModel, weights: Mapping[str, Tensor], *, zeroed: tuple[str, ...] = (), unused: tuple[str, ...]
) -> ImportReport:
    """Copy weights whose shapes have been checked into the model, and set those of `zeroed` to zero."""
    own = float_weights(model)
    for name in (*weights, *zeroed):
        assert name in zeroed or weights[name].shape == own[name].shape, name
        own[name].copy_(torch.zeros_like(own[name]) if name in zeroed else weights[name])
    kept = tuple(name for name in own if name not in weights and name not in zeroed)
    return ImportReport(loaded=tuple(weights), zeroed=zeroed, kept=kept, unused=unused)
