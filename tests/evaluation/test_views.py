"""Views: where windows lie, what crops show, and how scores are averaged."""

from dataclasses import replace
from math import exp
from pathlib import Path

import numpy as np
import pytest

from datasets.manifests import Item
from evaluation.views import ViewPlan, average_scores, crop_thirds, read_views, view_starts
from media import ClipSpec, TimeRange, probe, read_clips
from media.errors import InvalidSpan, MissingAudio
from media.log_mel import log_mel
from tests.made_media import jpeg_bytes, moving_frames, tone, write_clip


def _item(path: Path, start: float = 0.0, end: float | None = None) -> Item:
    return Item(path, "both", ("a",), "test", start_seconds=start, end_seconds=end)


@pytest.mark.parametrize(
    ("span", "num_windows", "expected"),
    [
        ((0.0, None), 1, [0.68]),  # the middle of 2 s, windows of 0.64 s
        ((0.0, None), 3, [0.0, 0.68, 1.36]),
        ((0.5, 1.64), 2, [0.5, 1.0]),
        ((1.0, 1.2), 3, [0.78]),  # shorter than a window: centred, once
        ((0.0, 0.2), 1, [0.0]),  # would begin before the file
        ((1.0, 9.0), 2, [1.0, 1.36]),  # the file ends at 2 s
    ],
)
def test_where_windows_lie(
    spec: ClipSpec, span: tuple[float, float | None], num_windows: int, expected: list[float]
) -> None:
    assert view_starts(_item(Path("x"), *span), 2.0, spec, num_windows) == pytest.approx(expected)


def test_a_file_of_no_known_length_has_one_window(spec: ClipSpec) -> None:
    assert view_starts(_item(Path("x")), None, spec, 4) == [0.0]


def test_an_item_after_the_end_fails(spec: ClipSpec) -> None:
    with pytest.raises(InvalidSpan, match=r"starts at 2.5 s, the file ends at 2 s"):
        view_starts(_item(Path("x"), 2.5, 2.9), 2.0, spec, 1)


def test_a_plan_fails() -> None:
    with pytest.raises(ValueError, match="num_crops=2"):
        ViewPlan(num_crops=2)
    with pytest.raises(ValueError, match="num_windows=0"):
        ViewPlan(num_windows=0)


