"""Clients of a server on this machine: a closed loop, and an open one whose arrivals do not wait for answers.

An open loop counts a request's time from when it was due, not from when it was sent: free of coordinated omission.
"""

import asyncio
import random
import time
from dataclasses import dataclass

BOUNDARY = "zorro-benchmark"


@dataclass(frozen=True, slots=True)
class Reply:
    """What became of one request."""

    status: int
    seconds: float
    """From when it was due to the last byte of its answer."""
    retry_after_seconds: float | None
    ended: float
    """On `time.perf_counter`."""


def request_bytes(clip: bytes, *, headers: str = "") -> bytes:
    """POST /v1/classify with the clip as a whole HTTP request."""
    head = f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="file"; filename="clip"\r\n\r\n'.encode()
    body = head + clip + f"\r\n--{BOUNDARY}--\r\n".encode()
    return (
        f"POST /v1/classify HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Length: {len(body)}\r\n"
        f"Content-Type: multipart/form-data; boundary={BOUNDARY}\r\n{headers}\r\n"
    ).encode() + body


async def ask(port: int, request: bytes, *, due: float) -> Reply:
    """Send one request and wait for its answer; status 0 if the connection broke."""
    try:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        try:
            writer.write(request)
            head = await reader.readuntil(b"\r\n\r\n")
            await reader.read()
        finally:
            writer.close()
    except (OSError, asyncio.IncompleteReadError):
        return _reply(0, due)
    status, retry = int(head.split(b" ", 2)[1]), None
    for line in head.lower().split(b"\r\n"):
        if line.startswith(b"retry-after:"):
            retry = float(line.split(b":")[1])
    return _reply(status, due, retry)


def _reply(status: int, due: float, retry_after_seconds: float | None = None) -> Reply:
    now = time.perf_counter()
    return Reply(status, now - due, retry_after_seconds, now)


async def closed_loop(port: int, request: bytes, *, num_clients: int, seconds: float) -> list[Reply]:
    """Clients that ask again as soon as they are answered, for so many seconds."""
    end, replies = time.perf_counter() + seconds, []

    async def client() -> None:
        while time.perf_counter() < end:
            replies.append(await ask(port, request, due=time.perf_counter()))

    await asyncio.gather(*(client() for _ in range(num_clients)))
    return replies


async def open_loop(
    port: int, clip: bytes, *, per_second: float, seconds: float, timeout_seconds: float, seed: int = 0
) -> tuple[list[Reply], list[Reply]]:
    """Poisson arrivals; each refused client comes back once, when it was told to.

    Returns:
        First replies, and replies to those who came back.
    """
    rng, first, again = random.Random(seed), [], []

    async def client(number: int, due: float) -> None:
        headers = f"X-Request-Timeout-Ms: {1000 * timeout_seconds:.0f}\r\nX-Request-ID: client-{number}\r\n"
        request = request_bytes(clip, headers=headers)
        reply = await ask(port, request, due=due)
        first.append(reply)
        if reply.status == 429 and reply.retry_after_seconds is not None:
            await asyncio.sleep(reply.retry_after_seconds)
            again.append(await ask(port, request, due=time.perf_counter()))

    due, start, tasks = 0.0, time.perf_counter(), []
    while (due := due + rng.expovariate(per_second)) < seconds:
        await asyncio.sleep(max(0.0, start + due - time.perf_counter()))
        tasks.append(asyncio.ensure_future(client(len(tasks), start + due)))
    await asyncio.gather(*tasks)
    return first, again
