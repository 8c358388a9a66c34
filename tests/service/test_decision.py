"""Over HTTP: a model that is sure of nothing says so, and one without a decision answers as ever."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient

from runtime import ClipResult, LabelScore, StreamResult, Zorro
from service.app import create_app
from service.schemas import ClipResponse, ModelDescription, ModelDescriptions
from service.settings import Settings
from tests.deciding_bundle import deciding_bundle
from tests.service.ready_client import ready_client

pytestmark = pytest.mark.slow

DECISION = {"known_labels_only": True, "threshold": {"audio": 0.0, "video": 1.0}}
JOINED: dict[str, dict[str, Any]] = {
    "a": {"label": "Piano", "bridges": ["b"], "mid": "/m/05r5c", "parents": ["instruments"]},
    "b": {"label": "Piano", "bridges": ["a"], "wnid": "n03928116"},
}
SURENESS = {"threshold", "sure", "best_guess"}
LABELS = {"id", "label", "modalities"}


@pytest.fixture(scope="module")
def deciding(sigmoid_bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return deciding_bundle(sigmoid_bundle, tmp_path_factory.mktemp("bundles"), DECISION, **JOINED)


@pytest.fixture(scope="module")
def client(deciding: Path, bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[TestClient]:
    """Of `several`, which decides, and of `small`, which does not."""
    repository = deciding.parents[1]
    (repository / "small").symlink_to(bundle.parent, target_is_directory=True)
    settings = Settings(bundles=repository, temporary_dir=tmp_path_factory.mktemp("uploads"))
    with ready_client(create_app(settings)) as client:
        yield client


@pytest.fixture(scope="module")
def result(deciding: Path, film: Path) -> ClipResult:
    return Zorro.open(deciding).classify(film, top_k=9)


def _ask(client: TestClient, film: Path, route: str = "classify", **fields: str) -> dict[str, dict[str, Any]]:
    """The answers for the whole clip, by modality."""
    form = {"scope": "asset", "top_k": "9", "model": "several"} | fields
    if route == "embed":
        del form["top_k"]
    response = client.post(f"/v1/{route}", files={"file": ("clip", film.read_bytes())}, data=form)
    assert response.status_code == 200, response.text
    ClipResponse.model_validate(response.json())
    return {row["modality"]: row for row in response.json()["data"]}


def _json(label: LabelScore | None) -> Any:
    if label is None:
        return None
    return {"id": label.id, "label": label.label, "score": pytest.approx(label.score)}


def _says(stream: StreamResult) -> dict[str, Any]:
    return {
        "labels": [_json(label) for label in stream.labels or ()],
        "threshold": stream.threshold,
        "sure": stream.is_sure,
        "best_guess": _json(stream.best_guess),
    }


def test_it_answers_as_the_runtime_does(client: TestClient, film: Path, result: ClipResult) -> None:
    rows = _ask(client, film)
    for name, stream in result.whole.items():
        assert {key: rows[name][key] for key in ("labels", *SURENESS)} == _says(stream)
    assert (rows["video"]["labels"], rows["video"]["sure"], rows["video"]["threshold"]) == ([], False, 1.0)
    assert rows["video"]["best_guess"]["id"] in ("b", "c")
    assert {x["id"] for x in rows["audio"]["labels"]} == {"a", "c", "d"}
    assert rows["audio"]["sure"]


def test_the_best_labels_are_had_without_being_sure(client: TestClient, film: Path) -> None:
    rows = _ask(client, film, threshold="0")
    assert {x["id"] for x in rows["video"]["labels"]} == {"b", "c"}
    assert (rows["video"]["sure"], rows["video"]["threshold"]) == (False, 0.0)
    rows = _ask(client, film, threshold="1")
    assert [rows[name]["labels"] for name in ("audio", "video", "fused")] == [[], [], []]


def test_both_together_may_name_one_thing_twice(client: TestClient, film: Path) -> None:
    labels = _ask(client, film)["fused"]["labels"]
    assert {x["id"] for x in labels if x["label"] == "Piano"} == {"a", "b"}


def test_embeddings_and_models_without_a_decision_say_nothing_of_it(client: TestClient, film: Path) -> None:
    for row in _ask(client, film, "embed").values():
        assert not SURENESS & row.keys()
    for row in _ask(client, film, model="small").values():
        assert not SURENESS & row.keys()
        assert len(row["labels"]) == 4


def test_the_models_tell_their_decision(client: TestClient) -> None:
    body = client.get("/v1/models").json()
    several, small = body["data"]
    assert several["decision"] == DECISION
    assert "decision" not in small
    assert all(label.keys() == LABELS for label in several["labels"]), "the list is kept short"
    assert ModelDescriptions.model_validate(body).model_dump(mode="json", exclude_unset=True) == body


def test_one_model_tells_all_of_its_labels(client: TestClient) -> None:
    body = client.get("/v1/models/several").json()
    plain = {x: {"id": x, "label": x.upper()} for x in "cd"}
    assert body["labels"] == [
        {"id": "a", "modalities": ["audio"], **JOINED["a"]},
        {"id": "b", "modalities": ["video"], **JOINED["b"]},
        plain["c"] | {"modalities": ["audio", "video"]},
        plain["d"] | {"modalities": ["audio"]},
    ]
    assert ModelDescription.model_validate(body).model_dump(mode="json", exclude_unset=True) == body
    small = client.get("/v1/models/small").json()
    assert all(label.keys() == LABELS for label in small["labels"])
