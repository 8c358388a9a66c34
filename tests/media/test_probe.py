"""Facts about a file, as displayed."""

from fractions import Fraction
from pathlib import Path

import pytest

from media import MediaInfo, MediaLimits, probe
from media.container import open_container
from media.errors import UnsupportedMedia
from media.probe import is_still
from tests.made_films import add_cover, write_film
from tests.made_media import jpeg_bytes, moving_frames


def test_a_film(tmp_path: Path) -> None:
    path = write_film(tmp_path / "a.mp4", seconds=2.0, sample_rate=44_100, layout="stereo")
    assert probe(path) == MediaInfo(
        duration_seconds=pytest.approx(2.0, abs=0.05),
        has_audio=True,
        has_video=True,
        width=64,
        height=48,
        frames_per_second=25.0,
        sample_rate=44_100,
        num_channels=2,
        container="mov,mp4,m4a,3gp,3g2,mj2",
        is_still=False,
    )


def test_a_sound_has_no_size(tmp_path: Path) -> None:
    info = probe(write_film(tmp_path / "a.flac", video=False))
    assert (info.has_video, info.width, info.height, info.frames_per_second) == (False, None, None, None)


def test_a_picture_has_no_duration() -> None:
    info = probe(jpeg_bytes(moving_frames(0.04)[0]))
    assert (info.is_still, info.duration_seconds, info.frames_per_second) == (True, None, None)
    assert (info.width, info.height) == (96, 64)


def test_the_size_is_that_of_what_is_shown(tmp_path: Path) -> None:
    turned = write_film(tmp_path / "a.mp4", matrix=(0, 1, -1, 0), pixel_aspect=Fraction(2), seconds=0.2)
    info = probe(turned)
    assert (info.width, info.height) == (48, 128)


def test_cover_art_is_no_picture(tmp_path: Path) -> None:
    path = add_cover(write_film(tmp_path / "a.mp3", video=False, seconds=1), tmp_path / "b.mp3")
    assert not probe(path).has_video


@pytest.mark.parametrize(("frames", "expected"), [([0.0], True), ([0.0, 0.1], False)])
@pytest.mark.parametrize("suffix", [".mp4", ".mkv", ".gif"])
def test_one_frame_without_sound_is_a_still(
    suffix: str, frames: list[float], expected: bool, tmp_path: Path
) -> None:
    assert probe(write_film(tmp_path / f"a{suffix}", frame_times=frames, audio=False)).is_still == expected
    if suffix != ".gif":
        assert not probe(write_film(tmp_path / f"b{suffix}", frame_times=frames)).is_still


def test_a_sound_is_no_still(tmp_path: Path) -> None:
    with open_container(write_film(tmp_path / "a.wav", video=False), MediaLimits()) as container:
        assert not is_still(container)


def test_subtitles_alone_fail(tmp_path: Path) -> None:
    with pytest.raises(UnsupportedMedia):
        probe(b"1\n00:00:00,000 --> 00:00:01,000\nHello\n\n" * 9)
