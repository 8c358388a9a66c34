"""Agreement by hand: the largest error, the smallest cosine, the share of equal best labels.

NaN never passes.
"""

import numpy as np
import pytest

from runtime.agreement import Agreement, max_abs_error, min_cosine, same_top1

NAN = float("nan")


def _array(*rows: list[float]) -> np.ndarray:
    return np.array(rows)


def test_measures_by_hand() -> None:
    assert max_abs_error(_array([1.0, 2.0]), _array([0.5, 2.25])) == 0.5
    assert min_cosine(_array([0.6, 0.8], [1.0, 0.0]), _array([0.8, 0.6], [1.0, 0.0])) == pytest.approx(0.96)
    assert same_top1(_array([0.1, 0.9], [0.9, 0.1]), _array([0.4, 0.6], [0.4, 0.6])).tolist() == [True, False]


def test_measures_keep_nan() -> None:
    assert np.isnan(max_abs_error(_array([NAN, 2.0]), _array([9.0, 2.0])))
    assert np.isnan(min_cosine(_array([1.0, 0.0], [NAN, 0.0]), _array([1.0, 0.0], [1.0, 0.0])))


def test_the_worst_of_all_is_kept() -> None:
    agreement = Agreement()
    agreement.add_values(_array([1.0]), _array([0.75]))
    agreement.add_values(_array([1.0]), _array([1.125]))
    agreement.add_cosines(_array([0.6, 0.8]), _array([0.8, 0.6]))
    agreement.add_cosines(_array([1.0, 0.0]), _array([1.0, 0.0]))
    agreement.add_top1(_array([0.1, 0.9], [0.9, 0.1]), _array([0.4, 0.6], [0.4, 0.6]))
    agreement.add_top1(_array([0.9, 0.1]), _array([0.6, 0.4]))
    assert agreement.max_abs_error == 0.25
    assert agreement.min_cosine == pytest.approx(0.96)
    assert agreement.top1_agreement == 2 / 3


def test_nan_counts_as_the_worst() -> None:
    agreement = Agreement()
    agreement.add_values(_array([NAN, 0.0]), _array([1.0, 0.0]))
    agreement.add_values(_array([1.0, 0.0]), _array([1.0, 0.0]))
    agreement.add_cosines(_array([NAN, 0.0]), _array([1.0, 0.0]))
    agreement.add_cosines(_array([1.0, 0.0]), _array([1.0, 0.0]))
    assert (agreement.max_abs_error, agreement.min_cosine) == (np.inf, -1.0)
