"""Teachers that know two labels each: they listen to the pitch and look at the colour."""

from collections.abc import Sequence

import numpy as np

from datasets.vocabulary import NUM_AUDIOSET_LABELS, NUM_IMAGENET_LABELS, everyday_vocabulary
from media import ClipSpec
from models import ZorroModel

DOG, CAT = (everyday_vocabulary().index[x] for x in ("dog", "cat"))
DALMATIAN, TABBY = (everyday_vocabulary().index[x] for x in ("dalmatian", "tabby"))


class FakeAudioTeacher:
    """Low tones are dogs and high ones cats; half of the labels are nothing to it."""

    def __init__(self, knows: Sequence[int] = range(NUM_AUDIOSET_LABELS)) -> None:
        self.knows = knows
        self.num_asked = 0

    def probabilities(self, waveform: np.ndarray, spec: ClipSpec) -> np.ndarray:
        self.num_asked += 1
        crossings = np.count_nonzero(np.diff(np.signbit(waveform))) / len(waveform) * spec.sample_rate / 2
        said = np.full(NUM_AUDIOSET_LABELS, 0.01, np.float32)
        said[DOG if crossings < 1_000 else CAT] = 0.8
        return said[list(self.knows)]

    def start(self, model: ZorroModel) -> None:
        """Its weights would not fit."""


class FakePictureTeacher:
    """Red pictures are dalmatians and others tabbies."""

    def logits(self, pictures: np.ndarray) -> np.ndarray:
        said = np.zeros((len(pictures), NUM_IMAGENET_LABELS), np.float32)
        is_red = pictures[..., 0].mean((1, 2)) > pictures[..., 2].mean((1, 2))
        said[is_red, DALMATIAN - NUM_AUDIOSET_LABELS] = 9
        said[~is_red, TABBY - NUM_AUDIOSET_LABELS] = 9
        return said

    def probabilities(self, pictures: np.ndarray) -> np.ndarray:
        exponents = np.exp(self.logits(pictures))
        return np.asarray(exponents / exponents.sum(1, keepdims=True))

    def start(self, model: ZorroModel) -> None:
        """Its weights would not fit."""
