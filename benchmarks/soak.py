"""Does the server's memory grow over twenty thousand requests of all kinds?

Some requests are good, some bad, and some are cut off by their client. Private memory of the server and its
decode processes is read after every thousand requests. Before that the server is idle for a while, so that
free memory has gone back to the system, and every decode process has handled each kind of request.
"""

import asyncio
import random
import re
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import av
import httpx2 as httpx
import numpy as np

from .films import write_film
from .machine import SHIPPED_BUNDLE
from .result import Ratio, Result
from .serving.clients import Client, multipart, post
from .serving.servers import RunningServer, ours, running

NUM_SOAK_CLIENTS = 8
REQUESTS_PER_ROUND = 1_000
SETTLED_ROUND = 2  # memory at the end is compared with that after so many rounds
NUM_READINGS = 5
MAX_GROWTH = 0.02
MAX_QUIET_WAIT_SECONDS = 60.0
GIVE_BACK_SECONDS = 4.0  # the server returns free memory two seconds after its last answer
WARM_UPS = 3


@dataclass(frozen=True, slots=True)
class RequestKind:
    """A kind of request, its share of all requests, and the status of the right answer.

    `status` is None if the client leaves before it is answered.
    """

    name: str
    weight: int
    request: bytes
    status: int | None


def run(rounds: int = 20) -> Result:
    """Send `rounds` thousand requests."""
    parameters: dict[str, Any] = {"requests": rounds * REQUESTS_PER_ROUND, "clients": NUM_SOAK_CLIENTS}
    result = Result(name="soak", parameters=parameters)
    with tempfile.TemporaryDirectory() as name:
        kinds = _request_kinds(Path(name))
    parameters["kinds"] = {kind.name: kind.weight for kind in kinds}
    private: list[int] = []
    with running(ours(SHIPPED_BUNDLE, b"")) as server:
        for i in range(rounds):
            started = time.perf_counter()
            wrong = asyncio.run(_send_round(server.port, kinds, seed=i))
            result.check(f"round {i + 1}: answers that are not as they must be", wrong, at_most=0)
            _wait_until_quiet(server)
            asyncio.run(_use_all_processes(server.port, kinds))
            time.sleep(GIVE_BACK_SECONDS)
            by_process = server.private_bytes_by_process()
            private.append(sum(by_process))
            per_second = REQUESTS_PER_ROUND / (time.perf_counter() - started)
            record = {
                "requests": (i + 1) * REQUESTS_PER_ROUND,
                "private_bytes": private[-1],
                "of_the_server": by_process[0],
                "per_second": per_second,
            }
            result.records.append(record)
            print(record, flush=True)
        for name in ("skipped_windows", "decode_cancelled", "decode_crashes", "abandoned", "failed_batches"):
            result.counts[name] = _metric(server, f"zorro_{name}_total")
    compare_memory(result)
    return result


def compare_memory(result: Result) -> None:
    """Compare memory at the end with memory after 2,000 requests.

    Medians of five readings are compared: a single reading varies by up to 5 % with what the allocator keeps.
    """
    private = [record["private_bytes"] for record in result.records]
    settled, last = (
        median(part) for part in (private[SETTLED_ROUND - 1 :][:NUM_READINGS], private[-NUM_READINGS:])
    )
    requests = len(private) * REQUESTS_PER_ROUND
    result.counts |= {
        "private bytes after 2,000": settled,
        "private bytes at the end": last,
        "one reading at the end by one after 2,000": private[-1] / private[SETTLED_ROUND - 1],
    }
    what = f"private memory after {requests:,} mixed requests"
    result.ratios.append(
        Ratio(what=what, against="that after 2,000", value=last / settled, at_most=1 + MAX_GROWTH)
    )


