"""Eight frames of a 10 s film as squares: `media.read_frames` against OpenCV and decord; and what a long film costs.

All readers hand over the same frames at the same size. Which frame a picture shows is checked against its
neighbours.
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
from .rivals import decord_scaled, decord_whole, opencv_forward, opencv_seeks

SECONDS = 10.0
NUM_FRAMES = 8
SIZE = 224  # pixels
SHAPES = {"360p": (640, 360), "720p": (1280, 720)}  # (width, height)
TIMES = tuple(
    (i + 0.5) * SECONDS / NUM_FRAMES for i in range(NUM_FRAMES)
)  # seconds: the middles of equal parts
INDICES = tuple(
    math.floor(seconds * FRAMES_PER_SECOND + 1e-6) for seconds in TIMES
)  # of the frames on display then
LIMITS = MediaLimits(max_threads=NUM_THREADS)
MAX_DIFFERENCE = 6.0  # mean, of 255: the libraries scale by different filters


def run(rounds: int = 15) -> Result:
    """Measure short films, then long ones."""
    cv2.setNumThreads(NUM_THREADS)
    parameters = {
        "seconds": SECONDS,
        "frames_per_second": FRAMES_PER_SECOND,
        "frame_indices": list(INDICES),
        "size": SIZE,
        "threads": NUM_THREADS,
        "rounds": rounds,
    }
    result = Result(name="decoding", parameters=parameters)
    with tempfile.TemporaryDirectory() as folder:
        for name, (width, height) in SHAPES.items():
            path = write_film(Path(folder) / f"{name}.mp4", width=width, height=height, seconds=SECONDS)
            _measure(result, name, path, rounds)
        measure_long_film(result, Path(folder), rounds=rounds)
    return result


def _measure(result: Result, name: str, path: Path, rounds: int) -> None:
    ours = f"{name}, ours"
    sides: dict[str, Callable[[], np.ndarray]] = {
        ours: lambda: read_frames(path, TIMES, height=SIZE, width=SIZE, limits=LIMITS),
        f"{name}, OpenCV, forward": partial(opencv_forward, path, INDICES, SIZE),
        f"{name}, OpenCV, seeks": partial(opencv_seeks, path, INDICES, SIZE),
        f"{name}, decord, scaled": partial(decord_scaled, path, INDICES, SIZE, shape=SHAPES[name]),
        f"{name}, decord, whole": partial(decord_whole, path, INDICES, SIZE),
    }
    near = {shift: _ours_at(path, shift) for shift in (-1, 0, 1)}
    for side, read in sides.items():
        _check(result, side, read(), near)
    result.entries |= interleave(sides, rounds=rounds)
    rivals = [side for side in sides if side != ours]
    title = f"{NUM_FRAMES} frames of {SECONDS:g} s at {name}, to {SIZE} x {SIZE}"
    result.compare(ours, rivals, at_most=1.0, title=title, other="fastest of OpenCV and decord")


def _ours_at(path: Path, shift: int) -> np.ndarray:
    """The chosen frames, or their neighbours, asked for by the middle of the time they are on display."""
    times = [(index + shift + 0.5) / FRAMES_PER_SECOND for index in INDICES]
    return read_frames(path, times, height=SIZE, width=SIZE)


def _check(result: Result, side: str, frames: np.ndarray, near: dict[int, np.ndarray]) -> None:
    """Each frame is the one that was asked for: its picture is close to ours, and to none of the neighbours' closer."""
    differences = {
        shift: np.abs(frames.astype(np.int16) - ours).mean(axis=(1, 2, 3)) for shift, ours in near.items()
    }
    result.check(
        f"{side}: largest mean difference of a picture, of 255", differences[0].max(), at_most=MAX_DIFFERENCE
    )
    if not all((differences[0] < differences[shift]).all() for shift in (-1, 1)):
        raise CheckError(f"{side} gave the frame before or after the one that was asked for")
