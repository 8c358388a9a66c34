"""The real server under attack and at its end: killed decode processes, clients that vanish, signals.

Loopback only.
"""

import signal
import socket
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from http.client import HTTPResponse
from pathlib import Path

import httpx2 as httpx
import psutil
import pytest

from tests.made_media import moving_frames, tone, write_clip
from tests.servers import Server, serving, until

pytestmark = pytest.mark.slow

NUM_CLIENTS = 4
NUM_REQUESTS = 40


@pytest.fixture
def server(bundle: Path, tmp_path: Path) -> Iterator[Server]:
    with serving(bundle, tmp_path, drain_seconds=3.0, num_decode_workers=2) as server:
        yield server


@pytest.fixture(scope="module")
def long_film(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A minute of small pictures and sound: six chunks of windows."""
    path = tmp_path_factory.mktemp("media") / "long.mp4"
    return write_clip(path, waveform=tone(60.0), frames=moving_frames(60.0))


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
    until(lambda: len(server.decode_processes()) == 2)
    assert server.files() == []


def test_clients_that_vanish_leave_nothing_behind(server: Server, film: Path) -> None:
    content = film.read_bytes()
    request = _request(content)
    host, port = server.url.removeprefix("http://").split(":")
    for i in range(30):
        with socket.create_connection((host, int(port))) as client:
            client.sendall(request if i % 2 else request[: len(request) // 2])
    until(lambda: server.metric("zorro_in_flight") == 0 and server.files() == [])
    assert server.metric("zorro_abandoned_total") >= 15  # all that left in the middle of sending
    assert server.classify(content).status_code == 200


def test_nothing_is_done_for_200_clients_that_left(bundle: Path, long_film: Path, tmp_path: Path) -> None:
    patient = {"num_decode_workers": 1, "max_inside": 300, "request_timeout_seconds": 3600}
    with serving(bundle, tmp_path, **patient) as server, ThreadPoolExecutor(1) as others:
        alone = server.classify(long_film.read_bytes())
        assert alone.status_code == 200
        num_tasks, num_windows = (
            server.metric("zorro_decode_tasks_total"),
            server.metric("zorro_batch_size_sum"),
        )
        stays = others.submit(server.classify, long_film.read_bytes())
        until(lambda: server.metric("zorro_decode_tasks_total") > num_tasks)
        request = _request(long_film.read_bytes())
        host, port = server.url.removeprefix("http://").split(":")
        for _ in range(200):
            with socket.create_connection((host, int(port))) as client:
                client.sendall(request)
        until(lambda: server.metric("zorro_in_flight") <= 1)
        assert stays.result(60).status_code == 200
        until(lambda: server.metric("zorro_in_flight") == 0 and server.files() == [])
        assert server.metric("zorro_abandoned_total") == 200
        done_for_who_left = server.metric("zorro_decode_tasks_total") - 2 * num_tasks
        # Begun before they left and ended with them, or begun again after the pool was made anew.
        ended = server.metric("zorro_decode_cancelled_total") + server.metric("zorro_decode_restarts_total")
        assert done_for_who_left <= ended
        assert server.metric("zorro_batch_size_sum") == 2 * num_windows


def _request(content: bytes) -> bytes:
    body = (
        b'--b\r\nContent-Disposition: form-data; name="file"; filename="a"\r\n\r\n'
        + content
        + b"\r\n--b--\r\n"
    )
    head = (
        f"POST /v1/classify HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n"
        "Content-Type: multipart/form-data; boundary=b\r\n\r\n"
    )
    return head.encode() + body


def test_a_refusal_reaches_a_client_that_is_still_sending(bundle: Path, tmp_path: Path) -> None:
    with serving(bundle, tmp_path, max_body_bytes=20_000_000) as server:
        for _ in range(5):
            refused = httpx.post(f"{server.url}/v1/classify", content=bytes(10_000_000), timeout=60)
            assert (refused.status_code, refused.json()["code"]) == (415, "unsupported_content_type")


def test_a_refusal_does_not_wait_for_the_body_and_the_connection_goes_on(server: Server) -> None:
    host, port = server.url.removeprefix("http://").split(":")
    head = b"POST /v1/classify HTTP/1.1\r\nHost: x\r\nContent-Length: 3000000\r\n\r\n"
    with socket.create_connection((host, int(port)), timeout=20) as client:
        client.sendall(head + bytes(1_000_000))
        assert _read_answer(client) == 415  # two thirds of the body have not been sent
        client.sendall(bytes(2_000_000) + b"GET /livez HTTP/1.1\r\nHost: x\r\n\r\n")
        assert _read_answer(client) == 200


def _read_answer(client: socket.socket) -> int:
    """Read a whole answer; returns its status."""
    answer = HTTPResponse(client)
    answer.begin()
    answer.read()
    return answer.status


def test_a_refusal_that_closes_the_connection_is_read_by_a_client_that_sends_first(server: Server) -> None:
    host, port = server.url.removeprefix("http://").split(":")
    head = b"POST /v1/classify HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: 10000000\r\n\r\n"
    for _ in range(5):
        with socket.create_connection((host, int(port)), timeout=20) as client:
            client.sendall(head + bytes(10_000_000))
            assert client.recv(65536).startswith(b"HTTP/1.1 415")


def test_the_first_signal_drains_and_nothing_is_lost(server: Server, film: Path) -> None:
    content = film.read_bytes()
    with ThreadPoolExecutor(NUM_CLIENTS) as clients:
        asked = [clients.submit(server.classify, content) for _ in range(NUM_CLIENTS)]
        until(lambda: server.metric("zorro_in_flight") > 0 or all(future.done() for future in asked))
        server.process.send_signal(signal.SIGTERM)
        until(lambda: httpx.get(f"{server.url}/readyz").status_code == 503)
        assert server.classify(content).status_code == 200  # the door is still open
        assert [future.result().status_code for future in asked] == [200] * NUM_CLIENTS
    assert server.process.wait(30) == 0
    assert list(server.folder.iterdir()) == []


def test_the_second_signal_ends_it_at_once(bundle: Path, tmp_path: Path) -> None:
    with serving(bundle, tmp_path, drain_seconds=30) as server:
        server.process.send_signal(signal.SIGTERM)
        until(lambda: httpx.get(f"{server.url}/readyz").status_code == 503)
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
