"""The cost of a batch is found again, on clean and on noisy measurements, and never gets negative."""

import numpy as np
import pytest

from service.cost_model import CostModel


def test_a_line_is_found() -> None:
    cost = CostModel()
    for n in (1, 4, 8, 2, 8, 1, 3):
        cost.observe(n, 0.01 * n + 0.005)
    assert cost.line == pytest.approx((0.01, 0.005), rel=0.01)
    assert cost.seconds(20, max_batch_size=8) == pytest.approx(20 * 0.01 + 3 * 0.005, rel=0.01)


def test_a_machine_that_slows_down_is_followed() -> None:
    cost, random = CostModel(), np.random.default_rng(0)
    for factor in (1, 3):
        for n in random.integers(1, 9, 200):
            cost.observe(int(n), factor * (0.01 * n + 0.005) * random.uniform(0.9, 1.1))
    assert cost.line == pytest.approx((0.03, 0.015), rel=0.2)


def test_batches_of_one_size_cost_what_they_cost() -> None:
    cost = CostModel()
    cost.observe(4, 0.4)
    cost.observe(4, 0.4)
    assert cost.seconds(4, max_batch_size=8) == pytest.approx(0.4)
    assert cost.seconds(8, max_batch_size=8) == pytest.approx(0.8)


def test_it_is_never_negative() -> None:
    cost = CostModel()
    for n, seconds in ((1, 0.9), (8, 0.1), (8, 0.1), (1, 0.0)):
        cost.observe(n, seconds)
        assert min(cost.line) >= 0


def test_it_knows_nothing_before_the_first_batch() -> None:
    assert CostModel().seconds(5, max_batch_size=2) == 0
