"""How far probabilities are from how often they come true.

Pairs of a clip and a label are counted whose truth is known. For a clip whose label in its collection is D,
among the labels that the clip is told apart from (`restricted`):
- true: labels of the table that are certain for D;
- false: labels that another of those means, unless D may mean it too, or it is above or below, in the table,
  or bridged to, something that D may mean;
- not counted: all others, such as those that are possible for D and not certain, and the labels of the table
  that no label of the collection means.

`pair_calibration` is the mean distance of probability and truth over 15 equal bins of probability, weighted
by pairs (Guo et al. 2017, of binary answers). Most pairs are false and easy, so that it is small for a model
that says little. `answer_calibration` is stricter: of each clip only the best of the labels that it is told
apart from, with its probability, and whether it is right; the labels exclude each other there.
"""

from collections.abc import Iterable, Sequence

import numpy as np
from jaxtyping import Bool, Float

from datasets.vocabulary import Vocabulary

from .restricted import RestrictedTask, is_right

NUM_BINS = 15


def binned_error(
    probabilities: Float[np.ndarray, " pairs"], is_true: Bool[np.ndarray, " pairs"], num_bins: int = NUM_BINS
) -> float:
    """Mean distance of probability and truth over equal bins of probability, weighted by pairs.

    Raises:
        ValueError: there are no pairs.
    """
    if not len(probabilities):
        raise ValueError("got 0 pairs; a calibration error needs at least 1")
    bins = np.minimum((probabilities * num_bins).astype(int), num_bins - 1)
    total = sum(abs(probabilities[bins == b].sum() - is_true[bins == b].sum()) for b in range(num_bins))
    return float(total / len(probabilities))


def pair_calibration(
    tasks: Iterable[tuple[RestrictedTask, np.ndarray]], vocabulary: Vocabulary
) -> tuple[float, int]:
    """Calibration error over pairs of known truth, and how many there are.

    Args:
        tasks: each with the probabilities of its clips, [clips, labels].
        vocabulary: what the labels are.
    """
    said: list[np.ndarray] = []
    true: list[np.ndarray] = []
    for task, probabilities in tasks:
        columns = {label: known_columns(task, label, vocabulary) for label in set(task.truth)}
        for row, label in zip(probabilities, task.truth, strict=True):
            certain, wrong = columns[label]
            said += [row[certain], row[wrong]]
            true += [np.ones(len(certain), bool), np.zeros(len(wrong), bool)]
    joined = np.concatenate(said)
    return binned_error(joined, np.concatenate(true)), len(joined)


def known_columns(task: RestrictedTask, label: str, vocabulary: Vocabulary) -> tuple[list[int], list[int]]:
    """Places of the labels that are true of each clip of a label, and of those that are false."""
    own = task.meanings[label]
    union = frozenset[int]().union(*(x.possible for x in task.meanings.values()))
    return sorted(own.certain), sorted(union - own.possible - _related(own.possible, vocabulary))


def _related(places: frozenset[int], vocabulary: Vocabulary) -> set[int]:
    """Labels above and below these, and bridged to them."""
    ids = {vocabulary.labels[i].id for i in places}
    above = {x for id_ in ids for x in vocabulary.ancestors(id_)}
    below = {x.id for x in vocabulary.labels if ids & set(vocabulary.ancestors(x.id))}
    bridged = {x for id_ in ids for x in vocabulary.bridged.get(id_, ())}
    return {vocabulary.index[x] for x in above | below | bridged if x in vocabulary.index}


def answer_calibration(tasks: Sequence[tuple[RestrictedTask, np.ndarray]]) -> float:
    """Calibration error of the best label of each clip, among those that it is told apart from."""
    confidence, right = [], []
    for task, probabilities in tasks:
        union = sorted(frozenset[int]().union(*(x.possible for x in task.meanings.values())))
        confidence.append(probabilities[:, union].max(1))
        right.append(is_right(probabilities, task.truth, task.meanings))
    return binned_error(np.concatenate(confidence), np.concatenate(right))
