"""Windows of an unpaired collection, and pairs made of them.

Audio and video of a pair are files of one label, put together at random with a fixed seed, since the
collection is not co-recorded.
"""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from datasets.manifests import Item
from datasets.read_failure import ReadFailure, read_failure
from media.clip import Clip, read_clips
from media.spec import ClipSpec

PAIRS_PER_SOUND = 4


def read_windows(items: Sequence[Item], spec: ClipSpec) -> list[list[Clip]]:
    """All windows of each item.

    Raises:
        MediaError: a file does not decode.
    """
    return [
        list(read_clips(item.path, spec, audio=item.modality == "audio", video=item.modality == "video"))
        for item in items
    ]


def read_windows_where_possible(
    items: Sequence[Item], spec: ClipSpec
) -> tuple[list[Item], list[list[Clip]], dict[Path, ReadFailure]]:
    """The items that decode, all windows of each, and why the other files do not decode."""
    good: list[Item] = []
    windows: list[list[Clip]] = []
    failures: dict[Path, ReadFailure] = {}
    for item in items:
        try:
            windows += read_windows([item], spec)
            good.append(item)
        except Exception as error:  # whatever a decoder raises costs its file alone
            failures[item.path] = read_failure(item.path, error)
    return good, windows, failures


def make_pairs(items: Sequence[Item], *, seed: int) -> list[tuple[int, int]]:
    """Indices (sound, sight): each sound with `PAIRS_PER_SOUND` random sights of its label, if it has any."""
    random = np.random.default_rng(seed)
    sights: dict[str, list[int]] = {}
    for i, item in enumerate(items):
        if item.modality == "video":
            sights.setdefault(item.label, []).append(i)
    pairs = []
    for i, item in enumerate(items):
        if item.modality == "audio" and item.label in sights:
            pool_ = sights[item.label]
            chosen = random.choice(pool_, size=min(PAIRS_PER_SOUND, len(pool_)), replace=False)
            pairs += [(i, int(j)) for j in chosen]
    return pairs


def pair_clips(sound: Sequence[Clip], sight: Sequence[Clip]) -> list[Clip]:
    """The sound's windows, each with the picture of the sight's window of the same number, or of its last."""
    return [
        replace(window, video=picture.video, video_seconds=picture.video_seconds)
        for i, window in enumerate(sound)
        for picture in (sight[min(i, len(sight) - 1)],)
    ]
