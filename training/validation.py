"""Answers of a model to the windows of a split's co-recorded clips, and scores of them while training.

Windows are cut from decoded recordings, as in training. The scores that are reported come from `clip_scores`,
which reads the files as a server does.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from datasets.manifests import Item
from datasets.recordings import Recordings, RecordingWindow, cut_window, window_start
from evaluation.metrics import mean_average_precision, recall_at_k, top_k_accuracy
from evaluation.predictors import PREDICTOR_OUTPUTS
from models.heads import StreamOutput
from models.mask import Stream
from models.zorro import ZorroModel

from .paired_batches import label_vectors, stack_windows
from .recipe import Recipe

CALIBRATED_STREAMS = (Stream.AUDIO, Stream.VIDEO, Stream.FUSION)
MAX_VALIDATION_BATCH = 64


@dataclass(frozen=True, slots=True)
class WindowOutputs:
    """Of one stream to the clips that have what it reads."""

    clips: Int[np.ndarray, " clips"]
    """Their numbers in the table."""
    features: Float[np.ndarray, "clips features_dim"]
    embedding: Float[np.ndarray, "clips projection_dim"]
    logits: Float[np.ndarray, "clips classes"]


class ValidationTable:
    """One window of each clip of a split.

    Raises:
        ValueError: no clip decodes.
    """

    def __init__(
        self, items: Sequence[Item], recordings: Recordings, targets: dict[str, int], recipe: Recipe
    ) -> None:
        known = [(item, recordings.by_path[item.path]) for item in items if item.path in recordings.by_path]
        if not items:
            raise ValueError(
                "no clip is of the split 'val' to validate by; put some into folders val/LABEL, or set their "
                "split"
            )
        if not known:
            raise ValueError(f"none of {len(items)} clips to validate by decodes: {recordings.counts}")
        spec = recipe.spec
        windows = [
            cut_window(clip, window_start(item, spec, clip.seconds(spec)), spec) for item, clip in known
        ]
        self.recipe, self.labels = recipe, label_vectors([item for item, _ in known], targets)
        self.audio_clips, self.video_clips = numbers_with(windows)
        self.audio, self.video = stack_windows(windows, spec)

    def outputs(self, model: ZorroModel, audio: Tensor | None = None) -> dict[str, WindowOutputs]:
        """Of each stream, asked alone, and of fusion by sound alone and by sight alone.

        A stream that no clip is there for is left out. Asked for one modality, a model is given no more than
        that: so one whose mask leaks shows what it can do without the other.

        Args:
            model: in eval mode.
            audio: what to hear instead, such as the same in noise; [sounds, mel_frames, mel_bins].
        """
        return window_outputs(
            model, self.audio_clips, self.audio if audio is None else audio, self.video_clips, self.video
        )

    def scores(self, model: ZorroModel) -> dict[str, float]:
        """Top-1 or mean average precision by stream.

        Or recall@1 from sound to picture, back, and from fusion.
        """
        return score_outputs(self.outputs(model), self.labels, self.recipe)


def numbers_with(windows: Sequence[RecordingWindow]) -> tuple[Tensor, Tensor]:
    """Numbers of the windows that have sound, and of those that have a picture."""
    return (
        torch.tensor([window.audio is not None for window in windows]).nonzero()[:, 0],
        torch.tensor([window.video is not None for window in windows]).nonzero()[:, 0],
    )


def window_outputs(
    model: ZorroModel, audio_clips: Tensor, audio: Tensor, video_clips: Tensor, video: Tensor
) -> dict[str, WindowOutputs]:
    """See `ValidationTable.answers`.

    `audio_clips` and `video_clips` number the rows of `audio` and `video`.
    """
    both = torch.tensor(sorted(set(audio_clips.tolist()) & set(video_clips.tolist())), dtype=torch.long)
    audio_rows, video_rows = (torch.searchsorted(numbers, both) for numbers in (audio_clips, video_clips))
    asked = (
        (("audio", "fusion_by_audio"), audio_clips, audio, None),
        (("video", "fusion_by_video"), video_clips, None, video),
        (("fusion",), both, audio[audio_rows], video[video_rows]),
    )
    found: dict[str, WindowOutputs] = {}
    for names, numbers, sounds, sights in asked:
        if len(numbers):
            found |= _answers(model, names, numbers, sounds, sights)
    return found


def score_outputs(answers: dict[str, WindowOutputs], labels: Tensor, recipe: Recipe) -> dict[str, float]:
    """See `ValidationTable.scores`; `labels` has a row for each clip's number."""
    if not recipe.supervised:
        return retrieval_scores(answers)
    truth = labels.numpy()
    if recipe.multi_label:
        return {
            f"{name}_map": mean_average_precision(a.logits, truth[a.clips] > 0) for name, a in answers.items()
        }
    return {f"{name}_top1": top_k_accuracy(a.logits, truth[a.clips].argmax(1)) for name, a in answers.items()}


def retrieval_scores(answers: dict[str, WindowOutputs]) -> dict[str, float]:
    """Recall@1 among the clips that have sound and picture; nothing where there are none."""
    if "fusion" not in answers:
        return {}
    whole = answers["fusion"].clips
    rows = {
        n: answers[n].embedding[np.searchsorted(answers[n].clips, whole)]
        for n in ("audio", "video", "fusion")
    }
    directions = (("audio", "video"), ("video", "audio"), ("fusion", "audio"), ("fusion", "video"))
    return {f"{a}_to_{b}_r1": recall_at_k(rows[a] @ rows[b].T, 1) for a, b in directions}


@torch.no_grad()
def _answers(
    model: ZorroModel, names: Sequence[str], numbers: Tensor, audio: Tensor | None, video: Tensor | None
) -> dict[str, WindowOutputs]:
    outs: dict[str, list[StreamOutput]] = {name: [] for name in names}
    for start in range(0, len(numbers), MAX_VALIDATION_BATCH):
        part = slice(start, start + MAX_VALIDATION_BATCH)
        out = model(*(None if x is None else x[part] for x in (audio, video)))
        for name in names:
            outs[name].append(getattr(out, name.partition("_")[0]))
    arrays = {
        n: {x: torch.cat([getattr(o, x) for o in outs[n]]).float().numpy() for x in PREDICTOR_OUTPUTS}
        for n in names
    }
    return {name: WindowOutputs(numbers.numpy(), **arrays[name]) for name in names}
