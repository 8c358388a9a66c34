"""Every number of docs/front-end.md is what the code gives."""

import importlib
import json
import math
import re
from dataclasses import fields
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
import scipy.signal
import scipy.special
from av import VideoFrame

from export.golden import golden_inputs
from media import Clip, ClipSpec, Modality, read_clips, read_waveform
from media.log_mel import log_mel, mel_filters
from media.pooling import pool, window_weights
from media.spec import LATER_NUMBERS
from media.video import to_rgb
from runtime.signature import input_tensors, output_names
from tests.made_films import write_wav

PAGE = (Path(__file__).parents[2] / "docs" / "front-end.md").read_text()
SPEC = ClipSpec()


def table(page: str, *header: str) -> list[list[str]]:
    """Rows of the table with this header, each as its cells."""
    lines = page.splitlines()
    wanted = f"| {' | '.join(header)} |"
    if wanted not in lines:
        raise ValueError(f"no table {wanted}")
    rows = []
    for line in lines[lines.index(wanted) + 2 :]:
        if not line.startswith("|"):
            break
        rows.append([cell.strip() for cell in line.strip("|").split("|")])
    return rows


def numbers(page: str, *header: str) -> list[list[float]]:
    return [[float(cell) for cell in row] for row in table(page, *header)]


def chirp(sample_rate: int = 16_000) -> np.ndarray:
    t = np.arange(round(5.12 * sample_rate)) / sample_rate
    return (0.5 * np.sin(2 * np.pi * (100 * t + 300 * t**2))).astype(np.float32)


def tri(n: np.ndarray) -> np.ndarray:
    return np.abs(n % 510 - 255)


def grey_frame(k: int) -> np.ndarray:
    y, x = np.mgrid[:240, :320]
    return tri(x + 2 * y + 8 * k).astype(np.uint8)


def coloured_frame(width: int, height: int) -> np.ndarray:
    y, x = np.mgrid[:height, :width]
    return np.stack([tri(x + 2 * y), tri(2 * x + y + 100), tri(x + y + 200)], axis=-1).astype(np.uint8)


def test_table_finds_rows() -> None:
    assert table("text\n| a | b |\n|---|---|\n| 1 | `x` |\n| 2 | y |\n\n| 3 | z |", "a", "b") == [
        ["1", "`x`"],
        ["2", "y"],
    ]


def test_table_finds_rows_fails() -> None:
    with pytest.raises(ValueError, match="no table"):
        table(PAGE, "number", "meaning")


def test_page_has_every_number_of_the_spec() -> None:
    rows = table(PAGE, "number", "default", "meaning")
    defaults = [(f"`{name}`", str(value)) for name, value in SPEC.to_dict().items()]
    assert [(name, value) for name, value, _ in rows] == defaults
    rows = table(PAGE, "further number", "without it", "meaning")
    later = {f"`{f.name}`": str(f.default).lower() for f in fields(ClipSpec) if f.name in LATER_NUMBERS}
    later |= {"`fft_length`": "`window_length`", "`first_centre`": "`hop_length / 2`"}
    assert SPEC.num_fft_samples == SPEC.window_length
    assert SPEC.centre_of_first_frame == SPEC.hop_length / 2
    assert {name: value for name, value, _ in rows} == later
    assert len(SPEC.to_dict()) + len(rows) == len(fields(ClipSpec))
    assert f"{SPEC.num_samples} samples, {SPEC.window_seconds:g} s" in PAGE


def test_page_has_the_constants() -> None:
    rows = table(PAGE, "constant", "value", "where it is used")
    assert len(rows) == 5
    for name, value, _ in rows:
        module, _, constant = name.strip("`").rpartition(".")
        assert getattr(importlib.import_module(module), constant) == float(value), name


def test_page_has_what_graphs_take_and_give() -> None:
    wanted = [
        [
            f"`{graph}`",
            ", ".join(f"`{x.name}` {x.dtype} {list(x.shape)}" for x in input_tensors(graph, SPEC)),
            ", ".join(f"`{name}`" for name in output_names(graph)),
        ]
        for graph in Modality
    ]
    assert table(PAGE, "graph", "inputs", "outputs") == wanted


