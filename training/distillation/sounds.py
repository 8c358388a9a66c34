"""Windows of sound for a distillation: cut from recordings, mixed as waveforms, and tagged by the teachers.

Window i depends on the seed and on i alone.
"""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float32

from datasets.vocabulary import NUM_AUDIOSET_LABELS
from media.clip import read_waveform
from media.log_mel import log_mel

from .material import ItemDrawer, Shapes, SplitPlan, mapped_arrays, write_arrays
from .teachers import AudioTeacher, joined_probabilities

SILENCE_POWER = 1e-12


@dataclass(frozen=True, slots=True)
class SoundMaterial:
    """Windows of sound."""

    log_mel: np.ndarray
    """float16 [windows, mel_frames, mel_bins]"""
    probabilities: np.ndarray
    """float16 [windows, 527]: the teachers' joined answers."""
    source: np.ndarray
    """int32 [windows]: the item that each is cut from."""
    is_plain: np.ndarray
    """bool [windows]: nothing was mixed in."""


def sound_material(plan: SplitPlan, open_teachers: Callable[[], Sequence[AudioTeacher]]) -> SoundMaterial:
    """Windows of a split's sounds, made now or before.

    Raises:
        TeacherError: a teacher is not there.
        ValueError: no sound decodes.
    """
    num = plan.how.num_sounds if plan.augment else 0
    folder = plan.folder("audio", num)
    if not folder.is_dir():
        waveforms = plan.decoded("audio", lambda item: read_waveform(item.path, plan.spec))
        num = num or len(waveforms)
        shapes: Shapes = {
            "log_mel": ((num, *plan.spec.audio_shape), np.float16),
            "probabilities": ((num, NUM_AUDIOSET_LABELS), np.float16),
            "source": ((num,), np.int32),
            "is_plain": ((num,), np.bool_),
        }
        write_arrays(folder, shapes, _rows(plan, waveforms, open_teachers(), num), plan.on_progress)
    return SoundMaterial(**mapped_arrays(folder))


def _rows(
    plan: SplitPlan, waveforms: Mapping[int, np.ndarray], teachers: Sequence[AudioTeacher], num: int
) -> Iterator[dict[str, Any]]:
    order, drawer = list(waveforms), plan.drawer(waveforms)
    for i in range(num):
        draw = np.random.default_rng([plan.seed, 1, i])
        if plan.augment:
            source = drawer(draw)
            window, is_plain = _drawn_window(plan, source, waveforms, drawer, draw)
        else:
            source, is_plain = order[i], True
            window = _cut(waveforms[source], plan.spec.num_samples, 0)
        yield {
            "log_mel": log_mel(window, plan.spec),
            "probabilities": joined_probabilities(teachers, window, plan.spec),
            "source": source,
            "is_plain": is_plain,
        }


def _drawn_window(
    plan: SplitPlan,
    source: int,
    waveforms: Mapping[int, np.ndarray],
    drawer: ItemDrawer,
    draw: np.random.Generator,
) -> tuple[Float32[np.ndarray, " samples"], bool]:
    """A window of the sound, perhaps with another or with noise in it, and whether it is plain."""
    how, num = plan.how, plan.spec.num_samples
    window, is_plain = _random_cut(waveforms[source], num, draw), True
    if draw.random() < how.mix_probability:
        other = _random_cut(waveforms[drawer(draw)], num, draw)
        window, is_plain = _with_other(window, other, draw.uniform(*how.mix_snr_db)), False
    if draw.random() < how.noise_probability:
        noise = _coloured_noise(num, draw.uniform(0, 1), draw)
        window, is_plain = _with_other(window, noise, draw.uniform(*how.noise_snr_db)), False
    gain = 10 ** (draw.uniform(-how.max_gain_db, how.max_gain_db) / 20)
    return (window * np.float32(gain)).clip(-1, 1), is_plain


def _cut(
    waveform: Float32[np.ndarray, " samples"], num: int, start: int
) -> Float32[np.ndarray, " num_samples"]:
    """`num` samples from `start`, which may lie before the beginning; what is not there is silence."""
    padded = np.pad(waveform, (max(0, -start), max(0, start + num - len(waveform))))
    return padded[max(0, start) :][:num]


def _random_cut(
    waveform: Float32[np.ndarray, " samples"], num: int, draw: np.random.Generator
) -> Float32[np.ndarray, " num_samples"]:
    """A part of a longer sound, or all of a shorter one somewhere in silence."""
    slack = len(waveform) - num
    return _cut(waveform, num, int(draw.integers(min(0, slack), max(0, slack) + 1)))


def _with_other(
    window: Float32[np.ndarray, " samples"], other: Float32[np.ndarray, " samples"], snr_db: float
) -> Float32[np.ndarray, " samples"]:
    """The window with another in it, so many decibels below."""
    power, other_power = (float(np.mean(np.square(x, dtype=np.float64))) for x in (window, other))
    scale = 1.0
    if min(power, other_power) >= SILENCE_POWER:
        scale = math.sqrt(power / other_power / 10 ** (snr_db / 10))
    mixed: np.ndarray = window + np.float32(scale) * other
    return mixed


def _coloured_noise(num: int, slope: float, draw: np.random.Generator) -> Float32[np.ndarray, " num_samples"]:
    """Noise whose amplitude falls with frequency to this power: 0 is white, 0.5 pink, 1 brown."""
    spectrum = np.fft.rfft(draw.standard_normal(num))
    spectrum /= np.maximum(1, np.arange(len(spectrum))) ** slope
    noise: np.ndarray = np.fft.irfft(spectrum, num).astype(np.float32)
    return noise
