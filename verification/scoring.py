"""Scores, linear probes and reports of a checkpoint or a bundle on a split of a collection."""

from pathlib import Path
from typing import Any

from datasets.layouts.grid import SLOT_OF
from datasets.manifests import Item, Listing, Spans
from evaluation.clip_predictions import SERVED, Progress, answer_clips
from evaluation.clip_probes import probe_clips
from evaluation.clip_scores import common_embeddings, score_clips, score_degraded
from evaluation.predictors import Predictor
from evaluation.report import write_report
from evaluation.retrieval import retrieval_tables
from evaluation.robustness import degraded_pairs
from evaluation.unpaired_scores import evaluate_split
from media import ClipSpec

from .split import read_split
from .target import Target, open_target


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
    listing, items = read_split(data, split, spans or target.spans)
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
    return _probes(target, read_split(data, split, spans or target.spans)[0], split, on_progress)


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
    listing, items = read_split(data, split, spans or target.spans)
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
