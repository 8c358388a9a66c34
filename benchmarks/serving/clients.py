"""HTTP clients of a server on this machine: a closed loop, and an open loop of independent arrivals.

An open loop counts the time of a request from when it was due, not from when it was sent, and so is free of
coordinated omission.
"""

import asyncio
import random
import re
import time
from collections.abc import Callable
from dataclasses import dataclass, field

BOUNDARY = "zorro-benchmark"
GIVE_UP_SECONDS = 3.0  # a client of the open loop waits so long after its timeout
WARM_UP_SECONDS = 1.0  # of a closed loop, not measured


@dataclass(frozen=True, slots=True)
class Reply:
    """The outcome of one request."""

    status: int
    """0 if the connection broke or the client gave up."""
    seconds: float
    """From when the request was due to the last byte of its answer."""
    ended: float
    """When the last byte came, on `time.perf_counter`."""
    retry_after_seconds: float | None = None
    timings: dict[str, float] = field(default_factory=dict)
    """`Server-Timing`, in seconds."""


def post(path: str, body: bytes, headers: str = "") -> bytes:
    """A whole HTTP request; `headers` are lines that each end with CR LF."""
    kind = "" if "content-type:" in headers.lower() else "Content-Type: application/octet-stream\r\n"
    return (
        f"POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(body)}\r\n{kind}{headers}\r\n"
    ).encode() + body


def multipart(clip: bytes) -> tuple[bytes, str]:
    """A form with the clip as its part `file`, and the header line of its content type."""
    head = f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="file"; filename="clip"\r\n\r\n'.encode()
    kind = f"Content-Type: multipart/form-data; boundary={BOUNDARY}\r\n"
    return head + clip + f"\r\n--{BOUNDARY}--\r\n".encode(), kind


class Client:
    """A client with one connection, which is opened when needed and kept as long as the server keeps it."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None
        self._is_kept = False

    async def send(self, request: bytes, *, due: float, give_up_at: float | None = None) -> Reply:
        """Send one request and wait for its whole answer."""
        try:
            async with asyncio.timeout(
                None if give_up_at is None else max(0.0, give_up_at - time.perf_counter())
            ):
                try:
                    head = await self._exchange(request)
                except (OSError, asyncio.IncompleteReadError) as error:
                    if not self._is_stale(error):
                        raise
                    self.close()
                    head = await self._exchange(request)
        except (OSError, EOFError, TimeoutError, ValueError):
            self.close()
            return _reply(0, due)
        return _reply(int(head.split(b" ", 2)[1]), due, head)

    def _is_stale(self, error: Exception) -> bool:
        """Whether the server had closed the kept connection before it read this request, as it may."""
        return self._is_kept and not getattr(error, "partial", b"")

    async def _exchange(self, request: bytes) -> bytes:
        self._is_kept = self._streams is not None
        if self._streams is None:
            self._streams = await asyncio.open_connection("127.0.0.1", self._port)
        reader, writer = self._streams
        writer.write(request)
        head = (await reader.readuntil(b"\r\n\r\n")).lower()
        length = re.search(rb"\r\ncontent-length: *(\d+)", head)
        if length is not None:
            await reader.readexactly(int(length[1]))
        elif b"transfer-encoding: chunked" in head:
            while size := int(await reader.readuntil(b"\r\n"), 16):
                await reader.readexactly(size + 2)
            await reader.readexactly(2)
        else:
            await reader.read()
        if (length is None and b"chunked" not in head) or b"connection: close" in head:
            self.close()
        return head

    def close(self) -> None:
        """Close the connection."""
        if self._streams is not None:
            self._streams[1].transport.abort()
            self._streams = None


def _reply(status: int, due: float, head: bytes = b"") -> Reply:
    now = time.perf_counter()
    retry = re.search(rb"retry-after: *([\d.]+)", head)
    timings = {name.decode(): float(ms) / 1000 for name, ms in re.findall(rb"(\w+);dur=([\d.]+)", head)}
    return Reply(status, now - due, now, float(retry[1]) if retry else None, timings)


async def closed_loop(port: int, request: bytes, *, num_clients: int, seconds: float) -> list[Reply]:
    """Replies to clients of which each sends its next request as soon as it is answered.

    Replies of the warm-up, and those later than `seconds` after it, are left out.
    """
    begin = time.perf_counter() + WARM_UP_SECONDS
    end, replies = begin + seconds, list[Reply]()

    async def client() -> None:
        connection = Client(port)
        while time.perf_counter() < end:
            replies.append(await connection.send(request, due=time.perf_counter(), give_up_at=end + 60))
        connection.close()

    await asyncio.gather(*(client() for _ in range(num_clients)))
    return [reply for reply in replies if begin < reply.ended <= end]


async def open_loop(
    port: int,
    make_request: Callable[[str], bytes],
    *,
    per_second: float,
    seconds: float,
    timeout_seconds: float,
    retries: bool,
    seed: int = 0,
) -> tuple[list[Reply], list[Reply]]:
    """Send requests with Poisson arrivals.

    Args:
        port: of the server.
        make_request: makes a request with the given header lines.
        per_second: arrivals per second.
        seconds: duration of the arrivals.
        timeout_seconds: timeout of a request, which it tells the server; the client leaves some time after.
        retries: whether a refused client sends its request once more, after the `Retry-After` it was given.
        seed: of the arrivals.

    Returns:
        Replies to the first requests, and replies to the repeated ones.
    """
    rng, idle = random.Random(seed), list[Client]()
    first, again = list[Reply](), list[Reply]()

    async def send(request: bytes, due: float) -> Reply:
        client = idle.pop() if idle else Client(port)
        try:
            return await client.send(request, due=due, give_up_at=due + timeout_seconds + GIVE_UP_SECONDS)
        finally:
            idle.append(client)

    async def arrive(number: int, due: float) -> None:
        request = make_request(
            f"X-Request-Timeout-Ms: {1000 * timeout_seconds:.0f}\r\nX-Request-ID: client-{number}\r\n"
        )
        reply = await send(request, due)
        first.append(reply)
        if retries and reply.status == 429 and reply.retry_after_seconds is not None:
            await asyncio.sleep(reply.retry_after_seconds)
            again.append(await send(request, time.perf_counter()))

    due, start, tasks = 0.0, time.perf_counter(), list[asyncio.Future[None]]()
    while (due := due + rng.expovariate(per_second)) < seconds:
        await asyncio.sleep(max(0.0, start + due - time.perf_counter()))
        tasks.append(asyncio.ensure_future(arrive(len(tasks), start + due)))
    await asyncio.gather(*tasks)
    for client in idle:
        client.close()
    return first, again
