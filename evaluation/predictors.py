"""Scores of a model on a split: sounds, sights, and pairs of both, each clip pooled over its windows as when served.

The same tables are made of a checkpoint and of a bundle: both are a `Predictor`. Sound and sight of a pair
    are unseen files of one label, put together at random with a fixed seed, since the collection is not
    co-recorded.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

import numpy as np
import torch

from datasets.manifests import Item
from media.clip import Clip, Modality, read_clips
from media.pooling import pool, window_weights
from media.spec import ClipSpec
from models.heads import StreamOutput
from models.mask import Stream
from models.zorro import ZorroModel

from .metrics import expected_calibration_error, per_label_accuracy, top_k_accuracy

PAIRS_PER_SOUND = 4
ANSWERS = ("features", "embedding", "logits")


class Predictor(Protocol):
    """Answers to each window: what a checkpoint and a bundle have in common."""

    def logits(self, modality: Modality, clips: Sequence[Clip]) -> np.ndarray:
        """[clips, classes] of the stream that `modality` names."""
        ...

    def answers(self, modality: Modality, clips: Sequence[Clip]) -> dict[str, np.ndarray]:
        """`features`, `embedding` and `logits` of the stream that `modality` names, each [clips, ...]."""
        ...


class ModelPredictor:
    """A torch model as a `Predictor`."""

    def __init__(self, model: ZorroModel, max_batch_size: int = 32) -> None:
        self.model, self.max_batch_size = model, max_batch_size

    def logits(self, modality: Modality, clips: Sequence[Clip]) -> np.ndarray:
        """See `Predictor`."""
        return self.answers(modality, clips)["logits"]

    @torch.no_grad()
    def answers(self, modality: Modality, clips: Sequence[Clip]) -> dict[str, np.ndarray]:
        """See `Predictor`. Fusion answers clips that lack sound, or lack a picture, too.

        Raises:
            ValueError: no clips, some lack what others have, or all lack what the stream reads.
        """
        if not clips:
            raise ValueError("got 0 clips; give at least 1")
        size = self.max_batch_size
        parts = [self._run(modality, clips[i : i + size]) for i in range(0, len(clips), size)]
        return {name: torch.cat([getattr(x, name) for x in parts]).float().cpu().numpy() for name in ANSWERS}

    def _run(self, modality: Modality, clips: Sequence[Clip]) -> StreamOutput:
        audio = None if modality == Modality.VIDEO else self._stack([clip.audio for clip in clips])
        video = None if modality == Modality.AUDIO else self._stack([clip.video for clip in clips])
        if modality == Modality.FUSED:
            return self.model(audio, video).fusion
        given, stream = (audio, Stream.AUDIO) if modality == Modality.AUDIO else (video, Stream.VIDEO)
        if given is None:
            raise ValueError(f"the clips have no {modality} to answer from; ask another stream")
        if self.model.config.masking.leaks:  # its streams read fusion tokens, which forward_stream leaves out
            return getattr(self.model(**{stream.key: given}), stream.key)
        return self.model.forward_stream(stream, given)

    def _stack(self, arrays: Sequence[np.ndarray | None]) -> torch.Tensor | None:
        given = [array for array in arrays if array is not None]
        if given and len(given) < len(arrays):
            raise ValueError(
                f"{len(arrays) - len(given)} of {len(arrays)} clips lack what the others have; ask apart"
            )
        return torch.from_numpy(np.stack(given)).to(next(self.model.parameters()).device) if given else None


@dataclass(frozen=True, slots=True)
class Evaluation:
    """Tables by name, and the decoded clips for another round."""

    tables: dict[str, dict[str, Any]]
    clips: list[list[Clip]]


def read_windows(items: Sequence[Item], spec: ClipSpec) -> list[list[Clip]]:
    """All windows of each item.

    Raises:
        MediaError: a file does not decode.
    """
    return [
        list(read_clips(item.path, spec, audio=item.modality == "audio", video=item.modality == "video"))
        for item in items
    ]


def evaluate_split(
    predictor: Predictor,
    items: Sequence[Item],
    targets: dict[str, int],
    spec: ClipSpec,
    *,
    clips: list[list[Clip]] | None = None,
    seed: int = 0,
) -> Evaluation:
    """Tables `sounds`, `sights`, `pairs_fused`, and the single streams on the same pairs.

    Args:
        predictor: what is scored.
        items: one split of a manifest.
        targets: index of each label in the logits.
        spec: the predictor's.
        clips: what `read_windows` gave for these items, to save decoding.
        seed: of the pairing.
    """
    clips = clips or read_windows(items, spec)
    names = [label for label, _ in sorted(targets.items(), key=lambda pair: pair[1])]
    found = split_logits(predictor, items, targets, clips, seed=seed)
    return Evaluation({name: score(logits, truth, names) for name, (logits, truth) in found.items()}, clips)


def split_logits(
    predictor: Predictor,
    items: Sequence[Item],
    targets: dict[str, int],
    clips: Sequence[Sequence[Clip]],
    *,
    seed: int = 0,
) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Logits of whole clips, [clips, classes], and their targets, [clips], of each table that the items give."""
    truth = np.array([targets[item.label] for item in items])
    heard = [i for i, item in enumerate(items) if item.modality == "audio"]
    seen = [i for i, item in enumerate(items) if item.modality == "video"]
    found = {}
    for name, modality, chosen in (("sounds", Modality.AUDIO, heard), ("sights", Modality.VIDEO, seen)):
        if chosen:
            found[name] = pooled_logits(predictor, modality, [clips[i] for i in chosen]), truth[chosen]
    pairs = make_pairs(items, seed=seed)
    if pairs:
        paired = [pair_clips(clips[i], clips[j]) for i, j in pairs]
        pair_truth = truth[[i for i, _ in pairs]]
        for modality in (Modality.FUSED, Modality.AUDIO, Modality.VIDEO):
            found[f"pairs_{modality}"] = pooled_logits(predictor, modality, paired), pair_truth
    return found


