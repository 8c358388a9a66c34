"""Scores, linear probes and reports of a checkpoint or a bundle on a split of a collection."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from datasets.layouts.grid import SLOT_OF
from datasets.manifests import Item, Listing, Spans, is_unpaired
from evaluation.clip_predictions import ClipPredictions, PredictionPlan, predict_clips
from evaluation.clip_probes import probe_clips
from evaluation.clip_scores import score_clips
from evaluation.corrupted_pairs import score_corrupted_pairs
from evaluation.corruption_curves import score_corrupted
from evaluation.corruptions import CORRUPTION_SCALES, CorruptionKind, corruptions_of
from evaluation.pairing import read_windows_where_possible
from evaluation.report import write_evaluation_report
from evaluation.retrieval import common_embeddings, retrieval_tables
from evaluation.scorer import ScoringPlan
from evaluation.stream_inputs import SERVED_STREAMS
from evaluation.unpaired_scores import evaluate_split
from media.progress import OnProgress, as_stage, ignore_progress

from .collection import read_split
from .scored_model import ScoredModel, open_model

Tables = dict[str, dict[str, Any]]
"""Scores by name of the table."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EvaluationRequest:
    """A model, and the split that it is evaluated on."""

    model: Path
    """Folder of a checkpoint or a bundle."""
    data: Path
    """A collection."""
    split: str = "val"
    """Of the collection."""
    variant: str | None = None
    """Of a bundle."""
    spans: Spans | None = None
    """What one clip is; default as `ScoredModel.spans` says."""


class _Evaluation:
    """An opened model, and the clips of the split."""

    def __init__(self, request: EvaluationRequest) -> None:
        self.request, self.model = request, open_model(request.model, request.variant)
        self.listing, self.items = read_split(request.data, request.split, request.spans or self.model.spans)
        self.is_unpaired, self.scoring = is_unpaired(self.listing.items), _scoring_plan(self.listing)


def score_split(request: EvaluationRequest, *, on_progress: OnProgress = ignore_progress) -> Tables:
    """Score a model on a split.

    Args:
        request: model and split.
        on_progress: told of each stage.

    Returns:
        Tables by stream, where clips hold sound and picture or have several labels. Where sounds and pictures
        are files of their own, tables of sounds, of pictures, and of pairs of one label.

    Raises:
        ValueError: the model knows no labels, or the collection has no such split.
    """
    evaluation = _Evaluation(request)
    if not evaluation.model.targets:
        raise ValueError(
            f"{request.model} was trained without labels; --probe fits a linear probe of those of "
            f"{request.data} to it"
        )
    tables: Tables
    if evaluation.is_unpaired:
        tables = _score_unpaired(evaluation.model, evaluation.items)["tables"]
        return tables
    tables = _stream_scores(evaluation, on_progress)["tables"]
    return tables


def probe_split(request: EvaluationRequest, *, on_progress: OnProgress = ignore_progress) -> Tables:
    """Fit linear probes on the split "train", choose them on "val", and score them on the split asked for.

    Args:
        request: model and split; what labels the model knows does not matter.
        on_progress: told of each stage.

    Returns:
        Tables by stream.

    Raises:
        ValueError: the collection has no such split, or see `probe_clips`.
    """
    return _probe_tables(_Evaluation(request), on_progress)


def report_split(
    request: EvaluationRequest,
    folder: Path,
    *,
    with_probes: bool = False,
    on_progress: OnProgress = ignore_progress,
) -> Path:
    """Write a report of a model on a split, Markdown with charts, and return its path.

    Of clips that hold sound and picture, it has scores by stream, curves over levels of corruption, and
    retrieval. Of a collection whose sounds and pictures are files of their own, it has scores of sounds, of
    pictures and of pairs, also with one side of the pairs corrupted. Where the model knows no labels, linear
    probes stand in for scores, if there are labels to fit them to.

    Args:
        request: model and split.
        folder: of the report.
        with_probes: whether linear probes are wanted beside scores.
        on_progress: told of each stage.

    Raises:
        ValueError: there is nothing to report, or see `probe_clips`.
    """
    evaluation = _Evaluation(request)
    knows_labels = bool(evaluation.model.targets)
    record: dict[str, Any] = {}
    if not evaluation.is_unpaired:
        record = _report_streams(evaluation, on_progress)
    elif knows_labels:
        record["unpaired"] = _score_unpaired(evaluation.model, evaluation.items)
    labelled_splits = {item.split for item in evaluation.listing.items if item.labels}
    if with_probes or (not knows_labels and {"train", "val"} <= labelled_splits):
        record["probes"] = _probe_tables(evaluation, on_progress)
    if not record:
        raise ValueError(
            f"{request.model} was trained without labels, and {request.data} has no labels in 'train' and "
            "'val' to fit probes to, so there is nothing to report"
        )
    name = request.model.name
    title = f"{name} on {request.data.name}, {request.split} split"
    return write_evaluation_report({name: record}, folder, title=title)


