"""Pictures for a distillation: random crops of pictures and of frames of films, tagged by the teachers.

Picture i depends on the seed and on i alone.
"""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import UInt8

from datasets.unpaired import picture_size, read_whole_frames
from datasets.vocabulary import NUM_IMAGENET_LABELS

from .material import Shapes, SplitPlan, mapped_arrays, write_arrays
from .teachers import TEACHER_BATCH, PictureTeacher

MAX_CROP_ASPECT = 1.3
"""Width by height of a crop, or height by width."""


@dataclass(frozen=True, slots=True)
class PictureMaterial:
    """Pictures."""

    frames: np.ndarray
    """uint8 [pictures, size, size, 3]"""
    probabilities: np.ndarray
    """float16 [pictures, 1000]: the mean of the teachers' softmax."""
    source: np.ndarray
    """int32 [pictures]: the item that each is cut from."""


def picture_material(
    plan: SplitPlan, open_teachers: Callable[[], Sequence[PictureTeacher]]
) -> PictureMaterial:
    """Crops of a split's pictures, made now or before.

    Raises:
        TeacherError: a teacher is not there.
        ValueError: no picture decodes.
    """
    num = plan.how.num_pictures if plan.augment else 0
    folder = plan.folder("video", num)
    if not folder.is_dir():
        whole = plan.decoded("video", lambda item: read_whole_frames(item.path, picture_size(plan.spec))[0])
        num, size = num or len(whole), plan.spec.frame_size
        shapes: Shapes = {
            "frames": ((num, size, size, 3), np.uint8),
            "probabilities": ((num, NUM_IMAGENET_LABELS), np.float16),
            "source": ((num,), np.int32),
        }
        write_arrays(folder, shapes, _rows(plan, whole, open_teachers(), num), plan.on_progress)
    return PictureMaterial(**mapped_arrays(folder))


def _rows(
    plan: SplitPlan, whole: Mapping[int, np.ndarray], teachers: Sequence[PictureTeacher], num: int
) -> Iterator[dict[str, Any]]:
    order, drawer, size = list(whole), plan.drawer(whole), plan.spec.frame_size

    def cut(i: int) -> tuple[np.ndarray, int]:
        draw = np.random.default_rng([plan.seed, 2, i])
        if plan.augment:
            source = drawer(draw)
            frame = whole[source][draw.integers(len(whole[source]))]
            return _random_crop(frame, size, plan.how.min_crop_area, draw), source
        frames = whole[order[i]]
        return _middle_crop(frames[len(frames) // 2], size, plan.spec.crop_fraction), order[i]

    for first in range(0, num, TEACHER_BATCH):
        cuts = [cut(i) for i in range(first, min(first + TEACHER_BATCH, num))]
        pictures = np.stack([picture for picture, _ in cuts])
        said = np.mean([teacher.probabilities(pictures) for teacher in teachers], axis=0)
        for (picture, source), probabilities in zip(cuts, said, strict=True):
            yield {"frames": picture, "probabilities": probabilities, "source": source}


def _random_crop(
    frame: UInt8[np.ndarray, "height width 3"], size: int, min_area: float, draw: np.random.Generator
) -> UInt8[np.ndarray, "size size 3"]:
    """A crop of random area and shape, mirrored half of the time (Szegedy et al. 2015, arXiv:1409.4842)."""
    height, width = frame.shape[:2]
    area = draw.uniform(min_area, 1) * height * width
    aspect = MAX_CROP_ASPECT ** draw.uniform(-1, 1)
    h, w = min(height, round(math.sqrt(area / aspect))), min(width, round(math.sqrt(area * aspect)))
    y, x = draw.integers(height - h + 1), draw.integers(width - w + 1)
    crop = _scaled(frame[y : y + h, x : x + w], size)
    return crop[:, ::-1] if draw.random() < 0.5 else crop


def _middle_crop(
    frame: UInt8[np.ndarray, "height width 3"], size: int, crop_fraction: float
) -> UInt8[np.ndarray, "size size 3"]:
    height, width = frame.shape[:2]
    side = round(min(height, width) * crop_fraction)
    y, x = (height - side) // 2, (width - side) // 2
    return _scaled(frame[y : y + side, x : x + side], size)


def _scaled(frame: UInt8[np.ndarray, "height width 3"], size: int) -> UInt8[np.ndarray, "size size 3"]:
    x = torch.from_numpy(np.ascontiguousarray(frame)).permute(2, 0, 1)[None].float()
    square = F.interpolate(x, (size, size), mode="bilinear", antialias=True)
    found: np.ndarray = square[0].round().clamp(0, 255).byte().permute(1, 2, 0).numpy()
    return found
