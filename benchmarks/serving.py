"""The server under load with real clips: against its ceiling, against a plain server, and at 300 % of what it can do.

The ceiling is what decoding and inference alone would allow: all cores, divided by the processor time of one clip.
"""

import asyncio
import contextlib
import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnxruntime

from media import MediaLimits, Modality, read_clips
from runtime import Zorro

from .clients import Reply, closed_loop, open_loop, request_bytes
from .films import write_film
from .machine import ROOT
from .measure import Measured
from .result import Ratio, Result

BUNDLE = ROOT / "bundles" / "sights-sounds" / "1"
CLIENTS = (1, 4, 16)
TIMEOUT_SECONDS = 2.0
OVERLOAD = 3.0
LOOP_SECONDS = 6.0
OPEN_SECONDS = 15.0
MIN_CEILING_SHARE, MIN_AHEAD, MIN_GOODPUT, MIN_KEPT, MAX_REFUSAL_SECONDS = 0.9, 1.2, 0.95, 0.8, 0.05


def run(rounds: int = 3) -> Result:
    """Measure closed loops in turn, then the open one."""
    with tempfile.TemporaryDirectory() as folder:
        clip = write_film(Path(folder) / "film.mp4", width=640, height=360).read_bytes()
    cores = len(os.sched_getaffinity(0))
    parameters = {
        "clip": "10 s, 640x360, 30 frames per second, stereo", "windows": 2, "clients": list(CLIENTS), "cores": cores,
        "loop_seconds": LOOP_SECONDS, "rounds": rounds, "overload": OVERLOAD, "timeout_seconds": TIMEOUT_SECONDS,
    }  # fmt: skip
    result = Result(name="serving", parameters=parameters)
    cost = cpu_seconds(clip)
    ceiling = cores / sum(cost.values())
    result.counts |= {f"processor seconds of a clip, {name}": value for name, value in cost.items()}
    result.counts["ceiling, clips per second"] = ceiling
    ours = [sys.executable, "-m", "cli.main", "serve", "--bundles", str(BUNDLE.parents[1])]
    plain = [sys.executable, "-m", "benchmarks.plain_server", str(BUNDLE)]
    with server([*ours, "--port"]) as our_port, server(plain) as plain_port:
        best = _closed(result, {"ours": our_port, "plain": plain_port}, clip, rounds)
        result.ratios += [
            Ratio(what="clips per second, 16 clients", against="ceiling of decoding and inference",
                  value=best["ours"] / ceiling, at_least=MIN_CEILING_SHARE),
            Ratio(what="clips per second, 16 clients", against="plain FastAPI and ONNX Runtime",
                  value=best["ours"] / best["plain"], at_least=MIN_AHEAD),
        ]  # fmt: skip
        _overloaded(result, our_port, clip, best["ours"])
    return result


def cpu_seconds(clip: bytes, *, times: int = 10) -> dict[str, float]:
    """Least processor time of one clip on one thread: decoding, and the fused graph for its windows, eight at a time."""
    zorro = Zorro.open(BUNDLE)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(zorro.bundle.graphs[Modality.FUSED], options)
    decode, inference = [], []
    for _ in range(times):
        start = time.process_time()
        clips = list(read_clips(clip, zorro.bundle.clip_spec, limits=MediaLimits(max_threads=1)))
        decode.append(time.process_time() - start)
        eight = (clips * 8)[:8]
        inputs = {name: np.stack([getattr(x, name) for x in eight]) for name in ("audio", "video")}
        start = time.process_time()
        session.run(None, inputs)
        inference.append((time.process_time() - start) * len(clips) / 8)
    return {"decoding": min(decode), "inference": min(inference)}


def _closed(result: Result, ports: dict[str, int], clip: bytes, rounds: int) -> dict[str, float]:
    """Clips per second of each server with each number of clients; returns the best with the most clients."""
    request = request_bytes(clip)
    rates: dict[tuple[str, int], list[float]] = {}
    latencies: dict[tuple[str, int], list[float]] = {}
    for _ in range(rounds):
        for num_clients in CLIENTS:
            for name, port in ports.items():
                start = time.perf_counter()
                replies = asyncio.run(closed_loop(port, request, num_clients=num_clients, seconds=LOOP_SECONDS))
                result.check(f"{name}: answers that failed", sum(r.status != 200 for r in replies), at_most=0)
                rates.setdefault((name, num_clients), []).append(len(replies) / (time.perf_counter() - start))
                latencies.setdefault((name, num_clients), []).append(min(reply.seconds for reply in replies))
    for (name, num_clients), values in rates.items():
        result.entries[f"{name}, {num_clients} clients"] = Measured(tuple(values), unit="clips/s")
    for name in ports:
        result.entries[f"{name}, latency of one client"] = Measured(tuple(latencies[name, 1]))
    return {name: max(rates[name, CLIENTS[-1]]) for name in ports}


def _overloaded(result: Result, port: int, clip: bytes, capacity: float) -> None:
    """At three times its capacity, with clients that allow two seconds and come back when told."""
    start = time.perf_counter()
    first, again = asyncio.run(
        open_loop(port, clip, per_second=OVERLOAD * capacity, seconds=OPEN_SECONDS, timeout_seconds=TIMEOUT_SECONDS)
    )
    answered = [r for r in first + again if r.status == 200 and r.ended <= start + OPEN_SECONDS]
    in_time = [r for r in answered if r.seconds <= TIMEOUT_SECONDS]
    refused = sorted(r.seconds for r in first if r.status == 429)
    p99 = refused[int(0.99 * (len(refused) - 1))] if refused else 0.0
    kept = sum(r.status == 200 for r in again) / max(1, len(again))
    result.counts |= {
        "overload: arrivals": len(first), "overload: in time while they arrived": len(in_time),
        "overload: refused": len(refused),
        "overload: late": _late(first + again), "overload: past the deadline (504)": _count(first + again, 504),
        "overload: broken": _count(first + again, 0), "overload: came back": len(again),
        "overload: 99th percentile of a refusal, seconds": p99,
    }  # fmt: skip
    result.ratios += [
        Ratio(what="answers in time at 300 %", against="capacity",
              value=len(in_time) / (capacity * OPEN_SECONDS), at_least=MIN_GOODPUT),
        Ratio(what="clients that came back when told and got in", against="all who did", value=kept, at_least=MIN_KEPT),
        Ratio(what="99th percentile of a refusal", against="50 ms", value=p99 / MAX_REFUSAL_SECONDS, at_most=1.0),
    ]  # fmt: skip


def _late(replies: list[Reply]) -> int:
    return sum(r.status == 200 and r.seconds > TIMEOUT_SECONDS for r in replies)


def _count(replies: list[Reply], status: int) -> int:
    return sum(r.status == status for r in replies)


@contextlib.contextmanager
def server(command: list[str]) -> Iterator[int]:
    """Start `command` with a free port as its last word, wait until it is ready, and end it afterwards."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = int(free.getsockname()[1])
    environment = {k: v for k, v in os.environ.items() if not k.endswith("_NUM_THREADS")}
    process = subprocess.Popen([*command, str(port)], cwd=ROOT, env=environment)
    try:
        _wait(process, port)
        yield port
    finally:
        process.terminate()
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _wait(process: subprocess.Popen[bytes], port: int) -> None:
    for _ in range(600):
        if process.poll() is not None:
            raise RuntimeError(f"a server ended with {process.returncode} before it was ready")
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=5) as connection:
            connection.sendall(b"GET /readyz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
            if connection.recv(100).startswith(b"HTTP/1.1 200"):
                return
        time.sleep(0.1)
    raise RuntimeError("a server was not ready within a minute")