def _scoring_plan(listing: Listing) -> ScoringPlan:
    """How a collection is scored: its groups of labels, and whether several hold at once."""
    multi_label = any(len(item.labels) > 1 for item in listing.items)
    return ScoringPlan(
        multi_label=multi_label, groups=SLOT_OF if listing.layout == "grid" and not multi_label else None
    )


def _stream_scores(evaluation: _Evaluation, on_progress: OnProgress) -> dict[str, Any]:
    model = evaluation.model
    return score_clips(
        model.predictor,
        evaluation.items,
        model.targets,
        model.spec,
        plan=PredictionPlan(streams=model.streams, sigmoid=model.is_sigmoid),
        scoring=evaluation.scoring,
        on_progress=on_progress,
    )


def _probe_tables(evaluation: _Evaluation, on_progress: OnProgress) -> Tables:
    model = evaluation.model
    return probe_clips(
        model.predictor,
        evaluation.listing.items,
        model.spec,
        split=evaluation.request.split,
        streams=model.streams,
        scoring=evaluation.scoring,
        on_progress=on_progress,
    )


def _report_streams(evaluation: _Evaluation, on_progress: OnProgress) -> dict[str, Any]:
    """Scores, curves under corruption and retrieval, as far as the clips have what each of them reads."""
    model, items = evaluation.model, evaluation.items
    plan = PredictionPlan(streams=SERVED_STREAMS, sigmoid=model.is_sigmoid)
    predictions = predict_clips(
        model.predictor, items, model.spec, plan, on_progress=as_stage(on_progress, "clips to retrieve")
    )
    record: dict[str, Any] = {}
    if _num_shared(predictions) > 1:
        embeddings, numbers = common_embeddings(predictions)
        record["retrieval"] = retrieval_tables(embeddings, unit=[str(items[i].path) for i in numbers])
    if not model.targets:
        return record
    record["scores"] = _stream_scores(evaluation, on_progress)
    kinds = _possible_kinds(predictions, items)
    if kinds:
        record["corrupted"] = score_corrupted(
            model.predictor,
            items,
            model.targets,
            model.spec,
            plan=PredictionPlan(
                streams=SERVED_STREAMS, sigmoid=model.is_sigmoid, corruptions=corruptions_of(*kinds)
            ),
            scoring=evaluation.scoring,
            on_progress=on_progress,
        )
    return record


def _num_shared(predictions: ClipPredictions) -> int:
    """How many clips have all the streams that a bundle has."""
    clean = predictions.clean
    if not set(SERVED_STREAMS) <= clean.keys():
        return 0
    return len(set.intersection(*(set(clean[name].items.tolist()) for name in SERVED_STREAMS)))


def _possible_kinds(predictions: ClipPredictions, items: Sequence[Item]) -> list[CorruptionKind]:
    """The corruptions that these clips can have.

    Babble needs two files with sound, so that none babbles over itself.
    """
    clean = predictions.clean
    num_audible = len({items[i].path for i in clean["audio"].items}) if "audio" in clean else 0
    needed = {CorruptionKind.BABBLE: 2}
    return [
        kind
        for kind in CORRUPTION_SCALES
        if (num_audible >= needed.get(kind, 1) if kind.affects_audio else "video" in clean)
    ]


def _score_unpaired(model: ScoredModel, items: Sequence[Item]) -> dict[str, Any]:
    """Score sounds, ESC-10's by themselves, pictures, pairs, and pairs with one side corrupted.

    Returns:
        How many `items` there are, the `failures` among them, and `tables` by name.

    Raises:
        ValueError: no file decodes.
    """
    what = (model.targets, model.spec)
    good, clips, failures = read_windows_where_possible(items, model.spec)
    if not good:
        path, failure = next(iter(failures.items()))
        raise ValueError(f"none of {len(items)} files decodes; the first is {path}: {failure}")
    tables = evaluate_split(model.predictor, good, *what, clips=clips).tables
    esc = [i for i, item in enumerate(good) if item.source.startswith("ESC-10") and item.modality == "audio"]
    if esc:
        part = evaluate_split(model.predictor, [good[i] for i in esc], *what, clips=[clips[i] for i in esc])
        tables["esc10"] = part.tables["sounds"]
    return {
        "items": len(items),
        "failures": [{"file": path.name, "reason": failure.code} for path, failure in failures.items()],
        "tables": tables | score_corrupted_pairs(model.predictor, good, *what, clips),
    }
