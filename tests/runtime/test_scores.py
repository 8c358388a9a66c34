"""Scores from logits, by arithmetic and by scipy."""

import numpy as np
import pytest
from scipy.special import expit, softmax

from runtime import Scores

LOGITS = np.array([2.0, 0.0, -1.0, -1.0], np.float32)
FAR = np.array([-3e38, -800.0, -40.0, 0.0, 40.0, 800.0, 3e38], np.float32)


def test_labels_that_compete_share_one_probability() -> None:
    votes = Scores.SOFTMAX.votes(LOGITS)
    assert votes is LOGITS, "windows are averaged by their logits"
    np.testing.assert_allclose(
        Scores.SOFTMAX.probabilities(votes), softmax(LOGITS.astype(np.float64)), rtol=1e-12
    )


def test_labels_that_stand_for_themselves_have_a_probability_each() -> None:
    votes = Scores.SIGMOID.votes(LOGITS)
    np.testing.assert_allclose(votes, [1 / (1 + np.exp(-x)) for x in (2.0, 0.0, -1.0, -1.0)], rtol=1e-12)
    assert Scores.SIGMOID.probabilities(votes) is votes, "they are averaged as they are"
    assert votes.sum() > 1


@pytest.mark.parametrize("scores", list(Scores))
def test_logits_however_far_out_give_probabilities_in_their_order(scores: Scores) -> None:
    found = scores.probabilities(scores.votes(FAR))
    assert found.dtype == np.float64
    assert ((found >= 0) & (found <= 1)).all()
    assert (np.diff(found) >= 0).all()


def test_small_probabilities_are_told_apart() -> None:
    np.testing.assert_allclose(Scores.SIGMOID.votes(FAR), expit(FAR.astype(np.float64)), rtol=1e-12)
    assert Scores.SIGMOID.votes(FAR)[2] > 0


def test_scores_of_another_kind_fail() -> None:
    with pytest.raises(ValueError, match="'tanh' is not a valid Scores"):
        Scores("tanh")
