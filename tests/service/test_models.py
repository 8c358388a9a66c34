"""Which model answers when none is named, and on which provider it must run."""

import logging
from pathlib import Path

import pytest

from media import Modality
from runtime.errors import InvalidOption, ProviderUnavailable
from service.errors import ServiceError
from service.models import DEFAULT_NAME, Models
from service.settings import Settings

ROOT = Path(__file__).parents[2]


def _models(names: list[str], **settings: object) -> Models:
    models = Models(Settings(**settings))
    models._by_id = {id_: id_ for name in names for id_ in (name, f"{name}/1")}
    return models


def test_the_projects_own_bundle_answers_wherever_it_stands() -> None:
    assert _models(["cats", DEFAULT_NAME]).get(None) == DEFAULT_NAME
    assert _models(["cats", "dogs"]).get(None) == "cats"
    assert _models(["cats", DEFAULT_NAME], default_model="cats/1").get(None) == "cats/1"
    assert (ROOT / "bundles" / DEFAULT_NAME).is_dir()


def test_an_unknown_default_fails() -> None:
    with pytest.raises(ServiceError, match="no model 'mice'"):
        _models(["cats"], default_model="mice").get(None)


def _load(bundle: Path, **settings: object) -> Models:
    models = Models(Settings(bundles=bundle.parents[1], **settings))
    models.load()
    return models


def test_a_provider_that_is_not_here_fails_when_models_are_loaded(bundle: Path) -> None:
    with pytest.raises(
        ProviderUnavailable, match=r"has no \['CUDAExecutionProvider'\], .* or allow a fallback"
    ):
        _load(bundle, providers=("CUDAExecutionProvider",))


def test_a_fallback_that_is_allowed_is_said_and_answers_on_the_cpu(
    bundle: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING, logger="zorro.runtime"):
        models = _load(
            bundle,
            providers=("TensorrtExecutionProvider", "CUDAExecutionProvider"),
            allow_fallback=True,
            engine_cache=tmp_path / "engines",
            engine_context=True,
        )
    assert set(map(tuple, models.get(None).providers.values())) == {("CPUExecutionProvider",)}
    assert [line.partition(":")[0] for line in caplog.messages] == [
        f"{modality}.onnx" for modality in Modality
    ]
    assert not (tmp_path / "engines").exists()


def test_engines_are_built_for_the_largest_batch(bundle: Path, tmp_path: Path) -> None:
    settings = {"providers": ("TensorrtExecutionProvider",), "allow_fallback": True, "engine_cache": tmp_path}
    model = _load(bundle, max_batch_size=3, **settings).get(None)
    assert (model._engines.max_batch_size, model._engines.cache, model._engines.as_context) == (
        3,
        tmp_path,
        False,
    )


def test_engines_of_the_cpu_fail(bundle: Path, tmp_path: Path) -> None:
    with pytest.raises(InvalidOption, match="engine_cache='.*'; ask for one of"):
        _load(bundle, engine_cache=tmp_path)
