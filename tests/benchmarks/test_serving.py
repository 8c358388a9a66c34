"""The client, the arithmetic and the report of the serving benchmark; nothing is measured here."""

import asyncio
import json
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from benchmarks.report import read_results
from benchmarks.result import RESULTS_FOLDER
from benchmarks.serving.bench import quantile, stage_seconds
from benchmarks.serving.clients import Client, Reply, closed_loop, open_loop, post
from benchmarks.serving.report import to_page, write_serving_report

Handler = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


def _talk(answer: Callable[[int], bytes], talk: Callable[[int], Awaitable[list[Reply]]]) -> list[Reply]:
    """What `talk` brings from a server on a free port that answers its i-th request with `answer(i)`."""
    count = 0

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal count
        try:
            while True:
                await reader.readuntil(b"\r\n\r\n")
                await reader.readexactly(3)
                writer.write(answer(count))
                count += 1
                if b"connection: close" in answer(count - 1).lower():
                    writer.close()
        except (asyncio.IncompleteReadError, ConnectionError):
            writer.close()

    async def whole() -> list[Reply]:
        server = await asyncio.start_server(handle, "127.0.0.1", 0)
        async with server:
            return await talk(server.sockets[0].getsockname()[1])

    return asyncio.run(asyncio.wait_for(whole(), 20))


LENGTH = (
    b"HTTP/1.1 200 OK\r\nServer-Timing: decode;dur=20.5, inference;dur=3\r\n"
    b"Inference-Header-Content-Length: 99\r\nContent-Length: 2\r\n\r\nok"
)
CHUNKS = b"HTTP/1.1 429 No\r\nRetry-After: 7\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n"
CLOSE = b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\nok"
BROKEN = b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 9\r\n\r\nok"


def test_a_client_reads_all_forms_of_answers() -> None:
    async def talk(port: int) -> list[Reply]:
        client = Client(port)
        return [await client.send(post("/", b"abc"), due=time.perf_counter()) for _ in range(5)]

    answers = [LENGTH, CHUNKS, CLOSE, BROKEN, LENGTH]
    replies = _talk(lambda i: answers[i], talk)
    assert [reply.status for reply in replies] == [200, 429, 200, 0, 200]
    assert [reply.retry_after_seconds for reply in replies] == [None, 7.0, None, None, None]
    assert replies[0].timings == pytest.approx({"decode": 0.0205, "inference": 0.003})


def test_a_closed_loop_counts_what_ends_in_its_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("benchmarks.serving.clients.WARM_UP_SECONDS", 0.0)

    async def talk(port: int) -> list[Reply]:
        return await closed_loop(port, post("/", b"abc"), num_clients=3, seconds=0.2)

    replies = _talk(lambda _: LENGTH, talk)
    assert len(replies) > 3
    assert {reply.status for reply in replies} == {200}


@pytest.mark.parametrize("retries", [True, False])
def test_refused_clients_of_an_open_loop_retry_once(retries: bool) -> None:
    soon = CHUNKS.replace(b"After: 7", b"After: 0.01")
    counts = []

    async def talk(port: int) -> list[Reply]:
        first, again = await open_loop(
            port,
            lambda headers: post("/", b"abc", headers),
            per_second=100,
            seconds=0.2,
            timeout_seconds=5,
            retries=retries,
        )
        counts.append((len(first), len(again)))
        return first + again

    replies = _talk(lambda _: soon, talk)
    ((num_first, num_again),) = counts
    assert num_first > 3
    assert num_again == (num_first if retries else 0)
    assert {reply.status for reply in replies} == {429}


def test_quantiles_are_values_that_were_seen() -> None:
    assert [quantile([3, 1, 2, 4], percent) for percent in (25, 50, 51, 99, 100)] == [1, 2, 3, 4, 4]
    assert quantile([], 99) == 0.0


def test_stages_are_those_that_every_answer_tells() -> None:
    replies = [Reply(200, 1.0, 1.0, timings={"decode": seconds, "total": 1.0}) for seconds in (0.1, 0.4, 0.2)]
    assert stage_seconds(replies) == {"decode": 0.2}
    assert stage_seconds([*replies, Reply(200, 1.0, 1.0)]) == stage_seconds([]) == {}


@pytest.mark.slow
def test_the_committed_report_is_what_its_json_makes(tmp_path: Path) -> None:
    (result,) = [x for x in read_results() if x["name"] == "serving"]
    assert (RESULTS_FOLDER / "serving.md").read_text() == to_page(result), (
        "python -m benchmarks report puts the report right"
    )
    page = write_serving_report(json.loads(json.dumps(result)), tmp_path)
    for chart in ("throughput", "goodput", "stages"):
        assert f"(serving-{chart}.svg)" in page.read_text()
        assert (tmp_path / f"serving-{chart}.svg").read_text().startswith("<?xml")
