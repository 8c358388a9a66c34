"""Clients that leave, lie, hurry or come all at once; faults at the start; the end; and no torch.

The engine is a fake.
"""

import asyncio
import logging
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Event
from types import SimpleNamespace
from typing import Any

import httpx2 as httpx
import pytest
from fastapi.testclient import TestClient

from service.app import create_app
from service.batcher import Batcher
from service.decode_pool import DecodePoolStats
from service.model_repository import ModelRepository, ServedModel
from service.routes.page import PAGE
from service.settings import Settings
from service.state import state_of
from tests.service.ready_client import state_behind

pytestmark = pytest.mark.slow

HEAD = b'--b\r\nContent-Disposition: form-data; name="file"; filename="a"\r\n\r\n'
TAIL = b"\r\n--b--\r\n"
HEADERS = {"content-type": "multipart/form-data; boundary=b"}
MODEL: Any = SimpleNamespace(
    bundle=SimpleNamespace(
        clip_spec=SimpleNamespace(window_seconds=1.0), name="fake", version="1", sha256="5", decision=None
    ),
    label_request=lambda **options: options,
    providers={"audio": ["CPUExecutionProvider"]},
    variant=SimpleNamespace(name="fp32"),
)


class Fake:
    """An engine that reads the file when it is let go, and remembers how many bytes it got, and who was
    cancelled."""

    def __init__(self) -> None:
        self.begun, self.go = Event(), Event()
        self.read: list[int] = []
        self.num_cancelled = 0
        self.batcher: Batcher[int] = Batcher()
        self.pool = SimpleNamespace(stats=DecodePoolStats(), num_grown=0)

    async def start(self, models: ModelRepository) -> None:
        self.batcher.add_queue("fake", lambda items: {}, max_batch_size=1, max_queue_size=1)

    async def answer_clip(
        self, model: object, asked: object, path: Path, *, deadline: float
    ) -> SimpleNamespace:
        self.begun.set()
        try:
            await asyncio.to_thread(self.go.wait, 10)
        except asyncio.CancelledError:
            self.num_cancelled += 1
            raise
        self.read.append(path.stat().st_size)
        return SimpleNamespace(decode_seconds=0.001, inference_seconds=0.002)

    async def close(self) -> None:
        self.go.set()


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> Fake:
    fake = Fake()

    models = ModelRepository([ServedModel(MODEL, MODEL)])
    monkeypatch.setattr("service.app.load_models", lambda settings: models)
    monkeypatch.setattr("service.app.InferenceEngine", lambda *_: fake)
    monkeypatch.setattr("service.routes.clips.clip_response_body", lambda *_, **__: {})
    return fake


def _app(tmp_path: Path, **settings: Any) -> Any:
    return create_app(Settings(temporary_dir=tmp_path, windows_dir=tmp_path, **settings))


def _files(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file() and path.name != ".lock"]


def _until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.005)


def _ask(client: TestClient, **headers: str) -> httpx.Response:
    return client.post("/v1/classify", files={"file": b"clip"}, headers=headers)


def _scope() -> dict[str, Any]:
    headers = [(name.encode(), value.encode()) for name, value in HEADERS.items()]
    return {
        "type": "http",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "method": "POST",
        "scheme": "http",
        "path": "/v1/classify",
        "raw_path": b"/v1/classify",
        "query_string": b"",
        "root_path": "",
        "headers": headers,
        "server": ("test", 80),
        "client": ("test", 1),
    }


def _talk(app: Any, receive: Callable[[], Any], after: Callable[[], None]) -> list[int]:
    """Statuses of the answers to one request, whose messages are ours."""
    sent: list[dict[str, Any]] = []

    async def send(message: Any) -> None:
        sent.append(message)

    async def talk() -> None:
        async with app.router.lifespan_context(app):
            await state_of(app).loading
            await app(_scope(), receive, send)
            after()

    asyncio.run(asyncio.wait_for(talk(), 20))
    return [message["status"] for message in sent if message["type"] == "http.response.start"]


