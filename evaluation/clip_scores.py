"""Tables of scores of clips that hold sound, picture or both, by stream.

A table says how many items it is of, and how many have no prediction for which reason.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from datasets.manifests import Item
from media.progress import OnProgress, ignore_progress
from media.spec import ClipSpec

from .clip_predictions import ClipPredictions, PredictionPlan, predict_clips
from .predictors import Predictor
from .scorer import Scorer, ScoringPlan
from .views import ViewPlan


def score_clips(
    predictor: Predictor,
    items: Sequence[Item],
    targets: Mapping[str, int],
    spec: ClipSpec,
    *,
    plan: PredictionPlan | None = None,
    scoring: ScoringPlan | None = None,
    on_progress: OnProgress = ignore_progress,
) -> dict[str, Any]:
    """Read, predict and score: what `score_predictions` says of `predict_clips`.

    Args:
        predictor: what is scored.
        items: files, or spans of files, with labels.
        targets: index of each label in the predictor's logits.
        spec: the predictor's.
        plan: how clips are predicted. Whether it says `sigmoid` is how the model learned; whether `scoring`
            says `multi_label` is how the items are labelled.
        scoring: how predictions are scored.
        on_progress: see `predict_clips`.

    Raises:
        ValueError: see `predict_clips`, `Scorer` and the plans.
        ManifestError: see `Scorer`.
    """
    plan = plan or PredictionPlan()
    scorer = Scorer(items, targets, scoring)
    predictions = predict_clips(predictor, items, spec, plan, on_progress=on_progress)
    return score_predictions(predictions, scorer, plan.views)


def score_predictions(
    predictions: ClipPredictions, scorer: Scorer, views: ViewPlan | None = None
) -> dict[str, Any]:
    """A record of plain numbers, fit for JSON.

    Returns:
        `items`, `silent`, `still`, `failures`, `views`, the name of the `metric`, and by stream `tables`,
        each with `clips`, `unanswered` by reason, and scores unless no clip has a prediction. `clips` and
        `unanswered` sum to `items`.
    """
    views, clean = views or ViewPlan(), predictions.clean
    tables = {
        name: (scorer.table(clean[name]) if name in clean else {"clips": 0}) | {"unanswered": dict(counts)}
        for name, counts in predictions.unanswered.items()
    }
    return {
        "items": predictions.num_items,
        "silent": predictions.num_silent,
        "still": predictions.num_still,
        "failures": predictions.failures,
        "views": {"windows": views.num_windows, "crops": views.num_crops},
        "metric": scorer.metric,
        "tables": tables,
    }
