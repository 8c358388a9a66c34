"""The real server in a process of its own, asked over a real socket."""

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import httpx2 as httpx
import pytest

ROOT = Path(__file__).parents[2]


def _free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


@pytest.fixture(scope="module")
def uploads(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("uploads")


@pytest.fixture(scope="module")
def server(bundle: Path, uploads: Path) -> Iterator[tuple[subprocess.Popen[bytes], str]]:
    port = _free_port()
    environment = os.environ | {"ZORRO_TEMPORARY_DIR": str(uploads), "ZORRO_MAX_BODY_BYTES": "300000"}
    command = [sys.executable, "-m", "cli.main", "serve", "--port", str(port), "--bundles", str(bundle.parents[1])]
    process = subprocess.Popen(command, cwd=ROOT, env=environment)
    url = f"http://127.0.0.1:{port}"
    try:
        _wait_until_ready(process, url)
        yield process, url
    finally:
        process.kill()
        process.wait()


def _wait_until_ready(process: subprocess.Popen[bytes], url: str) -> None:
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        assert process.poll() is None, "the server ended"
        with contextlib.suppress(httpx.TransportError):
            if httpx.get(f"{url}/readyz").status_code == 200:
                return
        time.sleep(0.1)
    raise AssertionError("not ready within 60 s")


def _files(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file() and path.name != ".lock"]


def test_it_answers_a_film(server: tuple[object, str], film: Path, uploads: Path) -> None:
    with film.open("rb") as file:
        answer = httpx.post(f"{server[1]}/v1/classify", files={"file": file}, timeout=60)
    assert answer.status_code == 200
    assert set(answer.json()["streams"].values()) == {"answered"}
    assert _files(uploads) == []


def test_it_cuts_off_a_body_without_length(server: tuple[object, str], uploads: Path) -> None:
    def chunks() -> Iterator[bytes]:
        yield b'--b\r\nContent-Disposition: form-data; name="file"; filename="a"\r\n\r\n'
        for _ in range(40):
            yield bytes(10_000)

    headers = {"content-type": "multipart/form-data; boundary=b"}
    answer = httpx.post(f"{server[1]}/v1/classify", content=chunks(), headers=headers, timeout=60)
    assert (answer.status_code, answer.json()["code"]) == (413, "body_too_large")
    assert _files(uploads) == []


def test_a_client_that_leaves_leaves_nothing(server: tuple[object, str], uploads: Path) -> None:
    host, port = server[1].removeprefix("http://").split(":")
    with socket.create_connection((host, int(port))) as client:
        client.sendall(
            b"POST /v1/classify HTTP/1.1\r\nHost: x\r\nContent-Length: 90000\r\n"
            b"Content-Type: multipart/form-data; boundary=b\r\n\r\n"
            b'--b\r\nContent-Disposition: form-data; name="file"; filename="a"\r\n\r\n' + bytes(2000)
        )
        _until(lambda: len(_files(uploads)) == 1)
    _until(lambda: _files(uploads) == [])
    assert httpx.get(f"{server[1]}/readyz").status_code == 200


def test_requests_are_logged_on_standard_error(bundle: Path, tmp_path: Path) -> None:
    port = _free_port()
    command = [sys.executable, "-m", "cli.main", "serve", "--port", str(port), "--bundles", str(bundle.parents[1])]
    with (tmp_path / "log").open("wb") as log:
        process = subprocess.Popen(command, cwd=ROOT, stderr=log)
    try:
        _wait_until_ready(process, f"http://127.0.0.1:{port}")
        httpx.get(f"http://127.0.0.1:{port}/v1/models", headers={"X-Request-ID": "mine"})
        _until(lambda: '"request_id": "mine"' in (tmp_path / "log").read_text())
    finally:
        process.kill()
        process.wait()


def test_a_taken_port_is_a_fault(server: tuple[object, str], bundle: Path) -> None:
    port = server[1].rsplit(":", 1)[1]
    command = [sys.executable, "-m", "cli.main", "serve", "--port", port, "--bundles", str(bundle.parents[1])]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert done.returncode == 1
    assert "is the port taken" in done.stderr


def test_it_ends_when_told(server: tuple[subprocess.Popen[bytes], str], uploads: Path) -> None:
    process, _ = server
    process.send_signal(signal.SIGTERM)
    assert process.wait(30) in (0, -signal.SIGTERM)
    assert list(uploads.iterdir()) == []


def _until(condition) -> None:
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)
