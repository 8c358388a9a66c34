"""Golden clips: rich media made in code.

Their answers travel in the bundle, so that it can prove itself anywhere.
"""

import numpy as np

from media import ClipSpec
from media.log_mel import log_mel

NUM_GOLDEN = 4


def golden_inputs(spec: ClipSpec) -> dict[str, np.ndarray]:
    """`audio` and `video` of `NUM_GOLDEN` clips: chirp, chord with tremolo, bursts of noise, beats.

    Shapes that move.
    """
    random = np.random.default_rng(2301_09595)
    audio = np.stack([log_mel(waveform, spec) for waveform in _waveforms(spec, random)])
    video = np.stack([_film(spec, random) for _ in range(NUM_GOLDEN)])
    return {"audio": audio, "video": video}


def _waveforms(spec: ClipSpec, random: np.random.Generator) -> list[np.ndarray]:
    t = np.arange(spec.num_samples) / spec.sample_rate
    chirp = np.sin(2 * np.pi * (100 * t + 300 * t**2))
    chord = sum(np.sin(2 * np.pi * hz * t) for hz in (220, 277.2, 329.6)) * (1 + np.sin(10 * t)) / 6
    bursts = random.standard_normal(len(t)) * (np.sin(2 * np.pi * 1.5 * t) > 0.3) * 0.3
    beats = np.sin(2 * np.pi * 90 * t) * np.exp(-12 * (t % 0.5)) + 0.01 * random.standard_normal(len(t))
    return [wave.astype(np.float32) * 0.5 for wave in (chirp, chord, bursts, beats)]


def _film(spec: ClipSpec, random: np.random.Generator) -> np.ndarray:
    """A textured ground that drifts, with a disc and a bar that move over it."""
    size = spec.frame_size
    rows, columns = np.mgrid[:size, :size] / size
    colours = random.integers(0, 256, (3, 3))
    frequency, phase, speed = random.uniform(4, 20), random.uniform(0, 6), random.uniform(-0.3, 0.3)
    frames = []
    for step in range(spec.num_video_frames):
        ground = (np.sin(frequency * (rows + columns * phase) + step) + 1) / 2
        frame = ground[..., None] * colours[0] + (1 - ground[..., None]) * 40
        frame[(rows - 0.5) ** 2 + (columns - 0.4 - speed * step) ** 2 < 0.04] = colours[1]
        frame[np.abs(rows - 0.2 - speed * step) < 0.04] = colours[2]
        frames.append(frame + random.normal(0, 6, frame.shape))
    film: np.ndarray = np.clip(frames, 0, 255).astype(np.uint8)
    return film
