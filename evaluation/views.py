"""Evaluation views of a clip: windows evenly spread over it, times one or three crops of the picture.

Scores averaged.

Kinetics' protocol is several windows times three crops. One crop is what `media.read_clips` gives and a
server sees: the middle. For three, frames are decoded so that their shorter side is `frame_size /
crop_fraction`, of which the middle is kept, and cut at the middle and both ends of the longer side. The
middle one is then the same, pixel for pixel, if that quotient is whole. All crops of a window share its
sound.

All views count the same, unlike windows of an answer that is served, which `media.pooling` weighs.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Float, Float32, UInt8
from scipy.special import expit, softmax

from datasets.manifests import Item
from datasets.recordings import window_start
from media.clip import Clip, read_clips, read_frames, read_waveform
from media.errors import InvalidSpan
from media.probe import MediaInfo
from media.spec import ClipSpec
from media.time_range import TimeRange

MAX_ASPECT = 8.0  # of longer to shorter side; of longer strips the outer crops are not the ends


@dataclass(frozen=True, slots=True, kw_only=True)
class ViewPlan:
    """How many views there are of each clip.

    Raises:
        ValueError: no window, or a number of crops other than 1 and 3.
    """

    num_windows: int = 1
    num_crops: int = 1

    def __post_init__(self) -> None:
        if self.num_windows < 1 or self.num_crops not in (1, 3):
            raise ValueError(f"{self.num_windows=} must be at least 1, and {self.num_crops=} 1 or 3")


@dataclass(frozen=True, slots=True)
class View:
    """One window of a clip through one crop."""

    clip: Clip
    waveform: Float32[np.ndarray, " samples"] | None
    """What `clip.audio` is made of, up to where the sound ends.

    None if there is none or it was not asked for.
    """
    window: int = 0
    crop: int = 0
    """0 is the middle, 1 the left or upper end, 2 the other."""


def view_starts(item: Item, duration_seconds: float | None, spec: ClipSpec, num_windows: int) -> list[float]:
    """Starts in seconds of windows evenly spread from the start of the item to its end.

    Of one, it is the middle.

    A window is centred on a span shorter than it, and is one then. A file that does not say how long it is,
    such as a still, has one at its start.

    Raises:
        InvalidSpan: the file ends before the item starts.
    """
    if duration_seconds is not None and item.start_seconds >= max(duration_seconds, 0.001):
        raise InvalidSpan(
            f"the item starts at {item.start_seconds:g} s, the file ends at {duration_seconds:g} s"
        )
    ends = [end for end in (item.end_seconds, duration_seconds) if end is not None]
    span = replace(item, end_seconds=min(ends)) if ends else item
    places = [0.5] if num_windows == 1 else [i / (num_windows - 1) for i in range(num_windows)]
    return list(
        dict.fromkeys(window_start(span, spec, duration_seconds or 0.0, place=place) for place in places)
    )


def read_views(
    item: Item,
    spec: ClipSpec,
    info: MediaInfo,
    plan: ViewPlan,
    *,
    audio: bool,
    video: bool,
    with_waveform: bool = False,
) -> list[View]:
    """Views of an item, window by window.

    Args:
        item: a file or a span of one; a window reads what lies around a short span too.
        spec: the model's numbers.
        info: what `media.probe` says of the file.
        plan: how many views.
        audio: whether sound is wanted.
        video: whether pictures are wanted.
        with_waveform: whether the sound is wanted as samples too.

    Raises:
        MediaError: the file lacks what is wanted, does not decode, or ends before the item starts.
    """
    found = []
    for window, start in enumerate(view_starts(item, info.duration_seconds, spec, plan.num_windows)):
        time_range = TimeRange(start_seconds=start)
        clip = next(iter(read_clips(item.path, spec, audio=audio, video=video, time_range=time_range)))
        waveform = _samples(item, clip, spec) if audio and with_waveform else None
        if not video or plan.num_crops == 1:
            found.append(View(clip, waveform, window))
            continue
        for crop, frames in enumerate(_crops(item, start, spec, info)):
            found.append(View(replace(clip, video=frames), waveform, window, crop))
    return found


def average_scores(
    logits: Float[np.ndarray, "views classes"], *, sigmoid: bool
) -> Float[np.ndarray, " classes"]:
    """Mean over views of probabilities: of each label by itself, or of one among all."""
    precise = logits.astype(np.float64)
    probabilities = expit(precise) if sigmoid else softmax(precise, axis=1)
    return np.asarray(probabilities.mean(0))


def crop_thirds(
    frames: UInt8[np.ndarray, "frames height width 3"], size: int
) -> Iterator[UInt8[np.ndarray, "frames size size 3"]]:
    """Squares at the middle and both ends of the longer side.

    Raises:
        ValueError: the shorter side is not `size`.
    """
    height, width = frames.shape[1:3]
    if min(height, width) != size:
        raise ValueError(
            f"frames of {height}x{width} cannot be cut to {size}x{size}; scale the shorter side to {size}"
        )
    room = max(height, width) - size
    for at in (room // 2, 0, room):
        yield frames[:, :, at : at + size] if width > height else frames[:, at : at + size]


def _crops(
    item: Item, start: float, spec: ClipSpec, info: MediaInfo
) -> Iterator[UInt8[np.ndarray, "frames size size 3"]]:
    height, width = info.height or 1, info.width or 1
    size, aspect = spec.frame_size, min(max(width, height) / min(width, height), MAX_ASPECT)
    shorter = round(size / spec.crop_fraction)
    longer = round(shorter * aspect)
    shape = (shorter, longer) if width > height else (longer, shorter)
    times = [start + offset for offset in spec.frame_offsets_seconds]
    frames = read_frames(item.path, times, height=shape[0], width=shape[1])
    kept = slice((shorter - size) // 2, (shorter - size) // 2 + size)
    return crop_thirds(frames[:, kept] if width > height else frames[:, :, kept], size)


def _samples(item: Item, clip: Clip, spec: ClipSpec) -> Float32[np.ndarray, " samples"]:
    if clip.audio_seconds == 0:
        return np.zeros(0, np.float32)
    start = clip.start_seconds
    end = (
        start + spec.window_seconds + 2 / spec.sample_rate
    )  # times round to samples: rather one too many than too few
    return read_waveform(item.path, spec, start_seconds=start, end_seconds=end)[: spec.num_samples]
