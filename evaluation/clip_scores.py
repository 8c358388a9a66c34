"""Tables of co-recorded and multi-label sets, by stream, with intervals; and curves over levels of harm.

Sets of one label per clip are scored by top-1 and top-5, and within groups of labels where there are such;
sets of many by mean average precision. A table says how many items it is of, and how many have no answer for
which reason. Spans of one file are drawn together for the interval.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Int
from sklearn.metrics import average_precision_score

from datasets.manifests import Item
from media.spec import ClipSpec

from .clip_predictions import SERVED, STREAMS, ClipAnswers, Progress, StreamAnswers, answer_clips
from .corruptions import SCALES, Condition, Way
from .metrics import (
    Interval,
    bootstrap_interval,
    correct_within,
    mean_average_precision,
    within_group_accuracy,
)
from .predictors import Predictor
from .unpaired_scores import score
from .views import ViewPlan

SMALLEST = np.finfo(np.float64).tiny


class Judge:
    """What the answers to a list of items are compared with, and how.

    Args:
        items: with the labels that are true.
        targets: index of each label in the scores.
        multi_label: whether any number of labels may hold.
        groups: group of each label, if a label competes only within its group.
        seed: of intervals.
        num_resamples: of intervals.

    Raises:
        ValueError: a label that the scores do not have, or one that has no group.
        ManifestError: not exactly one label, where one is wanted.
    """

    def __init__(
        self,
        items: Sequence[Item],
        targets: Mapping[str, int],
        *,
        multi_label: bool = False,
        groups: Mapping[str, str] | None = None,
        seed: int = 0,
        num_resamples: int = 1000,
    ) -> None:
        unknown = sorted({label for item in items for label in item.labels} - targets.keys())
        if unknown:
            raise ValueError(
                f"the items have labels that the model does not know: {unknown[:5]}, {len(unknown)} in all"
            )
        self.names = sorted(targets, key=lambda label: targets[label])
        ungrouped = [label for label in self.names if groups is not None and label not in groups]
        if ungrouped:
            raise ValueError(
                f"no group for the labels {ungrouped[:5]}, {len(ungrouped)} in all; name one for each"
            )
        if multi_label and groups is not None:
            raise ValueError("labels of a multi-label set do not compete; leave out groups")
        self.groups = None if groups is None else np.array([groups[label] for label in self.names])
        self.multi_label, self.seed, self.num_resamples = multi_label, seed, num_resamples
        self.units = np.unique([str(item.path) for item in items], return_inverse=True)[1]
        self.truth = (
            _truth(items, targets) if multi_label else np.array([targets[item.label] for item in items])
        )

    @property
    def metric(self) -> str:
        """Name of the score that curves show."""
        if self.multi_label:
            return "map"
        return "top1" if self.groups is None else "within_groups"

    def headline(self, answers: StreamAnswers) -> Interval:
        """The score that curves show; without an interval (both ends NaN) if all clips are of one file."""
        statistic, arrays = self._measured(answers)
        return self._interval(statistic, answers, *arrays)

    def value(self, answers: StreamAnswers) -> float:
        """The score that curves show, without the time that an interval takes."""
        statistic, arrays = self._measured(answers)
        return float(statistic(*arrays))

    def _measured(self, answers: StreamAnswers) -> tuple[Callable[..., float], tuple[np.ndarray, ...]]:
        scores, truth = answers.scores, self.truth[answers.items]
        if self.multi_label:
            return mean_average_precision, (scores, truth)
        if self.groups is None:
            return np.mean, (scores.argmax(1) == truth,)
        return _mean_of_groups, (correct_within(scores, truth, self.groups), self.groups[truth])

    def table(self, answers: StreamAnswers) -> dict[str, Any]:
        """All scores of one stream."""
        scores, truth = answers.scores, self.truth[answers.items]
        main = self.headline(answers)
        if self.multi_label:
            table = {
                "clips": len(truth),
                "map": main.value,
                "labels": _average_precisions(scores, truth, self.names),
            }
        else:
            table = score(np.log(np.maximum(scores, SMALLEST)), truth, self.names)
            table["top1_interval"] = _ends(self._interval(np.mean, answers, scores.argmax(1) == truth))
        if self.groups is not None:
            within = within_group_accuracy(scores, truth, list(self.groups))
            table |= {"within_groups": within.mean, "groups": within.groups}
        table[f"{self.metric}_interval"] = _ends(main)
        return table

    def _interval(
        self, statistic: Callable[..., float], answers: StreamAnswers, *arrays: np.ndarray
    ) -> Interval:
        units = self.units[answers.items]
        if len(np.unique(units)) < 2:
            return Interval(float(statistic(*arrays)), float("nan"), float("nan"))
        return bootstrap_interval(
            statistic, *arrays, unit=units, seed=self.seed, num_resamples=self.num_resamples
        )


def score_clips(
    predictor: Predictor,
    items: Sequence[Item],
    targets: Mapping[str, int],
    spec: ClipSpec,
    *,
    plan: ViewPlan | None = None,
    streams: Sequence[str] = tuple(STREAMS),
    sigmoid: bool = False,
    multi_label: bool = False,
    groups: Mapping[str, str] | None = None,
    seed: int = 0,
    num_resamples: int = 1000,
    on_progress: Progress | None = None,
) -> dict[str, Any]:
    """Read, ask and score: what `score_answers` says of `answer_clips`; see both, and `Judge`.

    Raises:
        ValueError: see there.
    """
    judge = Judge(
        items, targets, multi_label=multi_label, groups=groups, seed=seed, num_resamples=num_resamples
    )
    answers = answer_clips(
        predictor,
        items,
        spec,
        plan=plan,
        streams=streams,
        sigmoid=sigmoid,
        seed=seed,
        on_progress=on_progress,
    )
    return score_answers(answers, judge, plan=plan)


def score_answers(answers: ClipAnswers, judge: Judge, *, plan: ViewPlan | None = None) -> dict[str, Any]:
    """A record of plain numbers, fit for JSON.

    Returns:
        `items`, `silent`, `still`, `failures`, `views`, the name of the `metric`, and by stream `tables`,
        each with `clips`, `unanswered` by reason, and scores unless no clip answers. `clips` and `unanswered`
        sum to `items`.
    """
    plan = plan or ViewPlan()
    clean = answers.streams.get(None, {})
    tables = {
        name: (judge.table(clean[name]) if name in clean else {"clips": 0}) | {"unanswered": dict(counts)}
        for name, counts in answers.unanswered.items()
    }
    return {
        "items": answers.num_items,
        "silent": answers.num_silent,
        "still": answers.num_still,
        "failures": answers.failures,
        "views": {"windows": plan.num_windows, "crops": plan.num_crops},
        "metric": judge.metric,
        "tables": tables,
    }


def score_degraded(
    predictor: Predictor,
    items: Sequence[Item],
    targets: Mapping[str, int],
    spec: ClipSpec,
    *,
    levels: Mapping[Way, Sequence[float]] | None = None,
    plan: ViewPlan | None = None,
    streams: Sequence[str] = SERVED,
    sigmoid: bool = False,
    multi_label: bool = False,
    groups: Mapping[str, str] | None = None,
    seed: int = 0,
    num_resamples: int = 1000,
    on_progress: Progress | None = None,
) -> dict[str, Any]:
    """Curves of the main score over levels of harm, from clean to harsh; files are read once.

    Args:
        predictor: see `answer_clips`, as for what is not said here and in `Judge`.
        items: see there.
        targets: index of each label in the scores.
        spec: the predictor's.
        levels: of each way; default `SCALES`.
        plan: views of each clip.
        streams: columns; one that a way does not touch keeps its clean score.
        sigmoid: see `answer_clips`; how the model learned, as `multi_label` is how the items are.
        multi_label: see `Judge`.
        groups: see `Judge`.
        seed: of noise and of intervals.
        num_resamples: of intervals.
        on_progress: told how many of how many items are done.

    Returns:
        `metric` and, by way, `ways`: `unit`, `levels` (the first is None: clean) and, by stream, `values`,
        `low`, `high`.

    Raises:
        ValueError: see `answer_clips` and `Judge`; or a way without levels.
    """
    chosen = levels if levels is not None else {way: scale.levels for way, scale in SCALES.items()}
    ways = {Way(way): [Condition(way, level) for level in its_levels] for way, its_levels in chosen.items()}
    judge = Judge(
        items, targets, multi_label=multi_label, groups=groups, seed=seed, num_resamples=num_resamples
    )
    answers = answer_clips(
        predictor,
        items,
        spec,
        plan=plan,
        streams=streams,
        sigmoid=sigmoid,
        seed=seed,
        on_progress=on_progress,
        conditions=[condition for conditions in ways.values() for condition in conditions],
    )
    clean = {name: judge.headline(found) for name, found in answers.streams.get(None, {}).items()}
    curves = {}
    for way, conditions in ways.items():
        points = [clean]
        for condition in conditions:
            hurt = answers.streams.get(condition, {})
            points.append(clean | {name: judge.headline(found) for name, found in hurt.items()})
        curves[str(way)] = {
            "unit": SCALES[way].unit,
            "levels": [None, *[condition.level for condition in conditions]],
            "streams": {name: _curve([point[name] for point in points]) for name in clean},
        }
    return {"metric": judge.metric, "items": answers.num_items, "ways": curves}


def common_embeddings(
    answers: ClipAnswers, streams: Sequence[str] = SERVED
) -> tuple[dict[str, Float[np.ndarray, "clips dim"]], Int[np.ndarray, " clips"]]:
    """Embeddings by stream of the clips that all of them answer, for retrieval, and the clips' item numbers.

    Raises:
        ValueError: there is no such clip.
    """
    clean = answers.streams.get(None, {})
    missing = [name for name in streams if name not in clean]
    if missing:
        raise ValueError(f"no clip answers for {missing}; retrieval needs clips that have sound and picture")
    shared = sorted(set.intersection(*[set(clean[name].items.tolist()) for name in streams]))
    if not shared:
        raise ValueError(
            f"no clip answers for all of {list(streams)}; retrieval needs clips that have sound and picture"
        )
    rows = {name: np.searchsorted(clean[name].items, shared) for name in streams}
    return {name: clean[name].embedding[rows[name]] for name in streams}, np.array(shared)


def _truth(items: Sequence[Item], targets: Mapping[str, int]) -> Bool[np.ndarray, "clips classes"]:
    truth = np.zeros((len(items), len(targets)), bool)
    for row, item in zip(truth, items, strict=True):
        row[[targets[label] for label in item.labels]] = True
    return truth


def _average_precisions(
    scores: Float[np.ndarray, "clips classes"], truth: Bool[np.ndarray, "clips classes"], names: Sequence[str]
) -> dict[str, dict[str, float]]:
    return {
        names[i]: {
            "average_precision": float(average_precision_score(truth[:, i], scores[:, i])),
            "clips": int(truth[:, i].sum()),
        }
        for i in np.flatnonzero(truth.any(0))
    }


def _mean_of_groups(correct: Bool[np.ndarray, " clips"], groups: np.ndarray) -> float:
    return float(np.mean([correct[groups == name].mean() for name in np.unique(groups)]))


def _ends(interval: Interval) -> list[float] | None:
    return None if np.isnan(interval.low) else [interval.low, interval.high]


def _curve(points: Sequence[Interval]) -> dict[str, list[float | None]]:
    ends = [_ends(point) or [None, None] for point in points]
    return {
        "values": [p.value for p in points],
        "low": [low for low, _ in ends],
        "high": [high for _, high in ends],
    }
