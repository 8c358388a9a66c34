"""The form of a clip request: each field is honoured or refused, and segmentation is resolved for the
model."""

from types import SimpleNamespace
from typing import Any

import pytest

from media import Modality
from media.errors import InvalidSpan
from media.time_range import MIN_STRIDE_SECONDS, TimeRange
from runtime import Space
from service.clip_form import ClipForm
from service.clip_request import ClipRequest, ClipTask, EmbeddingOptions, Encoding, LabelOptions, Scope
from service.errors import ServiceError
from service.model_repository import ModelRepository, ServedModel

MODEL: Any = SimpleNamespace(
    bundle=SimpleNamespace(name="fake", version="1", clip_spec=SimpleNamespace(window_seconds=2.0))
)
MODELS = ModelRepository([ServedModel(MODEL, MODEL)])
CLASSIFY, EMBED = ClipForm(ClipTask.CLASSIFY, None), ClipForm(ClipTask.EMBED, None)
DEFAULT = ClipRequest(output=LabelOptions())


def _read(form: ClipForm = CLASSIFY, **fields: str) -> ClipRequest:
    named = {name.replace("__", "."): value for name, value in fields.items()}
    model, request = form.read(named, MODELS)
    assert model is MODEL
    return request


def _segments(stride_seconds: float) -> ClipRequest:
    return ClipRequest(output=LabelOptions(), time_range=TimeRange(stride_seconds=stride_seconds))


def test_fields_that_are_not_sent_have_their_defaults() -> None:
    assert _read() == DEFAULT
    assert _read(top_k="3") == ClipRequest(output=LabelOptions(top_k=3))
    assert _read(EMBED) == ClipRequest(output=EmbeddingOptions())


def test_every_field_is_honoured() -> None:
    common = {
        "model": "fake/1",
        "modalities": "video, audio",
        "start_sec": "1",
        "end_sec": "9",
        "scope": "asset",
    }
    expected = {
        "modalities": (Modality.AUDIO, Modality.VIDEO),
        "require_all": True,
        "time_range": TimeRange(start_seconds=1.0, end_seconds=9.0, stride_seconds=0.5),
        "scope": Scope.ASSET,
    }
    labels = _read(**common, stride_sec="0.5", top_k="2", threshold="0.5")
    assert labels == ClipRequest(output=LabelOptions(top_k=2, threshold=0.5), **expected)
    vectors = _read(
        EMBED, **common, stride_sec="0.5", space="features", normalize="False", encoding_format="base64"
    )
    options = EmbeddingOptions(space=Space.FEATURES, normalize=False, encoding=Encoding.BASE64)
    assert vectors == ClipRequest(output=options, **expected)


def test_the_modality_of_a_route_must_be_in_the_clip_unless_missing_ones_are_skipped() -> None:
    form = ClipForm(ClipTask.CLASSIFY, Modality.FUSED)
    assert _read(form) == ClipRequest(output=LabelOptions(), modalities=(Modality.FUSED,), require_all=True)
    assert not _read(form, on_missing_modality="skip").require_all
    assert not _read(on_missing_modality="error").require_all, "all that the clip has are requested"
    with pytest.raises(ServiceError, match="unknown 'modalities'"):
        _read(form, modalities="audio")


def test_overlap_is_a_stride() -> None:
    assert _read(segmentation__overlap_sec="0.5") == _segments(1.5)
    assert _read(segmentation__strategy="fixed", segmentation__overlap_sec="0") == _segments(2.0)


def test_the_models_own_duration_is_fine() -> None:
    assert _read(segmentation__duration_sec="2.0") == DEFAULT


def test_no_segments_is_the_whole() -> None:
    whole = ClipRequest(output=LabelOptions(), scope=Scope.ASSET)
    assert _read(segmentation__strategy="none") == whole
    assert _read(segmentation__strategy="none", scope="asset") == whole


def test_the_shortest_stride_is_that_of_media() -> None:
    assert _read(stride_sec=str(MIN_STRIDE_SECONDS)) == _segments(MIN_STRIDE_SECONDS)
    for fields in ({"stride_sec": "0.0099"}, {"segmentation__overlap_sec": "1.9901"}):
        with pytest.raises(ServiceError, match=r"from 0\.01|at most 1\.99"):
            _read(**fields)


@pytest.mark.parametrize(
    "fields",
    [
        {"segmentation__strategy": "scenes"},
        {"segmentation__duration_sec": "5"},
        {"segmentation__duration_sec": "nan"},
        {"segmentation__overlap_sec": "2"},
        {"segmentation__overlap_sec": "-1"},
        {"segmentation__overlap_sec": "1", "stride_sec": "1"},
        {"segmentation__strategy": "none", "segmentation__overlap_sec": "1"},
        {"segmentation__strategy": "none", "segmentation__duration_sec": "2"},
        {"segmentation__strategy": "none", "scope": "clip"},
    ],
)
def test_segmentation_that_cannot_be_honoured_fails(fields: dict[str, str]) -> None:
    with pytest.raises(ServiceError, match=r"segmentation|scope"):
        _read(**fields)


def test_values_that_are_not_allowed_are_refused_before_the_model_is_looked_for() -> None:
    with pytest.raises(ServiceError, match="top_k='0'; give a whole number from 1"):
        _read(model="nope", top_k="0")
    with pytest.raises(ServiceError, match="no model 'nope'"):
        _read(model="nope")
    with pytest.raises(InvalidSpan, match="must be a time after"):
        _read(start_sec="2", end_sec="1")
