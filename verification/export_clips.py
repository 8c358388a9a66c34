"""Clips on which export checks and calibrates graphs: windows of a collection, by the graph that reads them.

Nothing here needs what fits and scores, so `zorro export` runs without scikit-learn.
"""

from pathlib import Path

from datasets.manifests import Item, is_unpaired
from evaluation.clip_reading import read_item
from evaluation.pairing import make_pairs, pair_clips, read_windows_where_possible
from evaluation.views import ViewPlan
from media import Clip, ClipSpec, Modality
from models.weights import load_checkpoint
from training.recipe import trained_spans

from .collection import read_split

NUM_CALIBRATION_CLIPS = 64  # of each graph


def parity_clips(checkpoint: Path, data: Path) -> dict[Modality, list[Clip]]:
    """Windows of the whole test split for the parity check; of an unpaired collection its pairs too.

    Graphs that no clip can be read by are left out. Files that do not decode are passed over.
    """
    found = _graph_clips(*_trained_on(checkpoint, data, "test"))
    return {modality: clips for modality, clips in found.items() if clips}


def calibration_clips(checkpoint: Path, data: Path) -> dict[Modality, list[Clip]]:
    """Windows of the training split for the ranges of int8, evenly from all of it, at most 64 for each graph.

    Files that do not decode are passed over.
    """
    spec, items = _trained_on(checkpoint, data, "train")
    step = max(1, len(items) // (4 * NUM_CALIBRATION_CLIPS))
    clips = _graph_clips(spec, items[::step])
    return {modality: found[:: -(-len(found) // NUM_CALIBRATION_CLIPS)] for modality, found in clips.items()}


def _trained_on(checkpoint: Path, data: Path, split: str) -> tuple[ClipSpec, list[Item]]:
    """Clips of a split, as the checkpoint was trained on such."""
    loaded = load_checkpoint(checkpoint)
    return ClipSpec.from_dict(loaded.clip_spec), read_split(data, split, trained_spans(loaded.extra))[1]


def _graph_clips(spec: ClipSpec, items: list[Item]) -> dict[Modality, list[Clip]]:
    """Windows that each graph reads."""
    if not is_unpaired(items):
        return _paired_clips(spec, items)
    items, clips, _ = read_windows_where_possible(items, spec)
    windows = [(item.modality, clip) for item, part in zip(items, clips, strict=True) for clip in part]
    return {
        Modality.AUDIO: [clip for modality, clip in windows if modality == "audio"],
        Modality.VIDEO: [clip for modality, clip in windows if modality == "video"],
        Modality.FUSED: [pair_clips(clips[i], clips[j])[0] for i, j in make_pairs(items, seed=0)],
    }


def _paired_clips(spec: ClipSpec, items: list[Item]) -> dict[Modality, list[Clip]]:
    """The middle window of each clip, for the graphs whose inputs it has."""
    read = [read_item(item, spec, ViewPlan(), with_waveform=False).views for item in items]
    clips = [view.clip for views in read for view in views]
    return {
        Modality.AUDIO: [clip for clip in clips if clip.audio is not None],
        Modality.VIDEO: [clip for clip in clips if clip.video is not None],
        Modality.FUSED: [clip for clip in clips if clip.audio is not None and clip.video is not None],
    }
