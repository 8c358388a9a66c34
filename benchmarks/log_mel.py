"""Log-mel of 10 s of audio: `media.log_mel` against librosa with the same settings.

Both end with the logarithm of the power per band plus an offset. With `center=False` librosa frames a signal
from its first sample on, so with our padding it reads the same frames and the values can be compared. Its
triangles have straight sides over Hz, ours over mel, which makes about 0.01 in the logarithm.
"""

import librosa
import numpy as np

from media import ClipSpec
from media.log_mel import log_mel

from .measure import NUM_THREADS, interleave
from .result import Result

SIGNAL_SECONDS = 10.0
OURS, LIBROSA = "log-mel, ours", "log-mel, librosa and numpy"


def run(rounds: int = 40, calls: int = 10) -> Result:
    """Measure and compare."""
    spec = ClipSpec()
    waveform = _rising_tone(spec)
    parameters = {
        "seconds": SIGNAL_SECONDS,
        "sample_rate": spec.sample_rate,
        "window_length": spec.window_length,
        "hop_length": spec.hop_length,
        "num_mel_bins": spec.num_mel_bins,
        "threads": NUM_THREADS,
        "rounds": rounds,
        "calls_per_measurement": calls,
    }
    result = Result(name="log_mel", parameters=parameters)
    _check_values(result, waveform, spec)  # librosa compiles at its first call, which is not measured
    sides = {OURS: lambda: log_mel(waveform, spec), LIBROSA: lambda: librosa_log_mel(waveform, spec)}
    result.entries = interleave(sides, rounds=rounds, warm_ups=2, calls=calls)
    baseline = "librosa's mel spectrogram and numpy's logarithm"
    result.compare(OURS, LIBROSA, at_most=1.0, title="log-mel of 10 s", other=baseline)
    return result


def librosa_log_mel(waveform: np.ndarray, spec: ClipSpec) -> np.ndarray:
    """What `log_mel` returns, computed as users of librosa do, [mel_frames, mel_bins]."""
    edge = (spec.window_length - spec.hop_length) // 2
    energy = (librosa.filters.get_window("hann", spec.window_length) ** 2).sum()
    power: np.ndarray = librosa.feature.melspectrogram(
        y=np.pad(waveform, edge),
        sr=spec.sample_rate,
        n_fft=spec.window_length,
        hop_length=spec.hop_length,
        window="hann",
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


def _check_values(result: Result, waveform: np.ndarray, spec: ClipSpec) -> None:
    theirs, ours = librosa_log_mel(waveform, spec), log_mel(waveform, spec)
    num_frames = min(len(ours), len(theirs))
    assert num_frames >= len(waveform) // spec.hop_length - 1, "librosa gave other frames"
    ours, theirs = ours[:num_frames], theirs[:num_frames]
    result.check("max difference of logs", float(np.abs(ours - theirs).max()), at_most=0.03)
    result.check("1 - correlation", 1 - float(np.corrcoef(ours.ravel(), theirs.ravel())[0, 1]), at_most=1e-5)


def _rising_tone(spec: ClipSpec) -> np.ndarray:
    """A rising tone in noise."""
    t = np.arange(round(SIGNAL_SECONDS * spec.sample_rate)) / spec.sample_rate
    noise = np.random.default_rng(0).normal(0, 0.05, len(t))
    return (0.5 * np.sin(2 * np.pi * (100 * t + 200 * t**2)) + noise).astype(np.float32)
