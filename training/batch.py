"""One training step's material: audio items, video items, and the fusion rows over them.

Rows are a patchwork: each item alone, pairs of one label, and pairs at random. A row's target is the mean of
    the targets of what it reads, so that fusion answers all labels, whatever is missing, and reports both of
    a contradiction.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Self

import torch
import torch.nn.functional as F
from torch import Tensor

from datasets.unpaired import BalancedSampler, Material
from media.spec import ClipSpec
from models.attention import Pairing

from .augment import mix, ruin_sights, ruin_sounds, sight_batch, sound_batch
from .recipe import Recipe


@dataclass(frozen=True, slots=True)
class Batch:
    """Arrays of one step."""

    audio: Tensor
    video: Tensor
    pairing: Pairing
    audio_targets: Tensor
    video_targets: Tensor
    row_targets: Tensor
    audio_kept: Tensor
    """float [items]: 0 where an item was ruined and teaches its stream nothing."""
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
        moved = {f.name: x.to(device) for f in fields(self) if isinstance(x := getattr(self, f.name), Tensor)}
        index = (self.pairing.audio_index, self.pairing.video_index)
        return replace(self, **moved, pairing=Pairing(*(x.to(device) for x in index)))

    @property
    def whole_pairs(self) -> bool:
        """Whether row i reads sound i and picture i, and there are no others."""
        rows = torch.arange(len(self.row_kept))
        return all(torch.equal(x.cpu(), rows) for x in (self.pairing.audio_index, self.pairing.video_index))


class BatchMaker:
    """Composes batches of a recipe's shape from a split's material."""

    def __init__(
        self, material: Material, recipe: Recipe, num_classes: int, generator: torch.Generator
    ) -> None:
        self.material, self.recipe, self.num_classes = material, recipe, num_classes
        self.spec: ClipSpec = recipe.spec
        self.sounds = BalancedSampler([s.target for s in material.sounds], generator)
        self.sights = BalancedSampler([s.target for s in material.sights], generator)
        double = sorted(set(self.sounds.labels) & set(self.sights.labels))
        self.doubles = BalancedSampler(double, generator) if double else None

    def draw(self) -> Batch:
        """A batch of random items, augmented."""
        recipe, how = self.recipe, self.recipe.augmentation
        num_pairs = recipe.num_pairs if self.doubles else 0
        labels = [self.doubles.labels[i] for i in self.doubles.draw(num_pairs)] if self.doubles else []
        sound_ids = [self.sounds.draw_of(x) for x in labels] + self.sounds.draw(recipe.num_audio - num_pairs)
        sight_ids = [self.sights.draw_of(x) for x in labels] + self.sights.draw(recipe.num_video - num_pairs)
        sounds, sights = (
            [self.material.sounds[i] for i in sound_ids],
            [self.material.sights[i] for i in sight_ids],
        )
        audio, video = sound_batch(sounds, self.spec, how), sight_batch(sights, self.spec, how)
        audio, audio_targets = mix(audio, self._one_hot([s.target for s in sounds]), how, cut=False)
        video, video_targets = mix(video, self._one_hot([s.target for s in sights]), how, cut=True)
        audio_ruined = torch.rand(len(audio)) < how.ruin_probability
        video_ruined = torch.rand(len(video)) < how.ruin_probability
        pairing = self._pairing(num_pairs)
        audio_kept, video_kept = (~audio_ruined).float(), (~video_ruined).float()
        row_targets, row_kept = row_target(pairing, audio_targets, video_targets, audio_kept, video_kept)
        start = recipe.num_audio + recipe.num_video
        return Batch(
            audio=ruin_sounds(audio, audio_ruined),
            video=ruin_sights(video, video_ruined),
            pairing=pairing,
            audio_targets=audio_targets,
            video_targets=video_targets,
            row_targets=row_targets,
            audio_kept=audio_kept,
            video_kept=video_kept,
            row_kept=row_kept,
            pairs=slice(start, start + num_pairs),
            contrast_rows=torch.arange(start, start + num_pairs),
            contrast_groups=torch.tensor(labels),
        )

    def _one_hot(self, targets: list[int]) -> Tensor:
        return F.one_hot(torch.tensor(targets), self.num_classes).float()

    def _pairing(self, num_pairs: int) -> Pairing:
        """Rows: each sound alone, each sight alone, pairs of one label, pairs at random."""
        recipe = self.recipe
        sounds, sights, pairs = (torch.arange(n) for n in (recipe.num_audio, recipe.num_video, num_pairs))
        absent = torch.full((max(len(sounds), len(sights)),), -1)
        mixed_sounds = torch.randint(len(sounds), (recipe.num_mixed_pairs,))
        mixed_sights = torch.randint(len(sights), (recipe.num_mixed_pairs,))
        return Pairing(
            torch.cat([sounds, absent[: len(sights)], pairs, mixed_sounds]),
            torch.cat([absent[: len(sounds)], sights, pairs, mixed_sights]),
        )


def row_target(
    pairing: Pairing, audio_targets: Tensor, video_targets: Tensor, audio_kept: Tensor, video_kept: Tensor
) -> tuple[Tensor, Tensor]:
    """Mean of the targets of the kept items each row reads, [rows, classes], and whether it reads any, [rows]."""
    weighted, weight = 0, 0
    for index, targets, kept in (
        (pairing.audio_index, audio_targets, audio_kept),
        (pairing.video_index, video_targets, video_kept),
    ):
        # An absent item is a row of zeros after the last.
        share = F.pad(kept, (0, 1))[index]
        weighted = weighted + share[:, None] * F.pad(targets, (0, 0, 0, 1))[index]
        weight = weight + share
    return weighted / weight.clamp(min=1)[:, None], (weight > 0).float()
