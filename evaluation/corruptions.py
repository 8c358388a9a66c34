"""Ways to hurt a clip, by name and level: noise and babble, dropped and blurred frames, and a modality taken away.

Noise goes on the waveform and the spectrogram is made anew, at a ratio to the power of the window's own
sound; so silence stays silence. With the same random numbers a higher level differs in nothing but strength.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import assert_never

import numpy as np
from jaxtyping import Float, Float32, UInt8
from scipy.ndimage import gaussian_filter

from media.log_mel import log_mel
from media.spec import ClipSpec

from .views import View

NUM_TALKERS = 5  # of babble


class Way(StrEnum):
    """How a clip is hurt."""

    NOISE = "noise"
    BABBLE = "babble"
    DROPPED_FRAMES = "dropped_frames"
    BLUR = "blur"
    NO_SOUND = "no_sound"
    NO_PICTURE = "no_picture"

    @property
    def hurts_sound(self) -> bool:
        """Whether it is the sound that is hurt; else it is the picture."""
        return self in (Way.NOISE, Way.BABBLE, Way.NO_SOUND)


@dataclass(frozen=True, slots=True)
class Scale:
    """Levels of a way from mild to harsh, and what they are."""

    levels: tuple[float, ...]
    unit: str


SCALES = {
    Way.NOISE: Scale((20, 10, 5, 0, -5, -10), "signal-to-noise ratio, dB"),
    Way.BABBLE: Scale((20, 10, 5, 0, -5, -10), "signal-to-babble ratio, dB"),
    Way.DROPPED_FRAMES: Scale((0.25, 0.5, 0.75, 1.0), "share of frames dropped"),
    Way.BLUR: Scale((1, 2, 4, 8), "sigma, pixels"),
}
"""The ways that have levels."""


@dataclass(frozen=True, slots=True)
class Condition:
    """A way at a level; a way that has no levels takes none.

    Raises:
        ValueError: the level means nothing.
    """

    way: Way
    level: float | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "way", Way(self.way))
        if (self.level is not None) != (self.way in SCALES):
            raise ValueError(
                f"got level={self.level} for {self.way}; levels go with {[str(way) for way in SCALES]}"
            )
        if self.way == Way.DROPPED_FRAMES and not 0 <= self.level <= 1:
            raise ValueError(f"got level={self.level} for {self.way}; a share lies in [0, 1]")
        if self.way == Way.BLUR and self.level < 0:
            raise ValueError(f"got level={self.level} for {self.way}; pixels are counted from 0")


def degrade(
    view: View,
    condition: Condition,
    spec: ClipSpec,
    random: np.random.Generator,
    *,
    babble: Sequence[Float32[np.ndarray, " samples"]] = (),
) -> View:
    """The view, hurt; what it does not have stays away.

    Args:
        view: with its waveform, for noise and babble.
        condition: how.
        spec: the model's numbers.
        random: of noise, and of what is chosen.
        babble: waveforms of other clips.

    Raises:
        ValueError: there is sound but no waveform, or nothing to babble.
    """
    clip, level = view.clip, condition.level
    match condition.way:
        case Way.NO_SOUND:
            return replace(view, clip=replace(clip, audio=None), waveform=None)
        case Way.NO_PICTURE:
            return replace(view, clip=replace(clip, video=None))
        case Way.NOISE:
            return _with_noise(view, spec, lambda size: random.standard_normal(size), level)
        case Way.BABBLE:
            return _with_noise(view, spec, lambda size: babble_noise(babble, size, random), level)
        case Way.DROPPED_FRAMES:
            return _with_frames(view, lambda frames: drop_frames(frames, level, random))
        case Way.BLUR:
            return _with_frames(view, lambda frames: blur(frames, level))
        case _:
            assert_never(condition.way)


def add_noise(
    waveform: Float32[np.ndarray, " samples"], noise: Float[np.ndarray, " samples"], snr_db: float
) -> Float32[np.ndarray, " samples"]:
    """The sum, with noise of unit power scaled to lie `snr_db` below the waveform's mean power."""
    scale = np.sqrt(np.mean(waveform.astype(np.float64) ** 2) / 10 ** (snr_db / 10))
    return waveform + (noise * scale).astype(np.float32)


def babble_noise(
    waveforms: Sequence[Float32[np.ndarray, " samples"]], num_samples: int, random: np.random.Generator
) -> Float[np.ndarray, " samples"]:
    """A few of the waveforms at once, each equally loud and from a random place, repeated where short; of unit power.

    Raises:
        ValueError: none of them is audible.
    """
    audible = [waveform for waveform in waveforms if waveform.any()]
    if not audible:
        raise ValueError(
            f"none of {len(waveforms)} sounds of other clips is audible; babble is made of at least 1"
        )
    chosen = random.choice(len(audible), size=min(NUM_TALKERS, len(audible)), replace=False)
    talkers = [_unit_power(audible[i]) for i in chosen]
    parts = [np.resize(np.roll(talker, random.integers(len(talker))), num_samples) for talker in talkers]
    return _unit_power(np.sum(parts, axis=0))


def drop_frames(
    frames: UInt8[np.ndarray, "frames height width 3"], share: float, random: np.random.Generator
) -> UInt8[np.ndarray, "frames height width 3"]:
    """Random frames replaced by the last that was kept; the first always is, so that a share of 1 is a still."""
    num_dropped = min(round(share * len(frames)), len(frames) - 1)
    dropped = random.permutation(np.arange(1, len(frames)))[:num_dropped]
    shown = np.arange(len(frames))
    shown[dropped] = 0
    return frames[np.maximum.accumulate(shown)]


def blur(
    frames: UInt8[np.ndarray, "frames height width 3"], sigma: float
) -> UInt8[np.ndarray, "frames height width 3"]:
    """Each frame through a Gaussian of `sigma` pixels; frames and colours do not mix."""
    smooth = gaussian_filter(frames.astype(np.float32), sigma=(0, sigma, sigma, 0), mode="nearest")
    return np.rint(smooth).clip(0, 255).astype(np.uint8)


def _with_noise(view: View, spec: ClipSpec, noise_of: Callable[[int], np.ndarray], snr_db: float) -> View:
    if view.clip.audio is None:
        return view
    if view.waveform is None:
        raise ValueError("noise goes on the waveform, which this view lacks; read it with_waveform=True")
    if not len(view.waveform):
        return view
    noisy = add_noise(view.waveform, noise_of(len(view.waveform)), snr_db)
    padded = np.pad(noisy, (0, spec.num_samples - len(noisy)))
    return replace(view, clip=replace(view.clip, audio=log_mel(padded, spec)), waveform=noisy)


def _with_frames(view: View, change: Callable[[np.ndarray], np.ndarray]) -> View:
    if view.clip.video is None:
        return view
    return replace(view, clip=replace(view.clip, video=change(view.clip.video)))


def _unit_power(waveform: Float[np.ndarray, " samples"]) -> Float[np.ndarray, " samples"]:
    precise = waveform.astype(np.float64)
    return precise / max(np.sqrt(np.mean(precise**2)), 1e-12)
