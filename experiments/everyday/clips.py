"""Clips of the collections, decoded once as a server reads them, and a model's answers to them."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from jaxtyping import Float

from datasets.manifests import Item, ManifestError, read_manifest
from datasets.vocabulary import Vocabulary
from evaluation.pairing import read_windows_where_possible
from evaluation.predictors import Predictor
from media.clip import Clip, Modality
from media.pooling import pool, window_weights
from media.spec import ClipSpec
from runtime.scores import Scores
from verification.scored_model import ScoredModel, open_model

COLLECTIONS = ("sights_sounds", "caltech101")


@dataclass(frozen=True, slots=True)
class SplitClips:
    """One split of the collections."""

    items: list[Item]
    """Each with the name of its collection; those that decode."""
    windows: list[list[Clip]]
    """Of each item."""
    labels: dict[str, dict[str, list[str]]]
    """By collection and modality, the labels of all splits: what a clip is told apart from."""
    failures: list[str]
    """Files that do not decode."""

    def chosen(self, collection: str, modality: str) -> list[int]:
        """Numbers of a collection's items of one modality."""
        return [
            i
            for i, item in enumerate(self.items)
            if item.collection == collection and item.modality == modality
        ]


@dataclass(frozen=True, slots=True)
class Answers:
    """What one stream says of whole clips."""

    probabilities: Float[np.ndarray, "clips labels"]
    """Independent probabilities, averaged over windows as when served."""
    embedding: Float[np.ndarray, "clips projection_dim"]
    """Of unit length."""
    first_window: Float[np.ndarray, "clips labels"]
    """Probabilities of each clip's first window."""


def open_everyday(folder: Path, vocabulary: Vocabulary, variant: str | None = None) -> ScoredModel:
    """Open a checkpoint or a bundle whose labels are those of the vocabulary.

    Raises:
        ValueError: it has other labels, or they compete with each other.
    """
    model = open_model(folder, variant)
    if list(model.targets) != list(vocabulary.index):
        raise ValueError(
            f"{folder} has {len(model.targets)} labels, which are not the {len(vocabulary)} of the label "
            "table in its order; give a model that was trained on them"
        )
    if not model.is_sigmoid:
        raise ValueError(f"labels of {folder} compete with each other; give a model with independent scores")
    return model


def read_items(data: Path, split: str) -> tuple[list[Item], dict[str, dict[str, list[str]]]]:
    """Items of a split of the collections in a folder, and labels of all splits as `SplitClips` has them.

    Raises:
        ManifestError: a collection is not there, or has no such split.
    """
    items: list[Item] = []
    labels: dict[str, dict[str, list[str]]] = {}
    for name in COLLECTIONS:
        listed = [replace(item, collection=name) for item in read_manifest(data / name / "manifest.csv")]
        for modality in ("audio", "video"):
            known = {item.label for item in listed if item.modality == modality}
            labels.setdefault(name, {})[modality] = sorted(known)
        chosen = [item for item in listed if item.split == split]
        if not chosen:
            raise ManifestError(
                f"{data / name} has no split {split!r}; there are {sorted({x.split for x in listed})}"
            )
        items += chosen
    return items, labels


def read_collections(data: Path, split: str, spec: ClipSpec) -> SplitClips:
    """Decode a split of the collections in a folder.

    Raises:
        ManifestError: a collection is not there, or has no such split.
    """
    items, labels = read_items(data, split)
    good, windows, failures = read_windows_where_possible(items, spec)
    return SplitClips(good, windows, labels, sorted(str(path) for path in failures))


def answers(predictor: Predictor, modality: Modality, clips: Sequence[Sequence[Clip]]) -> Answers:
    """A stream's answers to clips, given as their windows.

    Raises:
        ValueError: no clips.
    """
    outputs = predictor.outputs(modality, [window for clip in clips for window in clip])
    votes = Scores.SIGMOID.votes(outputs["logits"])
    ends = np.cumsum([len(clip) for clip in clips])
    spans = [slice(end - len(clip), end) for clip, end in zip(clips, ends, strict=True)]
    weights = [window_weights(clip, modality) for clip in clips]
    embedding = np.stack(
        [pool(outputs["embedding"][span], weight) for span, weight in zip(spans, weights, strict=True)]
    )
    return Answers(
        probabilities=np.stack([pool(votes[x], weight) for x, weight in zip(spans, weights, strict=True)]),
        embedding=embedding / np.maximum(np.linalg.norm(embedding, axis=1, keepdims=True), 1e-12),
        first_window=np.stack([votes[span.start] for span in spans]),
    )
