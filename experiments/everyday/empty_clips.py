"""Clips that show and sound of nothing: noise and black for a picture, silence for sound."""

import numpy as np

from media.clip import Clip
from media.log_mel import log_mel
from media.spec import ClipSpec

NUM_NOISE, NUM_BLACK, NUM_SILENCE = 40, 10, 40
MAX_DARK = 16  # of 255: black that a camera sees is not zero
MIN_SILENCE_DB, MAX_SILENCE_DB = -110.0, -70.0  # of full scale: below what counts as audible


def noise_pictures(spec: ClipSpec, *, seed: int) -> list[Clip]:
    """Pictures of random pixels; half of them stand still, half are new in every frame."""
    random = np.random.default_rng(seed)
    found = []
    for i in range(NUM_NOISE):
        num = 1 if i % 2 else spec.num_video_frames
        frames = random.integers(0, 256, (num, *spec.video_shape[1:]), dtype=np.uint8)
        found.append(_clip(spec, video=np.array(np.broadcast_to(frames, spec.video_shape))))
    return found


def black_pictures(spec: ClipSpec) -> list[Clip]:
    """Pictures of one dark grey each, the first of which is black."""
    levels = np.linspace(0, MAX_DARK, NUM_BLACK).round().astype(np.uint8)
    return [_clip(spec, video=np.full(spec.video_shape, level, np.uint8)) for level in levels]


def silences(spec: ClipSpec, *, seed: int) -> list[Clip]:
    """Silence: digital in the first, in the others with white noise too faint to count as audible."""
    random = np.random.default_rng(seed)
    levels = np.linspace(MIN_SILENCE_DB, MAX_SILENCE_DB, NUM_SILENCE - 1)
    waveforms = [np.zeros(spec.num_samples)] + [
        random.standard_normal(spec.num_samples) * 10 ** (level / 20) for level in levels
    ]
    return [_clip(spec, audio=log_mel(x.astype(np.float32), spec)) for x in waveforms]


def _clip(spec: ClipSpec, *, audio: np.ndarray | None = None, video: np.ndarray | None = None) -> Clip:
    seconds = spec.window_seconds
    return Clip(
        start_seconds=0.0,
        end_seconds=seconds,
        audio=audio,
        video=video,
        audio_seconds=0.0 if audio is None else seconds,
        video_seconds=0.0 if video is None else seconds,
        is_silent=True,
        padded=False,
    )