@pytest.mark.usefixtures("fake")
def test_a_client_that_leaves_while_sending_leaves_no_file(tmp_path: Path) -> None:
    app = _app(tmp_path)
    messages = [
        {"type": "http.request", "body": HEAD + bytes(1000), "more_body": True},
        {"type": "http.disconnect"},
    ]

    async def receive() -> dict[str, Any]:
        if len(messages) == 1:
            assert len(_files(tmp_path)) == 1
        return messages.pop(0)

    def after() -> None:
        assert _files(tmp_path) == []
        assert state_of(app).clip_admission.num_inside == 0

    assert _talk(app, receive, after) == []


def test_a_client_that_leaves_while_it_is_answered_ends_the_work(fake: Fake, tmp_path: Path) -> None:
    app = _app(tmp_path)
    messages = [{"type": "http.request", "body": HEAD + bytes(1000) + TAIL, "more_body": False}]

    async def receive() -> dict[str, Any]:
        if messages:
            return messages.pop(0)
        await asyncio.to_thread(fake.begun.wait, 10)
        return {"type": "http.disconnect"}

    def after() -> None:
        assert fake.num_cancelled == 1
        assert fake.read == []
        assert _files(tmp_path) == []
        assert state_of(app).clip_admission.num_inside == 0
        assert b"zorro_abandoned_total 1.0" in state_of(app).metrics.text()

    assert _talk(app, receive, after) == []


def test_more_than_may_are_refused_and_the_places_come_back(fake: Fake, tmp_path: Path) -> None:
    with TestClient(_app(tmp_path, max_inside=2)) as client, ThreadPoolExecutor(2) as clients:
        _until(lambda: client.get("/readyz").status_code == 200)
        asked = [clients.submit(_ask, client) for _ in range(2)]
        _until(lambda: state_behind(client).clip_admission.num_inside == 2)
        refused = _ask(client)
        assert (refused.status_code, refused.json()["code"]) == (429, "overloaded")
        assert int(refused.headers["Retry-After"]) >= 1
        assert client.get("/livez").status_code == 200  # the event loop is free
        fake.go.set()
        assert [future.result(10).status_code for future in asked] == [200, 200]
        assert state_behind(client).clip_admission.num_inside == 0
    assert fake.read == [4, 4]
    assert _files(tmp_path) == []


def test_an_answer_that_takes_longer_than_the_client_allows_is_a_504(fake: Fake, tmp_path: Path) -> None:
    with TestClient(_app(tmp_path)) as client:
        _until(lambda: client.get("/readyz").status_code == 200)
        late = _ask(client, **{"X-Request-Timeout-Ms": "50"})
        assert (late.status_code, late.json()["code"]) == (504, "deadline_exceeded")
        assert fake.num_cancelled == 1
        assert _files(tmp_path) == []


@pytest.mark.parametrize("given", ["0", "-5", "nan", "inf", "soon"])
@pytest.mark.usefixtures("fake")
def test_a_timeout_that_is_none_is_refused(given: str, tmp_path: Path) -> None:
    with TestClient(_app(tmp_path)) as client:
        _until(lambda: client.get("/readyz").status_code == 200)
        answer = _ask(client, **{"X-Request-Timeout-Ms": given})
        assert (answer.status_code, answer.json()["code"]) == (400, "invalid_option")


@pytest.mark.usefixtures("fake")
def test_the_operators_timeout_beats_the_clients(tmp_path: Path) -> None:
    with TestClient(_app(tmp_path, request_timeout_seconds=0.05)) as client:
        _until(lambda: client.get("/readyz").status_code == 200)
        assert "within 0.05 s" in _ask(client, **{"X-Request-Timeout-Ms": "60000"}).json()["detail"]


