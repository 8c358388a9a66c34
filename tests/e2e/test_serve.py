"""The real server in a process of its own, asked over a real socket."""

import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx2 as httpx
import pytest

from tests.servers import ROOT, Server, serving, until

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def server(bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with serving(bundle, tmp_path_factory.mktemp("server"), max_body_bytes=300_000) as server:
        yield server


def test_it_answers_a_film(server: Server, film: Path) -> None:
    with film.open("rb") as file:
        answer = httpx.post(f"{server.url}/v1/classify", files={"file": file}, timeout=60)
    assert answer.status_code == 200
    assert set(answer.json()["streams"].values()) == {"answered"}
    until(lambda: server.files() == [])


def test_it_cuts_off_a_body_without_length(server: Server) -> None:
    def chunks() -> Iterator[bytes]:
        yield b'--b\r\nContent-Disposition: form-data; name="file"; filename="a"\r\n\r\n'
        for _ in range(40):
            yield bytes(10_000)

    headers = {"content-type": "multipart/form-data; boundary=b"}
    answer = httpx.post(f"{server.url}/v1/classify", content=chunks(), headers=headers, timeout=60)
    assert (answer.status_code, answer.json()["code"]) == (413, "body_too_large")
    assert server.files() == []


def test_a_client_that_leaves_leaves_nothing(server: Server) -> None:
    host, port = server.url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port))) as client:
        client.sendall(
            b"POST /v1/classify HTTP/1.1\r\nHost: x\r\nContent-Length: 90000\r\n"
            b"Content-Type: multipart/form-data; boundary=b\r\n\r\n"
            b'--b\r\nContent-Disposition: form-data; name="file"; filename="a"\r\n\r\n' + bytes(2000)
        )
        until(lambda: len(server.files()) == 1)
    until(lambda: server.files() == [])
    assert httpx.get(f"{server.url}/readyz").status_code == 200


def test_requests_are_logged_on_standard_error(server: Server) -> None:
    httpx.get(f"{server.url}/v1/models", headers={"X-Request-ID": "mine"})
    until(lambda: '"request_id":"mine"' in server.log())


def test_a_taken_port_is_a_fault(server: Server, bundle: Path) -> None:
    port = server.url.rsplit(":", 1)[1]
    command = [sys.executable, "-m", "cli.main", "serve", "--port", port, "--bundles", str(bundle.parents[1])]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert done.returncode == 1
    assert "is the port taken" in done.stderr


def test_it_ends_when_told(server: Server) -> None:
    server.process.send_signal(signal.SIGTERM)
    assert server.process.wait(30) == 0
    assert list(server.folder.iterdir()) == []