@pytest.fixture(scope="module")
def striped(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """2 s of 96x64: red on the left, green in the middle, blue on the right, brighter from frame to frame."""
    frames = []
    for i in range(50):
        frame = np.zeros((64, 96, 3), np.uint8)
        for third, colour in enumerate(np.eye(3, dtype=np.uint8)):
            frame[:, third * 32 : third * 32 + 32] = colour * (100 + 3 * i)
        frames.append(frame)
    return write_clip(tmp_path_factory.mktemp("media") / "striped.mp4", waveform=tone(2.0), frames=frames)


def test_the_middle_crop_is_what_a_server_sees(striped: Path, spec: ClipSpec) -> None:
    plan = ViewPlan(num_windows=2, num_crops=3)
    views = read_views(_item(striped), spec, probe(striped), plan, audio=True, video=True)
    assert [(view.window, view.crop) for view in views] == [(w, c) for w in (0, 1) for c in (0, 1, 2)]
    for view in (views[0], views[3]):
        time_range = TimeRange(start_seconds=view.clip.start_seconds)
        served = next(iter(read_clips(striped, spec, time_range=time_range)))
        assert np.array_equal(view.clip.video, served.video)
        assert np.array_equal(view.clip.audio, served.audio)


def test_crops_of_a_larger_frame(striped: Path, spec: ClipSpec) -> None:
    """Of 64x96 pixels, scaled to 40x60, crops of 32x32: the middle is what a server sees."""
    spec = replace(spec, frame_size=32, crop_fraction=0.8)
    views = read_views(_item(striped), spec, probe(striped), ViewPlan(num_crops=3), audio=False, video=True)
    time_range = TimeRange(start_seconds=views[0].clip.start_seconds)
    served = next(iter(read_clips(striped, spec, time_range=time_range, audio=False)))
    assert np.array_equal(views[0].clip.video, served.video)
    _, left, right = (view.clip.video.mean((0, 1, 2)) for view in views)
    assert left[0] > 1.5 * left[1] > 15 * left[2]  # 20 columns of red, 12 of green
    assert right[2] > 1.5 * right[1] > 15 * right[0]


def test_outer_crops_show_the_ends(striped: Path, spec: ClipSpec) -> None:
    views = read_views(_item(striped), spec, probe(striped), ViewPlan(num_crops=3), audio=False, video=True)
    middle, left, right = (view.clip.video.mean((0, 1, 2)) for view in views)
    assert left[0] > 3 * left[2]  # red, and no blue
    assert right[2] > 3 * right[0]
    assert middle[0] == pytest.approx(middle[2], abs=8)  # a bit of both
    assert middle[0] > 20
    assert all(view.clip.audio is None for view in views)


def test_tall_pictures_are_cut_at_top_and_bottom(tmp_path: Path, spec: ClipSpec) -> None:
    picture = np.zeros((96, 64, 3), np.uint8)
    picture[:32, :, 0], picture[64:, :, 2] = 250, 250
    path = tmp_path / "tall.jpg"
    path.write_bytes(jpeg_bytes(picture))
    views = read_views(
        _item(path), spec, probe(path), ViewPlan(num_windows=3, num_crops=3), audio=False, video=True
    )
    assert len(views) == 3  # a still has one window
    _, top, bottom = (view.clip.video.mean((0, 1, 2)) for view in views)
    assert top[0] > 3 * top[2]
    assert bottom[2] > 3 * bottom[0]


def test_thirds_of_numbered_columns() -> None:
    frames = np.broadcast_to(np.arange(9, dtype=np.uint8)[None, None, :, None], (1, 4, 9, 3))
    assert [crop[0, 0, :, 0].tolist() for crop in crop_thirds(frames, 4)] == [
        [2, 3, 4, 5],
        [0, 1, 2, 3],
        [5, 6, 7, 8],
    ]


def test_thirds_of_the_wrong_size_fail() -> None:
    with pytest.raises(ValueError, match="5x9 cannot be cut to 4x4"):
        list(crop_thirds(np.zeros((1, 5, 9, 3), np.uint8), 4))


@pytest.mark.parametrize("start", [0.0, 0.12345, 1.7])
def test_the_waveform_is_what_the_spectrogram_is_made_of(striped: Path, spec: ClipSpec, start: float) -> None:
    item = _item(striped, start, start + 0.1)
    (view,) = read_views(item, spec, probe(striped), ViewPlan(), audio=True, video=False, with_waveform=True)
    padded = np.pad(view.waveform, (0, spec.num_samples - len(view.waveform)))
    assert np.array_equal(log_mel(padded, spec), view.clip.audio)


def test_a_window_after_the_sound_has_no_samples(tmp_path: Path, spec: ClipSpec) -> None:
    path = write_clip(tmp_path / "half.mkv", waveform=tone(0.5), frames=moving_frames(2.0))
    item = _item(path, 1.2, 1.84)
    (view,) = read_views(item, spec, probe(path), ViewPlan(), audio=True, video=True, with_waveform=True)
    assert len(view.waveform) == 0
    assert view.clip.is_silent


def test_scores_are_averaged_as_probabilities() -> None:
    logits = np.array([[0.0, 0.0], [100.0, 0.0]], np.float32)
    assert average_scores(logits, sigmoid=False) == pytest.approx([0.75, 0.25])  # of (.5, .5) and (1, 0)
    one = 1 / (1 + exp(-1))
    assert average_scores(np.array([[1.0, -1.0]]), sigmoid=True) == pytest.approx([one, 1 - one])


def test_views_of_what_is_not_there_fail(mute_film: Path, spec: ClipSpec) -> None:
    with pytest.raises(MissingAudio, match="no sound"):
        read_views(_item(mute_film), spec, probe(mute_film), ViewPlan(), audio=True, video=True)