def _request_kinds(folder: Path) -> list[RequestKind]:
    film = write_film(folder / "film.mp4", width=96, height=64, seconds=2).read_bytes()
    long = write_film(folder / "long.mp4", width=96, height=64, seconds=60).read_bytes()
    sound = _write_wav(folder / "sound.wav").read_bytes()
    picture = _write_jpeg(folder / "picture.jpg").read_bytes()
    tensors = ours(SHIPPED_BUNDLE, b"").requests

    def clip(path: str, content: bytes) -> bytes:
        return post(path, *multipart(content))

    return [
        RequestKind("sound", 30, clip("/v1/classify", sound), 200),
        RequestKind("film", 20, clip("/v1/embed", film), 200),
        RequestKind("picture", 14, clip("/v1/classify/video", picture), 200),
        RequestKind("tensors of a window", 15, tensors["fused"](""), 200),
        RequestKind("long film", 1, clip("/v1/classify", long), 200),
        RequestKind("truncated film", 4, clip("/v1/classify", film[: len(film) // 2]), 422),
        RequestKind("random bytes", 3, clip("/v1/classify", random.Random(0).randbytes(20_000)), 415),
        RequestKind("no bytes", 2, clip("/v1/embed", b""), 422),
        RequestKind("sound of a picture", 3, clip("/v1/embed/audio", picture), 422),
        RequestKind("no form", 2, post("/v1/classify", sound), 415),
        RequestKind("leaves at once", 3, clip("/v1/classify", film), None),
        RequestKind("leaves in the middle of sending", 3, clip("/v1/classify", film)[: len(film) // 2], None),
    ]


def _write_wav(path: Path) -> Path:
    samples = (np.sin(np.arange(16_000) * 0.2) * 8_000).astype(np.int16)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("pcm_s16le", rate=16_000, layout="mono")
        frame = av.AudioFrame.from_ndarray(samples[None], format="s16", layout="mono")
        frame.sample_rate = 16_000
        container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


def _write_jpeg(path: Path) -> Path:
    pixels = np.random.default_rng(0).integers(0, 256, (64, 96, 3), dtype=np.uint8)
    with av.open(str(path), "w", format="mjpeg") as container:
        stream = container.add_stream("mjpeg", rate=1)
        stream.width, stream.height, stream.pix_fmt = 96, 64, "yuvj420p"
        container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
        container.mux(stream.encode(None))
    return path


async def _send_round(port: int, kinds: list[RequestKind], *, seed: int) -> int:
    """Send a thousand requests; returns how many got another status than they must."""
    order = random.Random(seed).choices(kinds, [kind.weight for kind in kinds], k=REQUESTS_PER_ROUND)
    wrong = 0

    async def client() -> None:
        nonlocal wrong
        connection = Client(port)
        while order:
            kind = order.pop()
            if kind.status is None:
                await _send_and_leave(port, kind.request)
                continue
            reply = await connection.send(kind.request, due=time.perf_counter())
            if reply.status != kind.status:
                wrong += 1
                print(f"{kind.name}: {reply.status} instead of {kind.status}", flush=True)
        connection.close()

    await asyncio.gather(*(client() for _ in range(NUM_SOAK_CLIENTS)))
    return wrong


async def _use_all_processes(port: int, kinds: list[RequestKind]) -> None:
    """Let every decode process handle each kind of request; a new process is a quarter as large."""
    good = [kind for kind in kinds if kind.status == 200 and kind.name != "long film"]

    async def client() -> None:
        connection = Client(port)
        for kind in good * WARM_UPS:
            await connection.send(kind.request, due=time.perf_counter())
        connection.close()

    await asyncio.gather(*(client() for _ in range(NUM_SOAK_CLIENTS)))


async def _send_and_leave(port: int, request: bytes) -> None:
    _, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(request)
    await asyncio.sleep(0.01)
    writer.transport.abort()


def _metric(server: RunningServer, name: str) -> float:
    page = httpx.get(f"http://127.0.0.1:{server.port}/metrics").text
    found = re.search(rf"^{name} (\S+)$", page, flags=re.MULTILINE)
    if found is None:
        raise RuntimeError(f"/metrics has no {name}")
    return float(found[1])


def _wait_until_quiet(server: RunningServer) -> None:
    end = time.monotonic() + MAX_QUIET_WAIT_SECONDS
    while _metric(server, "zorro_in_flight"):
        if time.monotonic() > end:
            raise RuntimeError(
                f"requests are in flight {MAX_QUIET_WAIT_SECONDS:g} s after the last client has left"
            )
        time.sleep(0.1)
    time.sleep(1.0)  # killed decode processes are replaced meanwhile