@pytest.mark.usefixtures("fake")
def test_an_announced_length_over_the_limit_is_refused(tmp_path: Path) -> None:
    with TestClient(_app(tmp_path, max_body_bytes=1000)) as client:
        _until(lambda: client.get("/readyz").status_code == 200)
        answer = client.post("/v1/classify", content=b"", headers=HEADERS | {"content-length": "1001"})
        assert (answer.status_code, answer.json()["code"]) == (413, "body_too_large")
        lies = client.post(
            "/v1/classify", content=HEAD + bytes(2000), headers=HEADERS | {"content-length": "5"}
        )
        assert (lies.status_code, lies.json()["code"]) == (413, "body_too_large")


def test_while_draining_it_is_not_ready_and_answers_all_the_same(fake: Fake, tmp_path: Path) -> None:
    with TestClient(_app(tmp_path)) as client:
        _until(lambda: client.get("/readyz").status_code == 200)
        state_behind(client).is_draining = True
        refused = client.get("/readyz")
        assert (refused.status_code, refused.json()["code"]) == (503, "draining")
        assert refused.headers["Retry-After"] == "1"
        fake.go.set()
        assert _ask(client).status_code == 200


def test_a_batch_that_hangs_fails_liveness(fake: Fake, tmp_path: Path) -> None:
    with TestClient(_app(tmp_path, stuck_seconds=1.0)) as client:
        assert client.get("/livez").status_code == 200
        fake.batcher._running[object()] = (time.monotonic() - 2.0, 0.1)  # type: ignore[index]
        assert (client.get("/livez").status_code, client.get("/livez").json()["code"]) == (503, "stuck")
        fake.batcher._running.clear()


def test_metrics_count_requests_times_and_refusals(fake: Fake, tmp_path: Path) -> None:
    fake.go.set()
    with TestClient(_app(tmp_path)) as client:
        _until(lambda: client.get("/readyz").status_code == 200)
        answer = _ask(client)
        assert "decode;dur=1.0, inference;dur=2.0" in answer.headers["Server-Timing"]
        assert client.post("/v1/classify", content=b"x").status_code == 415
        assert client.get("/nowhere/at/all").status_code == 404
        text = client.get("/metrics").text
    assert 'zorro_requests_total{route="/v1/classify",status="200"} 1.0' in text
    assert 'zorro_rejected_total{code="unsupported_content_type"} 1.0' in text
    assert 'zorro_stage_seconds_count{stage="queue"} 1.0' in text
    assert 'zorro_queue_depth{lane="fake"} 0.0' in text
    assert 'provider="CPUExecutionProvider"' in text
    assert "/nowhere" not in text


def test_requests_are_logged_with_their_id(
    fake: Fake, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    fake.go.set()
    with caplog.at_level(logging.INFO, "zorro.access"), TestClient(_app(tmp_path)) as client:
        _until(lambda: client.get("/readyz").status_code == 200)
        _ask(client, **{"X-Request-ID": "mine"})
    lines = [vars(record)["fields"] for record in caplog.records if record.name == "zorro.access"]
    assert any((line["request_id"], line["status"]) == ("mine", 200) for line in lines)


def test_why_models_do_not_load_is_logged_at_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.ERROR), TestClient(_app(tmp_path, bundles=tmp_path)):
        _until(lambda: "no NAME/VERSION" in caplog.text)


def test_the_default_is_the_newest_version() -> None:
    old, new = (SimpleNamespace(bundle=SimpleNamespace(name="one", version=x)) for x in "12")
    models = ModelRepository([ServedModel(old, old), ServedModel(new, new)])
    assert models.get(None) is new
    assert models.get("one/1") is old


def test_the_page_needs_nothing_from_outside() -> None:
    page = PAGE.read_text()
    assert "http://" not in page
    assert "https://" not in page
    assert "src=" not in page


def test_the_service_imports_no_torch() -> None:
    code = (
        "import sys, service.app, service.openapi; "
        "sys.exit(any(m.split('.')[0] == 'torch' for m in sys.modules))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=Path(__file__).parents[2], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
