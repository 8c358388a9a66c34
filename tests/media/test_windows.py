"""Windows of a film whose every moment is known: what they cover, share, lack and leave out."""

import resource
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from media import ClipReader, ClipSpec, MediaLimits, TimeRange, probe, read_clips
from media.clip import ReadState
from media.errors import InvalidSpan
from tests.made_films import beep, flash, grey_at, write_film

SPEC = ClipSpec(num_mel_frames=50, num_video_frames=2, frame_size=32)  # windows of 0.5 s
LIMITS = MediaLimits()


@pytest.fixture(scope="module")
def film(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_film(tmp_path_factory.mktemp("film") / "film.mkv", seconds=3.32)


@pytest.mark.slow
@settings(max_examples=25, deadline=None)
@given(
    start=st.floats(0, 3.2),
    length=st.one_of(st.none(), st.floats(0.05, 4)),
    stride=st.one_of(st.none(), st.floats(0.1, 1.5)),
)
def test_every_window_holds_its_own_time(
    start: float, length: float | None, stride: float | None, film: Path
) -> None:
    end = None if length is None else start + length
    time_range = TimeRange(start_seconds=start, end_seconds=end, stride_seconds=stride)
    clips = list(read_clips(film, SPEC, time_range=time_range))
    stop = min(3.32, end or 3.32)
    for index, clip in enumerate(clips):
        assert clip.start_seconds == pytest.approx(start + index * (stride or 0.5))
        assert clip.audio_seconds == pytest.approx(min(0.5, stop - clip.start_seconds), abs=1e-3)
        assert clip.video_seconds == pytest.approx(min(0.5, stop - clip.start_seconds), abs=0.041)
        if abs(clip.start_seconds + 0.5 - stop) > 1e-3:
            assert clip.padded == (clip.start_seconds + 0.5 > stop)
        times = [min(clip.start_seconds + x, stop - 1e-3) for x in SPEC.frame_offsets_seconds]
        expected = [grey_at(int(t * 25 + 1e-4) / 25) for t in times]
        np.testing.assert_allclose(clip.video[:, 16, 16, 0], expected, atol=4)


@settings(max_examples=5, deadline=None)
@given(stride=st.floats(0.1, 0.5))
def test_overlapping_windows_equal_windows_read_alone(stride: float, film: Path) -> None:
    for index, clip in enumerate(read_clips(film, SPEC, time_range=TimeRange(stride_seconds=stride))):
        if index % 7 == 3:
            alone = next(iter(read_clips(film, SPEC, time_range=TimeRange(start_seconds=clip.start_seconds))))
            np.testing.assert_array_equal(clip.video, alone.video)
            np.testing.assert_array_equal(clip.audio, alone.audio)
            assert clip.video_seconds == pytest.approx(alone.video_seconds)


@pytest.mark.parametrize("first", [1, 5, 6, 7, 40])
def test_reading_from_a_later_window_gives_the_rest(first: int, film: Path) -> None:
    state = ReadState(info=probe(film), first_window=first)
    reader = ClipReader(
        film, SPEC, audio=True, video=True, time_range=TimeRange(), limits=MediaLimits(), state=state
    )
    rest = list(reader)
    whole = list(read_clips(film, SPEC))[first:]
    assert [clip.start_seconds for clip in rest] == [clip.start_seconds for clip in whole]
    for clip, wanted in zip(rest, whole, strict=True):
        np.testing.assert_array_equal(clip.audio, wanted.audio)
        np.testing.assert_array_equal(clip.video, wanted.video)
        assert clip.padded == wanted.padded


@pytest.mark.parametrize("suffix", [".mp4", ".mov", ".mkv", ".webm", ".avi", ".ts"])
@pytest.mark.parametrize("late_seconds", [0.0, 0.72])
def test_flash_and_beep_of_one_moment_land_in_one_window(
    suffix: str, late_seconds: float, tmp_path: Path
) -> None:
    """The picture may start later than the sound: only presentation times keep them together."""
    moment = 2.2
    path = write_film(
        tmp_path / f"a{suffix}",
        seconds=4.0,
        sound=beep(moment),
        picture=flash(moment - late_seconds, (32, 32)),
        size=(32, 32),
        video_start_seconds=late_seconds,
    )
    clips = list(read_clips(path, SPEC, time_range=TimeRange(stride_seconds=0.06)))
    # mel frame 12 is at 0.125 s, as is video frame 0
    loud = np.array([clip.start_seconds for clip in clips if clip.audio[12].max() > -9])
    bright = np.array([clip.start_seconds for clip in clips if clip.video[0].mean() > 128])
    assert loud.mean() == pytest.approx(bright.mean(), abs=0.05)


def test_a_flash_and_a_beep_after_a_seek_stay_together(tmp_path: Path) -> None:
    picture = flash(33.2, (32, 32))
    path = write_film(
        tmp_path / "a.mp4", seconds=40.0, fps=10, sound=beep(33.2), picture=picture, size=(32, 32)
    )
    time_range = TimeRange(start_seconds=32.5, end_seconds=34.0, stride_seconds=0.05)
    clips = list(read_clips(path, SPEC, time_range=time_range))
    loud = np.array([clip.start_seconds for clip in clips if clip.audio[12].max() > -9])
    bright = np.array([clip.start_seconds for clip in clips if clip.video[0].mean() > 128])
    assert loud.mean() == pytest.approx(bright.mean(), abs=0.06)


def test_picture_after_its_end_repeats_and_does_not_count(tmp_path: Path) -> None:
    path = write_film(
        tmp_path / "a.mkv", seconds=3.0, frame_times=[i / 25 for i in range(30)]
    )  # 1.2 s of picture
    clips = list(read_clips(path, SPEC))
    assert [clip.video_seconds for clip in clips] == pytest.approx([0.5, 0.5, 0.2, 0, 0, 0], abs=0.01)
    np.testing.assert_array_equal(clips[-1].video[0], clips[3].video[1])
    assert [clip.padded for clip in clips] == [False, False, True, True, True, True]


def test_sound_after_its_end_is_silence_and_does_not_count(tmp_path: Path) -> None:
    path = write_film(
        tmp_path / "a.mkv", seconds=1.2, frame_times=[i / 25 for i in range(75)]
    )  # 3 s of picture
    clips = list(read_clips(path, SPEC))
    assert [clip.audio_seconds for clip in clips] == pytest.approx([0.5, 0.5, 0.2, 0, 0, 0], abs=0.01)
    assert [clip.is_silent for clip in clips] == [False, False, False, True, True, True]


def test_a_film_that_ends_early_is_told(tmp_path: Path) -> None:
    content = write_film(tmp_path / "a.mkv", seconds=6.0).read_bytes()
    reader = read_clips(content[: len(content) // 2], SPEC)
    clips = list(reader)
    assert 4 < len(clips) < 9
    assert any("promises 6.0 s" in warning for warning in reader.warnings)
    whole = read_clips(content, SPEC)
    assert len(list(whole)) == 12
    assert whole.warnings == []


def test_damage_in_the_middle_is_passed_over_and_told(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)

    def noise(_: float) -> np.ndarray:
        return rng.integers(0, 256, (48, 64, 3), dtype=np.uint8)

    path = write_film(tmp_path / "a.mkv", seconds=6.0, picture=noise)
    content = bytearray(path.read_bytes())
    middle, length = len(content) // 2, len(content) // 10
    content[middle : middle + length] = rng.bytes(length)
    reader = read_clips(bytes(content), SPEC)
    clips = list(reader)
    assert len(clips) >= 11
    assert any("video: a frame is damaged" in warning for warning in reader.warnings)
    assert len(list(reader)) == len(clips)  # once more, from the start


def test_a_start_past_the_end_of_an_unknown_length_fails(tmp_path: Path) -> None:
    path = write_film(tmp_path / "a.mkv", seconds=2.0, options={"live": "1"})
    with pytest.raises(InvalidSpan, match="nothing at 30 s"):
        list(read_clips(path, SPEC, time_range=TimeRange(start_seconds=30.0)))


@pytest.mark.parametrize(
    ("numbers", "match"),
    [
        ({"start_seconds": -1.0}, "start_seconds=-1.0"),
        ({"start_seconds": float("inf")}, "start_seconds=inf"),
        ({"start_seconds": float("nan")}, "start_seconds=nan"),
        ({"end_seconds": 1.0}, "end_seconds=1.0"),
        ({"end_seconds": float("nan")}, "end_seconds=nan"),
        ({"stride_seconds": 0.0}, "stride_seconds=0.0"),
        ({"stride_seconds": float("nan")}, "stride_seconds=nan"),
        ({"stride_seconds": float("inf")}, "stride_seconds=inf"),
        ({"stride_seconds": -1}, "stride_seconds=-1 must be"),
        ({"end_seconds": "2"}, "end_seconds='2'"),
        ({"start_seconds": True}, "start_seconds=True"),
    ],
)
def test_numbers_that_are_no_times_fail(numbers: dict[str, Any], match: str) -> None:
    with pytest.raises(InvalidSpan, match=match):
        TimeRange(**{"start_seconds": 1.0, "end_seconds": None, "stride_seconds": 1.0, **numbers})


def test_a_span_of_unknown_media_is_checked_later() -> None:
    TimeRange(start_seconds=5.0, end_seconds=None, stride_seconds=1.0).check_duration(None, LIMITS)


@pytest.mark.slow
def test_an_hour_takes_no_more_memory_than_a_minute(tmp_path: Path) -> None:
    path = write_film(tmp_path / "long.mov", seconds=240.0, fps=2, size=(640, 480), keyframe_every=100)
    unit = 1 if sys.platform == "darwin" else 1024
    reader = iter(read_clips(path, SPEC, time_range=TimeRange(stride_seconds=1.0)))
    for _ in range(20):
        next(reader)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
    num_windows = 20 + sum(1 for _ in reader)
    after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
    assert num_windows == 240
    assert after - before < 20_000_000  # all frames together are 300 MB
