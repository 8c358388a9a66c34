"""Scores of one run on the test split: words within their slots, by each stream, in noise.

And sentences found again.

A clip is a word, or a whole sentence of six, of which each is the best of its slot or not.

Which words were right is kept, word by word, so that the report can draw sentences anew for its intervals.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from datasets.layouts.grid import SLOT_OF, SLOTS
from datasets.manifests import Item, Spans
from datasets.recordings import Recordings, cut_log_mel, load_recordings, window_start
from evaluation.corruptions import mix_at_snr
from evaluation.metrics import correct_within, mean_average_precision
from evaluation.retrieval import retrieval_tables
from media.clip import read_waveform
from media.log_mel import log_mel
from media.spec import ClipSpec
from models.size import model_size
from models.weights import load_checkpoint
from training.recipe import Recipe
from training.validation import ValidationTable, WindowOutputs

SNRS_DB = (20, 10, 5, 0, -5, -10)
SENTENCE_STRIDE_SECONDS = 0.32
NUM_SENTENCE_WINDOWS = 8


class TestSplit:
    """Windows of the test clips, clean and in white noise; of words also windows all over their sentences."""

    def __init__(self, items: Sequence[Item], recipe: Recipe, cache_dir: Path) -> None:
        clips = recipe.spans.of([item for item in items if item.split == "test"])
        self.labels = sorted({label for item in items for label in item.labels})
        targets = {label: i for i, label in enumerate(self.labels)}
        recordings = load_recordings(clips, recipe.spec, cache_dir, lambda *_: None)
        self.multi_label = recipe.multi_label
        self.clips = ValidationTable(clips, recordings, targets, recipe)
        self.noisy = {snr: noisy_audio(clips, recipe.spec, snr) for snr in SNRS_DB}
        self.sentences = _sentence_windows(clips, recordings, recipe) if recipe.spans == Spans.EACH else None

    def score(self, checkpoint: Path) -> dict[str, Any]:
        """All that the report needs of a run."""
        loaded = load_checkpoint(checkpoint)
        size = model_size(loaded.config)
        found: dict[str, Any] = {
            "recipe": loaded.extra["recipe"],
            "parameters": size.parameters,
            "gflops": size.gflops,
            "training_seconds": loaded.extra["seconds"],
        }
        if self.sentences is not None:
            found["retrieval"] = retrieval(self.sentences.outputs(loaded.model))
        if loaded.labels:
            conditions = {"clean": None} | {f"{snr} dB": audio for snr, audio in self.noisy.items()}
            answers = {name: self.clips.outputs(loaded.model, audio) for name, audio in conditions.items()}
            found["right"] = _by_stream(answers, self._right)
            if self.multi_label:
                found["map"] = _by_stream(answers, self._map)
        return found

    def _right(self, answers: WindowOutputs) -> str:
        return right_digits(answers.logits, self.clips.labels[answers.clips].numpy(), self.labels)

    def _map(self, answers: WindowOutputs) -> float:
        return mean_average_precision(answers.logits, self.clips.labels[answers.clips].numpy() > 0)


def _by_stream(
    answers: Mapping[str, Mapping[str, WindowOutputs]], score: Callable[[WindowOutputs], Any]
) -> dict[str, dict[str, Any]]:
    """A score by condition and stream."""
    return {
        condition: {name: score(one) for name, one in found.items()} for condition, found in answers.items()
    }


def right_digits(scores: np.ndarray, truth: np.ndarray, names: Sequence[str]) -> str:
    """A digit per spoken word, clip by clip, and within a clip slot by slot.

    The digit is 1 where the word scores above the others of its slot.

    Args:
        scores: [clips, classes].
        truth: of the same shape, above 0 where a word is spoken.
        names: words of the classes.
    """
    slots = np.array([list(SLOTS).index(SLOT_OF[name]) for name in names])
    clips, words = truth.nonzero()
    order = np.lexsort((slots[words], clips))
    right = correct_within(scores[clips[order]], words[order], slots)
    return "".join(str(int(x)) for x in right)


def retrieval(answers: Mapping[str, WindowOutputs]) -> dict[str, Any]:
    """Sentences found again among all.

    A sentence is taken as the sequence of its windows' embeddings, and as the mean of them.
    """
    windows = {
        name: answers[name].embedding.reshape(-1, NUM_SENTENCE_WINDOWS, answers[name].embedding.shape[1])
        for name in ("audio", "video", "fusion")
        if name in answers
    }
    if len(windows) < 2:
        return {}
    sequences = {name: x.reshape(len(x), -1) for name, x in windows.items()}
    means = {name: x.mean(1) for name, x in windows.items()}
    return {"sequences": retrieval_tables(sequences), "means": retrieval_tables(means)}


def noisy_audio(items: Sequence[Item], spec: ClipSpec, snr_db: float, *, seed: int = 0) -> Tensor:
    """Windows of the items under white noise, at this ratio to the power of the whole recording."""
    random, whole = np.random.default_rng(seed), {}
    for path in dict.fromkeys(item.path for item in items):
        waveform = read_waveform(path, spec)
        noisy = mix_at_snr(waveform, random.standard_normal(len(waveform)), snr_db)
        whole[path] = torch.from_numpy(log_mel(noisy, spec))
    starts = [window_start(item, spec, 0.0) for item in items]
    return torch.stack(
        [cut_log_mel(whole[i.path], start, spec) for i, start in zip(items, starts, strict=True)]
    )


def _sentence_windows(words: Sequence[Item], recordings: Recordings, recipe: Recipe) -> ValidationTable:
    """Equally many windows of each sentence, one after another, whatever is said when."""
    first_of_each = {item.path: item for item in reversed(words)}
    starts = [i * SENTENCE_STRIDE_SECONDS for i in range(NUM_SENTENCE_WINDOWS)]
    items = [
        replace(item, labels=(), start_seconds=start, end_seconds=start + recipe.spec.window_seconds)
        for item in reversed(first_of_each.values())
        for start in starts
    ]
    return ValidationTable(items, recordings, {}, recipe)
