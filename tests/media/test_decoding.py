"""Frames of one stream: times without jumps, and reading past what breaks."""

from collections.abc import Callable, Iterator
from itertools import accumulate
from pathlib import Path
from typing import BinaryIO

import av
import av.error
import numpy as np
import pytest
from av.video.frame import VideoFrame
from hypothesis import given, settings
from hypothesis import strategies as st

from media.container import MediaLimits, audio_stream, open_container, video_stream
from media.decoding import MAX_BROKEN_READS, Decoder, Timeline
from media.video import VideoReader
from tests.made_films import write_film

LIMITS = MediaLimits()


@pytest.fixture(scope="module")
def film(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_film(tmp_path_factory.mktemp("film") / "film.mkv", seconds=4.0)


@pytest.fixture(scope="module")
def broadcast(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_film(tmp_path_factory.mktemp("film") / "film.ts", seconds=4.0)


def test_frames_come_with_their_times(film: Path) -> None:
    with open_container(film, LIMITS) as container:
        times = [seconds for seconds, _ in Decoder(container, video_stream(container), LIMITS).frames()]
    assert times == pytest.approx([i / 25 for i in range(100)])


@given(st.lists(st.floats(-9, 9), min_size=1, max_size=9))
def test_small_steps_are_kept(steps: list[float]) -> None:
    timeline = Timeline(FakeContainer(may_jump=True))
    times = list(accumulate(steps))
    assert [timeline.place(seconds, 0.0) for seconds in times] == pytest.approx(times)


@pytest.mark.parametrize(
    ("may_jump", "pts", "expected"),
    [
        (False, [0.0, 1.0, 100.0], [0.0, 1.0, 100.0]),  # a long pause
        (True, [0.0, 1.0, 100.0, 101.0], [0.0, 1.0, 2.0, 3.0]),  # a clock set anew
        (False, [50.0, 51.0, 0.0, 1.0], [50.0, 51.0, 52.0, 53.0]),
        (True, [50.0, 51.0, 0.0, 1.0, 90.0], [50.0, 51.0, 52.0, 53.0, 54.0]),
        (False, [None, None, 2.0, None], [0.0, 1.0, 2.0, 3.0]),
    ],
)
def test_jumps_of_the_clock_are_taken_out(
    may_jump: bool, pts: list[float | None], expected: list[float]
) -> None:
    timeline = Timeline(FakeContainer(may_jump=may_jump))
    assert [timeline.place(seconds, 1.0) for seconds in pts] == expected
    assert timeline.is_shifted == (
        expected != [e if p is None else p for p, e in zip(pts, expected, strict=True)]
    )


class FakeContainer:
    """As much of a container as a timeline asks for."""

    start_time = 0

    def __init__(self, *, may_jump: bool) -> None:
        self.format = self
        self.flags = av.format.Flags.ts_discont.value if may_jump else 0


class FailingFile:
    """A file whose reads fail where it is told to."""

    def __init__(self, file: BinaryIO, fails: Callable[[int], bool]) -> None:
        self._file, self._fails = file, fails
        self.seek, self.tell = file.seek, file.tell

    def read(self, size: int) -> bytes:
        if self._fails(self._file.tell()):
            raise av.error.InvalidDataError(1094995529, "this place cannot be read")
        return self._file.read(size)


@pytest.mark.parametrize("read", [audio_stream, video_stream])
def test_a_file_that_breaks_off_gives_what_came_before(read: Callable, film: Path) -> None:
    size = film.stat().st_size
    with film.open("rb") as file:
        is_open = False
        source = FailingFile(file, lambda position: is_open and position > size // 2)
        with open_container(source, LIMITS) as container:
            is_open = True
            decoder = Decoder(container, read(container), LIMITS)
            times = [seconds for seconds, _ in decoder.frames()]
    assert 0.5 < times[-1] < 3.5
    assert len(decoder.faults) <= MAX_BROKEN_READS
    assert "breaks off" in decoder.faults[0]


def test_without_a_way_to_seek_there_is_no_seeking(broadcast: Path) -> None:
    with open_container(broadcast, LIMITS) as container:
        decoder = Decoder(container, video_stream(container), LIMITS)
        decoder._timeline._shift = 5.0
        assert decoder.frames_before(1.0) is None


def _chosen(path: Path, times_seconds: list[float]) -> tuple[list[np.ndarray], int]:
    """Pictures on display at these times, and how many were decoded for them."""
    with open_container(path, LIMITS) as container:
        reader = VideoReader(container, LIMITS)
        frames, num_decoded = reader._frames, 0

        def counted() -> Iterator[tuple[float, VideoFrame]]:
            nonlocal num_decoded
            for timed in frames:
                num_decoded += 1
                yield timed

        reader._frames = counted()
        pictures = [reader.frame_at(seconds) for seconds in times_seconds]
        assert all(picture is not None for picture in pictures)
        return [
            picture.to_ndarray(format="rgb24") for picture in pictures if picture is not None
        ], num_decoded


@pytest.fixture(scope="module")
def reordered(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str, str], Path]:
    """Films whose pictures are decoded in another order than shown, written once each."""
    folder = tmp_path_factory.mktemp("reordered")

    def film(suffix: str, pyramid: str) -> Path:
        path = folder / f"{pyramid}{suffix}"
        if not path.exists():
            x264 = f"b-adapt=0:scenecut=0:b-pyramid={pyramid}"
            write_film(path, seconds=4.0, keyframe_every=100, num_reordered=3, x264=x264)
        return path

    return film


def _compare(path: Path, times: list[float]) -> tuple[int, int]:
    """Pictures decoded with and without leaving any out; those on display are equal in every bit."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("media.decoding.SKIPPABLE_CODECS", frozenset())
        wanted, num_all = _chosen(path, times)
    got, num_decoded = _chosen(path, times)
    for picture, other in zip(got, wanted, strict=True):
        np.testing.assert_array_equal(picture, other)
    return num_decoded, num_all


@pytest.mark.parametrize("suffix", [".mp4", ".mkv", ".ts"])
@pytest.mark.parametrize("pyramid", ["none", "normal"])
@settings(max_examples=6, deadline=None)
@given(step=st.floats(0.03, 0.6), start=st.floats(0, 0.5))
def test_pictures_that_are_left_out_are_never_the_ones_asked_for(
    suffix: str, pyramid: str, step: float, start: float, reordered: Callable[[str, str], Path]
) -> None:
    times = [start + i * step for i in range(int((4.0 - start) / step))]
    num_decoded, num_all = _compare(reordered(suffix, pyramid), times)
    assert num_decoded <= num_all


def test_some_pictures_are_left_out(reordered: Callable[[str, str], Path]) -> None:
    num_decoded, num_all = _compare(reordered(".mp4", "none"), [0.1, 0.9, 1.7, 2.5, 3.3])
    assert num_decoded < 0.6 * num_all  # three of four refer to others and are referred to by none