def score(logits: np.ndarray, truth: np.ndarray, names: list[str]) -> dict[str, Any]:
    """Top-1, top-5, calibration error, and accuracy per label."""
    shifted = np.exp(logits - logits.max(1, keepdims=True))
    probabilities = shifted / shifted.sum(1, keepdims=True)
    return {
        "clips": len(truth),
        "top1": top_k_accuracy(logits, truth, 1),
        "top5": top_k_accuracy(logits, truth, 5),
        "calibration_error": expected_calibration_error(probabilities, truth),
        "labels": per_label_accuracy(logits, truth, names),
    }


def pooled_logits(predictor: Predictor, modality: Modality, clips: Sequence[Sequence[Clip]]) -> np.ndarray:
    """Logits of whole clips, [clips, classes]: windows run in one stream of batches, then pooled."""
    windows = [window for clip in clips for window in clip]
    logits = predictor.logits(modality, windows)
    ends = np.cumsum([len(clip) for clip in clips])
    return np.stack(
        [
            pool(logits[end - len(clip) : end], window_weights(clip, modality))
            for clip, end in zip(clips, ends, strict=True)
        ]
    )


def make_pairs(items: Sequence[Item], *, seed: int) -> list[tuple[int, int]]:
    """Indices (sound, sight): each sound with `PAIRS_PER_SOUND` random sights of its label, if it has any."""
    random = np.random.default_rng(seed)
    sights: dict[str, list[int]] = {}
    for i, item in enumerate(items):
        if item.modality == "video":
            sights.setdefault(item.label, []).append(i)
    pairs = []
    for i, item in enumerate(items):
        if item.modality == "audio" and item.label in sights:
            pool_ = sights[item.label]
            chosen = random.choice(pool_, size=min(PAIRS_PER_SOUND, len(pool_)), replace=False)
            pairs += [(i, int(j)) for j in chosen]
    return pairs


def pair_clips(sound: Sequence[Clip], sight: Sequence[Clip]) -> list[Clip]:
    """The sound's windows, each with the picture of the sight's window of the same number, or of its last."""
    return [
        replace(window, video=picture.video, video_seconds=picture.video_seconds)
        for i, window in enumerate(sound)
        for picture in (sight[min(i, len(sight) - 1)],)
    ]
