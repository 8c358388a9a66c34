"""Scores of one run on the test split: words within their slots, by each stream, in noise; and sentences found again.

Which words were right is kept, word by word, so that the report can draw sentences anew for its intervals.
"""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from media.clip import read_waveform
from media.log_mel import log_mel
from media.spec import ClipSpec
from models.size import model_size
from models.weights import load_checkpoint
from training.clip_table import Answers, ClipTable
from training.degrade import add_noise
from training.layouts.grid import SLOTS
from training.manifests import Item
from training.metrics import correct_within
from training.recipe import Recipe
from training.recordings import Recordings, cut_sound, load_recordings, window_start
from training.retrieval import retrieval_tables

SNRS_DB = (20, 10, 5, 0, -5, -10)
SENTENCE_STRIDE_SECONDS = 0.32
NUM_SENTENCE_WINDOWS = 8


class TestSplit:
    """Windows of the test words, clean and in white noise, and windows all over the test sentences."""

    def __init__(self, items: Sequence[Item], recipe: Recipe, cache_dir: Path) -> None:
        words = [item for item in items if item.split == "test"]
        self.labels = sorted({label for item in items for label in item.labels})
        targets = {label: i for i, label in enumerate(self.labels)}
        recordings = load_recordings(words, recipe.spec, cache_dir, lambda *_: None)
        self.words = ClipTable(words, recordings, targets, recipe)
        self.noisy = {snr: noisy_windows(words, recipe.spec, snr) for snr in SNRS_DB}
        self.sentences = _sentence_windows(words, recordings, recipe)

    def score(self, checkpoint: Path) -> dict[str, Any]:
        """All that the report needs of a run."""
        loaded = load_checkpoint(checkpoint)
        size = model_size(loaded.config)
        found: dict[str, Any] = {
            "recipe": loaded.extra["recipe"], "parameters": size.parameters, "gflops": size.gflops,
            "training_seconds": loaded.extra["seconds"], "retrieval": self.retrieval(loaded.model),
        }  # fmt: skip
        if loaded.labels:
            conditions = {"clean": None} | {f"{snr} dB": audio for snr, audio in self.noisy.items()}
            found["right"] = {
                condition: {name: self._right(answers) for name, answers in self.words.answers(loaded.model, audio).items()}
                for condition, audio in conditions.items()
            }
        return found

    def _right(self, answers: Answers) -> str:
        """A digit per test word: 1 where it scores above the other words of its slot."""
        slot_of = {word: slot for slot, words in SLOTS.items() for word in words}
        groups = np.array([slot_of[label] for label in self.labels])
        right = correct_within(answers.logits, self.words.labels[answers.clips].argmax(1).numpy(), groups)
        return "".join(str(int(x)) for x in right)

    def retrieval(self, model: torch.nn.Module) -> dict[str, Any]:
        """Sentences found again among all: as the sequence of their windows' embeddings, and as the mean of them."""
        answers = self.sentences.answers(model)
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


def noisy_windows(items: Sequence[Item], spec: ClipSpec, snr_db: float, *, seed: int = 0) -> Tensor:
    """Windows of the items under white noise, at this ratio to the power of the whole recording."""
    random, whole = np.random.default_rng(seed), {}
    for path in dict.fromkeys(item.path for item in items):
        waveform = read_waveform(path, spec)
        noisy = add_noise(waveform, random.standard_normal(len(waveform)), snr_db)
        whole[path] = torch.from_numpy(log_mel(noisy, spec))
    starts = [window_start(item, spec, 0.0) for item in items]
    return torch.stack([cut_sound(whole[i.path], start, spec) for i, start in zip(items, starts, strict=True)])


def _sentence_windows(words: Sequence[Item], recordings: Recordings, recipe: Recipe) -> ClipTable:
    """Equally many windows of each sentence, one after another, whatever is said when."""
    first_of_each = {item.path: item for item in reversed(words)}
    starts = [i * SENTENCE_STRIDE_SECONDS for i in range(NUM_SENTENCE_WINDOWS)]
    items = [
        replace(item, labels=(), start_seconds=start, end_seconds=start + recipe.spec.window_seconds)
        for item in reversed(first_of_each.values())
        for start in starts
    ]
    return ClipTable(items, recordings, {}, recipe)
