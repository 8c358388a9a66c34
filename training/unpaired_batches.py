"""Batches of sounds and pictures that are files of their own: each item alone, pairs of one label, pairs at random."""

import torch
import torch.nn.functional as F
from torch import Tensor

from datasets.unpaired import BalancedSampler, UnpairedMaterial
from media.spec import ClipSpec
from models.attention import Pairing

from .augment import audio_batch, corrupt_audio, corrupt_video, mix_items, video_batch
from .batch import TrainingBatch, row_target
from .recipe import Recipe


class UnpairedBatches:
    """Composes batches of a recipe's shape from a split's material."""

    def __init__(
        self, material: UnpairedMaterial, recipe: Recipe, num_classes: int, generator: torch.Generator
    ) -> None:
        self.material, self.recipe, self.num_classes = material, recipe, num_classes
        self.spec: ClipSpec = recipe.spec
        self.sounds = BalancedSampler([s.target for s in material.sounds], generator)
        self.sights = BalancedSampler([s.target for s in material.sights], generator)
        double = sorted(set(self.sounds.labels) & set(self.sights.labels))
        self.doubles = BalancedSampler(double, generator) if double else None

    def draw(self) -> TrainingBatch:
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
        audio, video = audio_batch(sounds, self.spec, how), video_batch(sights, self.spec, how)
        audio, audio_targets = mix_items(audio, self._one_hot([s.target for s in sounds]), how, cut=False)
        video, video_targets = mix_items(video, self._one_hot([s.target for s in sights]), how, cut=True)
        audio_ruined = torch.rand(len(audio)) < how.ruin_probability
        video_ruined = torch.rand(len(video)) < how.ruin_probability
        pairing = self._pairing(num_pairs)
        audio_kept, video_kept = (~audio_ruined).float(), (~video_ruined).float()
        row_targets, row_kept = row_target(pairing, audio_targets, video_targets, audio_kept, video_kept)
        start = recipe.num_audio + recipe.num_video
        return TrainingBatch(
            audio=corrupt_audio(audio, audio_ruined),
            video=corrupt_video(video, video_ruined),
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
