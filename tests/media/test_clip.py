"""Windows of made media: times, padding, alignment, stills, and what is refused."""

import io
import tracemalloc
from pathlib import Path

import av
import numpy as np
import pytest

from media import ClipSpec, MediaLimits, Modality, TimeRange, probe, read_clips, read_frames, read_waveform
from media.errors import (
    CorruptMedia,
    EmptyMedia,
    InvalidSpan,
    MediaError,
    MediaTooLarge,
    MissingAudio,
    MissingVideo,
    UnsupportedMedia,
)
from media.pooling import pool, window_weights
from tests.made_media import clip_bytes, jpeg_bytes, moving_frames, tone, write_clip


def test_windows_cover_the_film_and_the_last_is_padded(film: Path, spec: ClipSpec) -> None:
    clips = list(read_clips(film, spec))
    assert [c.start_seconds for c in clips] == pytest.approx([0.0, 0.64, 1.28, 1.92][: len(clips)])
    assert len(clips) == 3  # the rest, 0.08 s, is not worth an answer
    assert not any(c.padded for c in clips)
    assert all(c.audio.shape == spec.audio_shape and c.video.shape == spec.video_shape for c in clips)


def test_short_media_is_padded_and_flagged(spec: ClipSpec, tmp_path: Path) -> None:
    path = write_clip(tmp_path / "short.wav", waveform=tone(0.3))
    (clip,) = read_clips(path, spec, video=False)
    assert clip.padded
    assert clip.audio_seconds == pytest.approx(0.3)
    np.testing.assert_allclose(clip.audio[-20:], np.log(spec.log_offset), atol=1e-5)


def test_frames_are_chosen_by_presentation_time(film: Path) -> None:
    frames = read_frames(film, [0.0, 0.21, 0.99, 1.5], height=64, width=96)
    red = frames[:, 40, 60, 0].astype(int)
    np.testing.assert_allclose(red, [0, 50, 240, 120], atol=8)  # frame 0, 5, 24 and 37


@pytest.mark.parametrize("suffix", [".mp4", ".webm", ".mkv"])
def test_flash_and_beep_of_one_moment_stay_together(suffix: str, spec: ClipSpec, tmp_path: Path) -> None:
    rate = 48_000 if suffix != ".mp4" else 16_000
    frames = [np.full((64, 64, 3), 255 if 30 <= i < 40 else 0, np.uint8) for i in range(75)]  # 1.2 s to 1.6 s
    waveform = np.zeros(3 * rate, np.float32)
    waveform[int(1.2 * rate) : int(1.6 * rate)] = tone(0.4, sample_rate=rate)
    path = write_clip(tmp_path / f"flash{suffix}", waveform=waveform, frames=frames, sample_rate=rate)
    clips = list(read_clips(path, spec, time_range=TimeRange(stride_seconds=0.1)))
    loud = np.array(
        [c.audio[16].max() > -8 for c in clips]
    )  # mel frame 16 is at 0.165 s, as is video frame 0
    bright = np.array([c.video[0].mean() > 128 for c in clips])
    assert loud.any()
    assert (loud != bright).sum() <= 2  # at the edges


def test_overlapping_windows_equal_windows_read_alone(film: Path, spec: ClipSpec) -> None:
    overlapping = list(read_clips(film, spec, time_range=TimeRange(stride_seconds=0.2)))
    for clip in overlapping[:6]:
        alone = next(iter(read_clips(film, spec, time_range=TimeRange(start_seconds=clip.start_seconds))))
        np.testing.assert_array_equal(clip.video, alone.video)
        np.testing.assert_array_equal(clip.audio, alone.audio)


@pytest.mark.slow
def test_a_seek_gives_the_same_window(spec: ClipSpec, tmp_path: Path) -> None:
    path = write_clip(tmp_path / "long.mp4", waveform=tone(30.0), frames=moving_frames(30.0, size=(64, 64)))
    through = list(read_clips(path, spec, time_range=TimeRange(stride_seconds=5.0)))[4]
    sought = next(iter(read_clips(path, spec, time_range=TimeRange(start_seconds=20.0))))
    np.testing.assert_array_equal(through.video, sought.video)
    np.testing.assert_allclose(through.audio, sought.audio, atol=0.3)  # AAC warms up


