"""Pictures: the frame on display, upright, of square pixels, cut to shape."""

from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from av import VideoFrame
from hypothesis import example, given, settings
from hypothesis import strategies as st

from media import ClipSpec, read_clips, read_frames
from media.container import MediaLimits, open_container
from media.errors import CorruptMedia, MissingVideo, TooManyFrames
from media.video import VideoReader, orientation, to_rgb
from tests.made_exif import corners, png
from tests.made_films import grey_at, join, write_film

SPEC = ClipSpec(num_mel_frames=50, num_video_frames=5, frame_size=32)  # windows of 0.5 s


def levels(path: Path, times: list[float]) -> list[float]:
    """Grey in the middle of the frames at `times`."""
    return read_frames(path, times, height=32, width=32)[:, 16, 16].mean(axis=1).tolist()


def numbered_columns(height: int, width: int) -> np.ndarray:
    """Grey that rises by one from column to column."""
    return np.tile(np.arange(width, dtype=np.uint8)[None, :, None], (height, 1, 3))


def test_a_share_of_the_frame_is_shown() -> None:
    """64 rows scaled to 32 / 0.8 = 40, so 120 columns to 75: of these, 32 from the 21st on are kept."""
    spec = replace(SPEC, crop_fraction=0.8)
    (shown,) = read_clips(png(numbered_columns(64, 120)), spec, audio=False)
    wanted = (np.arange(21, 53) + 0.5) * 120 / 75 - 0.5
    assert shown.video.shape == spec.video_shape
    assert np.abs(shown.video - wanted[None, None, :, None]).max() <= 1
    frame = VideoFrame.from_ndarray(numbered_columns(64, 120), format="rgb24")
    assert np.array_equal(shown.video[0], to_rgb(frame, height=40, width=75)[4:36, 21:53])


def test_all_of_the_frame_is_shown_by_default() -> None:
    frame = VideoFrame.from_ndarray(numbered_columns(64, 120), format="rgb24")
    wanted = to_rgb(frame, height=32, width=60)[:, 14:46]
    assert np.array_equal(to_rgb(frame, height=32, width=32), wanted)
    assert np.array_equal(to_rgb(frame, height=32, width=32, crop_fraction=1.0), wanted)


def test_more_pictures_per_second_than_allowed_fail(tmp_path: Path) -> None:
    quick = write_film(tmp_path / "a.mp4", seconds=2.0, fps=100, audio=False)
    with pytest.raises(TooManyFrames, match="over 50 pictures per second"):
        list(read_clips(quick, SPEC, audio=False, limits=MediaLimits(max_frames_per_second=50)))
    assert len(list(read_clips(quick, SPEC, audio=False, limits=MediaLimits(max_frames_per_second=100)))) == 4


@pytest.fixture(scope="module")
def vfr(tmp_path_factory: pytest.TempPathFactory) -> Path:
    times = [0.0, 0.04, 0.41, 0.6, 1.9, 1.95, 2.6]
    return write_film(tmp_path_factory.mktemp("vfr") / "vfr.mkv", frame_times=times, audio=False)


@settings(max_examples=30, deadline=None)
@given(times=st.lists(st.floats(0, 3), min_size=1, max_size=5))
@example(times=[0.041, 0.41, 0.409, 2.6, 2.599])
def test_the_latest_frame_that_has_begun_is_on_display(times: list[float], vfr: Path) -> None:
    begins = [0.0, 0.04, 0.41, 0.6, 1.9, 1.95, 2.6]
    expected = [grey_at(max(b for b in begins if b <= t + 1e-6)) for t in times]
    np.testing.assert_allclose(levels(vfr, times), expected, atol=3)


@pytest.mark.parametrize("suffix", [".mp4", ".mov", ".mkv", ".webm", ".avi", ".gif"])
def test_every_container_shows_the_same_times(suffix: str, tmp_path: Path) -> None:
    path = write_film(tmp_path / f"a{suffix}", audio=False)
    times = [0.0, 0.21, 1.0, 1.59, 1.61, 2.99, 50.0]
    np.testing.assert_allclose(levels(path, times), [grey_at(min(t, 2.99)) for t in times], atol=7)


def test_before_the_first_frame_that_is_the_first(tmp_path: Path) -> None:
    path = write_film(tmp_path / "a.mkv", video_start_seconds=1.0, seconds=2.0)
    np.testing.assert_allclose(
        levels(path, [0.0, 0.9, 1.0, 1.5]), [grey_at(x) for x in (0.0, 0.0, 0.0, 0.5)], atol=3
    )


