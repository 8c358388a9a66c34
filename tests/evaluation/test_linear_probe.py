"""Linear probe: it finds what is linear, chooses on validation alone, and nothing else."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest

from datasets.manifests import Item
from evaluation.linear_probe import LabelledFeatures, fit_probe, linear_probe
from evaluation.scorer import Scorer, ScoringPlan

NAMES = ("left low", "left high", "right low", "right high")


def _labelled(features: np.ndarray, labels: list[tuple[str, ...]], **scoring: object) -> LabelledFeatures:
    """Every clip is a file; the names of the labels that there are at all are the classes."""
    items = [Item(Path(f"{i}.mp4"), "both", of_clip, "x") for i, of_clip in enumerate(labels)]
    names = sorted(scoring.pop("names", None) or {name for of_clip in labels for name in of_clip})
    plan = ScoringPlan(**{"num_resamples": 50} | scoring)
    scorer = Scorer(items, {name: i for i, name in enumerate(names)}, plan)
    return LabelledFeatures(features=features, items=np.arange(len(items)), scorer=scorer)


def _points(count: int, seed: int, *, noise: float = 0.0) -> tuple[np.ndarray, np.ndarray]:
    """Four classes by the signs of two of twenty features, of very different size."""
    random = np.random.default_rng(seed)
    x = random.normal(size=(count, 20))
    x[:, :2] += 0.5 * np.sign(x[:, :2])
    targets = (x[:, 0] > 0) * 2 + (x[:, 1] > 0)
    flipped = random.random(count) < noise
    targets = np.where(flipped, random.integers(4, size=count), targets)
    return x * np.logspace(-3, 3, 20) + 5, targets


def _split(
    count: int, seed: int, *, noise: float = 0.0, groups: Mapping[str, str] | None = None
) -> LabelledFeatures:
    features, targets = _points(count, seed, noise=noise)
    return _labelled(features, [(NAMES[t],) for t in targets], names=NAMES, groups=groups)


def _sides(count: int, seed: int) -> LabelledFeatures:
    """The same points; each has a label for the sign of either feature, and all have one more."""
    features, targets = _points(count, seed)
    return _labelled(features, [("point", *NAMES[t].split()) for t in targets], multi_label=True)


def test_a_linear_rule_is_found() -> None:
    found = linear_probe(_split(400, 0), _split(100, 1), _split(200, 2))
    assert found["top1"] > 0.93
    assert found["clips"] == 200
    assert found["converged"]
    assert found["top1_interval"][0] <= found["top1"] <= found["top1_interval"][1]


def test_labels_without_a_rule_are_not() -> None:
    assert linear_probe(*(_split(300, seed, noise=1.0) for seed in range(3)))["top1"] == pytest.approx(
        0.25, abs=0.1
    )


def test_within_a_group_only_its_labels_compete() -> None:
    groups = {name: name.split()[0] for name in NAMES}
    found = linear_probe(
        _split(300, 0, groups=groups), _split(100, 1, groups=groups), _split(100, 2, groups=groups)
    )
    assert found["groups"].keys() == {"left", "right"}
    assert found["within_groups"] >= found["top1"] > 0.9


def test_each_of_many_labels_has_its_rule() -> None:
    found = linear_probe(_sides(300, 0), _sides(100, 1), _sides(100, 2))
    precisions = {name: label["average_precision"] for name, label in found["labels"].items()}
    assert precisions.pop("point") == 1.0, "of all clips, so there was nothing to fit"
    assert min(precisions.values()) > 0.97
    assert found["map_interval"][0] <= found["map"] <= found["map_interval"][1]


def test_a_label_that_is_not_there_to_fit_scores_nothing() -> None:
    features, targets = _points(100, 0)
    train = _labelled(features[targets < 3], [(NAMES[t],) for t in targets[targets < 3]], names=NAMES)
    scores = fit_probe(train, train).predict(features)
    assert not scores[:, sorted(NAMES).index(NAMES[3])].any()
    assert scores.sum(1) == pytest.approx(1)


def test_the_strength_is_chosen_on_validation() -> None:
    train, val, test = _split(40, 0, noise=0.5), _split(300, 1), _split(300, 2)
    found = linear_probe(train, val, test, strengths=(100.0, 0.01))
    assert found["val"]["0.01"] != found["val"]["100"]
    assert found["c"] == max((0.01, 100.0), key=lambda c: found["val"][f"{c:g}"])
    alone = linear_probe(train, val, test, strengths=(found["c"],))
    assert alone["top1"] == found["top1"]


def test_of_equal_strengths_the_smallest_is_taken() -> None:
    train = _labelled(np.array([[-5.0], [-4], [4], [5]]), [("a",), ("a",), ("b",), ("b",)])
    assert linear_probe(train, train, train, strengths=(10, 0.1, 1))["c"] == 0.1


def test_probe_fails() -> None:
    one = _labelled(np.ones((3, 2)), [("a",)] * 3)
    with pytest.raises(ValueError, match="one class"):
        linear_probe(one, one, one)
    all_hold = _labelled(np.ones((3, 2)), [("a", "b")] * 3, multi_label=True)
    with pytest.raises(ValueError, match="nothing to tell apart"):
        fit_probe(all_hold, all_hold)
    with pytest.raises(ValueError, match="no strengths"):
        linear_probe(one, one, one, strengths=())
    with pytest.raises(ValueError, match="got 3 features and 2 clips"):
        LabelledFeatures(features=np.ones((3, 2)), items=np.arange(2), scorer=one.scorer)
    with pytest.raises(ValueError, match="got 0 features"):
        LabelledFeatures(features=np.ones((0, 2)), items=np.arange(0), scorer=one.scorer)
