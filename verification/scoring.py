"""Scores, linear probes and reports of a checkpoint or a bundle on a split of a collection."""

from pathlib import Path
from typing import Any

from datasets.layouts.grid import SLOT_OF
from datasets.manifests import Item, Listing, Spans, is_unpaired
from evaluation.clip_predictions import SERVED, Progress, answer_clips
from evaluation.clip_probes import probe_clips
from evaluation.clip_scores import common_embeddings, score_clips, score_degraded
from evaluation.corruptions import SCALES, Way
from evaluation.pairing import read_windows_where_possible
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
    """Tables of a split.

    Tables are by stream where clips hold sound and picture, or have several labels. Where sounds and pictures
    are files of their own, the tables are of sounds, of pictures, and of pairs of one label.

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
    if is_unpaired(listing.items):
        return _score_unpaired(target.predictor, items, target.targets, target.spec)["tables"]
    manner = _manner(listing) | {"streams": target.streams, "sigmoid": target.is_sigmoid}
    return score_clips(target.predictor, items, target.targets, target.spec, **manner)["tables"]


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
    """Write a report of a split, Markdown with charts, and return its path.

    Of clips that hold sound and picture, it has scores by stream, curves over levels of corruption, and
    retrieval. Of a collection whose sounds and pictures are files of their own, it has scores of sounds, of
    pictures and of pairs, also with one side of the pairs corrupted. Where the target knows no labels, linear
    probes stand in for scores, if there are labels to fit them to.

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
        ValueError: there is nothing to report, or see `probe_clips`.
    """
    target = open_target(folder, variant)
    listing, items = read_split(data, split, spans or target.spans)
    record: dict[str, Any] = {}
    if not is_unpaired(listing.items):
        record = _report_streams(target, items, _manner(listing) | {"on_progress": on_progress})
    elif target.targets:
        record["unpaired"] = _score_unpaired(target.predictor, items, target.targets, target.spec)
    if probe or (
        not target.targets and {"train", "val"} <= {item.split for item in listing.items if item.labels}
    ):
        record["probes"] = _probes(target, listing, split, on_progress)
    if not record:
        raise ValueError(
            f"{folder} was trained without labels, and {data} has no labels in 'train' and 'val' to fit "
            "probes to, so there is nothing to report"
        )
    return write_report({folder.name: record}, out, title=f"{folder.name} on {data.name}, {split} split")


def _report_streams(target: Target, items: list[Item], manner: dict[str, Any]) -> dict[str, Any]:
    """Scores, corruption curves and retrieval, as far as the clips have what each of them reads."""
    manner = manner | {"sigmoid": target.is_sigmoid}
    reading = {name: manner[name] for name in ("sigmoid", "on_progress")}
    answers = answer_clips(target.predictor, items, target.spec, streams=SERVED, **reading)
    clean = answers.streams.get(None, {})
    record: dict[str, Any] = {}
    shared = [set(clean[name].items.tolist()) for name in SERVED if name in clean]
    if len(shared) == len(SERVED) and len(set.intersection(*shared)) > 1:
        embeddings, numbers = common_embeddings(answers)
        record["retrieval"] = retrieval_tables(embeddings, unit=[str(items[i].path) for i in numbers])
    if target.targets:
        what = (target.predictor, items, target.targets, target.spec)
        record["scores"] = score_clips(*what, **manner | {"streams": target.streams})
        num_audible = len({items[i].path for i in clean["audio"].items}) if "audio" in clean else 0
        least = {Way.BABBLE: 2}  # a clip shall not babble over itself
        levels = {
            way: scale.levels
            for way, scale in SCALES.items()
            if (num_audible >= least.get(way, 1) if way.hurts_sound else "video" in clean)
        }
        if levels:
            record["degraded"] = score_degraded(*what, **manner | {"streams": SERVED, "levels": levels})
    return record


def _manner(listing: Listing) -> dict[str, Any]:
    """How a collection is scored: its groups of labels, and whether several hold at once."""
    multi_label = any(len(item.labels) > 1 for item in listing.items)
    return {
        "multi_label": multi_label,
        "groups": SLOT_OF if listing.layout == "grid" and not multi_label else None,
    }


def _score_unpaired(
    predictor: Predictor, items: list[Item], targets: dict[str, int], spec: ClipSpec
) -> dict[str, Any]:
    """`tables` of sounds, ESC-10's by themselves, pictures, pairs, and pairs with one side corrupted; and `failures`.

    Raises:
        ValueError: no file decodes.
    """
    good, clips, failures = read_windows_where_possible(items, spec)
    if not good:
        path, failure = next(iter(failures.items()))
        raise ValueError(f"none of {len(items)} files decodes; the first is {path}: {failure}")
    tables = evaluate_split(predictor, good, targets, spec, clips=clips).tables
    esc = [i for i, item in enumerate(good) if item.source.startswith("ESC-10") and item.modality == "audio"]
    if esc:
        part = evaluate_split(predictor, [good[i] for i in esc], targets, spec, clips=[clips[i] for i in esc])
        tables["esc10"] = part.tables["sounds"]
    return {
        "items": len(items),
        "failures": [{"file": path.name, "reason": failure.code} for path, failure in failures.items()],
        "tables": tables | degraded_pairs(predictor, good, targets, spec, clips),
    }
