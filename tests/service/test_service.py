"""The API: answers, every bad input's code, and nothing left behind."""

import base64
import logging
from collections.abc import Iterator
from pathlib import Path
from threading import Event

import numpy as np
import pytest
from fastapi.testclient import TestClient

from runtime import Zorro
from service.app import create_app
from service.errors import PROBLEMS
from service.model_repository import ModelRepository, load_models
from service.settings import Settings
from tests.made_media import jpeg_bytes
from tests.service.ready_client import ready_client

MAX_BODY_BYTES = 300_000


@pytest.fixture(scope="module")
def uploads(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("uploads")


@pytest.fixture(scope="module")
def client(bundle: Path, uploads: Path) -> Iterator[TestClient]:
    settings = Settings(bundles=bundle.parents[1], temporary_dir=uploads, max_body_bytes=MAX_BODY_BYTES)
    with ready_client(create_app(settings)) as client:
        yield client


@pytest.fixture(autouse=True)
def nothing_stays(uploads: Path) -> Iterator[None]:
    yield
    assert [path for path in uploads.rglob("*") if path.is_file() and path.name != ".lock"] == []


def _ask(client: TestClient, route: str, clip: Path | bytes, **fields: str):
    content = clip.read_bytes() if isinstance(clip, Path) else clip
    return client.post(route, files={"file": ("clip", content)}, data=fields)


@pytest.mark.slow
def test_classify_answers_for_all_streams_over_time(client: TestClient, film: Path) -> None:
    answer = _ask(client, "/v1/classify", film, top_k="2").json()
    assert answer["streams"] == {"audio": "answered", "video": "answered", "fused": "answered"}
    assert [(x["index"], x["modality"]) for x in answer["data"][:3]] == [
        (0, "audio"),
        (0, "video"),
        (0, "fused"),
    ]
    assert all(len(x["labels"]) == 2 for x in answer["data"])
    assert answer["data"][-1]["start_sec"] == pytest.approx(1.28)
    assert answer["model_version"] == "1"
    assert answer["timings_ms"].keys() == {"upload", "decode", "queue", "inference", "total"}
    assert answer["media"]["has_audio"]


def test_the_answer_is_the_runtimes(client: TestClient, film: Path, bundle: Path) -> None:
    answer = _ask(client, "/v1/embed/fused", film, scope="asset").json()
    expected = Zorro.open(bundle).embed(film).whole["fused"].embedding
    np.testing.assert_allclose(answer["data"][0]["embedding"], expected, rtol=1e-6)


def test_base64_is_the_same_vector(client: TestClient, song: Path) -> None:
    plain = _ask(client, "/v1/embed/audio", song, scope="asset").json()["data"][0]["embedding"]
    coded = _ask(client, "/v1/embed/audio", song, scope="asset", encoding_format="base64").json()["data"][0][
        "embedding"
    ]
    np.testing.assert_array_equal(np.frombuffer(base64.b64decode(coded), "<f4"), np.array(plain, np.float32))


def test_options_are_honoured(client: TestClient, film: Path, song: Path) -> None:
    answer = _ask(
        client, "/v1/classify", film, start_sec="0.5", end_sec="1.5", stride_sec="0.32", modalities="video"
    ).json()
    assert [x["start_sec"] for x in answer["data"]] == pytest.approx([0.5, 0.82, 1.14])
    assert answer["streams"] == {"audio": "not_requested", "video": "answered", "fused": "not_requested"}
    skipped = _ask(client, "/v1/classify", song, modalities="audio,video", on_missing_modality="skip").json()
    assert skipped["streams"]["video"] == "absent"
    assert _ask(client, "/v1/classify", song, threshold="1", scope="asset").json()["data"][0]["labels"] == []
    assert (
        len(
            _ask(client, "/v1/embed", song, space="features", normalize="false").json()["data"][0][
                "embedding"
            ]
        )
        == 32
    )


def test_a_picture_is_a_clip(client: TestClient) -> None:
    answer = _ask(client, "/v1/classify", jpeg_bytes(np.full((48, 64, 3), 99, np.uint8))).json()
    assert answer["media"]["is_still"]
    assert answer["streams"] == {"audio": "absent", "video": "answered", "fused": "absent"}


def test_models_and_health(client: TestClient) -> None:
    assert client.get("/livez").json() == {"status": "alive"}
    (model,) = client.get("/v1/models").json()["data"]
    assert model["id"] == "small/1"
    assert client.get("/v1/models/small").json() == model
    assert "Drop a video" in client.get("/").text
    assert client.get("/docs").status_code == 200
    assert client.get("/openapi.json").json()["paths"].keys() >= {"/v1/classify", "/v1/embed/audio"}


TEXT = b"just a text file called film.mp4\n" * 50
BAD = {
    "empty": (b"", {}, 422, "empty_media"),
    "text": (TEXT, {}, 415, "unsupported_media"),
    "option unknown": (TEXT, {"colour": "red"}, 400, "invalid_option"),
    "modality unknown": (TEXT, {"modalities": "smell"}, 400, "invalid_option"),
    "model unknown": (TEXT, {"model": "nope"}, 404, "unknown_model"),
    "top_k 0": (TEXT, {"top_k": "0"}, 400, "invalid_option"),
    "top_k huge text": (TEXT, {"top_k": "many"}, 400, "invalid_option"),
    "threshold NaN": (TEXT, {"threshold": "nan"}, 400, "invalid_option"),
    "threshold 2": (TEXT, {"threshold": "2"}, 400, "invalid_option"),
    "start NaN": (TEXT, {"start_sec": "NaN"}, 400, "invalid_option"),
    "start infinite": (TEXT, {"start_sec": "inf"}, 400, "invalid_option"),
    "end 0": (TEXT, {"end_sec": "0"}, 400, "invalid_option"),
    "stride negative": (TEXT, {"stride_sec": "-1"}, 400, "invalid_option"),
    "option long": (TEXT, {"model": "x" * 70_000}, 400, "invalid_option"),
    "body large": (bytes(MAX_BODY_BYTES + 1), {}, 413, "body_too_large"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_input_has_its_code_and_the_next_request_works(name: str, client: TestClient, song: Path) -> None:
    content, fields, status, code = BAD[name]
    answer = _ask(client, "/v1/classify", content, **fields)
    _is_problem(answer, status, code)
    assert _ask(client, "/v1/classify", song).status_code == 200


def test_streams_that_are_not_there(client: TestClient, song: Path, mute_film: Path) -> None:
    _is_problem(_ask(client, "/v1/classify/audio", mute_film), 422, "missing_audio")
    _is_problem(_ask(client, "/v1/embed/video", song), 422, "missing_video")
    _is_problem(_ask(client, "/v1/embed/fused", song), 422, "missing_video")
    _is_problem(_ask(client, "/v1/classify/audio", song, modalities="video"), 400, "invalid_option")


def test_media_errors(client: TestClient, film: Path, song: Path) -> None:
    content = film.read_bytes()
    _is_problem(_ask(client, "/v1/classify", content[: len(content) // 2]), 422, "corrupt_media")
    _is_problem(_ask(client, "/v1/classify", song, start_sec="99"), 400, "invalid_span")


def test_bodies_that_are_no_upload(client: TestClient, song: Path) -> None:
    post = client.post
    _is_problem(post("/v1/classify", content=b"x"), 415, "unsupported_content_type")
    _is_problem(post("/v1/classify", json={"file": "x"}), 415, "unsupported_content_type")
    _is_problem(
        post("/v1/classify", content=b"x", headers={"content-type": "multipart/form-data"}),
        400,
        "invalid_multipart",
    )
    header = {"content-type": "multipart/form-data; boundary=b"}
    for body in (
        b"",
        b"nonsense",
        b'--b\r\nContent-Disposition: form-data; name="file"\r\n\r\nhalf',
        b"--b\r\n\r\nx\r\n--b--\r\n",
    ):
        _is_problem(post("/v1/classify", content=body, headers=header), 400, "invalid_multipart")
    _is_problem(post("/v1/classify", files={"clip": song.read_bytes()}), 400, "missing_file")
    two = [("file", ("a", b"1")), ("file", ("b", b"2"))]
    _is_problem(post("/v1/classify", files=two), 400, "missing_file")
    twice = b'--b\r\nContent-Disposition: form-data; name="top_k"\r\n\r\n1\r\n' * 2 + b"--b--\r\n"
    _is_problem(post("/v1/classify", content=twice, headers=header), 400, "invalid_option")


def test_a_body_without_length_is_counted_too(client: TestClient) -> None:
    def chunks() -> Iterator[bytes]:
        yield b'--b\r\nContent-Disposition: form-data; name="file"; filename="a"\r\n\r\n'
        for _ in range(40):
            yield bytes(10_000)

    header = {"content-type": "multipart/form-data; boundary=b"}
    _is_problem(client.post("/v1/classify", content=chunks(), headers=header), 413, "body_too_large")


def test_routes_that_are_not_there(client: TestClient) -> None:
    _is_problem(client.get("/nope"), 404, "not_found")
    _is_problem(client.get("/v1/classify"), 405, "method_not_allowed")
    _is_problem(client.get("/v1/models/nope"), 404, "unknown_model")


def test_request_ids(client: TestClient, song: Path) -> None:
    assert client.get("/livez", headers={"X-Request-ID": "mine"}).headers["X-Request-ID"] == "mine"
    assert len(client.get("/livez", headers={"X-Request-ID": "x" * 500}).headers["X-Request-ID"]) == 32
    answer = _ask(client, "/v1/classify", song)
    assert answer.json()["request_id"] == answer.headers["X-Request-ID"]


def test_a_fault_of_ours_tells_no_secret(client: TestClient, song: Path, monkeypatch, caplog) -> None:
    def fail(*args: object, **kwargs: object) -> None:
        raise RuntimeError("secret path /etc/zorro")

    monkeypatch.setattr(Zorro, "run", fail)
    with caplog.at_level(logging.CRITICAL):
        answer = _ask(client, "/v1/classify", song)
    _is_problem(answer, 500, "internal_error")
    assert "secret" not in answer.text


@pytest.mark.slow
def test_not_ready_before_the_models_are(bundle: Path, song: Path, monkeypatch) -> None:
    loaded = Event()
    monkeypatch.setattr("service.app.load_models", lambda settings: _load_later(settings, loaded))
    with TestClient(create_app(Settings(bundles=bundle.parents[1]))) as client:
        _is_problem(client.get("/readyz"), 503, "not_ready")
        _is_problem(_ask(client, "/v1/classify", song), 503, "not_ready")
        assert client.get("/readyz").headers["Retry-After"] == "1"
        loaded.set()


def _load_later(settings: Settings, go: Event) -> ModelRepository:
    assert go.wait(10)
    return load_models(settings)


def test_models_that_do_not_load_are_a_fault(tmp_path: Path) -> None:
    with TestClient(create_app(Settings(bundles=tmp_path))) as client:
        for _ in range(1000):
            if client.get("/readyz").status_code == 500:
                break
        _is_problem(client.get("/readyz"), 500, "internal_error")


def _is_problem(answer, status: int, code: str) -> None:
    body = answer.json()
    assert (answer.status_code, body["code"]) == (status, code), body
    assert answer.headers["content-type"] == "application/problem+json"
    assert body.keys() == {"type", "title", "status", "detail", "code", "request_id"}
    assert PROBLEMS[code].status == status
    assert len(body["detail"]) > 20
