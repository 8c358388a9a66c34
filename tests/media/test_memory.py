"""A lack of memory is never taken for a fault of the file."""

import json
import subprocess
import sys
from pathlib import Path

import av.error
import pytest

import media.memory as memory
from media import MediaLimits
from media.container import open_container, video_stream
from media.decoding import Decoder
from media.memory import BYTES_PER_PIXEL, MIN_SPARE_BYTES, raise_if_starved, spare_bytes
from tests.made_films import write_film
from tests.media.little_memory import ENOUGH_BYTES


def _leave(num_bytes: int | None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "spare_bytes", lambda: num_bytes)


@pytest.mark.parametrize("spare", [None, MIN_SPARE_BYTES + 100 * BYTES_PER_PIXEL])
def test_what_fails_in_enough_memory_is_no_lack_of_it(
    spare: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    _leave(spare, monkeypatch)
    raise_if_starved(av.error.InvalidDataError(1, "bad"), num_pixels=100)
    raise_if_starved(num_pixels=100)


@pytest.mark.parametrize(
    "error", [av.error.MemoryError(12, "none"), av.error.BlockingIOError(11, "no thread"), MemoryError()]
)
def test_ffmpeg_may_say_so_itself(error: Exception) -> None:
    with pytest.raises(MemoryError, match="too little memory"):
        raise_if_starved(error)


@pytest.mark.parametrize(
    "error", [None, av.error.InvalidDataError(1, "bad"), av.error.PermissionError(1, "denied")]
)
def test_where_no_picture_fits_any_more_any_failure_is_for_lack_of_memory(
    error: Exception | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    _leave(MIN_SPARE_BYTES + 100 * BYTES_PER_PIXEL - 1, monkeypatch)
    with pytest.raises(MemoryError, match="too little memory"):
        raise_if_starved(error, num_pixels=100)


def test_this_process_may_take_all_there_is_unless_it_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory.resource, "getrlimit", lambda kind: (memory.resource.RLIM_INFINITY,) * 2)
    assert spare_bytes() is None
    monkeypatch.setattr(memory.resource, "getrlimit", lambda kind: (memory.data_bytes() + 5_000_000,) * 2)
    assert abs(spare_bytes() - 5_000_000) < 1_000_000


def test_a_damaged_film_is_damaged_and_with_little_memory_nobody_knows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    content = bytearray(write_film(tmp_path / "film.mp4", seconds=4.0).read_bytes())
    middle = content.find(b"mdat") + 3_000
    content[middle : middle + 200] = bytes(200)

    def faults() -> list[str]:
        with open_container(bytes(content), MediaLimits()) as container:
            decoder = Decoder(container, video_stream(container), MediaLimits())
            list(decoder.frames())
            return decoder.faults

    assert faults()
    _leave(MIN_SPARE_BYTES, monkeypatch)
    with pytest.raises(MemoryError):
        faults()


@pytest.mark.slow
@pytest.mark.skipif(
    not sys.platform.startswith("linux"), reason="RLIMIT_DATA bounds what is mapped on Linux alone"
)
def test_a_film_is_read_whole_or_there_is_too_little_memory(tmp_path: Path) -> None:
    """Real limits, down to where FFmpeg calls its own failed allocations invalid data."""
    film = write_film(tmp_path / "film.mp4", seconds=2.0)
    command = [sys.executable, "-m", "tests.media.little_memory", str(film)]
    outcomes = json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
    assert outcomes[str(ENOUGH_BYTES)].endswith(" []")
    assert set(outcomes.values()) <= {outcomes[str(ENOUGH_BYTES)], "starved", "died"}
    assert "starved" in outcomes.values()
