"""Where training's scores meet what is scored: a checkpoint's model, or a bundle's graphs."""

from pathlib import Path
from typing import Any

from media import Clip, ClipSpec, Modality
from models.weights import MANIFEST_FILE as CHECKPOINT_FILE
from models.weights import load_checkpoint
from runtime import Zorro
from runtime.bundle import MANIFEST_FILE as BUNDLE_FILE
from training.evaluate import ModelPredictor, Predictor, evaluate_split, make_pairs, pair_clips, read_items
from training.manifests import Item, read_manifest
from training.robustness import degraded_pairs


def open_target(target: Path) -> tuple[Predictor, ClipSpec, dict[str, int]]:
    """A predictor, its spec, and the index of each label.

    Raises:
        ValueError: the folder is neither checkpoint nor bundle.
    """
    if (target / BUNDLE_FILE).is_file():
        model = Zorro.open(target)
        return model, model.bundle.clip_spec, {x.id: i for i, x in enumerate(model.bundle.labels)}
    if (target / CHECKPOINT_FILE).is_file():
        loaded = load_checkpoint(target)
        targets = {str(x["id"]): i for i, x in enumerate(loaded.labels)}
        return ModelPredictor(loaded.model), ClipSpec.from_dict(loaded.clip_spec), targets
    raise ValueError(f"{target} holds neither {CHECKPOINT_FILE} nor {BUNDLE_FILE}")


def score_target(target: Path, data: Path, *, split: str) -> dict[str, dict[str, Any]]:
    """Tables of a split: sounds, ESC-10's by themselves, sights, pairs, and pairs with one side hurt."""
    predictor, spec, targets = open_target(target)
    items = _items(data, split)
    result = evaluate_split(predictor, items, targets, spec)
    tables = result.tables
    esc = [i for i, item in enumerate(items) if item.source.startswith("ESC-10") and item.modality == "audio"]
    if esc:
        chosen = [items[i] for i in esc]
        part = evaluate_split(predictor, chosen, targets, spec, clips=[result.clips[i] for i in esc])
        tables["esc10"] = part.tables["sounds"]
    return tables | degraded_pairs(predictor, items, targets, spec, result.clips)


def parity_clips(checkpoint: Path, data: Path) -> dict[Modality, list[Clip]]:
    """Windows of the whole test split, and its pairs, for the parity check."""
    spec = ClipSpec.from_dict(load_checkpoint(checkpoint).clip_spec)
    items = _items(data, "test")
    clips = read_items(items, spec)
    windows = [(item.modality, clip) for item, part in zip(items, clips, strict=True) for clip in part]
    pairs = [pair_clips(clips[i], clips[j])[0] for i, j in make_pairs(items, seed=0)]
    return {
        Modality.AUDIO: [clip for modality, clip in windows if modality == "audio"],
        Modality.VIDEO: [clip for modality, clip in windows if modality == "video"],
        Modality.FUSED: pairs,
    }


def _items(data: Path, split: str) -> list[Item]:
    items = [item for item in read_manifest(data / "manifest.csv") if item.split == split]
    if not items:
        raise ValueError(f"{data} has no split {split!r}; there are train, val and test")
    return items
