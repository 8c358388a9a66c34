"""Corruptions of a clip, by kind and level.

The kinds are noise and babble, dropped and blurred frames, and a modality removed.

Noise is added to the waveform, and the spectrogram made anew; its level is a ratio to the power of the
window's own sound, so silence stays silence. With the same random numbers a higher level differs in nothing
but strength.
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


class CorruptionKind(StrEnum):
    """What is done to a clip."""

    NOISE = "noise"
    BABBLE = "babble"
    DROPPED_FRAMES = "dropped_frames"
    BLUR = "blur"
    NO_AUDIO = "no_audio"
    NO_VIDEO = "no_video"

    @property
    def affects_audio(self) -> bool:
        """Whether audio is corrupted; otherwise video is."""
        return self in (CorruptionKind.NOISE, CorruptionKind.BABBLE, CorruptionKind.NO_AUDIO)


@dataclass(frozen=True, slots=True)
class CorruptionScale:
    """Levels of a kind of corruption, from mild to harsh, and their unit."""

    levels: tuple[float, ...]
    unit: str


CORRUPTION_SCALES = {
    CorruptionKind.NOISE: CorruptionScale((20, 10, 5, 0, -5, -10), "signal-to-noise ratio, dB"),
    CorruptionKind.BABBLE: CorruptionScale((20, 10, 5, 0, -5, -10), "signal-to-babble ratio, dB"),
    CorruptionKind.DROPPED_FRAMES: CorruptionScale((0.25, 0.5, 0.75, 1.0), "share of frames dropped"),
    CorruptionKind.BLUR: CorruptionScale((1, 2, 4, 8), "sigma, pixels"),
}
"""The kinds that have levels."""


@dataclass(frozen=True, slots=True)
class Corruption:
    """A kind of corruption at a level; removing a modality has none.

    Raises:
        ValueError: the kind has no levels, lacks one, or has none such.
    """

    kind: CorruptionKind
    level: float | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "kind", CorruptionKind(self.kind))
        if (self.level is not None) != (self.kind in CORRUPTION_SCALES):
            raise ValueError(
                f"got level={self.level} for {self.kind}; "
                f"levels go with {[str(kind) for kind in CORRUPTION_SCALES]}"
            )
        if self.level is None:
            return
        if self.kind == CorruptionKind.DROPPED_FRAMES and not 0 <= self.level <= 1:
            raise ValueError(f"got level={self.level} for {self.kind}; a share lies in [0, 1]")
        if self.kind == CorruptionKind.BLUR and self.level < 0:
            raise ValueError(f"got level={self.level} for {self.kind}; pixels are counted from 0")

    @property
    def strength(self) -> float:
        """The level of a kind that has levels."""
        assert self.level is not None
        return self.level


def corruptions_of(*kinds: CorruptionKind) -> list[Corruption]:
    """These kinds at every level of their scale; by default all that have one."""
    return [
        Corruption(kind, level)
        for kind in kinds or CORRUPTION_SCALES
        for level in CORRUPTION_SCALES[kind].levels
    ]


def corrupt(
    view: View,
    corruption: Corruption,
    spec: ClipSpec,
    random: np.random.Generator,
    *,
    babble: Sequence[Float32[np.ndarray, " samples"]] = (),
) -> View:
    """The view, corrupted; a modality that it lacks stays away.

    Args:
        view: with its waveform, for noise and babble.
        corruption: what is done to it.
        spec: the model's numbers.
        random: of noise, and of what is chosen.
        babble: waveforms of other clips.

    Raises:
        ValueError: there is sound but no waveform, or no babble.
    """
    match corruption.kind:
        case CorruptionKind.NO_AUDIO:
            return without_audio(view)
        case CorruptionKind.NO_VIDEO:
            return without_video(view)
        case CorruptionKind.NOISE:
            return _with_noise(view, spec, lambda size: random.standard_normal(size), corruption.strength)
        case CorruptionKind.BABBLE:
            return _with_noise(
                view, spec, lambda size: babble_noise(babble, size, random), corruption.strength
            )
        case CorruptionKind.DROPPED_FRAMES:
            return _with_frames(view, lambda frames: drop_frames(frames, corruption.strength, random))
        case CorruptionKind.BLUR:
            return _with_frames(view, lambda frames: blur_frames(frames, corruption.strength))
        case _:
            assert_never(corruption.kind)


def without_audio(view: View) -> View:
    """The view without sound."""
    return replace(view, clip=replace(view.clip, audio=None), waveform=None)


def without_video(view: View) -> View:
    """The view without picture."""
    return replace(view, clip=replace(view.clip, video=None))


def mix_at_snr(
    waveform: Float32[np.ndarray, " samples"], noise: Float[np.ndarray, " samples"], snr_db: float
) -> Float32[np.ndarray, " samples"]:
    """The sum, with noise of unit power scaled to lie `snr_db` below the waveform's mean power."""
    scale = np.sqrt(np.mean(waveform.astype(np.float64) ** 2) / 10 ** (snr_db / 10))
    return np.asarray(waveform + (noise * scale).astype(np.float32))


def babble_noise(
    waveforms: Sequence[Float32[np.ndarray, " samples"]], num_samples: int, random: np.random.Generator
) -> Float[np.ndarray, " samples"]:
    """A few of the waveforms at once, equally loud, each from a random place and repeated if short.

    Of unit power.

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
    """Replace random frames by the last one kept. The first is always kept, so a share of 1 makes a still."""
    num_dropped = min(round(share * len(frames)), len(frames) - 1)
    dropped = random.permutation(np.arange(1, len(frames)))[:num_dropped]
    shown = np.arange(len(frames))
    shown[dropped] = 0
    return frames[np.maximum.accumulate(shown)]


def blur_frames(
    frames: UInt8[np.ndarray, "frames height width 3"], sigma: float
) -> UInt8[np.ndarray, "frames height width 3"]:
    """Each frame through a Gaussian of `sigma` pixels; frames and colours do not mix."""
    smooth = gaussian_filter(frames.astype(np.float32), sigma=(0, sigma, sigma, 0), mode="nearest")
    return np.asarray(np.rint(smooth).clip(0, 255).astype(np.uint8))


def _with_noise(view: View, spec: ClipSpec, noise_of: Callable[[int], np.ndarray], snr_db: float) -> View:
    if view.clip.audio is None:
        return view
    if view.waveform is None:
        raise ValueError("noise is added to the waveform, which this view lacks; read it with_waveform=True")
    if not len(view.waveform):
        return view
    noisy = mix_at_snr(view.waveform, noise_of(len(view.waveform)), snr_db)
    padded = np.pad(noisy, (0, spec.num_samples - len(noisy)))
    return replace(view, clip=replace(view.clip, audio=log_mel(padded, spec)), waveform=noisy)


def _with_frames(view: View, change: Callable[[np.ndarray], np.ndarray]) -> View:
    if view.clip.video is None:
        return view
    return replace(view, clip=replace(view.clip, video=change(view.clip.video)))


def _unit_power(waveform: Float[np.ndarray, " samples"]) -> Float[np.ndarray, " samples"]:
    precise = waveform.astype(np.float64)
    return np.asarray(precise / max(np.sqrt(np.mean(precise**2)), 1e-12))
