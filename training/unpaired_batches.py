"""Batches of sounds and pictures that are files of their own.

A batch has each item alone, pairs of one label, and pairs at random.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from datasets.unpaired import UnpairedMaterial
from media.spec import ClipSpec
from models.attention import Pairing

from .augment import audio_batch, corrupt_audio, corrupt_video, mix_items, video_batch
from .balanced_sampler import BalancedSampler
from .batch import TrainingBatch, fusion_rows, row_target
from .recipe import Recipe


class UnpairedBatches:
    """Composes batches of a recipe's shape from a split's material."""

    def __init__(
        self, material: UnpairedMaterial, recipe: Recipe, num_classes: int, generator: torch.Generator
    ) -> None:
        self.material, self.recipe, self.num_classes = material, recipe, num_classes
        self.spec: ClipSpec = recipe.spec
        self.audio = BalancedSampler([x.target for x in material.audio], generator)
        self.video = BalancedSampler([x.target for x in material.video], generator)
        shared = sorted(set(self.audio.labels) & set(self.video.labels))
        self.shared = BalancedSampler(shared, generator)
        self.num_audio = recipe.num_audio if material.audio else 0
        self.num_video = recipe.num_video if material.video else 0
        self.num_pairs = recipe.num_pairs if shared else 0
        self.num_mixed_pairs = recipe.num_mixed_pairs if material.audio and material.video else 0

    def draw(self) -> TrainingBatch:
        """A batch of random items, augmented; of one modality alone, where the collection has no other."""
        options, num_pairs = self.recipe.augmentation, self.num_pairs
        labels = [self.shared.labels[i] for i in self.shared.draw(num_pairs)]
        audio_ids = [self.audio.draw_of(x) for x in labels] + self.audio.draw(self.num_audio - num_pairs)
        video_ids = [self.video.draw_of(x) for x in labels] + self.video.draw(self.num_video - num_pairs)
        audio_items = [self.material.audio[i] for i in audio_ids]
        video_items = [self.material.video[i] for i in video_ids]
        audio = audio_batch(audio_items, self.spec, options)
        video = video_batch(video_items, self.spec, options)
        audio, audio_targets = mix_items(
            audio, self._one_hot([x.target for x in audio_items]), options, cut=False
        )
        video, video_targets = mix_items(
            video, self._one_hot([x.target for x in video_items]), options, cut=True
        )
        audio_corrupted = torch.rand(len(audio)) < options.ruin_probability
        video_corrupted = torch.rand(len(video)) < options.ruin_probability
        pairing = self._pairing()
        audio_kept, video_kept = (~audio_corrupted).float(), (~video_corrupted).float()
        row_targets, row_kept = row_target(pairing, audio_targets, video_targets, audio_kept, video_kept)
        start = self.num_audio + self.num_video
        return TrainingBatch(
            audio=corrupt_audio(audio, audio_corrupted),
            video=corrupt_video(video, video_corrupted),
            pairing=pairing,
            audio_targets=audio_targets,
            video_targets=video_targets,
            row_targets=row_targets,
            audio_kept=audio_kept,
            video_kept=video_kept,
            row_kept=row_kept,
            pairs=slice(start, start + num_pairs),
            contrast_rows=torch.arange(start, start + num_pairs),
            contrast_groups=torch.tensor(labels, dtype=torch.long),
        )

    def _one_hot(self, targets: list[int]) -> Tensor:
        return F.one_hot(torch.tensor(targets, dtype=torch.long), self.num_classes).float()

    def _pairing(self) -> Pairing:
        mixed_audio = mixed_video = torch.arange(0)
        if self.num_mixed_pairs:
            mixed_audio = torch.randint(self.num_audio, (self.num_mixed_pairs,))
            mixed_video = torch.randint(self.num_video, (self.num_mixed_pairs,))
        return fusion_rows(self.num_audio, self.num_video, self.num_pairs, mixed_audio, mixed_video)
