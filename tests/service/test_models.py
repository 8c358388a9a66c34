"""Which model answers when none is named."""

from pathlib import Path

import pytest

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
