"""Log-mel against arithmetic and against other implementations."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import scipy.signal

from media import ClipSpec, read_clips
from media.log_mel import log_mel, mel_filters, pre_emphasised
from tests.made_films import write_wav
from tests.made_media import tone

SPEC = ClipSpec()
KALDI_SPEC = ClipSpec(
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
)
"""As audio taggers trained on AudioSet read sound; they cut the first sample, so that 1 becomes their 0."""
INNER = slice(2, 511)  # frames of which they have all samples; at the ends they mirror the sound


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


def kaldi_triangles() -> np.ndarray:
    """[fft_bins, mel_bins], by Kaldi's formula in float64."""
    low, high = 1127 * np.log1p(0.0 / 700), 1127 * np.log1p(15_000.0 / 700)
    step = (high - low) / 129
    triangles = np.zeros((513, 128))
    for k in range(513):
        mel = 1127 * np.log1p(k * 32_000 / 1_024 / 700)
        for b in range(128):
            left, centre, right = low + b * step, low + (b + 1) * step, low + (b + 2) * step
            if left < mel < right:
                triangles[k, b] = (mel - left) / step if mel <= centre else (right - mel) / step
    return triangles


def tagger_log_mel(waveform: np.ndarray) -> np.ndarray:
    """The front end of such a tagger, in float64: pre-emphasis, mirrored ends, Kaldi's triangles."""
    emphasised = waveform[1:].astype(np.float64) - 0.97 * waveform[:-1].astype(np.float64)
    mirrored = np.pad(emphasised, 512, mode="reflect")
    hann = np.zeros(1_024)
    hann[112:912] = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(800) / 799)
    starts = range(0, len(mirrored) - 1_024 + 1, 320)
    power = [np.abs(np.fft.rfft(mirrored[start : start + 1_024] * hann)) ** 2 for start in starts]
    return np.log(np.array(power) @ kaldi_triangles() + 1e-5)


def made_waveforms() -> list[np.ndarray]:
    """Noise, a chirp, beats that end in silence, and a loud low tone: each 5.12 s at 32 kHz."""
    t = np.arange(KALDI_SPEC.num_samples) / 32_000
    noise = 0.3 * np.random.default_rng(2).standard_normal(len(t))
    chirp = 0.5 * np.sin(2 * np.pi * (100 * t + 1_400 * t**2))
    beats = np.sin(2 * np.pi * 90 * t) * np.exp(-12 * (t % 0.5)) * (t < 4)
    low = 0.9 * np.cos(2 * np.pi * 60 * t)
    return [wave.astype(np.float32) for wave in (noise, chirp, beats, low)]


def assert_equal_in_32_bits(ours: np.ndarray, theirs: np.ndarray) -> None:
    """To 0.00002 on average, and to 0.003 where a quiet band lies beside loud ones."""
    assert np.abs(ours - theirs).mean() < 2e-5
    np.testing.assert_allclose(ours, theirs, atol=3e-3)


def test_kaldis_mel_makes_the_same_triangles() -> None:
    np.testing.assert_allclose(mel_filters(KALDI_SPEC), kaldi_triangles(), atol=1e-6)
    assert (mel_filters(KALDI_SPEC)[480:] == 0).all()  # from 15 kHz on


@pytest.mark.parametrize("waveform", made_waveforms(), ids=["noise", "chirp", "beats", "low"])
def test_inner_frames_are_those_of_a_tagger(waveform: np.ndarray) -> None:
    ours, theirs = log_mel(waveform, KALDI_SPEC), tagger_log_mel(waveform)
    assert ours.shape == theirs.shape == KALDI_SPEC.audio_shape == (512, 128)
    assert_equal_in_32_bits(ours[INNER], theirs[INNER])


def test_inner_frames_are_those_of_torch() -> None:
    torch = pytest.importorskip("torch")
    for waveform in made_waveforms():
        x = torch.from_numpy(waveform).double()
        spectrum = torch.stft(
            x[1:] - 0.97 * x[:-1],
            n_fft=1_024,
            hop_length=320,
            win_length=800,
            window=torch.hann_window(800, periodic=False, dtype=torch.float64),
            center=True,
            return_complex=True,
        )
        power = spectrum.abs().square().T.numpy()
        theirs = np.log(power @ mel_filters(KALDI_SPEC).astype(np.float64) + 1e-5)
        assert_equal_in_32_bits(log_mel(waveform, KALDI_SPEC)[INNER], theirs[INNER])


