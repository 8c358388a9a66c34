"""Read items from their files as a server reads them: the views of each, or why there are none."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float32

from datasets.manifests import Item
from media.clip import read_waveform
from media.errors import MediaError
from media.probe import probe
from media.spec import ClipSpec

from .stream_inputs import StreamInput
from .views import View, ViewPlan, read_views

MAX_BABBLE_FILES = 64
MAX_BABBLE_SECONDS = 10.0  # of each file


@dataclass(frozen=True, slots=True)
class ItemViews:
    """What could be read of an item."""

    views: list[View]
    failure: str | None = None
    is_still: bool = False

    def why_not(self, stream: StreamInput) -> str | None:
        """Why the item cannot go into a stream; None if it can."""
        if self.failure is not None:
            return self.failure.partition(":")[0]
        if stream.audio and self.views[0].clip.audio is None:
            return "mute"
        return "without_picture" if stream.video and self.views[0].clip.video is None else None

    @property
    def is_silent(self) -> bool:
        """Whether the item has sound, and none of it is audible."""
        clips = [view.clip for view in self.views if view.clip.audio is not None]
        return bool(clips) and all(clip.is_silent for clip in clips)


def read_item(item: Item, spec: ClipSpec, plan: ViewPlan, *, with_waveform: bool) -> ItemViews:
    """Views with what the file has of what the item's modality names, or the reason why there are none.

    The reason is `absent`, `mute`, `without_picture`, or `broken: ` and the code of a media error.
    """
    if not item.path.is_file():
        return ItemViews([], "absent")
    try:
        info = probe(item.path)
        audio = info.has_audio and item.modality != "video"
        video = info.has_video and item.modality != "audio"
        if not (audio or video):
            return ItemViews([], "mute" if item.modality == "audio" else "without_picture")
        views = read_views(item, spec, info, plan, audio=audio, video=video, with_waveform=with_waveform)
    except MediaError as error:
        return ItemViews([], f"broken: {error.code}")
    return ItemViews(views, is_still=info.is_still)


def read_babble(
    items: Sequence[Item], spec: ClipSpec, *, seed: int
) -> dict[Path, Float32[np.ndarray, " samples"]]:
    """Waveforms of some of the files, chosen at random, to make babble of.

    Files that do not decode are left out.

    Raises:
        ValueError: fewer than two have sound, so that a clip might have only itself to babble.
    """
    paths = sorted({item.path for item in items if item.path.is_file()})
    found: dict[Path, np.ndarray] = {}
    for i in np.random.default_rng(seed).permutation(len(paths)):
        try:
            found[paths[i]] = read_waveform(paths[i], spec, end_seconds=MAX_BABBLE_SECONDS)
        except MediaError:
            continue
        if len(found) == MAX_BABBLE_FILES:
            break
    if len(found) < 2:
        raise ValueError(f"{len(found)} of {len(paths)} files have sound; babble needs at least 2")
    return found
