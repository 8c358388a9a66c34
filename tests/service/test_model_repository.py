"""Which model answers when none is named, and on which provider it must run."""

import logging
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from media import Modality
from runtime.errors import InvalidOption, ProviderUnavailable
from service.errors import ServiceError
from service.model_repository import PROJECT_MODEL, ModelRepository, ServedModel, load_models
from service.settings import Settings

ROOT = Path(__file__).parents[2]


def _repository(ids: list[str], default_model: str | None = None) -> ModelRepository:
    """Of models that are nothing but names and versions."""
    models: list[Any] = []
    for id_ in ids:
        name, _, version = id_.partition("/")
        models.append(SimpleNamespace(bundle=SimpleNamespace(name=name, version=version or "1")))
    return ModelRepository([ServedModel(x, x) for x in models], default_model=default_model)


def _id(models: ModelRepository, model_id: str | None) -> str:
    bundle = models.get(model_id).bundle
    return f"{bundle.name}/{bundle.version}"


def test_the_projects_own_bundle_answers_wherever_it_stands() -> None:
    assert _id(_repository(["cats", PROJECT_MODEL]), None) == f"{PROJECT_MODEL}/1"
    assert _id(_repository(["cats", "dogs"]), None) == "cats/1"
    assert _id(_repository(["cats", PROJECT_MODEL], default_model="cats/1"), None) == "cats/1"
    assert (ROOT / "bundles" / PROJECT_MODEL).is_dir()


def test_the_newest_version_answers_to_the_name() -> None:
    models = _repository(["one/1", "one/2", "two/1"])
    assert _id(models, None) == _id(models, "one") == "one/2"
    assert _id(models, "one/1") == "one/1"
    assert [f"{x.bundle.name}/{x.bundle.version}" for x in models.all()] == ["one/1", "one/2", "two/1"]


def test_an_unknown_default_fails() -> None:
    with pytest.raises(ServiceError, match="no model 'mice'"):
        _repository(["cats"], default_model="mice")


def _load(bundle: Path, **settings: object) -> ModelRepository:
    return load_models(Settings(bundles=bundle.parents[1], **settings))


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
    with pytest.raises(InvalidOption, match="engine cache '.*'; ask for one of"):
        _load(bundle, engine_cache=tmp_path)


def test_options_reach_their_provider(bundle: Path) -> None:
    options = {"device_id": "1", "trt_builder_optimization_level": "3"}
    models = _load(
        bundle,
        providers=("TensorrtExecutionProvider", "CPUExecutionProvider"),
        allow_fallback=True,
        provider_options={"TensorrtExecutionProvider": options},
    )
    opened = models.get(None)._options
    assert opened.providers == ["TensorrtExecutionProvider", "CPUExecutionProvider"]
    assert opened.of_provider("TensorrtExecutionProvider") == options
    assert opened.of_provider("CPUExecutionProvider") == {}


def test_options_of_a_provider_that_is_not_in_use_fail(bundle: Path) -> None:
    with pytest.raises(InvalidOption, match="provider_options has 'CUDAExecutionProvider'; give options"):
        _load(bundle, provider_options={"CUDAExecutionProvider": {"device_id": "0"}})
