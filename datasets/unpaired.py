"""Training material in memory: log-mel spectrograms of whole recordings, whole pictures, and a balanced sampler.

Files are decoded once, by `media`, and kept on disk as one array file per manifest and `ClipSpec`. Pictures
keep all of what they show, squeezed into a square with their aspect remembered, so that random crops can be
taken anywhere.
"""

import hashlib
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from media.clip import read_frames, read_waveform
from media.errors import MediaError
from media.log_mel import log_mel
from media.probe import probe
from media.spec import ClipSpec

from .manifests import Item

PICTURE_SIZE = 160  # pixels: room for crops above the model's frame size
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
    """uint8 [frames, 3, PICTURE_SIZE, PICTURE_SIZE]"""
    aspect: float
    """Width by height of what was squeezed into the square."""
    target: int


@dataclass(frozen=True, slots=True)
class UnpairedMaterial:
    """What one split teaches."""

    sounds: list[UnpairedAudio]
    sights: list[UnpairedVideo]


def load_unpaired(
    items: list[Item],
    spec: ClipSpec,
    targets: dict[str, int],
    cache_dir: Path,
    on_progress: Callable[[int, int], None],
) -> UnpairedMaterial:
    """Decode the items, or read what an earlier run decoded.

    Raises:
        MediaError: a file does not decode; the message names it.
    """
    key = hashlib.sha256(
        repr((spec.hash, PICTURE_SIZE, NUM_FILM_FRAMES, [_stamp(i) for i in items])).encode()
    )
    path = cache_dir / f"{key.hexdigest()[:16]}.pt"
    if path.is_file():
        stored = torch.load(path, weights_only=True)
        return UnpairedMaterial(
            [UnpairedAudio(*s) for s in stored["sounds"]], [UnpairedVideo(*s) for s in stored["sights"]]
        )
    decoded: list[UnpairedAudio | UnpairedVideo] = []
    with ThreadPoolExecutor(2) as pool:
        for done in pool.map(lambda item: _decode(item, spec, targets[item.label]), items):
            decoded.append(done)
            on_progress(len(decoded), len(items))
    sounds = [x for x in decoded if isinstance(x, UnpairedAudio)]
    sights = [x for x in decoded if isinstance(x, UnpairedVideo)]
    cache_dir.mkdir(parents=True, exist_ok=True)
    part = path.with_suffix(".part")
    torch.save(
        {
            "sounds": [(s.log_mel, s.target) for s in sounds],
            "sights": [(s.frames, s.aspect, s.target) for s in sights],
        },
        part,
    )
    part.replace(path)
    return UnpairedMaterial(sounds, sights)


def _stamp(item: Item) -> tuple[str, str, int]:
    return (str(item.path), item.label, item.path.stat().st_size)


def _decode(item: Item, spec: ClipSpec, target: int) -> UnpairedAudio | UnpairedVideo:
    try:
        if item.modality == "audio":
            return UnpairedAudio(torch.from_numpy(log_mel(read_waveform(item.path, spec), spec)), target)
        info = probe(item.path)
        width, height = info.width or 1, info.height or 1
        times = [0.0]
        if not info.is_still and info.duration_seconds:
            times = [(i + 0.5) * info.duration_seconds / NUM_FILM_FRAMES for i in range(NUM_FILM_FRAMES)]
        scale = PICTURE_SIZE / min(width, height)
        whole = read_frames(item.path, times, height=round(height * scale), width=round(width * scale))
    except MediaError as error:
        raise type(error)(f"{item.path}: {error}") from error
    frames = torch.from_numpy(np.ascontiguousarray(whole)).permute(0, 3, 1, 2).float()
    square = torch.nn.functional.interpolate(
        frames, (PICTURE_SIZE, PICTURE_SIZE), mode="bilinear", antialias=True
    )
    return UnpairedVideo(square.round().clamp(0, 255).to(torch.uint8), width / height, target)


class BalancedSampler:
    """Draws items with every label equally likely; all randomness is from one generator, whose state can be kept."""

    def __init__(self, targets: Iterable[int], generator: torch.Generator) -> None:
        self.generator = generator
        self.items_of: dict[int, list[int]] = {}
        for i, target in enumerate(targets):
            self.items_of.setdefault(target, []).append(i)
        self.labels = sorted(self.items_of)

    def draw(self, count: int) -> list[int]:
        """Indices of `count` items: labels without repetition as far as they go, items at random."""
        labels: list[int] = []
        while len(labels) < count:
            labels += [self.labels[i] for i in torch.randperm(len(self.labels), generator=self.generator)]
        return [self.draw_of(label) for label in labels[:count]]

    def draw_of(self, label: int) -> int:
        """Index of a random item of this label."""
        items = self.items_of[label]
        return items[int(torch.randint(len(items), (), generator=self.generator))]