def test_end_of_the_span_is_padding(film: Path, spec: ClipSpec) -> None:
    clips = list(read_clips(film, spec, time_range=TimeRange(end_seconds=1.0)))
    assert len(clips) == 2
    assert clips[1].audio_seconds == pytest.approx(0.36)
    assert clips[1].padded


def test_only_what_is_asked_for_is_read(film: Path, spec: ClipSpec) -> None:
    assert next(iter(read_clips(film, spec, video=False))).video is None
    assert next(iter(read_clips(film, spec, audio=False))).audio is None
    with pytest.raises(ValueError, match="neither"):
        read_clips(film, spec, audio=False, video=False)


def test_a_still_is_one_full_window(spec: ClipSpec) -> None:
    picture = jpeg_bytes(np.full((48, 64, 3), (200, 30, 90), np.uint8))
    assert probe(picture).is_still
    (clip,) = read_clips(picture, spec, audio=False)
    assert not clip.padded
    np.testing.assert_array_equal(clip.video[0], clip.video[1])
    np.testing.assert_allclose(clip.video[0, 16, 16], (200, 30, 90), atol=6)


def test_any_rate_and_channel_count_becomes_16_khz_mono(spec: ClipSpec, tmp_path: Path) -> None:
    for rate, channels in ((8_000, 1), (44_100, 2), (48_000, 6)):
        sound = tone(1.0, sample_rate=rate)
        path = write_clip(tmp_path / f"{rate}.wav", waveform=sound, sample_rate=rate, channels=channels)
        waveform = read_waveform(path, spec)
        assert len(waveform) == pytest.approx(16_000, abs=40)
        peak = np.abs(np.fft.rfft(waveform[:16_000], 16_000)).argmax()
        assert peak == 440


def test_silence_is_flagged(spec: ClipSpec, tmp_path: Path) -> None:
    path = write_clip(tmp_path / "silence.wav", waveform=np.zeros(16_000, np.float32))
    assert all(c.is_silent for c in read_clips(path, spec, video=False))
    path = write_clip(tmp_path / "quiet.wav", waveform=tone(1.0, level=0.01))
    assert not any(c.is_silent for c in read_clips(path, spec, video=False))


def test_bytes_paths_and_files_give_the_same(film: Path, spec: ClipSpec) -> None:
    with film.open("rb") as file:
        sources = [film, str(film), film.read_bytes(), io.BytesIO(film.read_bytes()), file]
        first = [next(iter(read_clips(source, spec))) for source in sources]
    for clip in first[1:]:
        np.testing.assert_array_equal(clip.video, first[0].video)
        np.testing.assert_array_equal(clip.audio, first[0].audio)


def test_rotation_is_honoured(tmp_path: Path) -> None:
    frame = np.zeros((64, 96, 3), np.uint8)
    frame[:, :48] = (255, 0, 0)
    source = write_clip(tmp_path / "flat.mp4", frames=[frame] * 5)
    turned = tmp_path / "turned.mov"
    with av.open(str(source)) as from_, av.open(str(turned), "w") as to:
        stream = to.add_stream_from_template(from_.streams.video[0])
        stream.set_display_rotation(90)
        for packet in from_.demux(video=0):
            if packet.dts is not None:
                packet.stream = stream
                to.mux(packet)
    upright = read_frames(turned, [0.0], height=96, width=64)[0]
    with av.open(str(turned)) as container:
        rotation = next(container.decode(video=0)).rotation
    expected = np.rot90(frame, round(rotation / 90))
    assert rotation in (90, -90)
    assert np.abs(upright.astype(int) - expected).mean() < 12


@pytest.mark.slow
def test_memory_does_not_grow_with_length(spec: ClipSpec, tmp_path: Path) -> None:
    path = write_clip(tmp_path / "long.mp4", waveform=tone(120.0), frames=moving_frames(120.0, fps=5), fps=5)
    peaks = []
    for count in (4, 180):
        tracemalloc.start()
        for i, _ in enumerate(read_clips(path, spec)):
            if i == count:
                break
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] < peaks[0] + 2_000_000


