"""Sound: rates, channels, number formats, and samples at their presentation times."""

import struct
from pathlib import Path

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from media import ClipSpec, probe, read_clips, read_waveform
from media.audio import MAX_AMPLITUDE
from media.errors import CorruptMedia, InvalidSpan, MediaError, MissingAudio, UnsupportedMedia
from tests.made_films import beep, join, sine, write_film, write_wav

SPEC = ClipSpec(num_mel_frames=50)  # windows of 0.5 s
ONE_SECOND = np.arange(16_000) / 16_000


def wav_bytes(samples: np.ndarray, *, sample_rate: int = 16_000, channels: int = 1) -> bytes:
    """16-bit WAV with the plain header, which names no loudspeakers."""
    body = np.repeat(samples.astype("<i2"), channels).tobytes()
    form = struct.pack("<HHIIHH", 1, channels, sample_rate, 2 * channels * sample_rate, 2 * channels, 16)
    head = b"RIFF" + struct.pack("<I", 36 + len(body)) + b"WAVEfmt " + struct.pack("<I", 16) + form
    return head + b"data" + struct.pack("<I", len(body)) + body


def test_stereo_of_64_bit_integers_is_read() -> None:
    """PyAV makes no array of such frames."""
    left, right = 0.5 * np.sin(ONE_SECOND * 2_000), 0.25 * np.sin(ONE_SECOND * 700)
    body = (np.stack([left, right], 1) * 2.0**63).astype("<i8").tobytes()
    form = struct.pack("<HHIIHH", 1, 2, 16_000, 16 * 16_000, 16, 64)
    head = b"RIFF" + struct.pack("<I", 36 + len(body)) + b"WAVEfmt " + struct.pack("<I", 16) + form
    waveform = read_waveform(head + b"data" + struct.pack("<I", len(body)) + body, SPEC)
    np.testing.assert_allclose(waveform, (left + right) / 2, atol=1e-6)


def test_16_khz_mono_comes_through_bit_for_bit(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).uniform(-1, 1, 5_000).astype(np.float32)
    np.testing.assert_array_equal(read_waveform(write_wav(tmp_path / "a.wav", noise), SPEC), noise)


@pytest.mark.parametrize(
    ("codec", "step"),
    [("pcm_u8", 1 / 64), ("pcm_s16le", 1e-4), ("pcm_s24le", 1e-6), ("pcm_f32le", 1e-7), ("pcm_f64le", 1e-7)],
)
@pytest.mark.parametrize("channels", [1, 2, 6, 8])
def test_every_number_format_has_the_same_scale(
    codec: str, step: float, channels: int, tmp_path: Path
) -> None:
    tone = np.broadcast_to(0.5 * np.sin(2 * np.pi * 440 * ONE_SECOND), (channels, 16_000))
    waveform = read_waveform(write_wav(tmp_path / "a.wav", tone, codec=codec), SPEC)
    np.testing.assert_allclose(waveform, tone[0], atol=step)


def test_channels_count_the_same(tmp_path: Path) -> None:
    left, right = np.full(16_000, 0.5), np.full(16_000, -0.1)
    waveform = read_waveform(write_wav(tmp_path / "a.wav", np.stack([left, right]), codec="pcm_s16le"), SPEC)
    np.testing.assert_allclose(waveform, 0.2, atol=1e-4)


@pytest.mark.parametrize("channels", [1, 3, 12, 32, 64])
def test_channels_without_a_place_are_mixed_too(channels: int) -> None:
    tone = 10_000 * np.sin(2 * np.pi * 440 * ONE_SECOND)
    waveform = read_waveform(wav_bytes(tone, channels=channels), SPEC)
    np.testing.assert_allclose(waveform, tone / 32_768, atol=1e-4)
    assert probe(wav_bytes(tone, channels=channels)).num_channels == channels


@settings(max_examples=12, deadline=None)
@given(
    sample_rate=st.sampled_from([4_000, 8_000, 11_025, 22_050, 44_100, 96_000, 192_000]),
    hz=st.integers(100, 1_500),
)
def test_a_tone_keeps_its_pitch_and_length_at_any_rate(sample_rate: int, hz: int) -> None:
    times = np.arange(sample_rate) / sample_rate
    waveform = read_waveform(
        wav_bytes(16_000 * np.sin(2 * np.pi * hz * times), sample_rate=sample_rate), SPEC
    )
    assert abs(len(waveform) - 16_000) <= 32
    spectrum = np.abs(np.fft.rfft(waveform, 16_000))
    assert spectrum.argmax() == hz


def test_a_rate_that_is_no_sound_fails() -> None:
    with pytest.raises(UnsupportedMedia, match="no sound or picture"):
        read_waveform(wav_bytes(np.zeros(4_000), sample_rate=1), SPEC)


def test_samples_that_are_no_numbers_are_silence_and_told(tmp_path: Path) -> None:
    samples = (0.1 * np.ones(8_000)).astype(np.float32)
    samples[[10, 20, 30]] = np.nan, np.inf, 1e30
    path = write_wav(tmp_path / "a.wav", samples)
    waveform = read_waveform(path, SPEC)
    assert (waveform[[10, 20, 30]] == 0).all()
    assert np.isfinite(waveform).all()
    reader = read_clips(path, SPEC, video=False)
    assert all(np.isfinite(clip.audio).all() for clip in reader)
    assert "no numbers" in reader.warnings[0]


def test_nothing_is_louder_than_the_limit(tmp_path: Path) -> None:
    assert read_waveform(write_wav(tmp_path / "a.wav", np.full(99, 100.0)), SPEC).max() == MAX_AMPLITUDE


