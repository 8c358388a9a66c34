"""What each stream is taught.

A stream of one modality is taught what its teachers say, and what is certain of a clip by its label. Fusion
is taught both. Where a bridge joins a label that is heard with one that is seen, each raises the other: of
probabilities t and s of the two, t becomes 1 - (1 - t)(1 - s t), and s likewise, so that two half-sure
answers that agree are surer together, and nothing is made of an answer that nobody gave.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from datasets.manifests import Item
from datasets.vocabulary import FolderLabels, Vocabulary
from models.attention import Pairing


@dataclass(frozen=True, slots=True)
class CertainLabels:
    """What is known of items by the labels of their collections: indices of the vocabulary."""

    audio: tuple[tuple[int, ...], ...]
    video: tuple[tuple[int, ...], ...]

    @classmethod
    def of(cls, items: Iterable[Item], vocabulary: Vocabulary) -> "CertainLabels":
        """Those that are true of each item; none of what the vocabulary's tables do not name."""
        rows = [folder_labels(item, vocabulary) for item in items]
        return cls(
            audio=tuple(_indices(row.audio_certain if row else (), vocabulary) for row in rows),
            video=tuple(_indices(row.video_certain if row else (), vocabulary) for row in rows),
        )


def folder_labels(item: Item, vocabulary: Vocabulary) -> FolderLabels | None:
    """What the vocabulary says of an item's label; None where there is no label, or of other collections.

    Raises:
        VocabularyError: its tables have rows of the collection, and none of the label.
    """
    if not item.labels or item.collection not in {row.dataset for row in vocabulary.folders}:
        return None
    return vocabulary.source_labels(item.source) or vocabulary.dataset_labels(item.collection, item.label)


def _indices(ids: Sequence[str], vocabulary: Vocabulary) -> tuple[int, ...]:
    return tuple(vocabulary.indices(ids).tolist())


def in_vocabulary(
    probabilities: np.ndarray, certain: Sequence[Sequence[int]], first: int, num_labels: int, least: float
) -> Float[Tensor, "items labels"]:
    """Targets of items: the teachers' answers from `first` on, and at least `least` of what is certain."""
    targets = torch.zeros(len(probabilities), num_labels)
    said = torch.from_numpy(np.asarray(probabilities, np.float32))
    targets[:, first : first + said.shape[1]] = said
    for row, labels in zip(targets, certain, strict=True):
        row[list(labels)] = row[list(labels)].clamp(min=least)
    return targets


class Bridges:
    """Which labels that are heard and which that are seen are one thing."""

    def __init__(self, vocabulary: Vocabulary) -> None:
        pairs = torch.from_numpy(vocabulary.bridge_pairs)
        self.audio, self.video = pairs[:, 0], pairs[:, 1]
        self.num_labels = len(vocabulary)

    def raised(self, targets: Float[Tensor, "rows labels"]) -> Float[Tensor, "rows labels"]:
        """Targets in which labels that bridges join have raised each other."""
        support = torch.zeros_like(targets)
        for own, other in ((self.audio, self.video), (self.video, self.audio)):
            index = own.expand(len(targets), -1)
            support.scatter_reduce_(1, index, targets[:, other], reduce="amax")
        return 1 - (1 - targets) * (1 - support * targets)


def fusion_targets(
    pairing: Pairing,
    audio: Float[Tensor, "items labels"],
    video: Float[Tensor, "items labels"],
    bridges: Bridges,
) -> Float[Tensor, "rows labels"]:
    """What fusion is taught of each row: what is heard or seen, raised by bridges."""
    heard, seen = (
        torch.nn.functional.pad(x, (0, 0, 0, 1))[index]  # an absent item is the row of zeros after the last
        for x, index in ((audio, pairing.audio_index), (video, pairing.video_index))
    )
    return bridges.raised(1 - (1 - heard) * (1 - seen))


def concepts(vocabulary: Vocabulary) -> dict[int, int]:
    """The concept of each bridged label, by index: the topmost sound above it that shows as it does.

    A bark, a dog and a picture of a dalmatian are of one concept. A picture of several takes the first.
    """
    shown: dict[int, set[int]] = {}
    for audio, video in vocabulary.bridge_pairs.tolist():
        shown.setdefault(audio, set()).add(video)

    def top(audio: int) -> int:
        ids = vocabulary.ancestors(vocabulary.labels[audio].id)
        above = [vocabulary.index[x] for x in ids if x in vocabulary.index]
        return next((x for x in reversed(above) if shown.get(x) == shown[audio]), audio)

    found = {audio: top(audio) for audio in shown}
    for audio, videos in sorted(shown.items(), key=lambda pair: len(pair[1])):
        for video in videos:
            found.setdefault(video, found[audio])
    return found
