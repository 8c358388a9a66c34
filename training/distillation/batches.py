"""Batches of a distillation: each sound and each picture alone, pairs of one thing, and pairs at random."""

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from datasets.vocabulary import Vocabulary
from training.augment import hide_stripes
from training.batch import TrainingBatch, fusion_rows
from training.recipe import Recipe

from .targets import Bridges, concepts, fusion_targets


@dataclass(frozen=True, slots=True)
class TaughtClips:
    """Windows and pictures of a split, and what they teach."""

    log_mel: np.ndarray
    """float16 [windows, mel_frames, mel_bins]"""
    audio_targets: Tensor
    """float [windows, labels]"""
    frames: np.ndarray
    """uint8 [pictures, size, size, 3]"""
    video_targets: Tensor
    """float [pictures, labels]"""
    picture_source: Tensor
    """int64 [pictures]: the item that each is of."""


class DistillationBatches:
    """Composes batches of a recipe's shape."""

    def __init__(
        self, clips: TaughtClips, recipe: Recipe, vocabulary: Vocabulary, generator: torch.Generator
    ) -> None:
        assert recipe.distillation is not None
        self.clips, self.recipe, self.how = clips, recipe, recipe.distillation
        self.generator, self.bridges = generator, Bridges(vocabulary)
        of_label = concepts(vocabulary)
        sure = self.how.sure_probability
        audio, video = (_by_concept(x, of_label, sure) for x in (clips.audio_targets, clips.video_targets))
        self.shared = sorted(audio.keys() & video.keys())
        self._audio_of, self._video_of = audio, video
        self._crops = _groups(clips.picture_source)
        self.num_pairs = recipe.num_pairs if self.shared else 0
        self._floor = math.log(recipe.spec.log_offset)

    def draw(self) -> TrainingBatch:
        """A batch of random clips."""
        recipe, num_pairs = self.recipe, self.num_pairs
        chosen = [self.shared[i] for i in self._integers(len(self.shared), num_pairs)] if num_pairs else []
        audio_ids = [self._one_of(self._audio_of[x]) for x in chosen]
        video_ids = [self._one_of(self._video_of[x]) for x in chosen]
        audio_ids += self._integers(len(self.clips.log_mel), recipe.num_audio - num_pairs)
        video_ids += self._integers(len(self.clips.frames), recipe.num_video - num_pairs)

        audio = torch.from_numpy(self.clips.log_mel[audio_ids].astype(np.float32))
        audio_targets = self.clips.audio_targets[audio_ids]
        video, video_targets = self._videos(video_ids)
        audio_corrupted, video_corrupted = (
            torch.rand(len(x), generator=self.generator) < recipe.augmentation.ruin_probability
            for x in (audio, video)
        )
        audio_heard = torch.where(audio_corrupted[:, None], 0, audio_targets)
        video_seen = torch.where(video_corrupted[:, None], 0, video_targets)
        mixed_audio, mixed_video = (
            torch.randint(n, (recipe.num_mixed_pairs,), generator=self.generator)
            for n in (recipe.num_audio, recipe.num_video)
        )
        pairing = fusion_rows(recipe.num_audio, recipe.num_video, num_pairs, mixed_audio, mixed_video)
        start = recipe.num_audio + recipe.num_video
        row_targets = fusion_targets(pairing, audio_heard, video_seen, self.bridges)
        return TrainingBatch(
            audio=_silenced(hide_stripes(audio, recipe.augmentation), audio_corrupted, self._floor),
            video=_emptied(video, video_corrupted),
            pairing=pairing,
            audio_targets=audio_heard,
            video_targets=video_seen,
            row_targets=row_targets,
            audio_kept=torch.ones(len(audio)),
            video_kept=torch.ones(len(video)),
            row_kept=torch.ones(len(row_targets)),
            pairs=slice(start, start + num_pairs),
            contrast_rows=torch.arange(start, start + num_pairs),
            contrast_groups=torch.tensor(chosen, dtype=torch.long),
        )

    def _videos(self, ids: list[int]) -> tuple[Tensor, Tensor]:
        """Frames and targets of clips: a still, or several crops of one picture."""
        num_frames, frames, targets = self.recipe.spec.num_video_frames, [], []
        for i in ids:
            crops = [i] * num_frames
            if self._probability() < self.how.other_crop_probability:
                others = self._crops[int(self.clips.picture_source[i])]
                crops = [i, *(self._one_of(others) for _ in range(num_frames - 1))]
            frames.append(self.clips.frames[crops])
            targets.append(self.clips.video_targets[crops].mean(0))
        return torch.from_numpy(np.stack(frames)).float(), torch.stack(targets)

    def _integers(self, high: int, num: int) -> list[int]:
        return torch.randint(high, (num,), generator=self.generator).tolist()

    def _one_of(self, ids: list[int]) -> int:
        return ids[self._integers(len(ids), 1)[0]]

    def _probability(self) -> float:
        return float(torch.rand((), generator=self.generator))


def _silenced(log_mel: Tensor, chosen: Tensor, floor: float) -> Tensor:
    """Spectrograms of which the chosen, bool [batch], are those of silence."""
    return torch.where(chosen[:, None, None], floor, log_mel)


def _emptied(video: Tensor, chosen: Tensor) -> Tensor:
    """Clips of which the chosen, bool [batch], show noise or one colour, by turns."""
    flat = torch.rand(len(video), 1, 1, 1, 3) * 255
    is_flat = torch.rand(len(video), 1, 1, 1, 1) < 0.5
    empty = torch.where(is_flat, flat, torch.rand_like(video) * 255)
    return torch.where(chosen.view(-1, 1, 1, 1, 1), empty, video)


def _by_concept(targets: Tensor, of_label: dict[int, int], sure: float) -> dict[int, list[int]]:
    """Clips by the concept of a label that they are sure to show."""
    found: dict[int, list[int]] = {}
    for clip, label in (targets >= sure).nonzero().tolist():
        if label in of_label and clip not in found.setdefault(of_label[label], []):
            found[of_label[label]].append(clip)
    return found


def _groups(source: Tensor) -> dict[int, list[int]]:
    found: dict[int, list[int]] = {}
    for i, x in enumerate(source.tolist()):
        found.setdefault(x, []).append(i)
    return found
