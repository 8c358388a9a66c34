"""Segmentation: each way to say it is honoured or rejected."""

from typing import Any

import pytest

from service.errors import ServiceError
from service.options import CLASSIFY, parse_options, resolve_segmentation


def _resolve(**fields: str) -> dict[str, Any]:
    named = {name.replace("__", "."): value for name, value in fields.items()}
    return resolve_segmentation(parse_options(named, CLASSIFY), window_seconds=2.0)


def test_nothing_said_changes_nothing() -> None:
    assert _resolve(top_k="3") == {"top_k": 3}


def test_overlap_is_a_stride() -> None:
    assert _resolve(segmentation__overlap_sec="0.5") == {"stride_sec": 1.5}
    assert _resolve(segmentation__strategy="fixed", segmentation__overlap_sec="0") == {"stride_sec": 2.0}


def test_the_models_own_duration_is_fine() -> None:
    assert _resolve(segmentation__duration_sec="2.0") == {}


def test_no_segments_is_the_whole() -> None:
    assert _resolve(segmentation__strategy="none") == {"scope": "asset"}
    assert _resolve(segmentation__strategy="none", scope="asset") == {"scope": "asset"}


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
        _resolve(**fields)
