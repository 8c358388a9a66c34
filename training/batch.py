"""One training step's arrays: audio items, video items, and the fusion rows over them.

A row's target is the mean of the targets of what it reads, so that fusion answers all labels, whatever is
missing, and reports both of a contradiction.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Any, Self

import torch
import torch.nn.functional as F
from torch import Tensor

from models.attention import Pairing


@dataclass(frozen=True, slots=True)
class TrainingBatch:
    """Arrays of one step."""

    audio: Tensor
    video: Tensor
    pairing: Pairing
    audio_targets: Tensor
    video_targets: Tensor
    row_targets: Tensor
    audio_kept: Tensor
    """float [items]: 0 where an item was replaced by noise and teaches its stream nothing."""
    video_kept: Tensor
    row_kept: Tensor
    pairs: slice
    """Rows whose sound and picture belong together."""
    contrast_rows: Tensor
    """Rows that contrast compares, each clip once; `contrast_groups` says which are as good as each other."""
    contrast_groups: Tensor | None = None
    faults: Mapping[str, str] = field(default_factory=dict)
    """What was wrong with files that were read for it, by path."""

    def to(self, device: torch.device) -> Self:
        """The same on a device."""
        if device.type == "cpu":
            return self
        arrays = {f.name: getattr(self, f.name) for f in fields(self)}
        moved: dict[str, Any] = {name: x.to(device) for name, x in arrays.items() if isinstance(x, Tensor)}
        index = (self.pairing.audio_index, self.pairing.video_index)
        return replace(self, **moved, pairing=Pairing(*(x.to(device) for x in index)))

    @property
    def whole_pairs(self) -> bool:
        """Whether row i reads sound i and picture i, and there are no others."""
        rows = torch.arange(len(self.row_kept))
        return all(torch.equal(x.cpu(), rows) for x in (self.pairing.audio_index, self.pairing.video_index))


def fusion_rows(
    num_audio: int, num_video: int, num_pairs: int, mixed_audio: Tensor, mixed_video: Tensor
) -> Pairing:
    """Rows of a batch of separate items: each sound alone, each picture alone, pairs, and pairs at random.

    The first `num_pairs` sounds and pictures are pairs; `mixed_audio` and `mixed_video` are the items of the
    last rows.
    """
    audio, video, pairs = (torch.arange(n) for n in (num_audio, num_video, num_pairs))
    absent = torch.full((max(num_audio, num_video),), -1)
    return Pairing(
        torch.cat([audio, absent[:num_video], pairs, mixed_audio]),
        torch.cat([absent[:num_audio], video, pairs, mixed_video]),
    )


def row_target(
    pairing: Pairing, audio_targets: Tensor, video_targets: Tensor, audio_kept: Tensor, video_kept: Tensor
) -> tuple[Tensor, Tensor]:
    """Mean of the targets of the kept items each row reads, and whether it reads any.

    The shapes are [rows, classes] and [rows].
    """
    audio_weighted, audio_weight = _weighted_targets(pairing.audio_index, audio_targets, audio_kept)
    video_weighted, video_weight = _weighted_targets(pairing.video_index, video_targets, video_kept)
    weight = audio_weight + video_weight
    return (audio_weighted + video_weighted) / weight.clamp(min=1)[:, None], (weight > 0).float()


def _weighted_targets(index: Tensor, targets: Tensor, kept: Tensor) -> tuple[Tensor, Tensor]:
    """Targets of the item each row reads times the item's weight, and that weight.

    The shapes are [rows, classes] and [rows].
    """
    # An absent item is a row of zeros after the last.
    weight = F.pad(kept, (0, 1))[index]
    return weight[:, None] * F.pad(targets, (0, 0, 0, 1))[index], weight
