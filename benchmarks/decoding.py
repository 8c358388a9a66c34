"""Eight frames of a 10 s film: `media.read_frames` against OpenCV and decord; and a long film.

All readers return the same frames at the same size. Each frame is compared with its neighbours in time, to
check that it is the right one.
"""

import math
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path

import cv2
import numpy as np

from media import MediaLimits, read_frames

from .films import FRAMES_PER_SECOND, write_film
from .long_films import measure_long_film
from .measure import NUM_THREADS, interleave
from .result import CheckError, Result
from .video_baselines import decord_scaled, decord_whole, opencv_forward, opencv_seeks

FILM_SECONDS = 10.0
NUM_FRAMES = 8
SIZE = 224  # pixels
SHAPES = {"360p": (640, 360), "720p": (1280, 720)}  # (width, height)
TIMES = tuple((i + 0.5) * FILM_SECONDS / NUM_FRAMES for i in range(NUM_FRAMES))
"""Middles of equal parts of the film, in seconds."""
INDICES = tuple(math.floor(seconds * FRAMES_PER_SECOND + 1e-6) for seconds in TIMES)
"""Indices of the frames that are displayed at these times."""
MEDIA_LIMITS = MediaLimits(max_threads=NUM_THREADS)
MAX_DIFFERENCE = 6.0  # mean, of 255: the libraries scale by different filters


def run(rounds: int = 15) -> Result:
    """Measure short films, then a long one."""
    cv2.setNumThreads(NUM_THREADS)
    parameters = {
        "seconds": FILM_SECONDS,
        "frames_per_second": FRAMES_PER_SECOND,
        "frame_indices": list(INDICES),
        "size": SIZE,
        "threads": NUM_THREADS,
        "rounds": rounds,
    }
    result = Result(name="decoding", parameters=parameters)
    with tempfile.TemporaryDirectory() as folder:
        for name, (width, height) in SHAPES.items():
            path = write_film(Path(folder) / f"{name}.mp4", width=width, height=height, seconds=FILM_SECONDS)
            _measure(result, name, path, rounds)
        measure_long_film(result, Path(folder), rounds=rounds)
    return result


def _measure(result: Result, name: str, path: Path, rounds: int) -> None:
    ours = f"{name}, ours"
    sides: dict[str, Callable[[], np.ndarray]] = {
        ours: lambda: read_frames(path, TIMES, height=SIZE, width=SIZE, limits=MEDIA_LIMITS),
        f"{name}, OpenCV, forward": partial(opencv_forward, path, INDICES, SIZE),
        f"{name}, OpenCV, seeks": partial(opencv_seeks, path, INDICES, SIZE),
        f"{name}, decord, scaled": partial(decord_scaled, path, INDICES, SIZE, shape=SHAPES[name]),
        f"{name}, decord, whole": partial(decord_whole, path, INDICES, SIZE),
    }
    expected = {shift: _frames_beside(path, shift) for shift in (-1, 0, 1)}
    for side, read in sides.items():
        _check_frames(result, side, read(), expected)
    result.entries |= interleave(sides, rounds=rounds)
    baselines = [side for side in sides if side != ours]
    title = f"{NUM_FRAMES} frames of {FILM_SECONDS:g} s at {name}, to {SIZE} x {SIZE}"
    result.compare(ours, baselines, at_most=1.0, title=title, other="fastest of OpenCV and decord")


def _frames_beside(path: Path, shift: int) -> np.ndarray:
    """The frames at `INDICES` + `shift`, each read at the middle of the time that it is displayed."""
    times = [(index + shift + 0.5) / FRAMES_PER_SECOND for index in INDICES]
    return read_frames(path, times, height=SIZE, width=SIZE)


def _check_frames(result: Result, side: str, frames: np.ndarray, expected: dict[int, np.ndarray]) -> None:
    """Check that each frame is close to ours, and closer to ours than to the frames before and after it."""
    differences = {
        shift: np.abs(frames.astype(np.int16) - ours).mean(axis=(1, 2, 3)) for shift, ours in expected.items()
    }
    result.check(
        f"{side}: largest mean difference of a picture, of 255", differences[0].max(), at_most=MAX_DIFFERENCE
    )
    if not all((differences[0] < differences[shift]).all() for shift in (-1, 1)):
        raise CheckError(f"{side} returned the frame before or after the requested one")
