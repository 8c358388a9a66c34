"""What teachers say, untrained on these collections, of the clips that the model answers."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float, Float32

from datasets.vocabulary import NUM_AUDIOSET_LABELS, NUM_IMAGENET_LABELS
from media.clip import Clip, Modality, read_waveform
from media.pooling import pool, window_weights
from media.spec import ClipSpec

from .clips import SplitClips

if TYPE_CHECKING:
    from training.distillation.teachers import AudioTeacher

AUDIO_FILES = {"mn04": "efficientat_mn04_as.pt", "YAMNet": "yamnet_int8.tflite"}
JOINED = "joined"
"""The geometric mean of the teachers of sounds."""
PICTURE_NETWORKS = {"Lite0": "efficientnet-lite0"}


@dataclass(slots=True)
class TeacherAnswers:
    """Probabilities by name of the teacher; zero for labels that it does not know."""

    num_labels: int
    audio: dict[str, Float[np.ndarray, "sounds labels"]] = field(default_factory=dict)
    video: dict[str, Float[np.ndarray, "pictures labels"]] = field(default_factory=dict)
    first_window: dict[str, Float[np.ndarray, "sounds labels"]] = field(default_factory=dict)
    """Of each sound's first window."""
    missing: list[str] = field(default_factory=list)
    """Why some teachers say nothing."""


def ask_teachers(folder: Path, split: SplitClips, spec: ClipSpec, num_labels: int) -> TeacherAnswers:
    """Answers of all teachers that are there: to all sounds, and to the middle frame of each window of films.

    Args:
        folder: with the files `AUDIO_FILES`; networks for pictures come from their packages.
        split: the clips.
        spec: the model's.
        num_labels: of the vocabulary.
    """
    found = TeacherAnswers(num_labels)
    _ask_of_sounds(folder, split, spec, found)
    _ask_of_pictures(split, found)
    return found


def _ask_of_sounds(folder: Path, split: SplitClips, spec: ClipSpec, found: TeacherAnswers) -> None:
    from training.distillation.teachers import joined_probabilities, open_audio_teacher

    opened: dict[str, list[AudioTeacher]] = {}
    for name, file in AUDIO_FILES.items():
        try:
            opened[name] = [open_audio_teacher(folder / file)]
        except (ModuleNotFoundError, ValueError) as error:
            found.missing.append(f"{name}: {error}")
    if len(opened) > 1:
        opened[JOINED] = [teacher for teachers in opened.values() for teacher in teachers]
    rows: dict[str, list[np.ndarray]] = {name: [] for name in opened}
    firsts: dict[str, list[np.ndarray]] = {name: [] for name in opened}
    for i in split.chosen("sights_sounds", "audio"):
        waveform, windows = read_waveform(split.items[i].path, spec), split.windows[i]
        cuts = [cut_window(waveform, window, spec) for window in windows]
        for name, teachers in opened.items():
            said = np.stack([joined_probabilities(teachers, cut, spec) for cut in cuts])
            rows[name].append(pool(said, window_weights(windows, Modality.AUDIO)))
            firsts[name].append(said[0])
    for name in opened:
        found.audio[name] = _widened(np.stack(rows[name]), 0, found.num_labels)
        found.first_window[name] = _widened(np.stack(firsts[name]), 0, found.num_labels)


def cut_window(
    waveform: Float32[np.ndarray, " samples"], window: Clip, spec: ClipSpec
) -> Float32[np.ndarray, " samples"]:
    """The samples of a window; what is not there is silence."""
    start = round(window.start_seconds * spec.sample_rate)
    cut = waveform[start : start + spec.num_samples]
    return np.pad(cut, (0, spec.num_samples - len(cut)))


def _ask_of_pictures(split: SplitClips, found: TeacherAnswers) -> None:
    from training.distillation.teachers import open_picture_teacher

    numbers = [i for i, item in enumerate(split.items) if item.modality == "video"]
    for name, network in PICTURE_NETWORKS.items():
        try:
            teacher = open_picture_teacher(network)
        except ValueError as error:
            found.missing.append(f"{name}: {error}")
            continue
        rows = [_pooled_pictures(teacher.probabilities, split.windows[i]) for i in numbers]
        found.video[name] = _widened(np.stack(rows), NUM_AUDIOSET_LABELS, found.num_labels)


def _pooled_pictures(
    probabilities: Callable[[np.ndarray], np.ndarray], windows: Sequence[Clip]
) -> Float[np.ndarray, " labels"]:
    frames = [window.video[len(window.video) // 2] for window in windows if window.video is not None]
    return pool(probabilities(np.stack(frames)), window_weights(windows, Modality.VIDEO))


def _widened(
    probabilities: Float[np.ndarray, "clips known"], first: int, num_labels: int
) -> Float[np.ndarray, "clips labels"]:
    assert probabilities.shape[1] in (NUM_AUDIOSET_LABELS, NUM_IMAGENET_LABELS)
    found = np.zeros((len(probabilities), num_labels), np.float32)
    found[:, first : first + probabilities.shape[1]] = probabilities
    return found
