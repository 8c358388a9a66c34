"""Linear probes of each stream of a predictor.

They are fitted on the clips of the split "train" and chosen on those of "val".

Clips are read from their files as a server reads them, one window of each. What labels the predictor itself
knows, if any, does not matter.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from datasets.manifests import Item
from media.progress import OnProgress, as_stage, ignore_progress
from media.spec import ClipSpec

from .clip_predictions import ClipPredictions, PredictionPlan, predict_clips
from .linear_probe import LabelledFeatures, linear_probe
from .predictors import Predictor
from .scorer import Scorer, ScoringPlan
from .stream_inputs import STREAM_INPUTS

FITTED_ON, CHOSEN_ON = "train", "val"


@dataclass(frozen=True, slots=True)
class _Split:
    """Predictions for the clips of a split, and the scorer of their labels."""

    name: str
    predictions: ClipPredictions
    scorer: Scorer

    def labelled(self, stream: str) -> LabelledFeatures:
        found = self.predictions.clean.get(stream)
        if found is None or found.features is None:
            raise ValueError(
                f"no clip of {self.name!r} answers for the stream {stream!r}; a probe needs some there"
            )
        return LabelledFeatures(features=found.features, items=found.items, scorer=self.scorer)


def probe_clips(
    predictor: Predictor,
    items: Sequence[Item],
    spec: ClipSpec,
    *,
    split: str,
    streams: Sequence[str] = tuple(STREAM_INPUTS),
    scoring: ScoringPlan | None = None,
    on_progress: OnProgress = ignore_progress,
) -> dict[str, dict[str, Any]]:
    """Tables of a split by stream.

    Args:
        predictor: whose features are weighed.
        items: of all splits, with labels.
        spec: the predictor's.
        split: to report; scores of "val", on which probes are chosen, flatter.
        streams: see `PredictionPlan`.
        scoring: see `Scorer`.
        on_progress: told how many clips of the stage `clips to probe` are read.

    Returns:
        What `linear_probe` says, or no more than that there are 0 `clips`; and `unanswered` by reason.

    Raises:
        ValueError: no labels, no clips of a split, or clips of `split` that have a stream's features where
            those that it is fitted to or chosen on have none.
    """
    targets = {label: i for i, label in enumerate(sorted({label for item in items for label in item.labels}))}
    if not targets:
        raise ValueError(f"none of {len(items)} clips has a label; a probe is fitted to labels")
    chosen = {name: [item for item in items if item.split == name] for name in (FITTED_ON, CHOSEN_ON, split)}
    if lacking := [name for name, of_split in chosen.items() if not of_split]:
        raise ValueError(
            f"no clip is of the splits {lacking}; a probe is fitted on {FITTED_ON!r}, chosen on {CHOSEN_ON!r}"
        )
    total, done = sum(map(len, chosen.values())), 0
    found: dict[str, _Split] = {}
    for name, of_split in chosen.items():
        scorer = Scorer(of_split, targets, scoring)
        predictions = predict_clips(
            predictor,
            of_split,
            spec,
            PredictionPlan(streams=streams),
            on_progress=as_stage(on_progress, "clips to probe", done_before=done, total_of_all=total),
        )
        found[name], done = _Split(name, predictions, scorer), done + len(of_split)
    return {
        stream: _probe_table(stream, found[FITTED_ON], found[CHOSEN_ON], found[split]) for stream in streams
    }


def _probe_table(stream: str, train: _Split, val: _Split, test: _Split) -> dict[str, Any]:
    unanswered = {"unanswered": dict(test.predictions.unanswered[stream])}
    if stream not in test.predictions.clean:
        return {"clips": 0} | unanswered
    return linear_probe(*(split.labelled(stream) for split in (train, val, test))) | unanswered
