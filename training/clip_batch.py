"""Batches of co-recorded clips: each joins its own sound and picture, and some are read by halves too.

A batch depends on the recipe's seed and its number alone, so that a stopped run goes on exactly, whatever drew the
batches: this process or workers that draw ahead.
"""

import hashlib
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.utils.data import Dataset

from models.attention import Pairing
from models.config import Centre

from .augment import augment_sounds, augment_windows, mix_clips
from .batch import Batch, row_target
from .distributed import Ranks, share
from .manifests import Item
from .recipe import Recipe
from .recordings import Recording, Recordings, cut_frames, cut_sound, mean_picture, window_start


class ClipBatches(Dataset[list[Batch]]):
    """Batch number i of a run, for i from 0 to `recipe.num_steps`, in `recipe.num_chunks` parts.

    Items are drawn without repetition until all were drawn, then again in another order.

    Raises:
        ValueError: there is nothing to draw from, or a step's clips do not divide among the ranks.
    """

    def __init__(
        self,
        items: Sequence[Item],
        recordings: Recordings,
        targets: dict[str, int],
        recipe: Recipe,
        ranks: Ranks,
    ) -> None:
        self.items = [item for item in items if _has_material(recordings.by_path.get(item.path))]
        if not self.items:
            raise ValueError(f"none of {len(items)} clips decodes: {recordings.counts}")
        self.recordings, self.recipe = recordings.by_path, recipe
        self.labels = label_vectors(self.items, targets)
        self.mean = mean_picture(recordings) if recipe.model.get("centre") == Centre.PICTURE else None
        self.ranks = ranks

    def __len__(self) -> int:
        return self.recipe.num_steps

    def __getitem__(self, step: int) -> list[Batch]:
        own = share(self.chosen(step), self.ranks)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(_mixed(self.recipe.seed, step, self.ranks.rank))
            return [self._draw(own[i :: self.recipe.num_chunks]) for i in range(self.recipe.num_chunks)]

    def chosen(self, step: int) -> list[int]:
        """Items of this step's batch over all ranks."""
        count, total = self.recipe.num_clips, len(self.items)
        places = range(step * count, (step + 1) * count)
        orders = {
            epoch: torch.randperm(total, generator=torch.Generator().manual_seed(_mixed(self.recipe.seed, epoch, -1)))
            for epoch in {place // total for place in places}
        }
        return [int(orders[place // total][place % total]) for place in places]

    def _draw(self, chosen: list[int]) -> Batch:
        recipe = self.recipe
        chosen = sorted(chosen, key=lambda i: not _is_whole(self.recordings[self.items[i].path]))  # whole ones first
        clips = [self.recordings[self.items[i].path] for i in chosen]
        places = torch.rand(len(chosen)).tolist()
        starts = [
            window_start(
                self.items[i], recipe.spec, clip.seconds(recipe.spec),
                place=place, max_jitter_seconds=recipe.max_jitter_seconds,
            )
            for i, clip, place in zip(chosen, clips, places, strict=True)
        ]
        num_whole = sum(map(_is_whole, clips))
        audio, video = stack_windows(clips, starts, recipe)
        audio = augment_sounds(audio, recipe.spec, recipe.augmentation)
        video = augment_windows(video, recipe.augmentation, mean=self.mean)
        targets = self.labels[chosen]
        if recipe.supervised:
            audio, video, targets = mix_clips(audio, video, targets, num_whole, recipe.augmentation)
        heard = torch.tensor([clip.log_mel is not None for clip in clips])
        seen = torch.tensor([clip.frames is not None for clip in clips])
        return self._rows(audio, video, targets[heard], targets[seen], num_whole)

    def _rows(self, audio: Tensor, video: Tensor, heard: Tensor, seen: Tensor, num_whole: int) -> Batch:
        """Fusion rows: whole clips, clips that lack a modality, and some whole ones again by sound and by sight alone."""
        pairs, sounds, sights = torch.arange(num_whole), torch.arange(len(audio)), torch.arange(len(video))
        num_alone = round(num_whole * self.recipe.alone_share)
        alone_audio = torch.cat([sounds[num_whole:], torch.randperm(num_whole)[:num_alone]])
        alone_video = torch.cat([sights[num_whole:], torch.randperm(num_whole)[:num_alone]])
        pairing = Pairing(
            torch.cat([pairs, alone_audio, torch.full_like(alone_video, -1)]),
            torch.cat([pairs, torch.full_like(alone_audio, -1), alone_video]),
        )
        kept = torch.ones(len(audio)), torch.ones(len(video))
        row_targets, row_kept = row_target(pairing, heard, seen, *kept)
        return Batch(
            audio=audio, video=video, pairing=pairing, audio_targets=heard, video_targets=seen, row_targets=row_targets,
            audio_kept=kept[0], video_kept=kept[1], row_kept=row_kept, pairs=slice(0, num_whole),
            contrast_rows=torch.cat([
                pairs,
                num_whole + torch.arange(len(audio) - num_whole),
                num_whole + len(alone_audio) + torch.arange(len(video) - num_whole),
            ]),
        )  # fmt: skip


def stack_windows(clips: Sequence[Recording], starts: Sequence[float], recipe: Recipe) -> tuple[Tensor, Tensor]:
    """Windows of the clips that have sound, and of those that have a picture."""
    spec = recipe.spec
    sounds = [cut_sound(c.log_mel, s, spec) for c, s in zip(clips, starts, strict=True) if c.log_mel is not None]
    sights = [cut_frames(c.frames, s, spec) for c, s in zip(clips, starts, strict=True) if c.frames is not None]
    return (
        torch.stack(sounds) if sounds else torch.zeros(0, *spec.audio_shape),
        torch.stack(sights) if sights else torch.zeros(0, *spec.video_shape, dtype=torch.uint8),
    )


def label_vectors(items: Sequence[Item], targets: dict[str, int]) -> Tensor:
    """Float [items, classes], 1 where the label holds; one column of zeros where there are no classes."""
    vectors = torch.zeros(len(items), max(1, len(targets)))
    for row, item in zip(vectors, items, strict=True):
        for label in item.labels if targets else ():
            row[targets[label]] = 1
    return vectors


def _has_material(recording: Recording | None) -> bool:
    return recording is not None and (recording.log_mel is not None or recording.frames is not None)


def _is_whole(recording: Recording) -> bool:
    return recording.log_mel is not None and recording.frames is not None


def _mixed(seed: int, number: int, stream: int) -> int:
    """A seed that differs for each number and stream of a run."""
    return int.from_bytes(hashlib.sha256(f"{seed} {number} {stream}".encode()).digest()[:7], "big")