def test_weights_of_triangles() -> None:
    filters = mel_filters(SPEC)
    for k, band, weight in numbers(PAGE, "FFT bin k", "band b", "T[k, b]"):
        assert filters[int(k), int(band)] == pytest.approx(weight, abs=6e-6)


def facts_of(log_mel_of_chirp: np.ndarray) -> dict[str, float]:
    """What the page tells of all values."""
    values = log_mel_of_chirp.astype(np.float64)
    return {
        "sum": values.sum(),
        "sum of squares": (values**2).sum(),
        "largest": values.max(),
        "smallest": values.min(),
    }


def test_log_mel_of_the_chirp() -> None:
    got = log_mel(chirp(), SPEC)
    rows = numbers(PAGE, "mel frame", "band", "log-mel")
    assert len(rows) == 11
    for frame, band, value in rows:
        assert got[int(frame), int(band)] == pytest.approx(value, abs=2e-4)
    facts = {name: float(value) for name, value in table(PAGE, "of all 512 x 80 values", "is")}
    assert facts == pytest.approx(facts_of(got), rel=1e-5)


def test_log_mel_of_the_chirp_by_the_second_example() -> None:
    prose = " ".join(PAGE.split())
    (text,) = re.findall(r"taggers trained on AudioSet use: (.*?); the others as above", prose)
    said = {name: json.loads(value) for name, value in re.findall(r"`(\w+)` ([\w.-]+)", text)}
    spec = ClipSpec(**said)
    assert set(said) >= {*LATER_NUMBERS} - {"crop_fraction"}
    assert spec.window_seconds == 5.12
    got = log_mel(chirp(32_000), spec)
    rows = numbers(PAGE, "frame of the second example", "band", "log-mel")
    assert len(rows) == 11
    for frame, band, value in rows:
        assert got[int(frame), int(band)] == pytest.approx(value, abs=1e-3)
    facts = {name: float(value) for name, value in table(PAGE, "of all 512 x 128 values", "is")}
    assert facts == pytest.approx(facts_of(got), rel=1e-5)


def test_a_bundle_begins_with_the_chirp() -> None:
    np.testing.assert_allclose(golden_inputs(SPEC)["audio"][0], log_mel(chirp(), SPEC), atol=2e-4)


