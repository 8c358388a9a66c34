"""Providers as they really run, threads, and calls at the same time."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest

from media import Modality
from runtime import Zorro
from runtime.errors import InvalidOption, ProviderUnavailable

CPU, CUDA = "CPUExecutionProvider", "CUDAExecutionProvider"


@pytest.fixture
def cuda_in_name_only(monkeypatch: pytest.MonkeyPatch) -> None:
    """As onnxruntime-gpu without a GPU: it lists CUDA, and opens on the CPU without a word."""
    real = onnxruntime.InferenceSession
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: [CUDA, CPU])
    monkeypatch.setattr(
        onnxruntime, "InferenceSession", lambda path, options, **_: real(path, options, providers=[CPU])
    )


@pytest.mark.parametrize("providers", [[], ["CUDAExecutionProvidr"], CPU])
def test_providers_that_are_no_names_fail(providers: Any, bundle: Path) -> None:
    with pytest.raises(InvalidOption, match="give a list of names among"):
        Zorro.open(bundle, providers=providers, allow_fallback=True)


def test_a_provider_that_is_not_built_in_fails_at_once(bundle: Path) -> None:
    with pytest.raises(ProviderUnavailable, match=r"has no \['CUDAExecutionProvider'\], .* allow a fallback"):
        Zorro.open(bundle, providers=[CUDA, CPU])


def test_a_fallback_that_is_allowed_is_reported_as_what_it_is(bundle: Path) -> None:
    model = Zorro.open(bundle, providers=[CUDA], allow_fallback=True)
    model.session(Modality.AUDIO)
    assert model.providers == {"audio": [CPU]}


@pytest.mark.usefixtures("cuda_in_name_only")
def test_a_silent_fallback_fails(bundle: Path) -> None:
    with pytest.raises(
        ProviderUnavailable, match=r"asked for \['CUDAExecutionProvider'\], got \['CPUExecutionProvider'\]"
    ):
        Zorro.open(bundle, providers=[CUDA]).session(Modality.AUDIO)


@pytest.mark.usefixtures("cuda_in_name_only")
def test_a_silent_fallback_that_is_allowed_is_told(bundle: Path) -> None:
    model = Zorro.open(bundle, providers=[CUDA], allow_fallback=True)
    assert model.session(Modality.VIDEO).providers == [CPU]


def test_a_provider_that_breaks_on_opening_fails(bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object, **options: object) -> None:
        assert options["enable_fallback"] == 0
        raise RuntimeError("libcudart is missing")

    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: [CUDA, CPU])
    monkeypatch.setattr(onnxruntime, "InferenceSession", broken)
    with pytest.raises(ProviderUnavailable, match="libcudart is missing"):
        Zorro.open(bundle, providers=[CUDA]).session(Modality.AUDIO)


def test_the_number_of_threads_is_honoured(bundle: Path, song: Path) -> None:
    one, default = Zorro.open(bundle, num_threads=1), Zorro.open(bundle)
    assert one.session(Modality.AUDIO)._session.get_session_options().intra_op_num_threads == 1
    a, b = (model.embed(song).whole["audio"].embedding for model in (one, default))
    np.testing.assert_allclose(a, b, atol=1e-5)


def test_less_memory_gives_the_same_answers(bundle: Path, song: Path) -> None:
    low, fast = Zorro.open(bundle, memory="low"), Zorro.open(bundle)
    options = low.session(Modality.AUDIO)._session.get_session_options()
    assert options.get_session_config_entry("session.disable_prepacking") == "1"
    a, b = (model.embed(song).whole["audio"].embedding for model in (low, fast))
    np.testing.assert_allclose(a, b, atol=1e-5)
    with pytest.raises(InvalidOption, match="fast, low"):
        Zorro.open(bundle, memory="tiny")


@pytest.mark.parametrize("num_threads", [0, -1])
def test_a_number_of_threads_that_is_none_fails(num_threads: int, bundle: Path) -> None:
    with pytest.raises(InvalidOption, match="at least 1"):
        Zorro.open(bundle, num_threads=num_threads)


def test_calls_at_the_same_time_get_the_answers_of_calls_one_by_one(
    bundle: Path, film: Path, song: Path
) -> None:
    model = Zorro.open(bundle)
    with ThreadPoolExecutor(4) as pool:
        together = list(pool.map(model.classify, [film, song] * 4))
    alone = [model.classify(source) for source in (film, song)]
    assert [result.whole for result in together] == [result.whole for result in alone] * 4
    assert model.providers == {"audio": [CPU], "fused": [CPU]}
