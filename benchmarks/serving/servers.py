"""The servers to measure: how to start, request, watch and end each. One runs at a time, on loopback."""

import contextlib
import json
import math
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import psutil

from benchmarks.machine import ROOT
from media import Modality
from runtime import Zorro
from runtime.signature import input_tensors

from .clients import multipart, post
from .peers.ready_paths import PATHS, READY_PATHS

READY_SECONDS, END_SECONDS = 180.0, 30.0
PEERS = ("plain", "litserve", "bentoml", "mlserver", "ray")
ENVIRONMENTS = ROOT / ".venv-peers"

MakeRequest = Callable[[str], bytes]
"""Makes a whole HTTP request with the given header lines."""


@dataclass(frozen=True, slots=True)
class Server:
    """How to start a server and what to send it."""

    name: str
    command: list[str]
    """A free port is added as its last word."""
    ready_path: str
    requests: dict[str, MakeRequest]
    """Requests by workload: clips, audio, fused."""


def ours(bundle: Path, clip: bytes) -> Server:
    """`zorro serve` with its default settings."""
    body, kind = multipart(clip)
    model = Zorro.open(bundle)
    requests: dict[str, MakeRequest] = {"clips": lambda headers: post("/v1/classify", body, kind + headers)}
    for modality in (Modality.AUDIO, Modality.FUSED):
        requests[modality] = _protocol_request(model, modality)
    command = [sys.executable, "-m", "cli.main", "serve", "--bundles", str(bundle.parents[1]), "--port"]
    return Server("ours", command, "/readyz", requests)


def peer(name: str, bundle: Path, clip: bytes) -> Server | None:
    """One of `PEERS`; None if its environment is not installed."""
    python = Path(sys.executable) if name == "plain" else ENVIRONMENTS / name / "bin" / "python"
    if not python.exists():
        return None
    model, paths = Zorro.open(bundle), PATHS[name]
    requests: dict[str, MakeRequest] = {"clips": partial(post, paths["clips"], clip)}
    for modality in (Modality.AUDIO, Modality.FUSED):
        body = b"".join(tensor.tobytes() for tensor in window(model, modality).values())
        requests[modality] = partial(post, paths[modality], body)
    module = name if name == "plain" else f"{name}_peer"
    command = [str(python), "-m", f"benchmarks.serving.peers.{module}", str(bundle)]
    return Server(name, command, READY_PATHS.get(name, "/readyz"), requests)


def window(model: Zorro, modality: Modality) -> dict[str, np.ndarray]:
    """One window of noise."""
    random = np.random.default_rng(0)
    return {
        name: random.integers(0, 200, shape).astype(dtype)
        for name, dtype, shape in input_tensors(modality, model.bundle.clip_spec)
    }


def _protocol_request(model: Zorro, modality: Modality) -> MakeRequest:
    """One window in the Open Inference Protocol; its body is made once, like those of peers."""
    tensors = window(model, modality)
    inputs: list[dict[str, Any]] = [
        {
            "name": name,
            "shape": [1, *tensor.shape],
            "datatype": {"float32": "FP32", "uint8": "UINT8"}[str(tensor.dtype)],
            "parameters": {"binary_data_size": math.prod(tensor.shape) * tensor.itemsize},
        }
        for name, tensor in tensors.items()
    ]
    head = json.dumps({"inputs": inputs, "parameters": {"binary_data_output": True}}).encode()
    body = head + b"".join(tensor.tobytes() for tensor in tensors.values())
    length = f"Inference-Header-Content-Length: {len(head)}\r\n"
    return lambda headers: post(f"/v2/models/{model.bundle.name}/infer", body, length + headers)


class RunningServer:
    """A running server and its processes."""

    def __init__(self, server: Server, process: "subprocess.Popen[bytes]", port: int) -> None:
        self.server, self.port = server, port
        self._process = process

    @property
    def pid(self) -> int:
        """Id of its first process."""
        return self._process.pid

    def private_bytes(self) -> int:
        """Bytes of memory that its processes share with no other process."""
        return sum(self.private_bytes_by_process())

    def private_bytes_by_process(self) -> list[int]:
        """The same by process, the first process first."""
        private = []
        for process in [psutil.Process(self.pid), *psutil.Process(self.pid).children(recursive=True)]:
            with contextlib.suppress(psutil.NoSuchProcess):
                private.append(process.memory_full_info().uss)
        return private


@contextlib.contextmanager
def running(server: Server, **settings: object) -> Iterator[RunningServer]:
    """Start a server, wait until it is ready, and at the end stop it with all its processes."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = int(free.getsockname()[1])
    environment = {k: v for k, v in os.environ.items() if not k.endswith("_NUM_THREADS")}
    environment |= {f"ZORRO_{name.upper()}": str(value) for name, value in settings.items()}
    process = subprocess.Popen(
        [*server.command, str(port)],
        cwd=ROOT,
        env=environment,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        _wait(server, process, port)
        yield RunningServer(server, process, port)
    finally:
        _end(process)


def _wait(server: Server, process: "subprocess.Popen[bytes]", port: int) -> None:
    ask = f"GET {server.ready_path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n".encode()
    end = time.monotonic() + READY_SECONDS
    while time.monotonic() < end:
        if process.poll() is not None:
            raise RuntimeError(f"{server.name} ended with {process.returncode} before it was ready")
        with (
            contextlib.suppress(OSError),
            socket.create_connection(("127.0.0.1", port), timeout=5) as connection,
        ):
            connection.sendall(ask)
            if connection.recv(100).startswith(b"HTTP/1.1 200"):
                return
        time.sleep(0.1)
    raise RuntimeError(f"{server.name} was not ready within {READY_SECONDS:g} s")


def _end(process: "subprocess.Popen[bytes]") -> None:
    """End it and what it started; who does not go is made to."""
    children = []
    with contextlib.suppress(psutil.NoSuchProcess):
        children = psutil.Process(process.pid).children(recursive=True)
    process.send_signal(signal.SIGTERM)
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(END_SECONDS)
    _, left = psutil.wait_procs(children, timeout=1)
    for child in left:
        with contextlib.suppress(psutil.NoSuchProcess):
            child.kill()
    if process.poll() is None:
        process.kill()
        process.wait()
