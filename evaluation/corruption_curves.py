"""Curves of the main score over levels of corruption, from clean to harsh."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from datasets.manifests import Item
from media.progress import OnProgress, as_stage, ignore_progress
from media.spec import ClipSpec

from .clip_predictions import PredictionPlan, predict_clips
from .corruptions import CORRUPTION_SCALES, CorruptionKind, corruptions_of
from .metrics import Interval
from .predictors import Predictor
from .scorer import Scorer, ScoringPlan, interval_ends
from .stream_inputs import SERVED_STREAMS


def score_corrupted(
    predictor: Predictor,
    items: Sequence[Item],
    targets: Mapping[str, int],
    spec: ClipSpec,
    *,
    plan: PredictionPlan | None = None,
    scoring: ScoringPlan | None = None,
    on_progress: OnProgress = ignore_progress,
) -> dict[str, Any]:
    """Score clips clean and under each corruption of a plan; files are read once.

    Args:
        predictor: see `score_clips`.
        items: see there.
        targets: see there.
        spec: see there.
        plan: corruptions in the order of their levels; default all there are, of `SERVED_STREAMS`. A stream
            that a corruption does not touch keeps its clean score.
        scoring: see there.
        on_progress: told how many items of the stage `corrupted clips` are done.

    Returns:
        `metric`, `items` and, by kind, `corruptions`: `unit`, `levels` (the first is None: clean) and, by
        stream, `values`, `low`, `high`.

    Raises:
        ValueError: see `score_clips`.
    """
    plan = plan or PredictionPlan(streams=SERVED_STREAMS)
    if not plan.corruptions:
        plan = replace(plan, corruptions=corruptions_of())
    scorer = Scorer(items, targets, scoring)
    found = predict_clips(predictor, items, spec, plan, on_progress=as_stage(on_progress, "corrupted clips"))
    clean = {name: scorer.main_score(predictions) for name, predictions in found.clean.items()}
    points: dict[CorruptionKind, list[dict[str, Interval]]] = {}
    levels: dict[CorruptionKind, list[float | None]] = {}
    for corruption in plan.corruptions:
        corrupted = found.streams.get(corruption, {})
        scores = {name: scorer.main_score(predictions) for name, predictions in corrupted.items()}
        points.setdefault(corruption.kind, [clean]).append(clean | scores)
        levels.setdefault(corruption.kind, [None]).append(corruption.level)
    curves = {
        str(kind): {
            "unit": CORRUPTION_SCALES[kind].unit,
            "levels": levels[kind],
            "streams": {name: _curve([point[name] for point in of_kind]) for name in clean},
        }
        for kind, of_kind in points.items()
    }
    return {"metric": scorer.metric, "items": found.num_items, "corruptions": curves}


def _curve(points: Sequence[Interval]) -> dict[str, list[float | None]]:
    ends = [interval_ends(point) for point in points]
    return {
        "values": [point.value for point in points],
        "low": [None if pair is None else pair[0] for pair in ends],
        "high": [None if pair is None else pair[1] for pair in ends],
    }
