"""Options of sessions are checked when they are made, once for all graphs."""

from typing import Any

import pytest

from runtime.errors import InvalidOption, ProviderUnavailable
from runtime.providers import CPU, CUDA
from runtime.session_options import SessionOptions


def test_by_default_graphs_run_on_the_cpu() -> None:
    options = SessionOptions()
    assert options.available_providers == [CPU]
    assert options.of_provider(CPU) == {}


def test_a_provider_that_is_missing_gives_way_where_a_fallback_is_allowed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("onnxruntime.get_available_providers", lambda: [CPU])
    options = SessionOptions(
        providers=[CUDA], allow_fallback=True, provider_options={CUDA: {"device_id": "1"}}
    )
    assert options.available_providers == [CPU]
    assert options.of_provider(CUDA) == {"device_id": "1"}
    with pytest.raises(ProviderUnavailable, match=CUDA):
        SessionOptions(providers=[CUDA])


@pytest.mark.parametrize(
    ("given", "match"),
    [
        ({"num_threads": 0}, "num_threads=0"),
        ({"providers": ["Abacus"]}, "Abacus"),
        ({"provider_options": {CUDA: {}}}, "which are asked for"),
    ],
)
def test_what_cannot_be_opened_with_fails(given: dict[str, Any], match: str) -> None:
    with pytest.raises(InvalidOption, match=match):
        SessionOptions(**given)
