"""Log-mel against arithmetic and against another implementation."""

import numpy as np
import scipy.signal

from media import ClipSpec
from media.log_mel import log_mel, mel_filters
from tests.made_media import tone

SPEC = ClipSpec()


def test_pure_tone_lands_in_the_band_of_its_frequency() -> None:
    spectrum = log_mel(tone(1.0, hz=1_000), SPEC).mean(axis=0)
    mel_of_tone = 2595 * np.log10(1 + 1_000 / 700)
    mel_step = 2595 * np.log10(1 + 8_000 / 700) / (SPEC.num_mel_bins + 1)
    assert spectrum.argmax() == round(mel_of_tone / mel_step) - 1


def test_equals_scipys_spectrogram_through_the_same_triangles() -> None:
    waveform = np.random.default_rng(0).standard_normal(8_000).astype(np.float32)
    hann = scipy.signal.windows.hann(SPEC.window_length, sym=False)
    edge = (SPEC.window_length - SPEC.hop_length) // 2
    _, _, power = scipy.signal.spectrogram(
        np.pad(waveform.astype(np.float64), edge),
        fs=1.0,
        window=hann,
        noverlap=SPEC.window_length - SPEC.hop_length,
        detrend=False,
        mode="psd",
        return_onesided=True,
    )
    power[1:-1] /= 2  # scipy doubles what a one-sided spectrum leaves out
    expected = np.log(power.T @ mel_filters(SPEC) + SPEC.log_offset)
    np.testing.assert_allclose(log_mel(waveform, SPEC), expected, atol=2e-4)


def test_white_noise_has_its_variance_in_every_band() -> None:
    noise = 0.1 * np.random.default_rng(1).standard_normal(160_000).astype(np.float32)
    band_power = (np.exp(log_mel(noise, SPEC)) - SPEC.log_offset).mean(axis=0) / mel_filters(SPEC).sum(axis=0)
    np.testing.assert_allclose(band_power, 0.01, rtol=0.15)


def test_silence_is_the_log_of_the_offset() -> None:
    np.testing.assert_allclose(log_mel(np.zeros(1_600, np.float32), SPEC), np.log(SPEC.log_offset))


def test_shape_follows_from_the_spec() -> None:
    assert log_mel(np.zeros(SPEC.num_samples, np.float32), SPEC).shape == SPEC.audio_shape


def test_every_band_hears_something() -> None:
    assert (mel_filters(SPEC).sum(axis=0) > 0).all()
