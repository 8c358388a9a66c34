"""Clips that are decoded as they are drawn, from the bytes in shards: for sets that fit no disk as arrays.

A window is read by `media` as a server reads it, and forgotten. What is broken shows only then: its place in
the batch is taken by the next item that decodes, which is a function of the shards alone, so a batch still
depends on its number.
"""

import gc
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import fields

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from datasets.manifests import Item
from datasets.read_failure import read_failure
from datasets.recordings import RecordingWindow, window_start
from datasets.shard_index import ShardError
from datasets.shard_reader import ShardReader
from media.clip import read_clips
from media.container import MediaLimits
from media.probe import probe
from media.time_range import TimeRange
from models.zorro import ZorroModel

from .paired_batches import DrawnClips, label_vectors, stack_windows
from .recipe import Recipe
from .validation import MAX_VALIDATION_BATCH, WindowOutputs, numbers_with, score_outputs, window_outputs

SHARD_CLIP_LIMITS = MediaLimits(max_threads=1)  # there are loader workers beside each other
MAX_IN_A_ROW = 100  # broken files; more are no accident
MUTE, BLIND = "mute", "no picture"


def decode_window(
    content: bytes, item: Item, recipe: Recipe, *, place: float = 0.5, jitter: float = 0.0
) -> RecordingWindow:
    """A window of an item, of what it names and the file has.

    With neither sound nor picture if there is nothing.

    Args:
        content: the whole file.
        item: what of it is wanted.
        recipe: of which the `ClipSpec` is read.
        place: see `window_start`.
        jitter: most seconds by which a window moves around a span shorter than it.

    Raises:
        MediaError: it does not decode.
    """
    spec, info = recipe.spec, probe(content, limits=SHARD_CLIP_LIMITS)
    audio, video = item.modality != "video" and info.has_audio, item.modality != "audio" and info.has_video
    if not (audio or video):
        return RecordingWindow(None, None)
    start = window_start(item, spec, info.duration_seconds or 0.0, place=place, max_jitter_seconds=jitter)
    time_range, limits = TimeRange(start_seconds=start), SHARD_CLIP_LIMITS
    reader = read_clips(content, spec, audio=audio, video=video, time_range=time_range, limits=limits)
    clip = next(iter(reader))
    return RecordingWindow(
        *(None if x is None else torch.from_numpy(np.ascontiguousarray(x)) for x in (clip.audio, clip.video))
    )


class ShardClips:
    """Clips of one split of a folder of shards, decoded when drawn.

    Raises:
        ValueError: there are none; or, at a draw, a hundred in a row do not decode.
    """

    def __init__(self, stored: ShardReader, items: Sequence[Item], recipe: Recipe) -> None:
        if not items:
            raise ValueError(
                f"{stored.folder} has nothing to draw from; there must be shards of the splits train and val"
            )
        self.items, self.recipe, self._stored = items, recipe, stored

    def draw(self, chosen: list[int]) -> DrawnClips:
        """See `paired_batches.Clips`."""
        faults: dict[str, str] = {}
        found = [
            self._next_from(i, place, faults)
            for i, place in zip(chosen, torch.rand(len(chosen)).tolist(), strict=True)
        ]
        found.sort(key=lambda pair: not pair[1].is_whole)
        return DrawnClips([i for i, _ in found], [window for _, window in found], faults)

    def read(
        self, number: int, faults: dict[str, str], *, place: float = 0.5, jitter: float = 0.0
    ) -> RecordingWindow | None:
        """A window of item `number`, or None if there is nothing.

        What is wrong with its file is put into `faults`.
        """
        item = self.items[number]
        try:
            window = decode_window(self._stored.read(item), item, self.recipe, place=place, jitter=jitter)
        except ShardError:
            raise
        except Exception as error:  # whatever a decoder raises costs its file alone
            faults[str(item.path)] = f"broken: {read_failure(item.path, error).code}"
            return None
        lacks = [MUTE] if item.modality != "video" and window.audio is None else []
        lacks += [BLIND] if item.modality != "audio" and window.video is None else []
        if lacks:
            faults[str(item.path)] = ", ".join(lacks)
        return None if window.audio is None and window.video is None else window

    def _next_from(self, number: int, place: float, faults: dict[str, str]) -> tuple[int, RecordingWindow]:
        for i in range(number, number + min(MAX_IN_A_ROW, len(self.items))):
            at = i % len(self.items)
            window = self.read(at, faults, place=place, jitter=self.recipe.max_jitter_seconds)
            if window is not None:
                return at, window
        raise ValueError(
            f"none of {len(faults)} files in a row decodes: {_counted(faults)}; run `zorro data check` on "
            "them"
        )


class ShardValidationTable:
    """One window of each clip of a split, decoded anew each time that a model is asked.

    See `ValidationTable`.

    Raises:
        ValueError: there are no clips; or, when a model is asked, none decodes.
    """

    def __init__(self, clips: ShardClips, targets: dict[str, int]) -> None:
        self.clips, self.labels = clips, label_vectors(clips.items, targets)
        self.faults: dict[str, str] = {}
        """What is wrong with files, by path, as far as they were read."""

    def outputs(self, model: ZorroModel) -> dict[str, WindowOutputs]:
        """See `ValidationTable.answers`."""
        # A decoder in a cycle of garbage must go before workers are forked; see `PairedTask.batches`.
        gc.collect()
        parts: dict[str, list[WindowOutputs]] = {}
        for *arrays, faults in DataLoader(
            _Parts(self.clips), batch_size=None, num_workers=self.clips.recipe.num_workers
        ):
            self.faults |= faults
            for name, answer in window_outputs(model, *arrays).items():
                parts.setdefault(name, []).append(answer)
        if not parts:
            raise ValueError(
                f"none of {len(self.clips.items)} clips to validate by decodes: {_counted(self.faults)}"
            )
        return {name: _joined(found) for name, found in parts.items()}

    def scores(self, model: ZorroModel) -> dict[str, float]:
        """See `ValidationTable.scores`."""
        return score_outputs(self.outputs(model), self.labels, self.clips.recipe)


def _joined(parts: Sequence[WindowOutputs]) -> WindowOutputs:
    return WindowOutputs(
        *(np.concatenate([getattr(part, x.name) for part in parts]) for x in fields(WindowOutputs))
    )


def _counted(faults: Mapping[str, str]) -> dict[str, int]:
    return dict(Counter(faults.values()))


class _Parts(Dataset[tuple[Tensor, Tensor, Tensor, Tensor, dict[str, str]]]):
    """A split's clips, a batch's worth at a time: what `window_outputs` takes, and what was wrong."""

    def __init__(self, clips: ShardClips) -> None:
        self._clips = clips

    def __len__(self) -> int:
        return -(-len(self._clips.items) // MAX_VALIDATION_BATCH)

    def __getitem__(self, part: int) -> tuple[Tensor, Tensor, Tensor, Tensor, dict[str, str]]:
        faults: dict[str, str] = {}
        numbers = range(
            part * MAX_VALIDATION_BATCH, min((part + 1) * MAX_VALIDATION_BATCH, len(self._clips.items))
        )
        windows = [self._clips.read(number, faults) or RecordingWindow(None, None) for number in numbers]
        audio_clips, video_clips = numbers_with(windows)
        audio, video = stack_windows(windows, self._clips.recipe.spec)
        return audio_clips + numbers.start, audio, video_clips + numbers.start, video, faults