def write_lossless(path: Path, frames: list[np.ndarray], *, fps: int) -> Path:
    """A grey film that loses nothing."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("ffv1", rate=fps)
        (stream.height, stream.width), stream.pix_fmt = frames[0].shape, "gray"
        for i, pixels in enumerate(frames):
            frame = VideoFrame.from_ndarray(pixels, format="gray")
            frame.pts, frame.time_base = i, Fraction(1, fps)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


def test_pixels_of_the_grey_film(tmp_path: Path) -> None:
    film = write_lossless(tmp_path / "film.mkv", [grey_frame(k) for k in range(30)], fps=5)
    clips = list(read_clips(film, SPEC, audio=False))
    assert [clip.video_seconds for clip in clips] == pytest.approx([5.12, 0.88])
    rows = numbers(PAGE, "window", "j", "is frame k", "row", "column", "pixel")
    assert len(rows) == 9
    for window, j, k, row, column, pixel in np.array(rows, int).tolist():
        seconds = 5.12 * window + (j + 0.5) * 2.56
        assert min(29, math.floor((seconds + 1e-6) * 5)) == k
        assert clips[window].video[j, row, column].tolist() == [pixel] * 3


def test_pixels_of_the_coloured_frame() -> None:
    rows = numbers(PAGE, "columns", "rows", "row", "column", "red", "green", "blue")
    assert len(rows) == 5
    for width, height, row, column, *colour in np.array(rows, int).tolist():
        frame = VideoFrame.from_ndarray(coloured_frame(width, height), format="rgb24")
        assert to_rgb(frame, height=128, width=128)[row, column].tolist() == colour


def weights_by_the_page(n: int, m: int) -> np.ndarray:
    """[m, n]: how the page makes n pixels into m."""
    r, a = n / m, -0.6
    weights = np.zeros((m, n))
    for i in range(m):
        c = (i + 0.5) * r - 0.5
        for k in range(-2, n + 2):
            d = abs(k - c)
            if r > 1:
                weight = min(1, max(0, 0.5 + r / 2 - d)) if 0 <= k < n else 0
            elif d < 1:
                weight = (a + 2) * d**3 - (a + 3) * d**2 + 1
            else:
                weight = a * d**3 - 5 * a * d**2 + 8 * a * d - 4 * a if d < 2 else 0
            weights[i, min(max(k, 0), n - 1)] += weight
    return weights / weights.sum(axis=1, keepdims=True)


@pytest.mark.parametrize(("width", "height"), [(320, 240), (213, 160), (150, 201), (90, 50)])
@pytest.mark.parametrize("crop_fraction", [1.0, 0.875])
def test_scaling_of_grey_is_by_the_page(width: int, height: int, crop_fraction: float) -> None:
    y, x = np.mgrid[:height, :width]
    grey = np.rint(127.5 + 100 * np.sin(6 * x / width + 4 * y / height)).astype(np.uint8)
    scale = max(128 / height, 128 / width) / crop_fraction
    rows, columns = max(128, round(height * scale)), max(128, round(width * scale))
    scaled = weights_by_the_page(height, rows) @ grey @ weights_by_the_page(width, columns).T
    top, left = (rows - 128) // 2, (columns - 128) // 2
    wanted = scaled[top : top + 128, left : left + 128]
    frame = VideoFrame.from_ndarray(grey, format="gray")
    got = to_rgb(frame, height=128, width=128, crop_fraction=crop_fraction)[..., 0]
    assert np.abs(got - np.clip(np.rint(wanted), 0, 255)).max() <= 1


def test_channels_count_the_same_and_whole_numbers_are_divided(tmp_path: Path) -> None:
    channels = np.repeat([[0.5], [-0.25]], 1600, axis=1)
    waveform = read_waveform(write_wav(tmp_path / "two.wav", channels, codec="pcm_s16le"), SPEC)
    wanted = (int(0.5 * 32767) + int(-0.25 * 32767)) / 2 / 2**15
    np.testing.assert_allclose(waveform, np.full(1600, wanted), atol=1e-7)


def test_another_resampler_moves_little_below_7_khz(tmp_path: Path) -> None:
    pattern = r"below 7 kHz by less than ([\d.]+) on average, and the highest band by ([\d.]+)\."
    ((below, highest),) = re.findall(pattern, " ".join(PAGE.split()))
    noise = 0.2 * np.random.default_rng(0).standard_normal(round(5.12 * 44_100))
    ours = read_waveform(
        write_wav(tmp_path / "noise.wav", noise.astype(np.float32), sample_rate=44_100), SPEC
    )
    theirs = scipy.signal.resample_poly(noise, 160, 441).astype(np.float32)
    moved = np.abs(log_mel(ours[:81_920], SPEC) - log_mel(theirs[:81_920], SPEC))[2:-2].mean(axis=0)
    highest_hz = 700 * (10 ** (np.linspace(0, 2595 * np.log10(1 + 8000 / 700), 82)[2:] / 2595) - 1)
    assert moved[highest_hz < 7000].mean() < float(below)
    assert moved[-1] == pytest.approx(float(highest), abs=0.05)


def test_pooling_of_windows() -> None:
    rows = table(PAGE, "logits of window 0", "logits of window 1", "weights", "mean", "scores")
    assert len(rows) == 1
    first, second, weights, mean, scores = ([float(x) for x in cell.split(",")] for cell in rows[0])
    clips = [Clip(0, 5.12, None, None, 0.0, seconds, is_silent=True, padded=False) for seconds in weights]
    pooled = pool(np.array([first, second]), window_weights(clips, Modality.VIDEO))
    assert pooled == pytest.approx(mean, abs=5e-5)
    assert scipy.special.softmax(pooled) == pytest.approx(scores, abs=5e-5)


def test_pooling_of_windows_of_labels_that_do_not_compete() -> None:
    rows = table(
        PAGE,
        "logits of window 0",
        "logits of window 1",
        "weights",
        "sigmoids of window 0",
        "sigmoids of window 1",
        "scores",
    )
    assert len(rows) == 1
    first, second, weights, *each, scores = ([float(x) for x in cell.split(",")] for cell in rows[0])
    assert scipy.special.expit([first, second]) == pytest.approx(np.array(each), abs=5e-5)
    assert np.average(scipy.special.expit([first, second]), axis=0, weights=weights) == pytest.approx(
        scores, abs=5e-5
    )
