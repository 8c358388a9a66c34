"""Log-mel of 10 s of audio: `media.log_mel` against librosa with the same settings, for each of `CLIP_SPECS`.

Both end with the logarithm of the power per band plus an offset. With `center=False` librosa frames a signal
from its first sample on, so with our padding it reads the same frames and the values can be compared. Its
triangles have straight sides over Hz, ours over mel, which makes about 0.01 in the logarithm.
"""

from functools import partial

import librosa
import numpy as np

from media import ClipSpec
from media.log_mel import log_mel

from .measure import NUM_THREADS, interleave
from .result import Result

SIGNAL_SECONDS = 10.0
CLIP_SPECS = {
    "log-mel": ClipSpec(),
    "log-mel of 32 kHz": ClipSpec(
        sample_rate=32_000,
        window_length=800,
        fft_length=1_024,
        hop_length=320,
        first_centre=1,
        symmetric_window=True,
        unit_energy=False,
        pre_emphasis=0.97,
        num_mel_bins=128,
        max_hz=15_000.0,
        log_offset=1e-5,
    ),
}


def run(rounds: int = 40, calls: int = 10) -> Result:
    """Measure and compare."""
    parameters = {
        "seconds": SIGNAL_SECONDS,
        "clip_specs": {name: spec.to_dict() for name, spec in CLIP_SPECS.items()},
        "threads": NUM_THREADS,
        "rounds": rounds,
        "calls_per_measurement": calls,
    }
    result = Result(name="log_mel", parameters=parameters)
    sides = {}
    for name, spec in CLIP_SPECS.items():
        waveform = _rising_tone(spec)
        _check_values(
            result, name, waveform, spec
        )  # librosa compiles at its first call, which is not measured
        sides[f"{name}, ours"] = partial(log_mel, waveform, spec)
        sides[f"{name}, librosa and numpy"] = partial(librosa_log_mel, waveform, spec)
    result.entries = interleave(sides, rounds=rounds, warm_ups=2, calls=calls)
    baseline = "librosa's mel spectrogram and numpy's logarithm"
    for name in CLIP_SPECS:
        ours, theirs = f"{name}, ours", f"{name}, librosa and numpy"
        result.compare(ours, theirs, at_most=1.0, title=f"{name}, 10 s", other=baseline)
    return result


def librosa_log_mel(waveform: np.ndarray, spec: ClipSpec) -> np.ndarray:
    """What `log_mel` returns, computed as users of librosa do, [mel_frames, mel_bins]."""
    hann = librosa.filters.get_window("hann", spec.window_length, fftbins=not spec.symmetric_window)
    energy = (hann**2).sum() if spec.unit_energy else 1.0
    if spec.pre_emphasis:
        state = np.array([-spec.pre_emphasis * waveform[0]], np.float32)
        waveform = librosa.effects.preemphasis(waveform, coef=spec.pre_emphasis, zi=state)
    before = spec.num_fft_samples // 2 - spec.centre_of_first_frame
    power: np.ndarray = librosa.feature.melspectrogram(
        y=np.pad(waveform, (before, spec.num_fft_samples)),
        sr=spec.sample_rate,
        n_fft=spec.num_fft_samples,
        hop_length=spec.hop_length,
        win_length=spec.window_length,
        window=hann,
        center=False,
        power=2.0,
        n_mels=spec.num_mel_bins,
        fmin=spec.min_hz,
        fmax=spec.max_hz,
        htk=True,
        norm=None,
    )
    logs: np.ndarray = np.log(power.T / np.float32(energy) + np.float32(spec.log_offset))
    return logs


def _check_values(result: Result, name: str, waveform: np.ndarray, spec: ClipSpec) -> None:
    theirs, ours = librosa_log_mel(waveform, spec), log_mel(waveform, spec)
    num_frames = min(len(ours), len(theirs))
    assert num_frames >= len(waveform) // spec.hop_length - 1, "librosa gave other frames"
    ours, theirs = ours[:num_frames], theirs[:num_frames]
    result.check(f"{name}: max difference of logs", float(np.abs(ours - theirs).max()), at_most=0.03)
    correlation = float(np.corrcoef(ours.ravel(), theirs.ravel())[0, 1])
    result.check(f"{name}: 1 - correlation", 1 - correlation, at_most=1e-5)


def _rising_tone(spec: ClipSpec) -> np.ndarray:
    """A rising tone in noise."""
    t = np.arange(round(SIGNAL_SECONDS * spec.sample_rate)) / spec.sample_rate
    noise = np.random.default_rng(0).normal(0, 0.05, len(t))
    return (0.5 * np.sin(2 * np.pi * (100 * t + 200 * t**2)) + noise).astype(np.float32)
