"""Linear probe: it finds what is linear, chooses on validation alone, and nothing else."""

import numpy as np
import pytest

from training.probe import Labelled, linear_probe


def _split(count: int, seed: int, *, noise: float = 0.0) -> Labelled:
    """Four classes by the signs of two of twenty features, of very different size."""
    random = np.random.default_rng(seed)
    x = random.normal(size=(count, 20))
    x[:, :2] += 0.5 * np.sign(x[:, :2])
    targets = (x[:, 0] > 0) * 2 + (x[:, 1] > 0)
    flipped = random.random(count) < noise
    targets = np.where(flipped, random.integers(4, size=count), targets)
    return Labelled(features=x * np.logspace(-3, 3, 20) + 5, targets=targets)


def test_a_linear_rule_is_found() -> None:
    found = linear_probe(_split(400, 0), _split(100, 1), _split(200, 2), num_resamples=50)
    assert found["top1"] > 0.93
    assert found["clips"] == 200
    assert found["converged"]
    assert found["top1_interval"][0] <= found["top1"] <= found["top1_interval"][1]


def test_labels_without_a_rule_are_not() -> None:
    random = np.random.default_rng(0)
    train, val, test = (_split(300, seed) for seed in range(3))
    noise = [Labelled(features=x.features, targets=random.integers(4, size=300)) for x in (train, val, test)]
    assert linear_probe(*noise, num_resamples=50)["top1"] == pytest.approx(0.25, abs=0.1)


def test_the_strength_is_chosen_on_validation() -> None:
    train, val, test = _split(40, 0, noise=0.5), _split(300, 1), _split(300, 2)
    found = linear_probe(train, val, test, strengths=(100.0, 0.01), num_resamples=50)
    assert found["val_top1"]["0.01"] != found["val_top1"]["100"]
    assert found["c"] == max((0.01, 100.0), key=lambda c: found["val_top1"][f"{c:g}"])
    alone = linear_probe(train, val, test, strengths=(found["c"],), num_resamples=50)
    assert alone["top1"] == found["top1"]


def test_of_equal_strengths_the_smallest_is_taken() -> None:
    train = Labelled(features=np.array([[-5.0], [-4], [4], [5]]), targets=np.array([0, 0, 1, 1]))
    assert linear_probe(train, train, train, strengths=(10, 0.1, 1), num_resamples=50)["c"] == 0.1


def test_probe_fails() -> None:
    one = Labelled(features=np.ones((3, 2)), targets=np.zeros(3, int))
    with pytest.raises(ValueError, match="one class"):
        linear_probe(one, one, one)
    with pytest.raises(ValueError, match="no strengths"):
        linear_probe(one, one, one, strengths=())
    with pytest.raises(ValueError, match="got 3 features and 2 targets"):
        Labelled(features=np.ones((3, 2)), targets=np.zeros(2, int))
    with pytest.raises(ValueError, match="got 0 features"):
        Labelled(features=np.ones((0, 2)), targets=np.zeros(0, int))
