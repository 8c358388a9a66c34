"""Opening: allow-lists, limits, bombs, and one error tree for whatever is wrong."""

import io
import os
import re
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from media import ClipSpec, MediaLimits, TimeRange, probe, read_clips
from media.container import open_container, translated
from media.errors import (
    CorruptMedia,
    EmptyMedia,
    MediaError,
    MediaTooLarge,
    TooLong,
    TooManyBytes,
    TooManyPixels,
    TooManyStreams,
    TooManyWindows,
    UnsupportedMedia,
)
from tests.made_exif import corners, jpeg, photograph
from tests.made_films import write_film
from tests.made_media import jpeg_bytes

SPEC = ClipSpec(num_mel_frames=50, frame_size=16)


def png_bytes(width: int, height: int, rows: bytes) -> bytes:
    """A PNG with this header and these zlib-compressed rows."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")


def all_subclasses(cls: type) -> list[type]:
    return [cls, *(x for child in cls.__subclasses__() for x in all_subclasses(child))]


def test_a_folder_is_refused_by_its_path_and_stays_closed(tmp_path: Path) -> None:
    before = len(os.listdir("/proc/self/fd"))
    with pytest.raises(IsADirectoryError, match=re.escape(str(tmp_path))):
        probe(tmp_path)
    assert len(os.listdir("/proc/self/fd")) == before


def test_codes_are_stable_and_each_its_own() -> None:
    codes = {cls.__name__: cls.code for cls in all_subclasses(MediaError)}
    assert codes == {
        "MediaError": "media_error",
        "EmptyMedia": "empty_media",
        "UnsupportedMedia": "unsupported_media",
        "CorruptMedia": "corrupt_media",
        "MissingModality": "missing_modality",
        "MissingAudio": "missing_audio",
        "MissingVideo": "missing_video",
        "MediaTooLarge": "media_too_large",
        "InvalidSpan": "invalid_span",
        "TooManyBytes": "too_many_bytes",
        "TooLong": "too_long",
        "TooManyPixels": "too_many_pixels",
        "TooManyStreams": "too_many_streams",
        "TooManyFrames": "too_many_frames",
        "TooManyWindows": "too_many_windows",
    }


def test_a_playlist_opens_no_other_file(tmp_path: Path) -> None:
    film = write_film(tmp_path / "film.ts", seconds=1)
    playlists = [
        f"#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\n{film}\n#EXT-X-ENDLIST\n",
        f"ffconcat version 1.0\nfile '{film}'\n",
        f"#EXTM3U\n#EXTINF:1,\nfile://{film}\n",
        '<?xml version="1.0"?><MPD xmlns="urn:mpeg:dash:schema:mpd:2011"><BaseURL>x</BaseURL></MPD>',
        "v=0\r\no=- 0 0 IN IP4 127.0.0.1\r\nc=IN IP4 127.0.0.1\r\nt=0 0\r\nm=audio 5004 RTP/AVP 0\r\n",
    ]
    for number, playlist in enumerate(playlists):
        path = tmp_path / f"{number}.m3u8"
        path.write_text(playlist)
        with pytest.raises(UnsupportedMedia, match="no container"):
            probe(path)


@pytest.mark.parametrize("size", [(65_535, 65_535), (20_000, 20_000), (4_000, 3_000)])
def test_a_picture_over_the_limit_fails_before_it_is_unpacked(size: tuple[int, int]) -> None:
    bomb = png_bytes(*size, zlib.compress(bytes(1_000_000)))
    with pytest.raises((MediaTooLarge, CorruptMedia)):
        probe(bomb)
    with pytest.raises(MediaTooLarge, match="pixels"):
        probe(jpeg_bytes(np.zeros((64, 96, 3), np.uint8)), limits=MediaLimits(max_pixels=1_000))


def test_a_film_over_a_limit_fails(tmp_path: Path) -> None:
    path = write_film(tmp_path / "a.mp4", seconds=2.0)
    for limits, error, match in (
        (MediaLimits(max_bytes=99), TooManyBytes, "bytes"),
        (MediaLimits(max_streams=1), TooManyStreams, "2 streams"),
        (MediaLimits(max_pixels=99), TooManyPixels, "64x48"),
        (MediaLimits(max_duration_seconds=1.5), TooLong, "2.0 s of media"),
        (MediaLimits(max_windows=3), TooManyWindows, "4 windows"),
    ):
        with pytest.raises(error, match=match):
            read_clips(path, SPEC, limits=limits)


def test_the_duration_limit_is_of_the_span_that_is_read(tmp_path: Path) -> None:
    path = write_film(tmp_path / "a.mp4", seconds=2.0)
    limits = MediaLimits(max_duration_seconds=1.0)
    time_range = TimeRange(start_seconds=0.5, end_seconds=1.5)
    assert len(list(read_clips(path, SPEC, time_range=time_range, limits=limits))) == 2


def test_the_duration_limit_holds_where_the_header_is_silent(tmp_path: Path) -> None:
    path = write_film(tmp_path / "a.mkv", seconds=3.0, options={"live": "1"})
    assert probe(path).duration_seconds is None
    served = []
    with pytest.raises(MediaTooLarge, match="limit is 1 s"):
        served.extend(read_clips(path, SPEC, limits=MediaLimits(max_duration_seconds=1.0)))


def test_unknown_durations_are_read_to_the_end(tmp_path: Path) -> None:
    path = write_film(tmp_path / "a.webm", seconds=2.0, options={"live": "1"})
    assert probe(path).duration_seconds is None
    clips = list(read_clips(path, SPEC))
    assert len(clips) == 4
    assert clips[-1].audio_seconds == pytest.approx(0.5, abs=0.02)


def test_well_known_beginnings_that_do_not_open_are_corrupt(tmp_path: Path) -> None:
    content = write_film(tmp_path / "a.mp4", seconds=1).read_bytes()
    with pytest.raises(CorruptMedia, match="complete"):
        probe(content[: len(content) // 2])
    with pytest.raises(CorruptMedia, match="picture does not decode"):
        probe(b"\xff\xd8\xff\xe0" + bytes(range(256)) * 8)


def test_text_and_nothing_fail(tmp_path: Path) -> None:
    page = tmp_path / "page.mp4"
    page.write_text("<!DOCTYPE html><html><body>not found</body></html>" * 50)
    with pytest.raises(UnsupportedMedia, match="no container"):
        probe(page)
    with pytest.raises(EmptyMedia, match="0 bytes"):
        probe(b"")
    with pytest.raises(FileNotFoundError):
        probe(tmp_path / "absent.mp4")


@settings(max_examples=60, deadline=None)
@given(
    content=st.binary(min_size=1, max_size=2_000),
    head=st.sampled_from([b"", b"RIFF\0\0\0\0AVI LIST", b"\x1aE\xdf\xa3", b"GIF89a", b"OggS"]),
)
def test_random_bytes_never_escape_the_error_tree(content: bytes, head: bytes) -> None:
    try:
        info = probe(head + content)
        list(read_clips(head + content, SPEC, audio=info.has_audio, video=info.has_video))
    except MediaError:
        pass


@pytest.mark.slow
@pytest.mark.parametrize("suffix", [".mp4", ".webm", ".mkv", ".ts", ".mp3", ".avi"])
@pytest.mark.parametrize("share", [0.25, 0.5, 0.75, 0.99])
def test_a_truncated_file_is_served_in_part_or_fails_clearly(
    suffix: str, share: float, tmp_path: Path
) -> None:
    path = write_film(tmp_path / f"a{suffix}", seconds=4.0, video=suffix != ".mp3")
    content = path.read_bytes()
    try:
        part = content[: int(len(content) * share)]
        info = probe(part)
        clips = list(read_clips(part, SPEC, audio=info.has_audio, video=info.has_video))
    except CorruptMedia:
        assert suffix == ".mp4" or share == 0.25  # the index is at the end, or the header itself is cut
        return
    assert 0 < len(clips) <= 8


def test_translated_turns_ffmpegs_errors_into_ours() -> None:
    with pytest.raises(CorruptMedia, match="OverflowError"), translated():
        raise OverflowError


def test_what_pyav_raises_over_a_file_is_corruption() -> None:
    content = photograph(corners(), 6)
    with pytest.raises(CorruptMedia, match="ValueError"), open_container(content, MediaLimits()) as container:
        next(container.decode(video=0)).side_data  # noqa: B018 - holds EXIF, which PyAV has no name for


def test_our_own_faults_are_not_called_corruption() -> None:
    for error in (ValueError("ours"), KeyError("ours"), ZeroDivisionError("ours")):
        with pytest.raises(type(error), match="ours"), open_container(jpeg(corners()), MediaLimits()):
            raise error


@pytest.mark.parametrize("error", [OSError("the disk"), ValueError("a closed file"), KeyError("a bug")])
@pytest.mark.parametrize("num_reads", [0, 1])
def test_errors_of_a_file_object_are_its_own(error: Exception, num_reads: int) -> None:
    class Failing(io.BytesIO):
        """Fails from its second read on, or from its first."""

        num_left = num_reads

        def read(self, size: int | None = -1, /) -> bytes:
            self.num_left -= 1
            if self.num_left < 0:
                raise error
            return super().read(min(size or 0, 64))

    with pytest.raises(type(error), match=str(error)):
        list(read_clips(Failing(jpeg(corners())), SPEC, audio=False))


@pytest.mark.parametrize("name", ["picture.jpg", "picture-%03d.jpg", "picture.m3u8", "picture"])
def test_a_files_name_chooses_no_demuxer(name: str, tmp_path: Path) -> None:
    """FFmpeg's image2 and hls, which open files of their own, are chosen by a name's ending.

    It must not see one.
    """
    path = tmp_path / name
    path.write_bytes(jpeg_bytes(np.full((16, 16, 3), 128, np.uint8)))
    with path.open("rb") as file:
        for source in (path, str(path), file, path.read_bytes()):
            assert probe(source).container in ("jpeg_pipe", "mjpeg")
