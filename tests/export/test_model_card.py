"""A model card's numbers come from the scores, and a mark that cannot be filled is an error."""

import pytest

from export.model_card import fill_card

LABELS = {"dog": {"accuracy": 0.875, "clips": 8}}
SCORES = {"clips": 8, "top1": 0.875, "top5": 1.0, "calibration_error": 0.0321, "labels": LABELS}
MANIFEST = {"training": {"num_steps": 1200}, "model": {"num_parameters": 3_790_000}}


def test_marks_are_filled() -> None:
    template = "# It\n<!-- training -->\n\n<!-- scores -->\n\n<!-- labels -->\n"
    card = fill_card(
        template, metrics={"sounds": SCORES, "pairs_fused": SCORES | {"labels": {}}}, manifest=MANIFEST
    )
    assert "3.8 M parameters, trained for 1,200 steps" in card
    assert "| sounds | 8 | 87.5% | 100.0% | 0.032 |" in card
    assert "| pairs, by both | 8 |" in card
    assert "| dog | 88% of 8 |  |" in card
    assert "<!--" not in card


def test_labels_that_hold_together_have_precisions() -> None:
    scores = {"clips": 9, "map": 0.61, "labels": {"dog": {"average_precision": 0.75, "clips": 4}}}
    card = fill_card(
        "<!-- scores -->\n<!-- labels -->", metrics={"audio": scores, "sounds": SCORES}, manifest=MANIFEST
    )
    assert "| what | clips | top-1 | top-5 | mAP | calibration error |" in card
    assert "| by sound | 9 |  |  | 0.610 |  |" in card
    assert "| dog | 75% of 4 | 88% of 8 |" in card


def test_prose_without_marks_is_left_alone() -> None:
    assert fill_card("just prose", metrics={}, manifest=MANIFEST) == "just prose"


@pytest.mark.parametrize("mark", ["scores", "labels"])
def test_a_mark_without_scores_fails(mark: str) -> None:
    with pytest.raises(ValueError, match="no scores"):
        fill_card(f"<!-- {mark} -->", metrics={}, manifest=MANIFEST)
