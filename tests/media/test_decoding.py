"""Frames of one stream: times without jumps, and reading past what breaks."""

from collections.abc import Callable
from itertools import accumulate
from pathlib import Path
from typing import BinaryIO

import av
import av.error
import pytest
from hypothesis import given
from hypothesis import strategies as st

from media.container import MediaLimits, audio_stream, open_container, video_stream
from media.decoding import MAX_BROKEN_READS, Decoder, Timeline
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
def test_jumps_of_the_clock_are_taken_out(may_jump: bool, pts: list[float | None], expected: list[float]) -> None:
    timeline = Timeline(FakeContainer(may_jump=may_jump))
    assert [timeline.place(seconds, 1.0) for seconds in pts] == expected
    assert timeline.is_shifted == (expected != [e if p is None else p for p, e in zip(pts, expected, strict=True)])


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
