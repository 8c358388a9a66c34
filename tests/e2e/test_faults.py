"""The real server under attack and at its end: killed decode processes, clients that vanish, signals. Loopback only."""

import contextlib
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx2 as httpx
import psutil
import pytest

ROOT = Path(__file__).parents[2]
NUM_CLIENTS = 4
NUM_REQUESTS = 40


class Server:
    """`zorro serve` in a process of its own, with folders of its own."""

    def __init__(self, bundles: Path, folder: Path, **settings: object) -> None:
        self.folder = folder
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = int(free.getsockname()[1])
        given = {"temporary_dir": folder, "windows_dir": folder, "port": port, "bundles": bundles} | settings
        environment = os.environ | {f"ZORRO_{name.upper()}": str(value) for name, value in given.items()}
        self.process = subprocess.Popen([sys.executable, "-m", "cli.main", "serve"], cwd=ROOT, env=environment)
        self.url = f"http://127.0.0.1:{port}"
        _until(self._is_ready, seconds=60)

    def _is_ready(self) -> bool:
        assert self.process.poll() is None, "the server ended"
        with contextlib.suppress(httpx.TransportError):
            return httpx.get(f"{self.url}/readyz").status_code == 200
        return False

    def classify(self, content: bytes) -> httpx.Response:
        return httpx.post(f"{self.url}/v1/classify", files={"file": content}, timeout=60)

    def metric(self, name: str) -> float:
        found = re.search(rf"^{name}(?:{{[^}}]*}})? (\S+)$", httpx.get(f"{self.url}/metrics").text, flags=re.MULTILINE)
        return float(found[1]) if found else 0.0

    def decode_processes(self) -> list[psutil.Process]:
        children = psutil.Process(self.process.pid).children()
        return [child for child in children if "spawn_main" in " ".join(child.cmdline())]

    def files(self) -> list[Path]:
        return [path for path in self.folder.rglob("*") if path.is_file() and path.name != ".lock"]


def _until(condition: Callable[[], bool], *, seconds: float = 20) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


@contextlib.contextmanager
def serving(bundle: Path, folder: Path, **settings: object) -> Iterator[Server]:
    """A server that is gone afterwards, whatever happened to it."""
    server = Server(bundle.parents[1], folder, **settings)
    try:
        yield server
    finally:
        server.process.kill()
        server.process.wait()


@pytest.fixture
def server(bundle: Path, tmp_path: Path) -> Iterator[Server]:
    with serving(bundle, tmp_path, drain_seconds=0.5, num_decode_workers=2) as server:
        yield server


def test_a_killed_decode_process_costs_at_most_its_own_request(server: Server, film: Path) -> None:
    content = film.read_bytes()
    with ThreadPoolExecutor(NUM_CLIENTS) as clients:
        asked = [clients.submit(server.classify, content) for _ in range(NUM_REQUESTS)]
        time.sleep(0.3)
        killed = server.decode_processes()[0]
        killed.kill()
        answers = [future.result() for future in asked]
    lost = [answer for answer in answers if answer.status_code != 200]
    assert len(lost) <= 1
    assert all(answer.json()["code"] == "decoder_crashed" for answer in lost)
    assert server.classify(content).status_code == 200
    _until(lambda: len(server.decode_processes()) == 2)
    assert server.files() == []


def test_clients_that_vanish_leave_nothing_behind(server: Server, film: Path) -> None:
    content = film.read_bytes()
    body = (
        b'--b\r\nContent-Disposition: form-data; name="file"; filename="a"\r\n\r\n' + content + b"\r\n--b--\r\n"
    )
    head = (
        f"POST /v1/classify HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n"
        "Content-Type: multipart/form-data; boundary=b\r\n\r\n"
    ).encode()
    host, port = server.url.removeprefix("http://").split(":")
    for i in range(30):
        with socket.create_connection((host, int(port))) as client:
            client.sendall(head + (body if i % 2 else body[: len(body) // 2]))
    _until(lambda: server.metric("zorro_in_flight") == 0 and server.files() == [])
    assert server.metric("zorro_abandoned_total") >= 15  # all that left in the middle of sending
    assert server.classify(content).status_code == 200


def test_a_refusal_reaches_a_client_that_is_still_sending(bundle: Path, tmp_path: Path) -> None:
    with serving(bundle, tmp_path, max_body_bytes=20_000_000) as server:
        for _ in range(5):
            refused = httpx.post(f"{server.url}/v1/classify", content=bytes(10_000_000), timeout=60)
            assert (refused.status_code, refused.json()["code"]) == (415, "unsupported_content_type")


def test_the_first_signal_drains_and_nothing_is_lost(server: Server, film: Path) -> None:
    content = film.read_bytes()
    with ThreadPoolExecutor(NUM_CLIENTS) as clients:
        asked = [clients.submit(server.classify, content) for _ in range(NUM_CLIENTS)]
        _until(lambda: server.metric("zorro_in_flight") > 0 or all(future.done() for future in asked))
        server.process.send_signal(signal.SIGTERM)
        _until(lambda: httpx.get(f"{server.url}/readyz").status_code == 503)
        assert server.classify(content).status_code == 200  # the door is still open
        assert [future.result().status_code for future in asked] == [200] * NUM_CLIENTS
    assert server.process.wait(30) == 0
    assert list(server.folder.iterdir()) == []


def test_the_second_signal_ends_it_at_once(bundle: Path, tmp_path: Path) -> None:
    with serving(bundle, tmp_path, drain_seconds=30) as server:
        server.process.send_signal(signal.SIGTERM)
        _until(lambda: httpx.get(f"{server.url}/readyz").status_code == 503)
        server.process.send_signal(signal.SIGTERM)
        started = time.monotonic()
        server.process.wait(20)
        assert time.monotonic() - started < 15  # not the 30 s of the first
        assert list(tmp_path.iterdir()) == []


def test_what_a_killed_server_left_is_cleaned_by_the_next(bundle: Path, tmp_path: Path) -> None:
    with serving(bundle, tmp_path) as first:
        children = first.decode_processes()
    left = {path.name for path in tmp_path.iterdir()}
    assert left
    with serving(bundle, tmp_path):
        assert not left & {path.name for path in tmp_path.iterdir()}
        psutil.wait_procs(children, timeout=20)
        assert not any(child.is_running() for child in children)  # no decode process outlives its server
