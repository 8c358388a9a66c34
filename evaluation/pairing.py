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

PAIRS_PER_AUDIO = 4


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
    """Index pairs (audio, video) of items with the same label.

    Each audio item gets `PAIRS_PER_AUDIO` random video items of its label, or as many as there are.
    """
    random = np.random.default_rng(seed)
    videos: dict[str, list[int]] = {}
    for i, item in enumerate(items):
        if item.modality == "video":
            videos.setdefault(item.label, []).append(i)
    pairs = []
    for i, item in enumerate(items):
        if item.modality == "audio" and item.label in videos:
            candidates = videos[item.label]
            chosen = random.choice(candidates, size=min(PAIRS_PER_AUDIO, len(candidates)), replace=False)
            pairs += [(i, int(j)) for j in chosen]
    return pairs


def pair_clips(audio: Sequence[Clip], video: Sequence[Clip]) -> list[Clip]:
    """The audio item's windows, each with frames of the video item.

    The frames are those of the video item's window of the same number, or of its last window.
    """
    return [
        replace(window, video=frames.video, video_seconds=frames.video_seconds)
        for i, window in enumerate(audio)
        for frames in (video[min(i, len(video) - 1)],)
    ]
