"""Metrics against arithmetic, scikit-learn and SciPy."""

import numpy as np
import pytest
from scipy.stats import binom, bootstrap

from evaluation.metrics import (
    bootstrap_interval,
    match_ranks,
    mean_average_precision,
    recall_at_k,
    within_group_accuracy,
)


def test_mean_average_precision_against_arithmetic() -> None:
    truth = np.array([[1, 0, 0], [0, 1, 0], [1, 0, 0], [0, 1, 0]])
    scores = np.array([[0.9, 0.1, 0.5], [0.8, 0.9, 0.5], [0.7, 0.8, 0.5], [0.1, 0.2, 0.5]])
    first = (1 / 1 + 2 / 3) / 2  # hits at places 1 and 3
    second = (1 / 1 + 2 / 3) / 2  # 0.9 hit, 0.8 miss, 0.2 hit
    assert mean_average_precision(scores, truth) == pytest.approx(
        (first + second) / 2
    )  # the third never occurs


def test_mean_average_precision_does_not_reward_saying_one_thing() -> None:
    truth = np.array([[1], [0], [0], [0]], bool)
    assert mean_average_precision(np.ones((4, 1)), truth) == 0.25


def test_mean_average_precision_fails() -> None:
    with pytest.raises(ValueError, match="no label holds for any of 3 clips"):
        mean_average_precision(np.zeros((3, 2)), np.zeros((3, 2), int))
    with pytest.raises(ValueError, match=r"\(3, 2\).*\(3, 1\)"):
        mean_average_precision(np.zeros((3, 2)), np.ones((3, 1), int))
    with pytest.raises(ValueError, match="NaN"):
        mean_average_precision(np.full((3, 1), np.nan), np.array([[1], [0], [1]]))


def test_within_groups_a_label_competes_with_its_own() -> None:
    groups = ["colour", "colour", "digit", "digit", "digit"]
    scores = np.array([[2.0, 1, 9, 9, 9], [2, 1, 0, 0, 0], [9, 9, 1, 3, 2], [9, 9, 5, 5, 0]])
    found = within_group_accuracy(scores, np.array([0, 1, 3, 2]), groups)  # right, wrong, right, a tie: wrong
    assert found.groups["colour"] == {"accuracy": 0.5, "clips": 2, "chance": 0.5}
    assert found.groups["digit"] == {"accuracy": 0.5, "clips": 2, "chance": pytest.approx(1 / 3)}
    assert found.mean == 0.5


def test_within_groups_is_a_mean_over_groups_not_clips() -> None:
    found = within_group_accuracy(
        np.array([[1.0, 0, 0, 0]] * 4), np.array([0, 0, 0, 3]), ["a", "a", "b", "b"]
    )
    assert found.mean == 0.5


def test_within_groups_fails() -> None:
    with pytest.raises(ValueError, match="got 1 groups for 2 classes"):
        within_group_accuracy(np.zeros((1, 2)), np.array([0]), ["a"])
    with pytest.raises(ValueError, match="0 clips"):
        within_group_accuracy(np.zeros((0, 2)), np.zeros(0, int), ["a", "a"])


def test_recall_at_k() -> None:
    near = np.array([[0.9, 0.1, 0.2], [0.8, 0.5, 0.1], [0.9, 0.8, 0.7]])  # ranks 1, 2, 3
    assert match_ranks(near, np.arange(3)).tolist() == [1, 2, 3]
    assert [recall_at_k(near, k) for k in (1, 2, 3)] == pytest.approx([1 / 3, 2 / 3, 1])


def test_recall_of_a_collapsed_space_is_nothing() -> None:
    assert recall_at_k(np.ones((20, 20)), 10) == 0
    assert recall_at_k(1 + 1e-8 * np.eye(20), 1) == 0  # what rounding adds to equals decides nothing


def test_recall_at_k_fails() -> None:
    with pytest.raises(ValueError, match=r"shape \(2, 3\)"):
        recall_at_k(np.ones((2, 3)), 1)
    with pytest.raises(ValueError, match="NaN"):
        recall_at_k(np.full((2, 2), np.nan), 1)


def test_interval_of_a_share_against_the_binomial() -> None:
    """Resampling k hits of n draws the binomial distribution of n draws at k / n."""
    hits = np.arange(200) < 140
    found = bootstrap_interval(np.mean, hits, seed=1, num_resamples=4000)
    assert found.value == 0.7
    assert [found.low, found.high] == pytest.approx(binom(200, 0.7).ppf([0.025, 0.975]) / 200, abs=0.006)


def test_interval_against_scipy() -> None:
    x = np.random.default_rng(0).normal(size=(120, 2)) @ np.array([[1, 0.6], [0, 0.8]])
    ours = bootstrap_interval(
        lambda a, b: float(np.corrcoef(a, b)[0, 1]), x[:, 0], x[:, 1], num_resamples=3000, level=0.8
    )
    theirs = bootstrap(
        (x[:, 0], x[:, 1]),
        lambda a, b: np.corrcoef(a, b)[0, 1],
        paired=True,
        vectorized=False,
        method="percentile",
        n_resamples=3000,
        confidence_level=0.8,
    ).confidence_interval
    assert [ours.low, ours.high] == pytest.approx([theirs.low, theirs.high], abs=0.02)


def test_words_of_one_sentence_are_one_draw() -> None:
    """20 sentences of 10 equal words are 20 draws, not 200: the interval is that of the sentences."""
    sentence = np.arange(20) < 10
    words, unit = np.repeat(sentence, 10), np.repeat([f"sentence {i}" for i in range(20)], 10)
    by_sentence = bootstrap_interval(np.mean, words, unit=unit)
    assert by_sentence == bootstrap_interval(np.mean, sentence)
    by_word = bootstrap_interval(np.mean, words)
    assert by_sentence.high - by_sentence.low > 2.5 * (by_word.high - by_word.low)


def test_interval_fails() -> None:
    with pytest.raises(ValueError, match=r"\[3, 2\] rows"):
        bootstrap_interval(np.mean, np.ones(3), np.ones(2))
    with pytest.raises(ValueError, match=r"\[3, 2\] rows"):
        bootstrap_interval(np.mean, np.ones(3), unit=["a", "b"])
    with pytest.raises(ValueError, match="got 1 units"):
        bootstrap_interval(np.mean, np.ones(3), unit=["a", "a", "a"])
    with pytest.raises(ValueError, match="got 0 units"):
        bootstrap_interval(np.mean, np.ones(0))
    with pytest.raises(ValueError, match="level=1"):
        bootstrap_interval(np.mean, np.ones(3), level=1)
