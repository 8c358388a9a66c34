"""A clip request is valid, or is not made; and it says which output of a model answers it."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest

from media import Modality
from runtime import Space, Zorro
from runtime.errors import InvalidOption
from service.clip_request import ClipRequest, EmbeddingOptions, LabelOptions


@pytest.fixture(scope="module")
def model(bundle: Path) -> Zorro:
    return Zorro.open(bundle)


def test_labels_are_those_of_the_models_logits(model: Zorro) -> None:
    output = ClipRequest(output=LabelOptions(top_k=3, threshold=0.25)).output_request(model)
    assert output.kind == "logits"
    (result,) = output.to_results(np.log([[0.4, 0.1, 0.3, 0.2]]), Modality.AUDIO)
    assert [label.id for label in result.labels or ()] == ["a", "c"]


@pytest.mark.parametrize(("space", "kind"), [(Space.SHARED, "embedding"), (Space.FEATURES, "features")])
def test_an_embedding_is_of_the_requested_space(space: Space, kind: str, model: Zorro) -> None:
    for normalize, expected in ((True, [0.6, 0.8]), (False, [3.0, 4.0])):
        options = EmbeddingOptions(space=space, normalize=normalize)
        output = ClipRequest(output=options).output_request(model)
        assert output.kind == kind
        (result,) = output.to_results(np.array([[3.0, 4.0]]), Modality.AUDIO)
        np.testing.assert_allclose(result.embedding, expected)


@pytest.mark.parametrize("options", [{"top_k": 0}, {"threshold": 1.5}, {"threshold": float("nan")}])
def test_options_of_labels_that_are_not_allowed_fail(options: dict[str, float]) -> None:
    with pytest.raises(InvalidOption, match="top_k|threshold"):
        LabelOptions(**options)


@pytest.mark.parametrize(
    "modalities", [(), (Modality.VIDEO, Modality.AUDIO), (Modality.AUDIO, Modality.AUDIO)]
)
def test_modalities_are_in_order_each_once(modalities: tuple[Modality, ...]) -> None:
    with pytest.raises(AssertionError, match="modality|in order"):
        ClipRequest(output=LabelOptions(), modalities=modalities)


def test_a_request_stays_as_it_is() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        ClipRequest(output=LabelOptions()).require_all = True  # type: ignore[misc]