@pytest.mark.parametrize("keyframe_every", [10, 10_000])
@pytest.mark.parametrize("suffix", [".mp4", ".mkv", ".ts", ".avi"])
def test_a_seek_finds_what_decoding_on_finds(keyframe_every: int, suffix: str, tmp_path: Path) -> None:
    path = write_film(tmp_path / f"a{suffix}", seconds=60, fps=10, keyframe_every=keyframe_every, audio=False)
    times = [3.05, 25.05, 25.85, 37.05, 52.65]
    np.testing.assert_allclose(levels(path, times), [grey_at(t) for t in times], atol=3)
    np.testing.assert_allclose(levels(path, [52.65]), [grey_at(52.65)], atol=3)


@pytest.mark.slow
@settings(max_examples=20, deadline=None)
@given(times=st.lists(st.floats(0, 20), min_size=2, max_size=6))
def test_skipping_to_keyframes_changes_nothing(times: list[float], skipped: Path) -> None:
    times = sorted(times)
    np.testing.assert_allclose(levels(skipped, times), [grey_at(min(t, 19.9)) for t in times], atol=4)


@pytest.fixture(scope="module")
def skipped(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A film with many keyframes and with frames that are decoded in another order than shown."""
    path = tmp_path_factory.mktemp("skipped") / "a.mp4"
    return write_film(path, seconds=20, fps=10, keyframe_every=13, num_reordered=3)


def test_keyframes_far_apart_make_seeks_rarer(tmp_path: Path) -> None:
    path = write_film(tmp_path / "a.mkv", seconds=60, fps=5, keyframe_every=10_000, audio=False)
    with open_container(path, MediaLimits()) as container:
        reader = VideoReader(container, MediaLimits())
        for seconds in (15.0, 30.0, 55.0):
            reader.frame_at(seconds)
        assert reader._patience > 1


def test_a_film_without_an_index_is_decoded_on(tmp_path: Path) -> None:
    source = write_film(tmp_path / "a.ts", seconds=30, fps=10, audio=False)
    with av.open(str(source)) as film:
        raw = b"".join(bytes(packet) for packet in film.demux(video=0))
    path = tmp_path / "a.h264"
    path.write_bytes(raw)
    assert read_frames(path, [0.0, 20.0], height=16, width=16).shape == (2, 16, 16, 3)


def test_recordings_joined_go_on(tmp_path: Path) -> None:
    first = write_film(tmp_path / "1.ts", seconds=2.0, video_start_seconds=100.0, audio=False)
    second = write_film(tmp_path / "2.ts", seconds=2.0, audio=False)
    path = join([first, second], tmp_path / "joined.ts")
    np.testing.assert_allclose(
        levels(path, [0.5, 1.5, 2.5, 3.5]), [grey_at(x) for x in (0.5, 1.5, 0.5, 1.5)], atol=7
    )
    np.testing.assert_allclose(levels(path, [0.5, 3.9, 30.0]), [grey_at(x) for x in (0.5, 1.9, 1.9)], atol=7)


MATRICES = {
    (1, 0, 0, 1): lambda x: x,
    (0, 1, -1, 0): lambda x: np.rot90(x, -1),
    (-1, 0, 0, -1): lambda x: np.rot90(x, 2),
    (0, -1, 1, 0): lambda x: np.rot90(x, 1),
    (-1, 0, 0, 1): np.fliplr,
    (1, 0, 0, -1): np.flipud,
    (0, 1, 1, 0): lambda x: x.transpose(1, 0, 2),
    (0, -1, -1, 0): lambda x: np.rot90(x, 2).transpose(1, 0, 2),
}


@pytest.mark.parametrize("matrix", MATRICES)
def test_turns_and_mirrors_are_honoured(matrix: tuple[int, ...], tmp_path: Path) -> None:
    picture = corners()
    path = write_film(
        tmp_path / "a.mp4", size=(128, 64), picture=lambda _: picture, matrix=matrix, seconds=0.2, audio=False
    )
    expected = MATRICES[matrix](picture)
    height, width = expected.shape[:2]
    shown = read_frames(path, [0.0], height=height, width=width)[0]
    assert np.abs(shown.astype(int) - expected).mean() < 8


def test_a_frame_without_a_matrix_stands_as_it_is() -> None:
    assert orientation(av.VideoFrame(8, 8, "rgb24")) == (False, ())


@pytest.mark.parametrize(
    ("aspect", "shown_width"), [(Fraction(2), 128), (Fraction(1, 2), 32), (Fraction(4, 3), 85)]
)
def test_pixels_that_are_not_square_are_made_so(aspect: Fraction, shown_width: int, tmp_path: Path) -> None:
    picture = np.zeros((64, 64, 3), np.uint8)
    picture[16:48, 16:48] = 255  # a square of half the width
    path = write_film(
        tmp_path / "a.mp4",
        size=(64, 64),
        picture=lambda _: picture,
        pixel_aspect=aspect,
        audio=False,
        seconds=0.2,
    )
    shown = read_frames(path, [0.0], height=64, width=shown_width)[0]
    middle = shown[32, :, 0] > 128
    assert middle.sum() == pytest.approx(shown_width / 2, abs=2)


@settings(max_examples=60, deadline=None)
@example(height=257, width=1, target=(1, 32), aspect=65_535.0)
@given(
    height=st.integers(1, 300),
    width=st.integers(1, 300),
    target=st.tuples(st.integers(1, 80), st.integers(1, 80)),
    aspect=st.sampled_from([1.0, 0.01, 0.5, 2.0, 100.0, 65_535.0]),
)
def test_any_shape_covers_any_target(height: int, width: int, target: tuple[int, int], aspect: float) -> None:
    rgb = np.full((height, width, 3), (10, 130, 250), np.uint8)
    frame = av.VideoFrame.from_ndarray(rgb, format="rgb24")
    shown = to_rgb(frame, height=target[0], width=target[1], pixel_aspect=aspect)
    assert shown.shape == (*target, 3)
    assert np.abs(shown.astype(int) - (10, 130, 250)).max() <= 3


def test_a_strip_is_cut_before_it_is_scaled() -> None:
    rgb = np.zeros((3, 16_384, 3), np.uint8)
    rgb[:, 8_190:8_194] = 255
    shown = to_rgb(av.VideoFrame.from_ndarray(rgb, format="rgb24"), height=128, width=128)
    assert shown.mean() > 200


def test_the_middle_is_kept() -> None:
    rgb = np.zeros((40, 120, 3), np.uint8)
    rgb[:, 40:80] = 255
    frame = av.VideoFrame.from_ndarray(rgb, format="rgb24")
    assert to_rgb(frame, height=40, width=40).min() > 250
    assert to_rgb(frame, height=20, width=20)[:, 1:-1].min() > 250


@pytest.mark.parametrize("pixels", ["yuv420p", "yuv444p", "yuv422p10le", "gray", "rgba", "gbrp12le", "pal8"])
def test_any_pixel_format_becomes_rgb(pixels: str) -> None:
    rgb = av.VideoFrame.from_ndarray(np.full((32, 32, 3), 120, np.uint8), format="rgb24")
    shown = to_rgb(rgb.reformat(format="rgb8" if pixels == "pal8" else pixels), height=16, width=16)
    np.testing.assert_allclose(shown, 120, atol=40 if pixels == "pal8" else 3)


def test_conversion_is_deterministic(vfr: Path) -> None:
    first, second = (read_frames(vfr, [0.5, 2.0], height=32, width=48) for _ in range(2))
    np.testing.assert_array_equal(first, second)


def test_a_single_frame_film_is_a_still(tmp_path: Path) -> None:
    for suffix in (".mp4", ".mkv", ".gif"):
        path = write_film(tmp_path / f"a{suffix}", frame_times=[0.0], audio=False)
        (clip,) = read_clips(path, SPEC, audio=False)
        assert not clip.padded
        assert clip.video_seconds == SPEC.window_seconds


def test_a_single_frame_under_a_sound_stays_on_display(tmp_path: Path) -> None:
    path = write_film(tmp_path / "a.mp4", frame_times=[0.0], seconds=2.0)
    clips = list(read_clips(path, SPEC))
    assert [clip.video_seconds for clip in clips] == pytest.approx([0.5] * 4)


def test_frames_of_a_sound_fail(tmp_path: Path) -> None:
    with pytest.raises(MissingVideo, match="no picture"):
        read_frames(write_film(tmp_path / "a.wav", video=False), [0.0], height=8, width=8)


def test_frames_that_do_not_decode_fail(tmp_path: Path) -> None:
    path = write_film(tmp_path / "a.mkv", seconds=1.0, audio=False)
    content = bytearray(path.read_bytes())
    start = content.index(b"\x1f\x43\xb6\x75")  # the first cluster: everything after it is frames
    content[start + 40 :] = bytes(len(content) - start - 40)
    with pytest.raises(CorruptMedia, match="picture"):
        read_frames(bytes(content), [0.0], height=8, width=8)
