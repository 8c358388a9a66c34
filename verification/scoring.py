"""Where training's scores meet what is scored: a checkpoint's model, or a bundle's graphs."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from datasets.layouts import read_items
from datasets.layouts.grid import SLOT_OF
from datasets.manifests import Item, Listing, Spans
from evaluation.clip_predictions import SERVED, STREAMS, Progress, answer_clips, read_item
from evaluation.clip_probes import probe_clips
from evaluation.clip_scores import common_embeddings, score_clips, score_degraded
from evaluation.predictors import (
    ModelPredictor,
    Predictor,
    evaluate_split,
    make_pairs,
    pair_clips,
    read_windows,
)
from evaluation.report import write_report
from evaluation.retrieval import retrieval_tables
from evaluation.robustness import degraded_pairs
from evaluation.views import ViewPlan
from export.bundle_writer import learned_scores
from media import Clip, ClipSpec, Modality
from models.weights import MANIFEST_FILE as CHECKPOINT_FILE
from models.weights import load_checkpoint
from runtime import Zorro
from runtime.bundle import MANIFEST_FILE as BUNDLE_FILE
from runtime.scores import Scores
from training.recipe import trained_spans

from .checkpoint_source import open_origin

NUM_CALIBRATION_CLIPS = 64  # of each graph


@dataclass(frozen=True, slots=True)
class Target:
    """What is scored."""

    predictor: Predictor
    spec: ClipSpec
    targets: dict[str, int]
    """Index of each label; none where nothing but contrast was learned."""
    spans: Spans
    """What one clip was when it was trained."""
    scores: Scores
    """How its scores come from its logits."""

    @property
    def streams(self) -> tuple[str, ...]:
        """Those that it answers for."""
        return SERVED if isinstance(self.predictor, Zorro) else tuple(STREAMS)

    @property
    def is_sigmoid(self) -> bool:
        """Whether each of its labels stands for itself."""
        return self.scores is Scores.SIGMOID


def open_target(folder: Path, variant: str | None = None) -> Target:
    """What a checkpoint's or a bundle's folder holds.

    Raises:
        ValueError: the folder is neither checkpoint nor bundle.
    """
    if (folder / BUNDLE_FILE).is_file():
        model = Zorro.open(folder, variant=variant)
        bundle = model.bundle
        targets = {x.id: i for i, x in enumerate(bundle.labels)}
        return Target(
            model,
            bundle.clip_spec,
            targets,
            trained_spans(bundle.manifest.get("training", {})),
            bundle.scores,
        )
    if (folder / CHECKPOINT_FILE).is_file():
        if variant is not None:
            raise ValueError(f"{folder} is a checkpoint, which has no variants; leave {variant!r} out")
        loaded = load_checkpoint(open_origin(folder).checkpoint)
        spec, targets = (
            ClipSpec.from_dict(loaded.clip_spec),
            {str(x["id"]): i for i, x in enumerate(loaded.labels)},
        )
        return Target(
            ModelPredictor(loaded.model), spec, targets, trained_spans(loaded.extra), learned_scores(loaded)
        )
    raise ValueError(f"{folder} holds neither {CHECKPOINT_FILE} nor {BUNDLE_FILE}")


def score_target(
    folder: Path, data: Path, *, split: str, variant: str | None = None, spans: Spans | None = None
) -> dict[str, dict[str, Any]]:
    """Tables of a split: by stream where clips hold sound and picture, else sounds, sights and pairs of a patchwork.

    Args:
        folder: a checkpoint's or a bundle's.
        data: a collection.
        split: of it.
        variant: of a bundle.
        spans: what one clip is; default as `Target.spans` says.

    Raises:
        ValueError: the target knows no labels, or the collection has no such split.
    """
    target = open_target(folder, variant)
    if not target.targets:
        raise ValueError(
            f"{folder} was trained without labels; --probe fits a linear probe of those of {data} to it"
        )
    listing, items = _listed(data, split, spans or target.spans)
    if any(item.modality == "both" for item in items):
        manner = _manner(listing) | {"streams": target.streams, "sigmoid": target.is_sigmoid}
        return score_clips(target.predictor, items, target.targets, target.spec, **manner)["tables"]
    return _score_patchwork(target.predictor, items, target.targets, target.spec)


def probe_target(
    folder: Path,
    data: Path,
    *,
    split: str,
    on_progress: Progress,
    variant: str | None = None,
    spans: Spans | None = None,
) -> dict[str, dict[str, Any]]:
    """Tables by stream of linear probes, fitted on the split "train", chosen on "val", of the split asked for.

    Args:
        folder: as for `score_target`; what labels it knows does not matter.
        data: a collection with labels.
        split: of it.
        on_progress: told how many of how many clips are read.
        variant: of a bundle.
        spans: see `score_target`.

    Raises:
        ValueError: the collection has no such split, or see `probe_clips`.
    """
    target = open_target(folder, variant)
    return _probes(target, _listed(data, split, spans or target.spans)[0], split, on_progress)


def _probes(target: Target, listing: Listing, split: str, on_progress: Progress) -> dict[str, dict[str, Any]]:
    manner = _manner(listing) | {"streams": target.streams, "on_progress": on_progress}
    return probe_clips(target.predictor, listing.items, target.spec, split=split, **manner)


def report_target(
    folder: Path,
    data: Path,
    out: Path,
    *,
    split: str,
    on_progress: Progress,
    variant: str | None = None,
    spans: Spans | None = None,
    probe: bool = False,
) -> Path:
    """Scores, curves in noise and worse, and retrieval of a split of clips, as Markdown with charts; returns its path.

    Where the target knows no labels, linear probes stand in for scores and curves, if there are labels to fit
    them to.

    Args:
        folder: see `score_target`, as for `data`, `split`, `variant` and `spans`.
        data: see there.
        out: folder of the report.
        split: see there.
        on_progress: told how many of how many clips are done, one round after another.
        variant: see there.
        spans: see there.
        probe: whether linear probes are wanted beside scores.

    Raises:
        ValueError: the clips do not hold sound and picture, or see `probe_clips`.
    """
    target = open_target(folder, variant)
    listing, items = _listed(data, split, spans or target.spans)
    if not any(item.modality == "both" for item in items):
        raise ValueError(
            f"{data} holds sounds and sights apart; a report is of clips that hold both: leave out --report"
        )
    manner = _manner(listing) | {"sigmoid": target.is_sigmoid, "on_progress": on_progress}
    answers = answer_clips(target.predictor, items, target.spec, streams=SERVED)
    embeddings, numbers = common_embeddings(answers)
    record = {"retrieval": retrieval_tables(embeddings, unit=[str(items[i].path) for i in numbers])}
    if target.targets:
        what = (target.predictor, items, target.targets, target.spec)
        record["scores"] = score_clips(*what, **manner | {"streams": target.streams})
        record["degraded"] = score_degraded(*what, **manner | {"streams": SERVED})
    if probe or (
        not target.targets and {"train", "val"} <= {item.split for item in listing.items if item.labels}
    ):
        record["probes"] = _probes(target, listing, split, on_progress)
    return write_report({folder.name: record}, out, title=f"{folder.name} on {data.name}, {split} split")


def _manner(listing: Listing) -> dict[str, Any]:
    """How a collection is scored: its groups of labels, and whether several hold at once."""
    multi_label = any(len(item.labels) > 1 for item in listing.items)
    return {
        "multi_label": multi_label,
        "groups": SLOT_OF if listing.layout == "grid" and not multi_label else None,
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
    return _graph_clips(*_learned(checkpoint, data, "test"))


def calibration_clips(checkpoint: Path, data: Path) -> dict[Modality, list[Clip]]:
    """Windows of the training split for the ranges of int8, evenly from all of it, at most 64 of each graph."""
    spec, items = _learned(checkpoint, data, "train")
    step = max(1, len(items) // (4 * NUM_CALIBRATION_CLIPS))
    clips = _graph_clips(spec, items[::step])
    return {modality: found[:: -(-len(found) // NUM_CALIBRATION_CLIPS)] for modality, found in clips.items()}


def _learned(checkpoint: Path, data: Path, split: str) -> tuple[ClipSpec, list[Item]]:
    """Clips of a split as the checkpoint was trained on such."""
    loaded = load_checkpoint(checkpoint)
    return ClipSpec.from_dict(loaded.clip_spec), _listed(data, split, trained_spans(loaded.extra))[1]


def _graph_clips(spec: ClipSpec, items: list[Item]) -> dict[Modality, list[Clip]]:
    """Windows that each graph reads."""
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


def _listed(data: Path, split: str, spans: Spans) -> tuple[Listing, list[Item]]:
    listing = read_items(data)
    listing = replace(listing, items=spans.of(listing.items))
    items = [item for item in listing.items if item.split == split]
    if not items:
        splits = sorted({item.split for item in listing.items})
        raise ValueError(f"{data} has no split {split!r}; there are {', '.join(splits)}")
    return listing, items
