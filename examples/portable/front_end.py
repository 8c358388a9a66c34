"""From samples and pictures to what the graphs read, in numpy alone: docs/front-end.md as code.

`spec` is `clip_spec` of bundle.json. The surprising fact: means and standard deviations in it are not for
here, the graphs apply them. Six numbers may be missing, and are then those of the first bundles.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np

SILENCE_RMS = 1e-3  # -60 dB of full scale
MIN_TAIL_SECONDS = 0.25  # a last window with less material than this is left out
TIME_TOLERANCE_SECONDS = 1e-6  # a frame that starts this much too late is still on display

Spec = dict[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Window:
    """One window: what the graphs read, and how much of it is material rather than padding."""

    audio: np.ndarray | None
    """Log-mel, float32 [num_mel_frames, num_mel_bins]."""
    video: np.ndarray | None
    """RGB, uint8 [num_video_frames, frame_size, frame_size, 3]."""
    audio_seconds: float
    video_seconds: float
    is_silent: bool

    def weight(self, stream: str) -> float:
        """Seconds of material that `stream` (audio, video, fused) has to go by."""
        heard = 0.0 if self.is_silent else self.audio_seconds
        return {"audio": heard, "video": self.video_seconds, "fused": max(heard, self.video_seconds)}[stream]


def cut_windows(
    spec: Spec, *, waveform: np.ndarray | None, frames: np.ndarray | None, fps: float
) -> list[Window]:
    """Windows that touch, from 0 s on; the last one is padded, with silence and with the last frame.

    Args:
        spec: the model's numbers.
        waveform: mono samples at `sample_rate`, or None.
        frames: uint8 [frames, frame_size, frame_size, 3], or None.
        fps: frames per second.

    Raises:
        ValueError: there is nothing, or it has no samples or no frames.
    """
    if waveform is None and frames is None:
        raise ValueError("got neither sound nor frames; give one or both")
    if (waveform is not None and not len(waveform)) or (frames is not None and not len(frames)):
        raise ValueError("got 0 samples or 0 frames; leave out what the clip does not have")
    windows: list[Window] = []
    while True:
        window = _window(len(windows), spec, waveform, frames, fps)
        if windows and max(window.audio_seconds, window.video_seconds) < MIN_TAIL_SECONDS:
            return windows
        windows.append(window)


def _window(
    index: int, spec: Spec, waveform: np.ndarray | None, frames: np.ndarray | None, fps: float
) -> Window:
    num_samples = spec["num_mel_frames"] * spec["hop_length"]
    audio = video = None
    audio_seconds = video_seconds = 0.0
    is_silent = True
    if waveform is not None:
        heard = waveform[index * num_samples : (index + 1) * num_samples]
        audio = log_mel(np.pad(heard, (0, num_samples - len(heard))), spec)
        audio_seconds = len(heard) / spec["sample_rate"]
        is_silent = bool(np.sqrt((heard.astype(np.float64) ** 2).sum() / max(len(heard), 1)) < SILENCE_RMS)
    if frames is not None:
        start, length = index * num_samples / spec["sample_rate"], num_samples / spec["sample_rate"]
        video = np.stack([frames[i] for i in frame_indices(spec, start, len(frames), fps)])
        video_seconds = max(0.0, min(length, len(frames) / fps - start))
    return Window(
        audio=audio,
        video=video,
        audio_seconds=audio_seconds,
        video_seconds=video_seconds,
        is_silent=is_silent,
    )


def frame_indices(spec: Spec, start_seconds: float, num_frames: int, fps: float) -> list[int]:
    """The frames on display at the middles of equal parts of the window that starts at `start_seconds`."""
    count = spec["num_video_frames"]
    part_seconds = spec["num_mel_frames"] * spec["hop_length"] / spec["sample_rate"] / count
    times = [start_seconds + (i + 0.5) * part_seconds for i in range(count)]
    return [min(num_frames - 1, int((t + TIME_TOLERANCE_SECONDS) * fps)) for t in times]


def log_mel(waveform: np.ndarray, spec: Spec) -> np.ndarray:
    """Log-mel spectrogram of one window's samples, float32 [num_mel_frames, num_mel_bins]."""
    length, hop = spec["window_length"], spec["hop_length"]
    edge = length // 2 - spec.get("first_centre", hop // 2)
    samples = np.asarray(waveform, np.float64)
    samples = samples - spec.get("pre_emphasis", 0.0) * np.concatenate([samples[:1], samples[:-1]])
    padded = np.pad(samples, (edge, edge + length))
    starts = hop * np.arange(len(waveform) // hop)
    frames = np.lib.stride_tricks.sliding_window_view(padded, length)[starts]
    power = np.abs(np.fft.rfft(frames * hann_window(spec), _fft_length(spec))) ** 2
    return np.log(power @ mel_filters(spec) + spec["log_offset"]).astype(np.float32)


def hann_window(spec: Spec) -> np.ndarray:
    """Periodic and of unit energy, unless the numbers say otherwise, [window_length]."""
    length = spec["window_length"]
    period = length - 1 if spec.get("symmetric_window", False) else length
    hann = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(length) / period)
    return hann / np.sqrt((hann**2).sum()) if spec.get("unit_energy", True) else hann


def mel_filters(spec: Spec) -> np.ndarray:
    """Triangles of height 1 on the mel scale, [FFT length // 2 + 1, num_mel_bins]."""
    edges = np.linspace(_mel(spec["min_hz"]), _mel(spec["max_hz"]), spec["num_mel_bins"] + 2)
    lower, centre, upper = edges[:-2], edges[1:-1], edges[2:]
    length = _fft_length(spec)
    bins = _mel(np.arange(length // 2 + 1) * spec["sample_rate"] / length)[:, None]
    return np.maximum(0, np.minimum((bins - lower) / (centre - lower), (upper - bins) / (upper - centre)))


def _fft_length(spec: Spec) -> int:
    return int(spec.get("fft_length", spec["window_length"]))


def _mel(hz: float | np.ndarray) -> np.ndarray:
    return 2595 * np.log10(1 + np.asarray(hz, np.float64) / 700)
