"""Accuracy among the labels of a collection, each of which stands for labels of the table.

The score of a collection's label is that of the best label of the table that it means. An answer is right if
that of the true label is above all labels that the others mean and it does not; where two labels mean the
same, as a crocodile and its head, either is right. An equal score is wrong.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float

from datasets.manifests import Item
from datasets.vocabulary import NUM_AUDIOSET_LABELS, NUM_IMAGENET_LABELS, Vocabulary

from .clips import SplitClips

ESC_10 = "ESC-10"
NOTHING_PARTICULAR = "background_google"


@dataclass(frozen=True, slots=True)
class LabelMeaning:
    """Places in the table of what a label of a collection means."""

    possible: frozenset[int]
    """Right answers."""
    certain: frozenset[int]
    """Those that hold for each of its clips."""


@dataclass(frozen=True, slots=True)
class RestrictedTask:
    """Clips, and the labels that they are told apart from."""

    name: str
    stream: str
    clips: list[int]
    """Numbers of items."""
    truth: list[str]
    """The label of each."""
    meanings: Mapping[str, LabelMeaning]
    """Of each label that can be the answer."""


def meanings(
    vocabulary: Vocabulary, collection: str, labels: Sequence[str], streams: Sequence[str]
) -> dict[str, LabelMeaning]:
    """What labels of a collection mean in these streams; those that mean nothing are left out."""
    found = {}
    for label in labels:
        row = vocabulary.dataset_labels(collection, label)
        possible = [x for stream in streams for x in getattr(row, stream)]
        certain = [x for stream in streams for x in getattr(row, f"{stream}_certain")]
        if possible:
            found[label] = LabelMeaning(
                frozenset(vocabulary.indices(possible).tolist()),
                frozenset(vocabulary.indices(certain).tolist()),
            )
    return found


def restricted_tasks(split: SplitClips, vocabulary: Vocabulary) -> list[RestrictedTask]:
    """What is asked of the audio and of the video stream."""
    sounds = meanings(vocabulary, "sights_sounds", split.labels["sights_sounds"]["audio"], ["audio"])
    pictures = meanings(vocabulary, "sights_sounds", split.labels["sights_sounds"]["video"], ["video"])
    caltech = meanings(vocabulary, "caltech101", split.labels["caltech101"]["video"], ["video"])
    audio, video = split.chosen("sights_sounds", "audio"), split.chosen("sights_sounds", "video")
    esc_10 = [i for i in audio if is_esc_10(split.items[i])]
    others = [i for i in audio if not is_esc_10(split.items[i])]
    esc_labels = {split.items[i].label for i in esc_10}
    of_audioset = _known(sounds, range(NUM_AUDIOSET_LABELS))
    of_imagenet = range(NUM_AUDIOSET_LABELS, NUM_AUDIOSET_LABELS + NUM_IMAGENET_LABELS)
    pictures_caltech = split.chosen("caltech101", "video")
    return [
        _task("ESC-10", "audio", esc_10, {x: sounds[x] for x in sounds if x in esc_labels}, split),
        _task("instruments", "audio", others, of_audioset, split),
        _task("instruments, drone", "audio", others, sounds, split),
        _task("sights", "video", video, pictures, split),
        _task("sights, ImageNet's", "video", video, _known(pictures, of_imagenet), split),
        _task("Caltech, ImageNet's", "video", pictures_caltech, _known(caltech, of_imagenet), split),
        _task("Caltech, all", "video", pictures_caltech, caltech, split),
    ]


def is_esc_10(item: Item) -> bool:
    """Whether a sound comes from ESC-10."""
    return item.source.startswith(ESC_10)


def _known(labels: Mapping[str, LabelMeaning], known: range) -> dict[str, LabelMeaning]:
    """Labels that a teacher of the labels `known` can give."""
    return {label: x for label, x in labels.items() if any(i in known for i in x.possible)}


def _task(
    name: str, stream: str, clips: Sequence[int], labels: Mapping[str, LabelMeaning], split: SplitClips
) -> RestrictedTask:
    chosen = [i for i in clips if split.items[i].label in labels]
    return RestrictedTask(
        f"{name}, of {len(labels)}", stream, chosen, [split.items[i].label for i in chosen], labels
    )


def is_right(
    probabilities: Float[np.ndarray, "clips labels"],
    truth: Sequence[str],
    labels: Mapping[str, LabelMeaning],
) -> Bool[np.ndarray, " clips"]:
    """Whether each clip's label scores above all others."""
    union = frozenset[int]().union(*(x.possible for x in labels.values()))
    found = np.zeros(len(truth), bool)
    for i, label in enumerate(truth):
        own, others = sorted(labels[label].possible), sorted(union - labels[label].possible)
        found[i] = not others or probabilities[i, own].max() > probabilities[i, others].max()
    return found


def by_label(right: Bool[np.ndarray, " clips"], truth: Sequence[str]) -> dict[str, dict[str, float]]:
    """Share right and number of clips of each label."""
    names = np.array(truth)
    return {
        str(label): {"accuracy": float(right[names == label].mean()), "clips": int((names == label).sum())}
        for label in np.unique(names)
    }
