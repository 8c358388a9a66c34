"""Co-recorded clips in memory: whole recordings as arrays on one clock, and windows cut from them.

Each file is decoded once, by `media`, whatever number of items are spans of it, and kept on disk as one array
file per list of files and `ClipSpec`. Files that lack a modality or do not decode are counted, and the counts
are kept.
"""

import hashlib
import math
import os
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, UInt8
from torch import Tensor

from media.clip import read_frames, read_waveform
from media.log_mel import log_mel
from media.probe import probe
from media.progress import OnProgress, ignore_progress
from media.spec import ClipSpec

from .manifests import Item
from .read_failure import ReadFailure, read_failure

MAX_FRAME_SECONDS = 0.25  # frames are kept at least this densely, so that windows may start nearly anywhere


@dataclass(frozen=True, slots=True)
class Recording:
    """What there is of one file; a modality it lacks is None."""

    log_mel: Float[Tensor, "mel_frames mel_bins"] | None
    frames: UInt8[Tensor, "frames height width 3"] | None
    """Frame i is on display at (i + 0.5) frame intervals."""

    def seconds(self, spec: ClipSpec) -> float:
        """Length of the longer of sound and picture."""
        audio_seconds = 0 if self.log_mel is None else len(self.log_mel) * spec.hop_length / spec.sample_rate
        return max(audio_seconds, 0 if self.frames is None else len(self.frames) * frame_seconds(spec))


@dataclass(frozen=True, slots=True)
class RecordingWindow:
    """What a model reads of one clip; a modality that the clip lacks is None."""

    audio: Float[Tensor, "mel_frames mel_bins"] | None
    video: UInt8[Tensor, "frames height width 3"] | None

    @property
    def is_whole(self) -> bool:
        """Whether it has sound and picture."""
        return self.audio is not None and self.video is not None


@dataclass(frozen=True, slots=True)
class Recordings:
    """Decoded files by path, and how many of them were complete, mute, without picture, or broken by code."""

    by_path: dict[Path, Recording]
    counts: dict[str, int]
    failures: dict[Path, ReadFailure] = field(default_factory=dict)
    """Files that do not decode; of arrays that an earlier version kept, they are counted only."""


