"""Scores on a split of an unpaired collection.

Sounds, pictures, and pairs of both are scored, pooled over windows as when served.

The same tables are made of a checkpoint and of a bundle: both are a `Predictor`.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from datasets.manifests import Item
from media.clip import Clip, Modality
from media.pooling import pool, window_weights
from media.spec import ClipSpec

from .metrics import score_logits
from .pairing import make_pairs, pair_clips, read_windows
from .predictors import Predictor


@dataclass(frozen=True, slots=True)
class SplitScores:
    """Scores of an unpaired split."""

    tables: dict[str, dict[str, Any]]
    """By name: `sounds`, `sights` (pictures), `pairs_fused`, `pairs_audio`, `pairs_video`."""
    clips: list[list[Clip]]
    """Windows of each item, to be scored again without decoding."""


def evaluate_split(
    predictor: Predictor,
    items: Sequence[Item],
    targets: dict[str, int],
    spec: ClipSpec,
    *,
    clips: list[list[Clip]] | None = None,
    seed: int = 0,
) -> SplitScores:
    """Score audio items, video items, and pairs of them.

    Pairs are scored by both modalities, and by the single streams on the same pairs.

    Args:
        predictor: what is scored.
        items: one split of a manifest.
        targets: index of each label in the logits.
        spec: the predictor's.
        clips: what `read_windows` gave for these items, to save decoding.
        seed: of the pairing.

    Raises:
        MediaError: a file does not decode.
        ManifestError: an item has not exactly one label.
    """
    clips = clips or read_windows(items, spec)
    names = [label for label, _ in sorted(targets.items(), key=lambda pair: pair[1])]
    found = split_logits(predictor, items, targets, clips, seed=seed)
    return SplitScores(
        {name: score_logits(logits, truth, names) for name, (logits, truth) in found.items()}, clips
    )


def split_logits(
    predictor: Predictor,
    items: Sequence[Item],
    targets: dict[str, int],
    clips: Sequence[Sequence[Clip]],
    *,
    seed: int = 0,
) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Logits of whole clips, [clips, classes], and their targets, [clips], by name of the table."""
    truth = np.array([targets[item.label] for item in items])
    audio_items = [i for i, item in enumerate(items) if item.modality == "audio"]
    video_items = [i for i, item in enumerate(items) if item.modality == "video"]
    found = {}
    for name, modality, chosen in (
        ("sounds", Modality.AUDIO, audio_items),
        ("sights", Modality.VIDEO, video_items),
    ):
        if chosen:
            found[name] = pooled_logits(predictor, modality, [clips[i] for i in chosen]), truth[chosen]
    pairs = make_pairs(items, seed=seed)
    if pairs:
        paired = [pair_clips(clips[i], clips[j]) for i, j in pairs]
        pair_truth = truth[[i for i, _ in pairs]]
        for modality in (Modality.FUSED, Modality.AUDIO, Modality.VIDEO):
            found[f"pairs_{modality}"] = pooled_logits(predictor, modality, paired), pair_truth
    return found


def pooled_logits(predictor: Predictor, modality: Modality, clips: Sequence[Sequence[Clip]]) -> np.ndarray:
    """Logits of whole clips, [clips, classes].

    All windows run in full batches, then each clip's are pooled.
    """
    windows = [window for clip in clips for window in clip]
    logits = predictor.logits(modality, windows)
    ends = np.cumsum([len(clip) for clip in clips])
    return np.stack(
        [
            pool(logits[end - len(clip) : end], window_weights(clip, modality))
            for clip, end in zip(clips, ends, strict=True)
        ]
    )
