"""Clients that leave, lie or come all at once; faults at the start; and no torch. The model is a fake."""

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

from service.app import PAGE, _run, create_app
from service.models import Models
from service.settings import Settings
from service.upload import Upload

HEAD = b'--b\r\nContent-Disposition: form-data; name="file"; filename="a"\r\n\r\n'
HEADERS = {"content-type": "multipart/form-data; boundary=b"}


class Fake:
    """Reads the file when it is let go, and remembers how many bytes it got."""

    def __init__(self) -> None:
        self.begun, self.go = Event(), Event()
        self.read: int | None = None
        self.bundle = SimpleNamespace(clip_spec=SimpleNamespace(window_seconds=1.0))

    def classify(self, file: Any, **_: object) -> SimpleNamespace:
        self.begun.set()
        assert self.go.wait(10)
        self.read = len(file.read())
        return SimpleNamespace(decode_seconds=0.0, inference_seconds=0.0)


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> Fake:
    fake = Fake()

    def load(models: Models) -> None:
        models._by_id = {"fake/1": fake, "fake": fake}
        models.is_ready = True

    monkeypatch.setattr(Models, "load", load)
    monkeypatch.setattr("service.app.to_answers", lambda *_, **__: {})
    return fake


def _app(tmp_path: Path, **settings: Any) -> Any:
    return create_app(Settings(temporary_dir=tmp_path, **settings))


def _files(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file()]


def _until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.005)


@pytest.mark.usefixtures("fake")
def test_a_client_that_leaves_while_sending_leaves_no_file(tmp_path: Path) -> None:
    app, sent = _app(tmp_path), []
    messages = [{"type": "http.request", "body": HEAD + bytes(1000), "more_body": True}, {"type": "http.disconnect"}]

    async def receive() -> dict[str, Any]:
        if len(messages) == 1:
            assert len(_files(tmp_path)) == 1
        return messages.pop(0)

    async def send(message: Any) -> None:
        sent.append(message)

    async def talk() -> None:
        async with app.router.lifespan_context(app):
            await app.state.loading
            await app(_scope(), receive, send)
            assert _files(tmp_path) == []
            assert app.state.num_inside == 0

    asyncio.run(talk())
    assert [m["status"] for m in sent if m["type"] == "http.response.start"] in ([], [499])


def _scope() -> dict[str, Any]:
    headers = [(name.encode(), value.encode()) for name, value in HEADERS.items()]
    return {"type": "http", "asgi": {"version": "3.0"}, "http_version": "1.1", "method": "POST", "scheme": "http",
            "path": "/v1/classify", "raw_path": b"/v1/classify", "query_string": b"", "root_path": "",
            "headers": headers, "server": ("test", 80), "client": ("test", 1)}  # fmt: skip


def test_an_upload_stays_open_until_its_decoding_has_ended(fake: Fake, tmp_path: Path) -> None:
    async def cancel_in_the_middle() -> None:
        with ThreadPoolExecutor(1) as workers, (tmp_path / "clip").open("w+b") as file:
            file.write(bytes(77))
            file.seek(0)
            state = SimpleNamespace(workers=workers, settings=Settings())
            request: Any = SimpleNamespace(app=SimpleNamespace(state=state))
            task = asyncio.ensure_future(_run(request, fake, "classify", Upload(file, 77, {}), {}))  # type: ignore[arg-type]
            await asyncio.to_thread(fake.begun.wait, 10)
            task.cancel()
            await asyncio.sleep(0.05)
            assert not task.done()
            fake.go.set()
            with pytest.raises(asyncio.CancelledError):
                await task
            assert fake.read == 77

    asyncio.run(cancel_in_the_middle())


def test_a_request_that_waits_is_dropped_at_once_when_cancelled(fake: Fake, tmp_path: Path) -> None:
    async def cancel_before_the_start() -> None:
        with ThreadPoolExecutor(1) as workers, (tmp_path / "clip").open("w+b") as file:
            blocked = workers.submit(fake.go.wait, 10)
            state = SimpleNamespace(workers=workers, settings=Settings())
            request: Any = SimpleNamespace(app=SimpleNamespace(state=state))
            task = asyncio.ensure_future(_run(request, fake, "classify", Upload(file, 0, {}), {}))  # type: ignore[arg-type]
            await asyncio.sleep(0.05)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            fake.go.set()
            assert blocked.result(10)
        assert not fake.begun.is_set()

    asyncio.run(cancel_before_the_start())


def test_more_than_may_wait_are_refused_and_the_places_come_back(fake: Fake, tmp_path: Path) -> None:
    def ask(client: TestClient) -> httpx.Response:
        return client.post("/v1/classify", files={"file": b"clip"})

    with TestClient(_app(tmp_path, num_workers=1, max_waiting=1)) as client, ThreadPoolExecutor(2) as clients:
        _until(lambda: client.get("/readyz").status_code == 200)
        asked = [clients.submit(ask, client) for _ in range(2)]
        _until(lambda: client.app.state.num_inside == 2)  # type: ignore[attr-defined]
        refused = ask(client)
        assert (refused.status_code, refused.json()["code"]) == (429, "overloaded")
        assert client.get("/livez").status_code == 200  # the event loop is free
        fake.go.set()
        assert [future.result(10).status_code for future in asked] == [200, 200]
        assert client.app.state.num_inside == 0  # type: ignore[attr-defined]
    assert _files(tmp_path) == []


@pytest.mark.usefixtures("fake")
def test_an_announced_length_over_the_limit_is_refused(tmp_path: Path) -> None:
    with TestClient(_app(tmp_path, max_body_bytes=1000)) as client:
        _until(lambda: client.get("/readyz").status_code == 200)
        answer = client.post("/v1/classify", content=b"", headers=HEADERS | {"content-length": "1001"})
        assert (answer.status_code, answer.json()["code"]) == (413, "body_too_large")
        lies = client.post("/v1/classify", content=HEAD + bytes(2000), headers=HEADERS | {"content-length": "5"})
        assert (lies.status_code, lies.json()["code"]) == (413, "body_too_large")


def test_why_models_do_not_load_is_logged_at_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.ERROR), TestClient(_app(tmp_path, bundles=tmp_path)):
        _until(lambda: "no NAME/VERSION" in caplog.text)


def test_the_default_is_the_newest_version() -> None:
    models, old, new = Models(Settings()), Fake(), Fake()
    models._by_id = {"one/1": old, "one": new, "one/2": new}  # type: ignore[dict-item]
    assert models.get(None) is new
    assert models.get("one/1") is old


def test_the_page_needs_nothing_from_outside() -> None:
    page = PAGE.read_text()
    assert "http://" not in page
    assert "https://" not in page
    assert "src=" not in page


def test_the_service_imports_no_torch() -> None:
    code = "import sys, service.app, service.openapi; sys.exit(any(m.split('.')[0] == 'torch' for m in sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], cwd=Path(__file__).parents[2], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
