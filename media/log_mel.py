"""Log-mel spectrogram: mono samples to log power per mel band.

Pre-emphasis, Hann window, power spectrum, by default divided by the window's energy (white noise of variance
s then has power s in every bin), triangular mel filters of peak 1, log(power + log_offset).

A window of media depends on nothing but itself: its outside reads as zeros, and the sample before the first
one counts as equal to it. As zero it would make the first sample a click, which pre-emphasis does not weaken
as it does the rest. Frames are by default centred on their hop, so that they lie evenly in the window.
"""

from functools import lru_cache

import numpy as np
import scipy.fft
from jaxtyping import Float32
from scipy.sparse import csr_array

from .spec import ClipSpec

BLOCK = 50  # frames at a time: arrays so small that each call does not get its memory anew from the system


def log_mel(
    waveform: Float32[np.ndarray, " samples"], spec: ClipSpec
) -> Float32[np.ndarray, "mel_frames mel_bins"]:
    """Log-mel spectrogram of `samples // hop_length` frames.

    Args:
        waveform: mono samples in [-1, 1] at `spec.sample_rate`.
        spec: the numbers.
    """
    edge = spec.window_length // 2 - spec.centre_of_first_frame
    padded = np.pad(pre_emphasised(waveform, spec.pre_emphasis), (edge, edge + spec.window_length))
    num_frames = len(waveform) // spec.hop_length
    frames = np.lib.stride_tricks.sliding_window_view(padded, spec.window_length)[:: spec.hop_length]
    hann, filters = _hann(spec), _sparse_filters(spec)
    mel: np.ndarray = np.empty((num_frames, spec.num_mel_bins), np.float32)
    for start in range(0, num_frames, BLOCK):
        stop = min(start + BLOCK, num_frames)
        spectrum = scipy.fft.rfft(frames[start:stop] * hann, spec.num_fft_samples, axis=1)
        squares = np.square(spectrum.view(np.float32))  # real, imaginary, real, ...
        mel[start:stop] = (filters @ (squares[:, ::2] + squares[:, 1::2]).T).T
    np.add(mel, np.float32(spec.log_offset), out=mel)
    np.log(mel, out=mel)
    return mel


def pre_emphasised(
    waveform: Float32[np.ndarray, " samples"], share: float
) -> Float32[np.ndarray, " samples"]:
    """Each sample less a share of the one before it; the first less that share of itself."""
    if not share:
        return waveform
    emphasised = waveform * np.float32(-share)
    emphasised[1:] = emphasised[:-1]
    emphasised += waveform
    return emphasised


@lru_cache(maxsize=8)
def mel_filters(spec: ClipSpec) -> Float32[np.ndarray, "fft_bins mel_bins"]:
    """Triangles of height 1, equally wide on the mel scale 2595 log10(1 + f / 700) of HTK.

    Kaldi's 1127 ln(1 + f / 700) makes the same triangles, since another unit of mel cancels in each of them.
    """
    edges_mel = np.linspace(_hz_to_mel(spec.min_hz), _hz_to_mel(spec.max_hz), spec.num_mel_bins + 2)
    lower, centre, upper = edges_mel[:-2], edges_mel[1:-1], edges_mel[2:]
    bins_mel = _hz_to_mel(np.fft.rfftfreq(spec.num_fft_samples, 1 / spec.sample_rate))[:, None]
    rising, falling = (bins_mel - lower) / (centre - lower), (upper - bins_mel) / (upper - centre)
    triangles: np.ndarray = np.maximum(0, np.minimum(rising, falling))
    return triangles.astype(np.float32)


@lru_cache(maxsize=8)
def _sparse_filters(spec: ClipSpec) -> csr_array:
    """The filters, [mel_bins, fft_bins]; two in a hundred of their numbers are not zero.

    Trap: as a dense product this would wake the threads of numpy's BLAS, which spin for a tenth of a second
    afterwards and so halve the speed of an inference that follows.
    """
    return csr_array(mel_filters(spec).T)


@lru_cache(maxsize=8)
def _hann(spec: ClipSpec) -> Float32[np.ndarray, " samples"]:
    period = spec.window_length - spec.symmetric_window
    window: np.ndarray = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(spec.window_length) / period)
    if spec.unit_energy:
        window = window / np.sqrt(window @ window)
    return window.astype(np.float32)


def _hz_to_mel(hz: float | np.ndarray) -> np.ndarray:
    return 2595 * np.log10(1 + np.asarray(hz, np.float64) / 700)
