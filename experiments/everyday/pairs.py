"""Pairs of a sound and a picture of one label: clean, with a noisy sound, and with noise for the picture.

Pairs are made at random with a fixed seed, as `evaluation.pairing` makes them. Each stream alone answers the
same sounds and pictures, of which some are in several pairs.
"""

from collections.abc import Mapping

import numpy as np

from datasets.vocabulary import Vocabulary
from evaluation.corrupted_pairs import SNR_DB, noisy_windows, with_noise_for_video
from evaluation.pairing import make_pairs, pair_clips
from evaluation.predictors import Predictor
from media.clip import Clip, Modality
from media.spec import ClipSpec

from .clips import Answers, SplitClips, answers
from .restricted import LabelMeaning, RestrictedTask, meanings

CONDITIONS = ("clean", "noisy sound", "noise for picture")


class Pairs:
    """The pairs of a split of sights_sounds.

    Raises:
        ValueError: no label has both sounds and pictures.
    """

    def __init__(self, split: SplitClips, spec: ClipSpec, *, seed: int) -> None:
        self._numbers = [i for i, item in enumerate(split.items) if item.collection == "sights_sounds"]
        items = [split.items[i] for i in self._numbers]
        self._pairs = [(self._numbers[i], self._numbers[j]) for i, j in make_pairs(items, seed=seed)]
        if not self._pairs:
            raise ValueError("no label has both sounds and pictures; there are no pairs")
        self._split = split
        random = np.random.default_rng(seed)
        self._noisy = {
            i: noisy_windows(split.items[i], split.windows[i], spec, random, SNR_DB)
            for i in sorted({i for i, _ in self._pairs})
        }
        self._noise = {
            j: [with_noise_for_video(clip, random) for clip in split.windows[j]]
            for j in sorted({j for _, j in self._pairs})
        }

    def task(self, vocabulary: Vocabulary, streams: tuple[str, ...]) -> RestrictedTask:
        """The pairs, to be told apart by what their labels mean in these streams."""
        truth = [self._split.items[i].label for i, _ in self._pairs]
        by_modality = self._split.labels["sights_sounds"]
        both = sorted(set(by_modality["audio"]) & set(by_modality["video"]))
        labels: Mapping[str, LabelMeaning] = meanings(vocabulary, "sights_sounds", both, streams)
        name = "fused" if len(streams) > 1 else streams[0]
        return RestrictedTask(f"pairs, of {len(labels)}", name, [i for i, _ in self._pairs], truth, labels)

    def answers(self, predictor: Predictor, condition: str, modality: Modality) -> Answers:
        """What a stream says of the pairs under a condition."""
        audio, video = self._sides(condition)
        match modality:
            case Modality.FUSED:
                return answers(predictor, modality, [pair_clips(audio[i], video[j]) for i, j in self._pairs])
            case Modality.AUDIO:
                return _repeated(predictor, modality, audio, [i for i, _ in self._pairs])
            case Modality.VIDEO:
                return _repeated(predictor, modality, video, [j for _, j in self._pairs])

    def _sides(self, condition: str) -> tuple[Mapping[int, list[Clip]], Mapping[int, list[Clip]]]:
        windows = self._split.windows
        audio = {i: windows[i] for i in self._noisy} if condition != "noisy sound" else self._noisy
        video = {j: windows[j] for j in self._noise} if condition != "noise for picture" else self._noise
        return audio, video


def _repeated(
    predictor: Predictor, modality: Modality, clips: Mapping[int, list[Clip]], numbers: list[int]
) -> Answers:
    """Answers to clips, each answered once, in the order of `numbers`."""
    place = {number: k for k, number in enumerate(clips)}
    found = answers(predictor, modality, list(clips.values()))
    rows = [place[number] for number in numbers]
    return Answers(found.probabilities[rows], found.embedding[rows], found.first_window[rows])