@pytest.mark.parametrize(
    ("source", "error"),
    [
        (b"", EmptyMedia),
        (b"\0", UnsupportedMedia),
        (b"this is a text file, whatever its name says\n" * 99, UnsupportedMedia),
        (b"#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\n/etc/passwd\n", UnsupportedMedia),
        (b"ffconcat version 1.0\nfile /etc/passwd\n", UnsupportedMedia),
        (b"v=0\r\no=- 0 0 IN IP4 127.0.0.1\r\nm=video 5004 RTP/AVP 96\r\n", UnsupportedMedia),
    ],
)
def test_what_is_no_media_fails(source: bytes, error: type[MediaError]) -> None:
    with pytest.raises(error):
        probe(source)


@pytest.mark.parametrize("share", [0.01, 0.25, 0.5, 0.75])
def test_a_truncated_film_fails_clearly(share: float, film: Path, spec: ClipSpec) -> None:
    content = film.read_bytes()  # its index is at the end
    with pytest.raises((CorruptMedia, UnsupportedMedia), match="complete|no container"):
        list(read_clips(content[: int(len(content) * share)], spec))


@pytest.mark.slow
def test_a_truncated_webm_is_served_with_a_warning_or_whole_windows(spec: ClipSpec, tmp_path: Path) -> None:
    sound = tone(4.0, sample_rate=48_000)
    content = clip_bytes(".webm", tmp_path, frames=moving_frames(4.0), waveform=sound, sample_rate=48_000)
    whole = list(read_clips(content, spec))
    part = list(read_clips(content[: len(content) // 2], spec))
    assert 0 < len(part) < len(whole)


def test_missing_modalities_fail(song: Path, mute_film: Path, spec: ClipSpec) -> None:
    with pytest.raises(MissingVideo, match="ask for audio"):
        read_clips(song, spec)
    with pytest.raises(MissingAudio, match="ask for video"):
        read_clips(mute_film, spec)


@pytest.mark.parametrize(
    "span",
    [
        {"start_seconds": -1.0},
        {"start_seconds": float("nan")},
        {"stride_seconds": 0.0},
        {"end_seconds": 0.0},
        {"start_seconds": 99.0},
        {"end_seconds": float("inf")},
    ],
)
def test_times_that_mean_nothing_fail(span: dict[str, float], film: Path, spec: ClipSpec) -> None:
    with pytest.raises(InvalidSpan):
        read_clips(film, spec, time_range=TimeRange(**span))


@pytest.mark.parametrize(
    "limits",
    [{"max_duration_seconds": 1.0}, {"max_pixels": 100}, {"max_streams": 1}, {"max_windows": 1}],
)
def test_limits_hold(limits: dict[str, int], film: Path, spec: ClipSpec) -> None:
    with pytest.raises(MediaTooLarge, match="limit"):
        list(read_clips(film, spec, limits=MediaLimits(**limits)))


def test_nothing_that_decodes_fails(spec: ClipSpec, tmp_path: Path) -> None:
    content = write_clip(tmp_path / "a.wav", waveform=tone(0.1)).read_bytes()
    content = content[: content.index(b"data") + 8]
    with pytest.raises(CorruptMedia, match="sound"):
        list(read_clips(content, spec, video=False))
    with pytest.raises(CorruptMedia, match="sound"):
        read_waveform(content, spec)


def test_padding_and_silence_do_not_vote(spec: ClipSpec, tmp_path: Path) -> None:
    waveform = np.concatenate([tone(0.64), np.zeros(round(0.64 * 16_000), np.float32), tone(0.32)])
    clips = list(read_clips(write_clip(tmp_path / "a.wav", waveform=waveform), spec, video=False))
    weights = window_weights(clips, Modality.AUDIO)
    assert weights == pytest.approx([0.64, 0.0, 0.32])
    assert pool(np.array([[1.0], [9.0], [4.0]]), weights) == pytest.approx([2.0])
    assert window_weights(clips[1:2], Modality.AUDIO) == pytest.approx([1.0])
