"""Photographs are turned as viewers turn them, whatever else lies in the file."""

import contextlib
import io
import struct
import subprocess
import sys
from pathlib import Path

import av
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import media.orientation
from media import ClipSpec, MediaError, probe, read_clips, read_frames
from media.errors import CorruptMedia
from media.orientation import AS_STORED, Orientation, orientation
from tests.made_exif import (
    LONG,
    ORIENTATION,
    SHORT,
    UPRIGHT,
    corners,
    exif,
    exif_segment,
    ifd,
    jpeg,
    photograph,
    png,
    segment,
    stored_for,
    tiff,
    webp,
)

ROOT = Path(__file__).parents[2]
SPEC = ClipSpec(num_mel_frames=50, num_video_frames=2, frame_size=32)
ORIENTATIONS = tuple(UPRIGHT)
LITTLE, BIG = "<", ">"


def displayed(content: bytes) -> np.ndarray:
    """The picture as it is answered, int[height, width, 3]."""
    info = probe(content)
    assert info.height is not None
    assert info.width is not None
    return read_frames(content, [0.0], height=info.height, width=info.width)[0].astype(int)


def error_against(expected: np.ndarray, content: bytes) -> float:
    """Mean difference per value between the picture as it is answered and as it should be."""
    shown = displayed(content)
    assert shown.shape == expected.shape
    return float(np.abs(shown - expected).mean())


@pytest.mark.parametrize("order", [LITTLE, BIG])
@pytest.mark.parametrize("number", ORIENTATIONS)
def test_photographs_are_shown_upright(number: int, order: str) -> None:
    upright = corners()
    content = photograph(stored_for(number, upright), number, order=order)
    assert error_against(upright, content) < 4


@pytest.mark.parametrize("number", ORIENTATIONS)
def test_lossless_pictures_are_shown_upright_to_the_last_bit(number: int) -> None:
    upright = corners()
    stored = stored_for(number, upright)
    for content in (png(stored, exif(number)), webp(stored, exif(number, order=BIG)), tiff(stored, number)):
        np.testing.assert_array_equal(displayed(content), upright)


@pytest.mark.parametrize("number", ORIENTATIONS)
def test_a_turned_picture_has_its_displayed_size(number: int) -> None:
    content = photograph(corners(64, 128), number)
    expected = (64, 128) if number >= 5 else (128, 64)
    info = probe(content)
    assert (info.width, info.height) == expected
    reader = read_clips(content, SPEC, audio=False)
    (clip,) = reader
    assert (reader.info.width, reader.info.height) == expected
    middle = UPRIGHT[number](corners(64, 64))
    shown = read_frames(jpeg(middle), [0.0], height=32, width=32)[0]
    assert np.abs(clip.video[0].astype(int) - shown).mean() < 4


def test_a_thumbnail_is_not_the_picture_and_its_orientation_is_its_own() -> None:
    thumbnail = jpeg(np.zeros((16, 16, 3), np.uint8))
    for number in (1, 6):
        upright = corners()
        content = jpeg(stored_for(number, upright), exif_segment(exif(number, thumbnail=thumbnail)))
        assert error_against(upright, content) < 4


def test_exif_is_found_behind_other_segments() -> None:
    upright = corners()
    others = (segment(0, b"JFIF\0\x01\x01\0\0\x01\0\x01\0\0"), segment(2, bytes(60_000)), segment(15, b"x"))
    content = jpeg(stored_for(8, upright), *others, exif_segment(exif(8)))
    assert error_against(upright, content) < 4


def test_xmp_alone_turns_nothing() -> None:
    xmp = segment(1, b'http://ns.adobe.com/xap/1.0/\0<x:xmpmeta tiff:Orientation="6"/>')
    assert error_against(corners(), jpeg(corners(), xmp)) < 4


def _block(entries: list[tuple[int, int, int, bytes]], start: int = 8) -> bytes:
    return b"II*\0" + struct.pack("<I", start) + ifd(entries)


