"""What is written about the service is what it does."""

import json
import re
from pathlib import Path

import pytest
from fastapi.testclient import TestClient

from service.app import create_app
from service.clip_form import FIELDS
from service.errors import PROBLEMS
from service.openapi import describe_api
from service.settings import Settings
from service.state import state_of

DOCS = Path(__file__).parents[2] / "docs"


def _rows(page: str) -> list[list[str]]:
    lines = (DOCS / page).read_text().splitlines()
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines if line.startswith("| `")]
    assert rows
    return rows


def test_errors_page_is_the_table_of_codes() -> None:
    assert _rows("errors.md") == [[f"`{code}`", str(p.status), p.title] for code, p in PROBLEMS.items()]


def test_settings_page_names_every_setting_in_order_with_its_meaning() -> None:
    wanted = [(f"`ZORRO_{name.upper()}`", field.description) for name, field in Settings.model_fields.items()]
    assert [(row[0], row[2]) for row in _rows("settings.md")] == wanted


def test_settings_page_has_the_defaults() -> None:
    for (name, field), row in zip(Settings.model_fields.items(), _rows("settings.md"), strict=True):
        if field.default is None:
            assert row[1] == "", name
        else:
            parsed = Settings.__pydantic_validator__.validate_python({name: _from_text(row[1].strip("`"))})
            assert getattr(parsed, name) == field.default


def _from_text(text: str) -> object:
    return json.loads(text) if text.startswith(("[", "{")) else text


def test_committed_openapi_is_the_apps() -> None:
    assert (DOCS / "openapi.json").read_text() == describe_api(), (
        "run: python -m service.openapi > docs/openapi.json"
    )


def test_api_page_has_every_route_and_option() -> None:
    page = (DOCS / "api.md").read_text()
    for path, methods in create_app(Settings()).openapi()["paths"].items():
        for method in methods:
            assert f"`{method.upper()} {path}`" in page
    options = {name for row in _rows("api.md") for name in re.findall(r"`([a-z_.]+)`", row[0])}
    assert options == {field.name for fields in FIELDS.values() for field in fields}


def test_operating_page_has_every_metric_with_its_labels(tmp_path: Path) -> None:
    app = create_app(Settings(bundles=tmp_path, temporary_dir=tmp_path, windows_dir=tmp_path))
    with TestClient(app) as client:
        client.get("/livez")
        client.get("/readyz")
        families = {family.name: family for family in state_of(app).metrics.registry.collect()}
    page = {
        row[0].strip("`"): set(re.findall(r"`(\w+)`", row[1]))
        for row in _rows("operating.md")
        if "zorro_" in row[0]
    }
    shown = {f"{name}_total" if family.type == "counter" else name for name, family in families.items()}
    assert page.keys() == shown
    for name, labels in page.items():
        used = {
            label for sample in families[name.removesuffix("_total")].samples for label in sample.labels
        } - {"le"}
        assert used <= labels


@pytest.mark.parametrize(("variable", "value"), [("ZORRO_PORT", "99999"), ("ZORRO_MAX_BODY_BYTES", "0")])
def test_an_invalid_setting_fails(variable: str, value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(variable, value)
    with pytest.raises(ValueError, match=variable.removeprefix("ZORRO_").lower()):
        Settings()