def frame_seconds(spec: ClipSpec) -> float:
    """Interval of the frames that are kept.

    It is the spec's own interval, or an odd part of it, so that middles stay middles.
    """
    own = spec.window_seconds / spec.num_video_frames
    return own / (math.ceil(own / MAX_FRAME_SECONDS) // 2 * 2 + 1)


def load_recordings(
    items: Sequence[Item],
    spec: ClipSpec,
    cache_dir: Path,
    on_progress: OnProgress = ignore_progress,
    *,
    stage: str = "decode",
) -> Recordings:
    """Decode the files of the items, or read what an earlier run decoded.

    Args:
        items: several may be spans of one file.
        spec: the model's numbers.
        cache_dir: where decoded arrays are kept.
        on_progress: told how many of how many files are done.
        stage: what to call that.
    """
    paths = list(dict.fromkeys((item.path, item.modality) for item in items))
    identities = [(str(path), modality, path.stat().st_size) for path, modality in paths]
    key = hashlib.sha256(repr((_decoding_numbers(spec), identities)).encode()).hexdigest()
    file = cache_dir / f"{key[:16]}.clips.pt"
    if not file.is_file():
        _decode_all(paths, spec, file, lambda done: on_progress(stage, done, len(paths)))
    stored = torch.load(file, weights_only=True, mmap=True)
    by_path = {Path(name): Recording(*arrays) for name, arrays in stored["recordings"].items()}
    failures = {Path(name): ReadFailure(*why) for name, why in stored.get("broken", {}).items()}
    return Recordings(by_path, stored["counts"], failures)


def _decoding_numbers(spec: ClipSpec) -> dict[str, object]:
    """Those of the spec that decoding reads; means and deviations are the model's."""
    return {name: value for name, value in spec.to_dict().items() if not name.endswith(("_mean", "_std"))}


def _decode_all(
    paths: Sequence[tuple[Path, str]], spec: ClipSpec, file: Path, on_done: Callable[[int], None]
) -> None:
    found: dict[str, tuple[Tensor | None, Tensor | None]] = {}
    broken: dict[str, tuple[str, str]] = {}
    counts: Counter[str] = Counter()
    pool = ThreadPoolExecutor(2)
    try:
        results = pool.map(lambda job: _decode(job[0], job[1], spec), paths)
        for (path, _), result in zip(paths, results, strict=True):
            if isinstance(result, Recording):
                found[str(path)] = (result.log_mel, result.frames)
            else:
                broken[str(path)] = (result.code, result.message)
            counts[_kind(result)] += 1
            on_done(sum(counts.values()))
    finally:
        pool.shutdown(cancel_futures=True)  # else an interrupt would wait for all that is queued
    file.parent.mkdir(parents=True, exist_ok=True)
    part = file.with_suffix(f".{os.getpid()}.part")  # several runs may decode the same files at once
    torch.save({"recordings": found, "counts": dict(counts), "broken": broken}, part)
    part.replace(file)


def _kind(result: Recording | ReadFailure) -> str:
    if isinstance(result, ReadFailure):
        return f"broken: {result.code}"
    if result.log_mel is None:
        return "picture only"
    return "sound only" if result.frames is None else "sound and picture"


def _decode(path: Path, modality: str, spec: ClipSpec) -> Recording | ReadFailure:
    try:
        info = probe(path)
        sound = frames = None
        if modality != "video" and info.has_audio:
            sound = torch.from_numpy(log_mel(read_waveform(path, spec), spec))
        if modality != "audio" and info.has_video:
            interval = frame_seconds(spec)
            count = (
                1
                if info.is_still or not info.duration_seconds
                else max(1, round(info.duration_seconds / interval))
            )
            times, size = [(i + 0.5) * interval for i in range(count)], spec.frame_size
            read = read_frames(path, times, height=size, width=size, crop_fraction=spec.crop_fraction)
            frames = torch.from_numpy(np.ascontiguousarray(read))
    except Exception as error:  # whatever a decoder raises costs its file alone
        return read_failure(path, error)
    return Recording(sound, frames)


def mean_picture(recordings: Recordings) -> Float[Tensor, "height width 3"]:
    """Mean over all frames of all recordings, 0 to 255 at every pixel; each recording counts the same.

    Raises:
        ValueError: there is no picture.
    """
    means = [r.frames.float().mean(0) for r in recordings.by_path.values() if r.frames is not None]
    if not means:
        raise ValueError(f"no recording has a picture, so there is no mean picture: {recordings.counts}")
    return torch.stack(means).mean(0)


def window_start(
    item: Item, spec: ClipSpec, file_seconds: float, *, place: float = 0.5, max_jitter_seconds: float = 0.0
) -> float:
    """Second where a window of the item starts.

    As `place` goes from 0 to 1, the window moves from the start of a long item to its end. Of a span shorter
    than the window it holds the middle, moved by up to `max_jitter_seconds` either way; a file shorter than
    it is read from its start.
    """
    end = item.end_seconds
    if end is None:
        end = max(item.start_seconds + spec.window_seconds, file_seconds)
    room = end - item.start_seconds - spec.window_seconds
    if room >= 0:
        return item.start_seconds + room * place
    return max(0.0, item.start_seconds + room / 2 + (2 * place - 1) * max_jitter_seconds)


def cut_window(recording: Recording, start_seconds: float, spec: ClipSpec) -> RecordingWindow:
    """A window of what a recording has."""
    return RecordingWindow(
        None if recording.log_mel is None else cut_log_mel(recording.log_mel, start_seconds, spec),
        None if recording.frames is None else cut_frames(recording.frames, start_seconds, spec),
    )


def cut_log_mel(
    log_mel: Float[Tensor, "mel_frames mel_bins"], start_seconds: float, spec: ClipSpec
) -> Float[Tensor, "window_mel_frames mel_bins"]:
    """A window's mel frames; after the end there is silence."""
    start = round(start_seconds * spec.sample_rate / spec.hop_length)
    part = log_mel[start : start + spec.num_mel_frames]
    return F.pad(part, (0, 0, 0, spec.num_mel_frames - len(part)), value=math.log(spec.log_offset))


def cut_frames(
    frames: UInt8[Tensor, "all_frames height width 3"], start_seconds: float, spec: ClipSpec
) -> UInt8[Tensor, "frames height width 3"]:
    """A window's frames, at the offsets of the spec; after the end the last one stays."""
    interval = frame_seconds(spec)
    times = torch.tensor(spec.frame_offsets_seconds) + start_seconds
    return frames[(times / interval - 0.5).round().long().clamp(0, len(frames) - 1)]