WHOLE = exif(6)
DAMAGED = {
    "nothing": b"",
    "half a header": WHOLE[:5],
    "a header alone": WHOLE[:8],
    "cut in its directory": WHOLE[:12],
    "no byte order": b"XX" + WHOLE[2:],
    "no magic number": WHOLE[:2] + b"\0\0" + WHOLE[4:],
    "a directory far away": WHOLE[:4] + struct.pack("<I", 0xFFFFFFF0) + WHOLE[8:],
    "a directory in its header": WHOLE[:4] + struct.pack("<I", 0) + WHOLE[8:],
    "more entries than bytes": WHOLE[:8] + b"\xff\xff" + WHOLE[10:20],
    "orientation 0": _block([(ORIENTATION, SHORT, 1, b"\0\0\0\0")]),
    "orientation 9": _block([(ORIENTATION, SHORT, 1, b"\x09\0\0\0")]),
    "orientation 65535": _block([(ORIENTATION, SHORT, 1, b"\xff\xff\0\0")]),
    "orientation of no values": _block([(ORIENTATION, SHORT, 0, b"\x06\0\0\0")]),
    "orientation as text": _block([(ORIENTATION, 2, 2, b"6\0\0\0")]),
    "orientation of an unknown type": _block([(ORIENTATION, 99, 1, b"\x06\0\0\0")]),
    "orientations far away": _block([(ORIENTATION, LONG, 0x7FFFFFFF, b"\xff\xff\xff\xff")]),
}


@pytest.mark.parametrize("kind", DAMAGED)
def test_damaged_exif_leaves_the_picture_as_it_is_stored(kind: str) -> None:
    assert error_against(corners(), jpeg(corners(), exif_segment(DAMAGED[kind]))) < 4
    for content in (png(corners(), DAMAGED[kind]), webp(corners(), DAMAGED[kind])):
        np.testing.assert_array_equal(displayed(content), corners())


def test_a_png_says_that_its_exif_does_not_decode() -> None:
    for block, expected in ((DAMAGED["half a header"], 1), (exif(6), 0)):
        reader = read_clips(png(corners(), block), SPEC, audio=False)
        assert len(list(reader)) == 1
        assert [warning.startswith("video: its EXIF does not decode") for warning in reader.warnings] == (
            [True] * expected
        )


def test_a_png_that_is_cut_is_corrupt_with_its_exif_and_without() -> None:
    for block in (DAMAGED["half a header"], None):
        with pytest.raises(CorruptMedia):
            displayed(png(corners(), block)[:70])


def test_a_directory_that_follows_itself_ends() -> None:
    entries = [(ORIENTATION, SHORT, 1, struct.pack("<HH", 3, 0))]
    block = b"II*\0" + struct.pack("<I", 8) + ifd(entries, next_start=8)
    assert error_against(UPRIGHT[3](corners()), jpeg(corners(), exif_segment(block))) < 4


@settings(max_examples=80, deadline=None)
@given(data=st.data(), order=st.sampled_from([LITTLE, BIG]))
def test_any_bytes_for_exif_raise_no_error_that_is_not_ours(data: st.DataObject, order: str) -> None:
    block = bytearray(exif(6, order=order, thumbnail=b"\xff\xd8\xff\xd9"))
    for place in data.draw(st.lists(st.integers(0, len(block) - 1), max_size=6)):
        block[place] = data.draw(st.integers(0, 255))
    content = jpeg(corners(), exif_segment(bytes(block[: data.draw(st.integers(0, len(block)))])))
    with contextlib.suppress(MediaError):
        displayed(content)


def _frame(content: bytes) -> av.VideoFrame:
    with av.open(io.BytesIO(content)) as container:
        return next(container.decode(video=0))


def test_a_frame_without_a_matrix_stands_as_it_is() -> None:
    assert orientation(av.VideoFrame(8, 8, "rgb24")) == AS_STORED == (False, ())


def test_side_data_that_pyav_has_no_name_for_is_passed_over() -> None:
    frame = _frame(photograph(corners(), 5))
    with pytest.raises(ValueError, match="is not a valid Type"):
        frame.side_data  # noqa: B018 - if this no longer raises, the detour is no longer needed
    assert orientation(frame) == Orientation(swaps_axes=True, flipped_axes=())


def test_a_named_colour_profile_does_not_end_the_process(tmp_path: Path) -> None:
    """In a process of its own, which would crash once garbage is collected."""
    (tmp_path / "photo.png").write_bytes(png(corners(), exif(6), profile="Adobe RGB"))
    code = (
        "import gc, sys; from media import ClipSpec, read_clips\n"
        "for _ in range(3): print(len(list(read_clips(sys.argv[1], ClipSpec(), audio=False)))); gc.collect()"
    )
    command = [sys.executable, "-c", code, str(tmp_path / "photo.png")]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout.split()) == (0, ["1", "1", "1"]), done.stderr
    assert orientation(_frame(png(corners(), exif(6), profile="Adobe RGB"))) == orientation(
        _frame(png(corners(), exif(6)))
    )


@pytest.mark.parametrize("number", [1, 3, 6, 8])
def test_where_side_data_cannot_be_listed_the_angle_is_left(
    number: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = orientation(_frame(photograph(corners(), number)))
    monkeypatch.setattr(media.orientation, "_HARMFUL_KINDS", [])
    assert orientation(_frame(photograph(corners(), number))) == expected
