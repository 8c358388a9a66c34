"""`zorro serve` of one bundle in a process of its own, from its start until it is stopped."""

import json
import os
import re
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from runtime import Bundle

from .http_client import HOST, REQUEST_SECONDS, ServerFault, exchange, fetch

READY_SECONDS = 300.0  # to load, self-test and listen
STOP_SECONDS = 15.0


@contextmanager
def serve_bundle(bundle: Bundle, variant: str, num_clients: int) -> Iterator[int]:
    """Serve one variant of a bundle as long as the context lasts; gives the port.

    Args:
        bundle: to serve alone.
        variant: of the bundle.
        num_clients: how many will send requests at once; the server decodes as many files at a time.

    Raises:
        ServerFault: the server ends, is not ready in time, or serves something else.
    """
    with tempfile.TemporaryDirectory(prefix="zorro-proof-") as folder:
        port, log = free_port(), Path(folder) / "log"
        with log.open("wb") as file:
            server = subprocess.Popen(
                [sys.executable, "-m", "cli.main", "serve"],
                cwd=Path(__file__).parents[1],
                env=_environment(bundle, variant, num_clients, port, folder),
                stdin=subprocess.DEVNULL,
                stderr=file,
            )
        try:
            _wait_until_ready(server, port, log)
            check_served(port, bundle, variant)
            yield port
        finally:
            stop_server(server)


def check_served(port: int, bundle: Bundle, variant: str) -> None:
    """Check that the server serves this variant of this bundle and nothing else.

    Raises:
        ServerFault: it does not.
    """
    served = [(x["sha256"], x["variant"]) for x in json.loads(fetch(port, "/v1/models"))["data"]]
    if served != [(bundle.sha256, variant)]:
        raise ServerFault(f"the server serves {served}, and not {variant} of {bundle.path}, {bundle.sha256}")


def free_port() -> int:
    """A port that nobody listens on now."""
    with socket.socket() as probed:
        probed.bind((HOST, 0))
        return int(probed.getsockname()[1])


def stop_server(server: "subprocess.Popen[bytes]") -> None:
    """Ask the server to end, and kill it if it does not within `STOP_SECONDS`."""
    server.terminate()
    try:
        server.wait(timeout=STOP_SECONDS)
    except subprocess.TimeoutExpired:
        server.kill()
        server.wait()


def _environment(bundle: Bundle, variant: str, num_clients: int, port: int, folder: str) -> dict[str, str]:
    """Settings of the server: those here, and none that are set for another one."""
    place = Path(folder) / "bundles" / bundle.name / bundle.version
    place.parent.mkdir(parents=True)
    place.symlink_to(bundle.path, target_is_directory=True)
    settings = {
        "bundles": place.parents[1],
        "variant": variant,
        "host": HOST,
        "port": port,
        "drain_seconds": 0,
        "request_timeout_seconds": REQUEST_SECONDS,
        "temporary_dir": folder,
        "num_sessions": 1,
        "num_decode_workers": num_clients,  # so that windows of several clips wait together
    }
    others = {name: value for name, value in os.environ.items() if not name.startswith("ZORRO_")}
    return others | {f"ZORRO_{name.upper()}": str(value) for name, value in settings.items()}


def _wait_until_ready(server: "subprocess.Popen[bytes]", port: int, log: Path) -> None:
    deadline = time.monotonic() + READY_SECONDS
    while time.monotonic() < deadline:
        if server.poll() is not None:
            raise ServerFault(
                f"the server ended with status {server.returncode} before it was ready: {_last_words(log)}"
            )
        with suppress(ServerFault):  # nobody listens yet
            status, _ = exchange(port, "/readyz")
            if status == 200:
                return
            if status != 503:
                break
        time.sleep(0.1)
    raise ServerFault(f"the server was not ready within {READY_SECONDS:g} s: {_last_words(log)}")


def _last_words(log: Path) -> str:
    """Why the server did not load its models, or the end of its log."""
    text = log.read_text(errors="replace").strip()
    found = re.search(r"the models could not be loaded: [^\"\\]+", text)
    return found[0] if found else text[-500:]
