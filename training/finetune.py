"""A recipe for a folder of clips and a checkpoint to start from, so that nobody has to write one."""

from collections.abc import Sequence

import torch

from datasets.manifests import Item, ManifestError, is_unpaired
from models.weights import Checkpoint

from .recipe import Pairs, Recipe, trained_spans

MAX_CLIPS_PER_STEP = 32  # per step
EPOCHS = 20
MIN_STEPS, MAX_STEPS = 100, 5_000
OF_THE_DATA = (
    "num_classes",
    "audio_shape",
    "video_shape",
    "audio_mean",
    "audio_std",
    "video_mean",
    "video_std",
)
"""Numbers of a config that follow from labels and `ClipSpec`."""


def finetuning_recipe(start: Checkpoint, items: Sequence[Item], *, seed: int = 0) -> Recipe:
    """The model and the preprocessing of `start`, lower rates for lower layers, and about twenty epochs.

    Mobile stems keep the statistics of their batch norms. A processor without AVX-512 has no products in
    bfloat16, and would take many times longer with them.

    Separate sounds and pictures are paired by label, clips that may hold both by clip; a clip with several
    labels makes the set multi-label.

    What one clip is, where a list names spans, is what it was for `start`.

    Raises:
        ManifestError: there is nothing to train on, or a clip without labels.
    """
    spans = trained_spans(start.extra)
    items = spans.of(list(items))
    learned = [item for item in items if item.split == "train"]
    if not learned:
        raise ManifestError(
            f"none of {len(items)} clips is of the split 'train', so there is nothing to train on"
        )
    unlabelled = [item.path for item in items if not item.labels]
    if unlabelled:
        raise ManifestError(
            f"{len(unlabelled)} clips have no label, the first is {unlabelled[0]}; fine-tuning needs labels"
        )
    kinds = {item.modality for item in items}
    pairs = Pairs.BY_LABEL if kinds == {"audio", "video"} and is_unpaired(items) else Pairs.BY_CLIP
    num_clips = min(MAX_CLIPS_PER_STEP, len(learned))
    num_steps = min(MAX_STEPS, max(MIN_STEPS, EPOCHS * len(learned) // num_clips))
    return Recipe(
        seed=seed,
        spans=spans,
        pairs=pairs,
        modality=kinds.pop() if len(kinds) == 1 else "both",
        multi_label=any(len(item.labels) > 1 for item in items),
        model={
            k: v for k, v in start.config.without_stem_classifiers().to_dict().items() if k not in OF_THE_DATA
        },
        clip_spec=start.clip_spec,
        num_steps=num_steps,
        num_warmup_steps=num_steps // 10,
        evaluate_every=max(1, num_steps // 5),
        save_every=max(1, num_steps // 10),
        num_clips=num_clips,
        num_audio=num_clips,
        num_video=num_clips,
        num_pairs=num_clips // 2,
        num_mixed_pairs=num_clips // 2,
        learning_rate=3e-4,
        layer_decay=0.75,
        average_decay=0.99,
        max_jitter_seconds=0.1,
        freeze_statistics=start.config.mobile is not None,
        bfloat16=torch.cuda.is_available() or torch.backends.cpu.get_cpu_capability() == "AVX512",
    )
