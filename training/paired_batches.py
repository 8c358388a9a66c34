"""Batches of co-recorded clips: each joins its own sound and picture, and some are read by halves too.

A batch depends on the recipe's seed and its number alone, so that a stopped run goes on exactly, whatever
drew the
batches: this process or workers that draw ahead.
"""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import NamedTuple, Protocol

import torch
from torch import Tensor
from torch.utils.data import Dataset

from datasets.manifests import Item
from datasets.read_failure import nothing_decodes
from datasets.recordings import Recording, Recordings, RecordingWindow, cut_window, window_start
from media.spec import ClipSpec
from models.attention import Pairing

from .augment import augment_audio, augment_video_windows, mix_clips
from .batch import TrainingBatch, row_target
from .ranks import Ranks, share
from .recipe import Recipe


class DrawnClips(NamedTuple):
    """Windows of a batch, those with sound and picture first."""

    chosen: list[int]
    """Numbers of their items."""
    windows: list[RecordingWindow]
    faults: Mapping[str, str] = {}
    """What was wrong with files, by path."""


class ClipSource(Protocol):
    """Where windows come from."""

    @property
    def items(self) -> Sequence[Item]:
        """All that may be drawn, of which there is at least one."""
        ...

    def draw(self, chosen: list[int]) -> DrawnClips:
        """A window of each of these items, at places drawn from torch's generator."""
        ...


class RecordedClips:
    """Clips whose recordings are there as arrays.

    Raises:
        ValueError: there are none.
    """

    def __init__(self, items: Sequence[Item], recordings: Recordings, recipe: Recipe) -> None:
        self.items = [item for item in items if _has_material(recordings.by_path.get(item.path))]
        if not self.items:
            raise ValueError(
                f"nothing to train on: {nothing_decodes(items, recordings.failures)}"
                if recordings.failures or not items
                else f"none of {len(items)} clips decodes: {recordings.counts}"
            )
        self._recordings, self._recipe = recordings.by_path, recipe

    def draw(self, chosen: list[int]) -> DrawnClips:
        """See `ClipSource`."""
        chosen = sorted(chosen, key=lambda i: not _is_whole(self._recordings[self.items[i].path]))
        places = torch.rand(len(chosen)).tolist()
        return DrawnClips(
            chosen, [self._cut(self.items[i], place) for i, place in zip(chosen, places, strict=True)]
        )

    def _cut(self, item: Item, place: float) -> RecordingWindow:
        recording, spec = self._recordings[item.path], self._recipe.spec
        jitter = self._recipe.max_jitter_seconds
        start = window_start(item, spec, recording.seconds(spec), place=place, max_jitter_seconds=jitter)
        return cut_window(recording, start, spec)


class PairedBatches(Dataset[list[TrainingBatch]]):
    """Batch number i of a run, for i from 0 to `recipe.num_steps`, in `recipe.num_chunks` parts.

    Items are drawn without repetition until all were drawn, then again in another order.

    Raises:
        ValueError: a step's clips do not divide among the ranks.
    """

    def __init__(
        self,
        clips: ClipSource,
        targets: dict[str, int],
        recipe: Recipe,
        ranks: Ranks,
        *,
        mean: Tensor | None = None,
    ) -> None:
        self.clips, self.recipe, self.ranks, self.mean = clips, recipe, ranks, mean
        self.labels = label_vectors(clips.items, targets)

    def __len__(self) -> int:
        return self.recipe.num_steps

    def __getitem__(self, step: int) -> list[TrainingBatch]:
        own = share(self.chosen(step), self.ranks)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(_mixed(self.recipe.seed, step, self.ranks.rank))
            return [self._draw(own[i :: self.recipe.num_chunks]) for i in range(self.recipe.num_chunks)]

    def chosen(self, step: int) -> list[int]:
        """Items of this step's batch over all ranks."""
        count, total = self.recipe.num_clips, len(self.clips.items)
        places = range(step * count, (step + 1) * count)
        orders = {
            epoch: torch.randperm(
                total, generator=torch.Generator().manual_seed(_mixed(self.recipe.seed, epoch, -1))
            )
            for epoch in {place // total for place in places}
        }
        return [int(orders[place // total][place % total]) for place in places]

    def _draw(self, chosen: Sequence[int]) -> TrainingBatch:
        recipe = self.recipe
        drawn = self.clips.draw(list(chosen))
        num_whole = sum(window.is_whole for window in drawn.windows)
        audio, video = stack_windows(drawn.windows, recipe.spec)
        audio = augment_audio(audio, recipe.spec, recipe.augmentation)
        video = augment_video_windows(video, recipe.augmentation, mean=self.mean)
        targets = self.labels[drawn.chosen]
        if recipe.supervised:
            audio, video, targets = mix_clips(audio, video, targets, num_whole, recipe.augmentation)
        has_audio = torch.tensor([window.audio is not None for window in drawn.windows])
        has_video = torch.tensor([window.video is not None for window in drawn.windows])
        batch = self._rows(audio, video, targets[has_audio], targets[has_video], num_whole)
        return replace(batch, faults=dict(drawn.faults))

    def _rows(
        self, audio: Tensor, video: Tensor, audio_targets: Tensor, video_targets: Tensor, num_whole: int
    ) -> TrainingBatch:
        """A batch with fusion rows of three kinds.

        They are whole clips, clips that lack a modality, and some whole ones again by one modality alone.
        """
        pairs, audio_rows, video_rows = (
            torch.arange(num_whole),
            torch.arange(len(audio)),
            torch.arange(len(video)),
        )
        num_alone = round(num_whole * self.recipe.alone_share)
        alone_audio = torch.cat([audio_rows[num_whole:], torch.randperm(num_whole)[:num_alone]])
        alone_video = torch.cat([video_rows[num_whole:], torch.randperm(num_whole)[:num_alone]])
        pairing = Pairing(
            torch.cat([pairs, alone_audio, torch.full_like(alone_video, -1)]),
            torch.cat([pairs, torch.full_like(alone_audio, -1), alone_video]),
        )
        kept = torch.ones(len(audio)), torch.ones(len(video))
        row_targets, row_kept = row_target(pairing, audio_targets, video_targets, *kept)
        return TrainingBatch(
            audio=audio,
            video=video,
            pairing=pairing,
            audio_targets=audio_targets,
            video_targets=video_targets,
            row_targets=row_targets,
            audio_kept=kept[0],
            video_kept=kept[1],
            row_kept=row_kept,
            pairs=slice(0, num_whole),
            contrast_rows=torch.cat(
                [
                    pairs,
                    num_whole + torch.arange(len(audio) - num_whole),
                    num_whole + len(alone_audio) + torch.arange(len(video) - num_whole),
                ]
            ),
        )


def stack_windows(windows: Sequence[RecordingWindow], spec: ClipSpec) -> tuple[Tensor, Tensor]:
    """Sounds of the windows that have one, and pictures of those that have them."""
    audios = [window.audio for window in windows if window.audio is not None]
    videos = [window.video for window in windows if window.video is not None]
    return (
        torch.stack(audios) if audios else torch.zeros(0, *spec.audio_shape),
        torch.stack(videos) if videos else torch.zeros(0, *spec.video_shape, dtype=torch.uint8),
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