def test_the_outside_of_a_window_is_zeros_and_its_first_sample_no_click() -> None:
    """Of a constant there is 0.03 left, from the first sample to the last, and nothing around it."""
    constant = np.full(KALDI_SPEC.num_samples, 0.5, np.float32)
    np.testing.assert_allclose(pre_emphasised(constant, 0.97), 0.015, atol=1e-7)
    got = log_mel(constant, KALDI_SPEC)
    hann = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(800) / 799)
    for frame, first, last in ((0, 399, 800), (1, 79, 800), (2, 0, 800), (511, 0, 719)):
        inside = (np.arange(800) >= first) & (np.arange(800) < last)
        power = np.abs(np.fft.rfft(0.015 * hann * inside, 1_024)) ** 2
        np.testing.assert_allclose(got[frame], np.log(power @ kaldi_triangles() + 1e-5), atol=1e-4)


def test_no_sample_outside_a_window_changes_it() -> None:
    waveform = made_waveforms()[0]
    alone = log_mel(waveform[64_000:96_000], KALDI_SPEC)
    within = log_mel(waveform, KALDI_SPEC)[200:300]
    np.testing.assert_array_equal(alone[2:-1], within[2:-1])
    assert (alone[:2] != within[:2]).any(axis=1).all()  # which read what lies before


def test_each_number_changes_the_spectrogram() -> None:
    noise = np.random.default_rng(3).standard_normal(8_000).astype(np.float32)
    plain = log_mel(noise, SPEC)
    energy = 512 * 3 / 8  # of a periodic Hann window
    louder = replace(SPEC, unit_energy=False, log_offset=SPEC.log_offset * energy)
    np.testing.assert_allclose(log_mel(noise, louder), plain + np.log(energy), atol=1e-4)
    np.testing.assert_array_equal(log_mel(noise, replace(SPEC, fft_length=512)), plain)
    moved = log_mel(np.pad(noise, (80, 0))[:8_000], replace(SPEC, first_centre=160))
    np.testing.assert_array_equal(moved[:46], plain[:46])  # whose samples all moved
    for changed in ({"fft_length": 1_024}, {"symmetric_window": True}, {"pre_emphasis": 0.5}):
        assert np.abs(log_mel(noise, replace(SPEC, **changed)) - plain).max() > 0.01


def test_silence_is_the_log_of_the_offset_with_pre_emphasis() -> None:
    silence = np.zeros(KALDI_SPEC.num_samples, np.float32)
    np.testing.assert_allclose(log_mel(silence, KALDI_SPEC), np.log(KALDI_SPEC.log_offset))


@pytest.mark.parametrize("hz", [440, 5_000, 12_000])
def test_a_file_of_44_khz_is_read_at_32_khz(hz: int, tmp_path: Path) -> None:
    """Decoded and resampled, it has the spectrogram of the same tone made at 32 kHz, but for its edges."""
    path = write_wav(tmp_path / "tone.wav", 0.5 * tone(6.0, hz=hz, sample_rate=44_100), sample_rate=44_100)
    clip = next(iter(read_clips(path, KALDI_SPEC, video=False)))
    made = log_mel(0.5 * tone(5.12, hz=hz, sample_rate=32_000), KALDI_SPEC)
    assert clip.audio.shape == (512, 128)
    assert clip.audio_seconds == pytest.approx(5.12)
    loud = made[2:510] > -2  # what resampling leaves beside a tone is quieter
    assert loud.any(axis=1).all()
    assert np.abs(clip.audio[2:510] - made[2:510])[loud].max() < 0.02
    centres = 700 * np.expm1(np.log1p(15_000 / 700) * np.arange(1, 129) / 129)
    assert abs(centres[clip.audio[256].argmax()] - hz) < np.diff(centres).max()
