"""Agreement by hand, and limits that follow from those of export."""

from collections.abc import Sequence

import numpy as np
import pytest

from export.variants import TOLERANCES
from runtime.agreement import Agreement
from verification.proof_requests import RequestOutput
from verification.stream_agreement import (
    MAX_POINTS,
    MAX_SCORE_ERROR,
    StreamAgreement,
    limits_of,
    same_graph_limits,
)


def _output(*rows: Sequence[float], vector: Sequence[float] = (1.0, 0.0)) -> RequestOutput:
    return RequestOutput(np.array(rows), np.array([vector] * len(rows)))


def test_agreement_by_hand() -> None:
    agreement = StreamAgreement()
    agreement.add(
        _output([0.6, 0.4], [0.6, 0.4], vector=(0.6, 0.8)),
        _output([0.7, 0.3], [0.5, 0.5], vector=(0.8, 0.6)),
        {0},
    )
    agreement.add(_output([0.4, 0.6], [0.4, 0.6]), _output([0.51, 0.49], [0.4, 0.6]), {0})
    assert agreement.figures() == pytest.approx(
        {
            "clips": 2,
            "windows": 2,
            "max_score_error": 0.11,
            "max_embedding_error": 0.2,
            "min_cosine": 0.96,
            "top1_agreement": 0.5,
            "top1": 0.5,
            "top1_wanted": 1.0,
            "top1_points": 50.0,
        }
    )


def test_agreement_of_clips_without_labels_has_no_accuracy() -> None:
    agreement = StreamAgreement()
    agreement.add(_output([1.0, 0.0]), _output([1.0, 0.0]), set())
    assert not any(name in agreement.figures() for name in ("top1", "top1_wanted", "top1_points"))
    assert agreement.excess(limits_of("fp32")) is None


@pytest.mark.parametrize(
    ("got", "said"),
    [
        (_output([np.nan, np.nan]), "max_score_error is inf"),
        (_output([0.9, 0.1], vector=(np.nan, 0.0)), "min_cosine is -1"),
        (_output([0.9, 0.1], vector=(0.9, 0.43589)), "min_cosine is 0.9"),
        (_output([0.8, 0.2]), "max_score_error is 0.1"),
    ],
)
def test_excess_is_told(got: RequestOutput, said: str) -> None:
    agreement = StreamAgreement()
    agreement.add(got, _output([0.9, 0.1]), {0})
    assert said in str(agreement.excess(limits_of("fp16")))


@pytest.mark.parametrize(
    ("clips", "lost", "fits"), [(3, 1, True), (3, 2, False), (400, 2, True), (400, 3, False)]
)
def test_one_clip_or_half_a_point_of_accuracy_may_be_lost(clips: int, lost: int, fits: bool) -> None:
    agreement = StreamAgreement(
        clips=clips,
        scores=Agreement(num_compared=clips, num_same_top1=clips),
        hits=[(i >= lost, True) for i in range(clips)],
    )
    assert (agreement.excess({"top1_points": MAX_POINTS}) is None) == fits


def test_disagreement_is_told() -> None:
    agreement = StreamAgreement(clips=100, scores=Agreement(num_compared=100, num_same_top1=98))
    assert agreement.excess(limits_of("int8-cpu")) is None
    assert agreement.excess(limits_of("fp16")) == "top1_agreement is 0.98, the limit is 0.99"


def test_scores_move_by_at_most_half_of_what_logits_do() -> None:
    """The reason for the limit of scores; two labels, far apart from all others, come close to it."""
    random = np.random.default_rng(0)
    logits, moved = random.normal(size=(2000, 2)) * 0.1, random.choice([-0.05, 0.05], size=(2000, 2))
    before, after = (np.exp(x) / np.exp(x).sum(1, keepdims=True) for x in (logits, logits + moved))
    worst = np.abs(after - before).max()
    assert 0.9 * 0.025 < worst <= 0.025 == limits_of("fp16")["max_score_error"]


def test_limits_are_those_of_export() -> None:
    for name, tolerance in TOLERANCES.items():
        limits = limits_of(name)
        assert (limits["min_cosine"], limits["top1_agreement"]) == (
            tolerance.min_cosine,
            tolerance.min_top1_agreement,
        )
    assert limits_of("fp32")["max_score_error"] == 5e-5
    assert limits_of("int8-qdq")["max_score_error"] == MAX_SCORE_ERROR


def test_the_same_graph_is_held_to_less() -> None:
    assert set(same_graph_limits("fp32").values()) == {1e-5}
    limits = same_graph_limits("fp16")
    assert limits["max_score_error"] == pytest.approx(0.0025)
    angle = np.arccos(0.9999)
    assert limits["max_embedding_error"] == pytest.approx(0.1 * np.hypot(1 - np.cos(angle), np.sin(angle)))
