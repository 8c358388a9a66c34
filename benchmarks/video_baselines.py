"""Baselines of the decoding benchmark: frames by index as users of OpenCV and decord read them.

For each library there are two readers, of which either may be the faster. Every reader opens the file,
decodes on `NUM_THREADS` threads, and returns the middle square of each frame, scaled down: uint8 [frames,
size, size, 3].
"""

from collections.abc import Sequence
from pathlib import Path

import cv2
import decord
import numpy as np

from .measure import NUM_THREADS


def opencv_forward(path: Path, indices: Sequence[int], size: int) -> np.ndarray:
    """Grab every frame up to the last, and retrieve those at `indices`."""
    capture, wanted, frames = _open_capture(path), set(indices), []
    for i in range(indices[-1] + 1):
        assert capture.grab(), f"OpenCV has no frame {i}"
        if i in wanted:
            frames.append(_square(capture.retrieve()[1], size))
    capture.release()
    return np.stack(frames)[..., ::-1]


def opencv_seeks(path: Path, indices: Sequence[int], size: int) -> np.ndarray:
    """Seek to the time of each frame."""
    capture, frames = _open_capture(path), []
    rate = capture.get(cv2.CAP_PROP_FPS)
    for i in indices:
        capture.set(cv2.CAP_PROP_POS_MSEC, i / rate * 1000)
        is_there, bgr = capture.read()
        assert is_there, f"OpenCV has no frame {i}"
        frames.append(_square(bgr, size))
    capture.release()
    return np.stack(frames)[..., ::-1]


def decord_scaled(path: Path, indices: Sequence[int], size: int, *, shape: tuple[int, int]) -> np.ndarray:
    """Let decord scale frames of `shape` (width, height), then crop them."""
    width, height = (max(size, round(side * size / min(shape))) for side in shape)
    reader = decord.VideoReader(str(path), width=width, height=height, num_threads=NUM_THREADS)
    top, left = (height - size) // 2, (width - size) // 2
    frames: np.ndarray = reader.get_batch(list(indices)).asnumpy()
    return np.ascontiguousarray(frames[:, top : top + size, left : left + size])


def decord_whole(path: Path, indices: Sequence[int], size: int) -> np.ndarray:
    """Let decord return whole frames, then crop and scale them by OpenCV."""
    frames = decord.VideoReader(str(path), num_threads=NUM_THREADS).get_batch(list(indices)).asnumpy()
    return np.stack([_square(frame, size) for frame in frames])


def _open_capture(path: Path) -> cv2.VideoCapture:
    return cv2.VideoCapture(str(path), cv2.CAP_FFMPEG, [cv2.CAP_PROP_N_THREADS, NUM_THREADS])


def _square(rgb: np.ndarray, size: int) -> np.ndarray:
    """The middle square of a frame, scaled down."""
    height, width = rgb.shape[:2]
    side = min(height, width)
    top, left = (height - side) // 2, (width - side) // 2
    middle = rgb[top : top + side, left : left + side]
    square: np.ndarray = cv2.resize(middle, (size, size), interpolation=cv2.INTER_AREA)
    return square
