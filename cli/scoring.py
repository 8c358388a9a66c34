"""Where training's scores meet what is scored: a checkpoint's model, or a bundle's graphs."""

from pathlib import Path
from typing import Any

from media import Clip, ClipSpec, Modality
from models.weights import MANIFEST_FILE as CHECKPOINT_FILE
from models.weights import load_checkpoint
from runtime import Zorro
from runtime.bundle import MANIFEST_FILE as BUNDLE_FILE
from training.clip_answers import SERVED, STREAMS, Progress, answer_clips, read_item
from training.clip_scores import common_embeddings, score_clips, score_degraded
from training.evaluate import ModelPredictor, Predictor, evaluate_split, make_pairs, pair_clips, read_windows
from training.layouts import read_items
from training.layouts.grid import SLOTS
from training.manifests import Item, Listing
from training.report import write_report
from training.retrieval import retrieval_tables
from training.robustness import degraded_pairs
from training.views import ViewPlan

from .origin import open_origin

NUM_CALIBRATION_CLIPS = 64  # of each graph


def open_target(target: Path, variant: str | None = None) -> tuple[Predictor, ClipSpec, dict[str, int]]:
    """A predictor, its spec, and the index of each label.

    Raises:
        ValueError: the folder is neither checkpoint nor bundle.
    """
    if (target / BUNDLE_FILE).is_file():
        model = Zorro.open(target, variant=variant)
        return model, model.bundle.clip_spec, {x.id: i for i, x in enumerate(model.bundle.labels)}
    if (target / CHECKPOINT_FILE).is_file():
        if variant is not None:
            raise ValueError(f"{target} is a checkpoint, which has no variants; leave {variant!r} out")
        loaded = load_checkpoint(open_origin(target).checkpoint)
        targets = {str(x["id"]): i for i, x in enumerate(loaded.labels)}
        return ModelPredictor(loaded.model), ClipSpec.from_dict(loaded.clip_spec), targets
    raise ValueError(f"{target} holds neither {CHECKPOINT_FILE} nor {BUNDLE_FILE}")


def score_target(target: Path, data: Path, *, split: str, variant: str | None = None) -> dict[str, dict[str, Any]]:
    """Tables of a split: by stream where clips hold sound and picture, else sounds, sights and pairs of a patchwork."""
    predictor, spec, targets = open_target(target, variant)
    listing, items = _listed(data, split)
    if any(item.modality == "both" for item in items):
        return score_clips(predictor, items, targets, spec, **_manner(predictor, listing))["tables"]
    return _score_patchwork(predictor, items, targets, spec)


def report_target(
    target: Path, data: Path, folder: Path, *, split: str, on_progress: Progress, variant: str | None = None
) -> Path:
    """Scores, curves in noise and worse, and retrieval of a split of clips, as Markdown with charts; returns its path.

    Raises:
        ValueError: the clips do not hold sound and picture.
    """
    predictor, spec, targets = open_target(target, variant)
    listing, items = _listed(data, split)
    if not any(item.modality == "both" for item in items):
        raise ValueError(f"{data} holds sounds and sights apart; a report is of clips that hold both: leave out --report")
    manner = _manner(predictor, listing) | {"on_progress": on_progress}
    multi_label = {"multi_label": manner["multi_label"]}
    embeddings, numbers = common_embeddings(answer_clips(predictor, items, spec, streams=SERVED, **multi_label))
    record = {
        "scores": score_clips(predictor, items, targets, spec, **manner),
        "degraded": score_degraded(predictor, items, targets, spec, **manner | {"streams": SERVED}),
        "retrieval": retrieval_tables(embeddings, unit=[str(items[i].path) for i in numbers]),
    }
    return write_report({target.name: record}, folder, title=f"{target.name} on {data.name}, {split} split")


def _manner(predictor: Predictor, listing: Listing) -> dict[str, Any]:
    """How a collection is scored: its groups of labels, whether several hold at once, and what the predictor answers for."""
    multi_label = any(len(item.labels) > 1 for item in listing.items)
    groups = {word: slot for slot, words in SLOTS.items() for word in words}
    return {
        "multi_label": multi_label,
        "groups": groups if listing.layout == "grid" and not multi_label else None,
        "streams": SERVED if isinstance(predictor, Zorro) else tuple(STREAMS),
    }


def _score_patchwork(
    predictor: Predictor, items: list[Item], targets: dict[str, int], spec: ClipSpec
) -> dict[str, dict[str, Any]]:
    """Sounds, ESC-10's by themselves, sights, pairs, and pairs with one side hurt."""
    result = evaluate_split(predictor, items, targets, spec)
    tables = result.tables
    esc = [i for i, item in enumerate(items) if item.source.startswith("ESC-10") and item.modality == "audio"]
    if esc:
        chosen = [items[i] for i in esc]
        part = evaluate_split(predictor, chosen, targets, spec, clips=[result.clips[i] for i in esc])
        tables["esc10"] = part.tables["sounds"]
    return tables | degraded_pairs(predictor, items, targets, spec, result.clips)


def parity_clips(checkpoint: Path, data: Path) -> dict[Modality, list[Clip]]:
    """Windows of the whole test split for the parity check: of a patchwork its pairs too."""
    return _graph_clips(checkpoint, _listed(data, "test")[1])


def calibration_clips(checkpoint: Path, data: Path) -> dict[Modality, list[Clip]]:
    """Windows of the training split for the ranges of int8, evenly from all of it, at most 64 of each graph."""
    _, items = _listed(data, "train")
    step = max(1, len(items) // (4 * NUM_CALIBRATION_CLIPS))
    clips = _graph_clips(checkpoint, items[::step])
    return {modality: found[:: -(-len(found) // NUM_CALIBRATION_CLIPS)] for modality, found in clips.items()}


def _graph_clips(checkpoint: Path, items: list[Item]) -> dict[Modality, list[Clip]]:
    """Windows that each graph reads."""
    spec = ClipSpec.from_dict(load_checkpoint(checkpoint).clip_spec)
    if any(item.modality == "both" for item in items):
        read = [read_item(item, spec, ViewPlan(), with_waveform=False).views for item in items]
        views = [view.clip for part in read for view in part]
        return {
            Modality.AUDIO: [clip for clip in views if clip.audio is not None],
            Modality.VIDEO: [clip for clip in views if clip.video is not None],
            Modality.FUSED: [clip for clip in views if clip.audio is not None and clip.video is not None],
        }
    clips = read_windows(items, spec)
    windows = [(item.modality, clip) for item, part in zip(items, clips, strict=True) for clip in part]
    pairs = [pair_clips(clips[i], clips[j])[0] for i, j in make_pairs(items, seed=0)]
    return {
        Modality.AUDIO: [clip for modality, clip in windows if modality == "audio"],
        Modality.VIDEO: [clip for modality, clip in windows if modality == "video"],
        Modality.FUSED: pairs,
    }


def _listed(data: Path, split: str) -> tuple[Listing, list[Item]]:
    listing = read_items(data)
    items = [item for item in listing.items if item.split == split]
    if not items:
        splits = sorted({item.split for item in listing.items})
        raise ValueError(f"{data} has no split {split!r}; there are {', '.join(splits)}")
    return listing, items