def test_one_sample_is_a_window(tmp_path: Path) -> None:
    (clip,) = read_clips(write_wav(tmp_path / "a.wav", np.ones(1)), SPEC, video=False)
    assert clip.padded
    assert clip.audio_seconds == 1 / 16_000


def test_a_span_of_the_waveform(tmp_path: Path) -> None:
    ramp = np.linspace(-1, 1, 32_000).astype(np.float32)
    path = write_wav(tmp_path / "a.wav", ramp)
    np.testing.assert_array_equal(
        read_waveform(path, SPEC, start_seconds=0.3, end_seconds=1.7), ramp[4_800:27_200]
    )
    np.testing.assert_array_equal(
        read_waveform(path, SPEC, start_seconds=1.5, end_seconds=9.0), ramp[24_000:]
    )


@pytest.mark.parametrize(("start", "end"), [(-1.0, None), (2.5, None), (0.5, 0.5), (float("nan"), None)])
def test_a_span_that_is_none_fails(start: float, end: float | None, tmp_path: Path) -> None:
    path = write_wav(tmp_path / "a.wav", np.zeros(32_000))
    with pytest.raises(InvalidSpan):
        read_waveform(path, SPEC, start_seconds=start, end_seconds=end)


def test_a_film_without_sound_fails(tmp_path: Path) -> None:
    with pytest.raises(MissingAudio, match="no sound"):
        read_waveform(write_film(tmp_path / "a.mp4", audio=False, seconds=1), SPEC)


def test_a_gap_reads_as_silence_and_what_follows_keeps_its_time(tmp_path: Path) -> None:
    path = write_film(
        tmp_path / "a.mkv", seconds=4.0, video=False, audio_gap=(0.96, 3.0), sound=sine(level=0.5)
    )
    waveform = read_waveform(path, SPEC)
    loud = np.abs(waveform).reshape(-1, 160).max(axis=1) > 0.1
    assert loud[:90].all()
    assert not loud[100:290].any()
    assert loud[305:395].all()
    clips = list(read_clips(path, SPEC, video=False))
    assert [clip.is_silent for clip in clips] == [False, False, True, True, True, True, False, False]
    assert all(clip.audio_seconds == 0.5 for clip in clips)  # a pause is no end


def test_sound_that_starts_late_is_where_it_belongs(tmp_path: Path) -> None:
    path = write_film(tmp_path / "a.mkv", seconds=3.0, size=(32, 32), audio_start_seconds=1.5)
    waveform = read_waveform(path, SPEC)
    assert not np.abs(waveform[: 24_000 - 400]).max() > 1e-3
    assert np.abs(waveform[24_000 + 400 :]).max() > 0.4
    clips = list(read_clips(path, SPEC, video=False))
    assert [clip.is_silent for clip in clips[:5]] == [True, True, True, False, False]


@pytest.mark.parametrize("suffix", [".mp4", ".ogg", ".mp3", ".flac", ".wav"])
def test_a_seek_finds_the_beep_where_reading_on_does(suffix: str, tmp_path: Path) -> None:
    path = write_film(tmp_path / f"a{suffix}", seconds=40.0, video=False, sound=beep(31.0))
    sought = read_waveform(path, SPEC, start_seconds=30.0, end_seconds=32.0)
    loud = np.flatnonzero(np.abs(sought) > 0.1) / 16_000
    assert loud[0] == pytest.approx(1.0, abs=0.03)
    assert loud[-1] == pytest.approx(1.1, abs=0.03)


def test_recordings_joined_go_on_where_the_one_before_ended(tmp_path: Path) -> None:
    first = write_film(
        tmp_path / "1.ts", seconds=2.0, size=(32, 32), video_start_seconds=100.0, audio_start_seconds=100.0
    )
    second = write_film(tmp_path / "2.ts", seconds=2.0, size=(32, 32), sound=sine(880.0))
    waveform = read_waveform(join([first, second], tmp_path / "joined.ts"), SPEC, end_seconds=9.0)
    assert 3.5 * 16_000 < len(waveform) < 4.5 * 16_000
    pitches = [
        np.abs(np.fft.rfft(part)).argmax() for part in (waveform[8_000:24_000], waveform[40_000:56_000])
    ]
    assert pitches == [440, 880]


@pytest.mark.parametrize(
    ("sample_rate", "is_read"), [(384_000, True), (1_000_000, True), (1_000_001, False), (1 << 27, False)]
)
def test_a_header_may_claim_a_million_samples_a_second_and_no_more(sample_rate: int, is_read: bool) -> None:
    content = bytearray(wav_bytes(8_000 * np.sin(ONE_SECOND * 2_000)))
    content[24:28] = sample_rate.to_bytes(4, "little")
    if is_read:
        assert np.isfinite(read_waveform(bytes(content), SPEC)).all()
    else:
        with pytest.raises(CorruptMedia, match="1 to 1,000,000 can be read: repair its header"):
            read_waveform(bytes(content), SPEC)


@settings(max_examples=40, deadline=None)
@example(junk=b"\x01\x00\x00\x08", at=24)  # a sample rate of 134 MHz
@given(junk=st.binary(min_size=1, max_size=3_000), at=st.integers(0, 3_000))
def test_junk_inside_a_file_never_escapes_the_error_tree(junk: bytes, at: int) -> None:
    content = bytearray(wav_bytes(8_000 * np.sin(ONE_SECOND[:2_000] * 2_000)))
    content[at : at + len(junk)] = junk
    try:
        waveform = read_waveform(bytes(content), SPEC)
    except MediaError:
        return
    assert np.isfinite(waveform).all()


def test_a_header_that_promises_sound_and_has_none_fails() -> None:
    with pytest.raises(CorruptMedia, match="complete"):
        read_waveform(wav_bytes(np.zeros(0)), SPEC)
