"""Sounds and pictures that are files of their own, in memory: log-mel spectrograms and square frames.

Files are decoded once, by `media`, and kept on disk as one array file per manifest and `ClipSpec`. Pictures
keep all of what they show, squeezed into a square with their aspect remembered, so that random crops can be
taken anywhere.
"""

import hashlib
import os
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import UInt8
from torch import Tensor

from media.clip import read_frames, read_waveform
from media.log_mel import log_mel
from media.probe import probe
from media.progress import OnProgress, ignore_progress
from media.spec import ClipSpec

from .manifests import Item
from .read_failure import ReadFailure, nothing_decodes, read_failure

MIN_PICTURE_SIZE = 160  # pixels: room for crops above frames of 128
NUM_FILM_FRAMES = 8  # kept of a film, evenly spread


@dataclass(frozen=True, slots=True)
class UnpairedAudio:
    """A whole recording."""

    log_mel: Tensor
    """float32 [mel_frames, mel_bins]"""
    target: int


@dataclass(frozen=True, slots=True)
class UnpairedVideo:
    """A whole picture, or frames of a film."""

    frames: Tensor
    """uint8 [frames, 3, size, size], of `picture_size`"""
    aspect: float
    """Width by height of what was squeezed into the square."""
    target: int


@dataclass(frozen=True, slots=True)
class UnpairedMaterial:
    """What one split teaches."""

    audio: list[UnpairedAudio]
    video: list[UnpairedVideo]
    failures: dict[Path, ReadFailure]
    """Files that do not decode."""


def picture_size(spec: ClipSpec) -> int:
    """Side of the square that a picture is kept in: a quarter more than a frame, as room for crops."""
    return max(MIN_PICTURE_SIZE, spec.frame_size * 5 // 4)


def load_unpaired(
    items: Sequence[Item],
    spec: ClipSpec,
    targets: Mapping[str, int],
    cache_dir: Path,
    on_progress: OnProgress = ignore_progress,
    *,
    stage: str = "decode",
) -> UnpairedMaterial:
    """Decode the items, or read what an earlier run decoded; files that do not decode are passed over.

    Args:
        items: each with one label.
        spec: the model's numbers.
        targets: index of each label.
        cache_dir: where decoded arrays are kept.
        on_progress: told how many of how many files are done.
        stage: what to call that.

    Raises:
        ManifestError: an item has not exactly one label.
        ValueError: no file decodes.
    """
    key = hashlib.sha256(
        repr((spec.hash, picture_size(spec), NUM_FILM_FRAMES, [_identity(i) for i in items])).encode()
    )
    path = cache_dir / f"{key.hexdigest()[:16]}.pt"
    if not path.is_file():
        _decode_all(items, spec, path, lambda done: on_progress(stage, done, len(items)))
    stored = torch.load(path, weights_only=True)
    broken = {i: ReadFailure(*why) for i, why in stored.get("broken", {}).items()}
    good = [item for i, item in enumerate(items) if i not in broken]
    audio_items = [item for item in good if item.modality == "audio"]
    video_items = [item for item in good if item.modality != "audio"]
    # Targets come from the labels of today: which index a label has depends on the other splits too.
    audio = [
        UnpairedAudio(arrays[0], targets[item.label])
        for item, arrays in zip(audio_items, stored["sounds"], strict=True)
    ]
    video = [
        UnpairedVideo(arrays[0], arrays[1], targets[item.label])
        for item, arrays in zip(video_items, stored["sights"], strict=True)
    ]
    failures = {items[i].path: failure for i, failure in broken.items()}
    if not good:
        raise ValueError(nothing_decodes(items, failures))
    return UnpairedMaterial(audio, video, failures)


def _decode_all(items: Sequence[Item], spec: ClipSpec, path: Path, on_done: Callable[[int], None]) -> None:
    audio: list[tuple[Tensor]] = []
    video: list[tuple[Tensor, float]] = []
    broken: dict[int, tuple[str, str]] = {}
    pool = ThreadPoolExecutor(2)
    try:
        for i, found in enumerate(pool.map(lambda item: _decode(item, spec), items)):
            if isinstance(found, ReadFailure):
                broken[i] = (found.code, found.message)
            elif isinstance(found, Tensor):
                audio.append((found,))
            else:
                video.append(found)
            on_done(i + 1)
    finally:
        pool.shutdown(cancel_futures=True)  # else an interrupt would wait for all that is queued
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_suffix(f".{os.getpid()}.part")  # several runs may decode the same files at once
    torch.save({"sounds": audio, "sights": video, "broken": broken}, part)
    part.replace(path)


def _identity(item: Item) -> tuple[str, str, int]:
    return (str(item.path), item.label, item.path.stat().st_size)


def _decode(item: Item, spec: ClipSpec) -> Tensor | tuple[Tensor, float] | ReadFailure:
    """A log-mel spectrogram, or square frames and their aspect, or why there are none."""
    try:
        if item.modality == "audio":
            return torch.from_numpy(log_mel(read_waveform(item.path, spec), spec))
        return _square_frames(item.path, picture_size(spec))
    except Exception as error:  # whatever a decoder raises costs its file alone
        return read_failure(item.path, error)


def read_whole_frames(path: Path, size: int) -> tuple[UInt8[np.ndarray, "frames height width 3"], float]:
    """All of a picture, or of `NUM_FILM_FRAMES` spread over a film, and its width by its height.

    The shorter side becomes `size`.

    Raises:
        MediaError: there is no picture, or nothing of it decodes.
    """
    info = probe(path)
    width, height = info.width or 1, info.height or 1
    times = [0.0]
    if not info.is_still and info.duration_seconds:
        times = [(i + 0.5) * info.duration_seconds / NUM_FILM_FRAMES for i in range(NUM_FILM_FRAMES)]
    scale = size / min(width, height)
    whole = read_frames(path, times, height=round(height * scale), width=round(width * scale))
    return whole, width / height


def _square_frames(path: Path, size: int) -> tuple[Tensor, float]:
    whole, aspect = read_whole_frames(path, size)
    frames = torch.from_numpy(np.ascontiguousarray(whole)).permute(0, 3, 1, 2).float()
    square = torch.nn.functional.interpolate(frames, (size, size), mode="bilinear", antialias=True)
    return square.round().clamp(0, 255).to(torch.uint8), aspect
