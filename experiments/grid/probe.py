"""Linear probes of one run.

They show which test words a classifier on frozen features gets right within their slots.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from datasets.layouts.grid import SLOT_OF
from datasets.manifests import Item
from datasets.recordings import load_recordings
from evaluation.linear_probe import FittedProbe, LabelledFeatures, fit_probe
from evaluation.scorer import Scorer, ScoringPlan
from models.zorro import ZorroModel
from training.recipe import Recipe
from training.validation import ValidationTable

from .score import right_digits

STREAMS = ("audio", "video", "fusion")
MAX_CLIPS = 600  # whose windows are in memory at a time


def probe_words(model: ZorroModel, items: Sequence[Item], recipe: Recipe, cache_dir: Path) -> dict[str, Any]:
    """Fitted on the training words, chosen on the validation words.

    Of the test words what `TestSplit.score` keeps.
    """
    train, val, test = (
        _features(model, [item for item in items if item.split == split], recipe, cache_dir)
        for split in ("train", "val", "test")
    )
    fitted = {stream: fit_probe(train[stream], val[stream]) for stream in STREAMS}
    return {
        "right": {"clean": {stream: _right(probe, test[stream]) for stream, probe in fitted.items()}},
        "c": {stream: probe.c for stream, probe in fitted.items()},
        "converged": all(probe.converged for probe in fitted.values()),
    }


def _right(probe: FittedProbe, words: LabelledFeatures) -> str:
    names = words.scorer.names
    return right_digits(probe.predict(words.features), np.eye(len(names))[words.truth], names)


def _features(
    model: ZorroModel, items: list[Item], recipe: Recipe, cache_dir: Path
) -> dict[str, LabelledFeatures]:
    """By stream, each asked alone, of the words of a split."""
    recordings = load_recordings(items, recipe.spec, cache_dir, lambda *_: None)
    parts = [
        ValidationTable(items[start : start + MAX_CLIPS], recordings, {}, recipe).outputs(model)
        for start in range(0, len(items), MAX_CLIPS)
    ]
    targets = {word: i for i, word in enumerate(sorted(SLOT_OF))}
    scorer = Scorer(items, targets, ScoringPlan(groups=SLOT_OF))
    return {
        stream: LabelledFeatures(
            features=np.concatenate([part[stream].features for part in parts]),
            items=np.arange(len(items)),
            scorer=scorer,
        )
        for stream in STREAMS
    }
