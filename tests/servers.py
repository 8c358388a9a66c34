"""Real servers in processes of their own, on the loopback address; killed when their test ends."""

import contextlib
import os
import re
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx2 as httpx
import psutil

ROOT = Path(__file__).parents[1]


class Server:
    """`zorro serve` in a process of its own, with folders of its own."""

    def __init__(self, bundles: Path, folder: Path, **settings: object) -> None:
        self.folder = folder
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = int(free.getsockname()[1])
        given = {"temporary_dir": folder, "windows_dir": folder, "port": port, "bundles": bundles} | settings
        environment = os.environ | {f"ZORRO_{name.upper()}": str(value) for name, value in given.items()}
        command = [sys.executable, "-m", "cli.main", "serve"]
        with (folder.parent / f"{folder.name}.log").open("ab") as log:
            self.process = subprocess.Popen(command, cwd=ROOT, env=environment, stderr=log)
        self.url = f"http://127.0.0.1:{port}"
        until(self._is_ready, seconds=60)

    def _is_ready(self) -> bool:
        assert self.process.poll() is None, "the server ended"
        with contextlib.suppress(httpx.TransportError):
            return httpx.get(f"{self.url}/readyz").status_code == 200
        return False

    def classify(self, content: bytes) -> httpx.Response:
        return httpx.post(f"{self.url}/v1/classify", files={"file": content}, timeout=60)

    def metric(self, name: str) -> float:
        found = re.search(
            rf"^{name}(?:{{[^}}]*}})? (\S+)$", httpx.get(f"{self.url}/metrics").text, flags=re.MULTILINE
        )
        return float(found[1]) if found else 0.0

    def decode_processes(self) -> list[psutil.Process]:
        children = psutil.Process(self.process.pid).children()
        return [child for child in children if "spawn_main" in " ".join(child.cmdline())]

    def log(self) -> str:
        """What it has written to standard error."""
        return (self.folder.parent / f"{self.folder.name}.log").read_text()

    def files(self) -> list[Path]:
        return [path for path in self.folder.rglob("*") if path.is_file() and path.name != ".lock"]


def until(condition: Callable[[], bool], *, seconds: float = 20) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


@contextlib.contextmanager
def serving(bundle: Path, folder: Path, **settings: object) -> Iterator[Server]:
    """A server that is killed afterwards, whatever happened to it."""
    server = Server(bundle.parents[1], folder, **settings)
    try:
        yield server
    finally:
        server.process.kill()
        server.process.wait()
