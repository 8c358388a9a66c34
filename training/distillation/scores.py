"""How near a model comes to its teachers on the validation clips."""

import numpy as np
import torch
from jaxtyping import Float
from sklearn.metrics import average_precision_score
from torch import Tensor

from datasets.vocabulary import Vocabulary
from models.attention import Pairing
from models.mask import Stream
from models.zorro import ZorroModel

from .batches import TaughtClips
from .targets import Bridges, fusion_targets

SCORED_BATCH = 16
MIN_SURE_CLIPS = 3
"""Clips in which a label must be sure for its average precision to count."""


@torch.no_grad()
def distillation_scores(
    model: ZorroModel, clips: TaughtClips, vocabulary: Vocabulary, sure: float
) -> dict[str, float]:
    """Scores of each stream on the clips of a split.

    `_agreement` is the share of clips whose best label is the teachers', `_map` mean average precision with
    what they are sure of as truth, and `_error` the mean distance from the probabilities they are sure of.
    Fusion is asked about the i-th sound with the i-th picture, which seldom belong together.
    """
    model.eval()
    heard = torch.cat(
        [model.forward_stream(Stream.AUDIO, _audio(clips, i)).logits for i in _parts(len(clips.log_mel))]
    )
    seen = torch.cat(
        [
            model.forward_stream(Stream.VIDEO, _video(model, clips, i)).logits
            for i in _parts(len(clips.frames))
        ]
    )
    num = min(len(clips.log_mel), len(clips.frames))
    fused = torch.cat([model(_audio(clips, i), _video(model, clips, i)).fusion.logits for i in _parts(num)])
    pairing = Pairing(torch.arange(num), torch.arange(num))
    both = fusion_targets(pairing, clips.audio_targets, clips.video_targets, Bridges(vocabulary))
    return (
        _against(heard, clips.audio_targets, vocabulary.stream_mask("audio"), sure, "audio")
        | _against(seen, clips.video_targets, vocabulary.stream_mask("video"), sure, "video")
        | _against(fused, both, vocabulary.stream_mask("fused"), sure, "fusion")
    )


def _parts(num: int) -> list[np.ndarray]:
    return [np.arange(first, min(first + SCORED_BATCH, num)) for first in range(0, num, SCORED_BATCH)]


def _audio(clips: TaughtClips, ids: np.ndarray) -> Tensor:
    return torch.from_numpy(clips.log_mel[ids].astype(np.float32))


def _video(model: ZorroModel, clips: TaughtClips, ids: np.ndarray) -> Tensor:
    num_frames = model.config.video_shape[0]
    return torch.from_numpy(np.array(clips.frames[ids]))[:, None].expand(-1, num_frames, -1, -1, -1)


def _against(logits: Tensor, truth: Tensor, mask: np.ndarray, sure: float, stream: str) -> dict[str, float]:
    said, wanted = logits.sigmoid().numpy()[:, mask], truth.numpy()[:, mask]
    is_sure = wanted >= sure
    scores = {
        f"{stream}_agreement": agreement(said, wanted),
        f"{stream}_error": float(np.abs(said - wanted)[is_sure].mean()) if is_sure.any() else 0.0,
    }
    precision = precision_against(said, wanted, sure)
    return scores | ({} if precision is None else {f"{stream}_map": precision[0]})


def agreement(said: Float[np.ndarray, "clips labels"], teachers: Float[np.ndarray, "clips labels"]) -> float:
    """Share of clips whose best label is the teachers'."""
    return float((said.argmax(1) == teachers.argmax(1)).mean())


def precision_against(
    said: Float[np.ndarray, "clips labels"], teachers: Float[np.ndarray, "clips labels"], sure: float = 0.5
) -> tuple[float, int] | None:
    """Mean average precision with the teachers' sure answers as truth, and over how many labels.

    None if no label is sure in enough clips.
    """
    is_sure = teachers >= sure
    counted = np.flatnonzero(is_sure.sum(0) >= MIN_SURE_CLIPS)
    if not len(counted):
        return None
    found = [average_precision_score(is_sure[:, i], said[:, i]) for i in counted]
    return float(np.mean(found)), len(counted)
