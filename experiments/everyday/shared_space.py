"""What finds what in the shared space: sounds find pictures of what makes them, and pictures find sounds.

A picture matches a sound if it shows one of the labels that the sound's label means in pictures, or one that
is bridged to what it means in sounds. Sounds and pictures that match nothing are left out.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float

from datasets.manifests import Item
from datasets.vocabulary import Vocabulary
from evaluation.metrics import TIE

NUM_FOUND = 10


@dataclass(frozen=True, slots=True)
class FoundTable:
    """Means over queries."""

    queries: int
    keys: int
    precision: float
    """Share of matches among the 10 nearest."""
    best_possible: float
    """The same if all matches came first: some queries have fewer than 10."""
    chance: float
    """The same for keys in random order."""
    within_matches: float
    """Share of matches among as many of the nearest as there are matches, at most 10."""


def matching(
    audio: Sequence[Item], video: Sequence[Item], vocabulary: Vocabulary
) -> Bool[np.ndarray, "sounds pictures"]:
    """Which pictures show what makes which sounds."""
    shown = [
        frozenset(
            (vocabulary.source_labels(x.source) or vocabulary.dataset_labels(x.collection, x.label)).video
        )
        for x in video
    ]
    rows = {}
    for item in audio:
        if item.label not in rows:
            labels = vocabulary.dataset_labels(item.collection, item.label)
            wanted = {*labels.video, *(x for id_ in labels.audio for x in vocabulary.bridged.get(id_, ()))}
            rows[item.label] = [bool(wanted & labels_) for labels_ in shown]
    return np.array([rows[item.label] for item in audio], bool).reshape(len(audio), len(video))


def found_tables(
    audio: Float[np.ndarray, "sounds dim"],
    video: Float[np.ndarray, "pictures dim"],
    matches: Bool[np.ndarray, "sounds pictures"],
) -> dict[str, FoundTable]:
    """Precision at 10 both ways, among sounds and pictures that match something.

    Raises:
        ValueError: nothing matches.
    """
    if not matches.any():
        raise ValueError("no sound matches a picture; there is nothing to find")
    sounds, pictures = matches.any(1), matches.any(0)
    near = (audio @ video.T)[sounds][:, pictures]
    matches = matches[sounds][:, pictures]
    return {
        "sound finds picture": found_table(near, matches),
        "picture finds sound": found_table(near.T, matches.T),
    }


def found_table(
    near: Float[np.ndarray, "queries keys"],
    matches: Bool[np.ndarray, "queries keys"],
    num_found: int = NUM_FOUND,
) -> FoundTable:
    """Precision of the nearest keys; of keys equally near those that match come last."""
    num_matches = matches.sum(1)
    order = np.lexsort((matches, -np.round(near / TIE)), axis=1)
    sorted_matches = np.take_along_axis(matches, order, axis=1)
    first = np.minimum(num_matches, num_found)
    hits = np.array([row[:k].sum() for row, k in zip(sorted_matches, first, strict=True)])
    return FoundTable(
        queries=len(near),
        keys=near.shape[1],
        precision=float((sorted_matches[:, :num_found].sum(1) / num_found).mean()),
        best_possible=float((first / num_found).mean()),
        chance=float(matches.mean() * min(1.0, near.shape[1] / num_found)),
        within_matches=float((hits / first).mean()),
    )
