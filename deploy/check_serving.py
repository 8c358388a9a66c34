"""Starts `zorro serve` beside this Python, sends it a clip, prints what it answered, and stops it.

    python deploy/check_serving.py [--bundles FOLDER] [--clip FILE] [--seconds 120]

It fails if torch can be imported, if the server is not ready in time, or if the clip gets no labels. It needs
the standard library only, so it runs in any serving environment: a venv, or the container image.
"""

import argparse
import importlib.util
import io
import json
import math
import os
import socket
import struct
import subprocess
import sys
import time
import urllib.error
import urllib.request
import uuid
import wave
from pathlib import Path
from typing import Any

SAMPLE_RATE = 16_000  # Hz


def main() -> None:
    """Check, print one line of JSON, exit 0; or exit with the reason."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--bundles", default=os.environ.get("ZORRO_BUNDLES", "bundles"))
    parser.add_argument("--clip", type=Path, help="a video, a sound or a picture; default a tone made here")
    parser.add_argument("--seconds", type=float, default=120.0, help="longest time for all of it")
    args = parser.parse_args()
    if importlib.util.find_spec("torch") is not None:
        sys.exit("torch is installed here: a serving environment must not have it")
    deadline = time.monotonic() + args.seconds
    name, content = (args.clip.name, args.clip.read_bytes()) if args.clip else ("tone.wav", tone())
    port = free_port()
    started = time.monotonic()
    server = subprocess.Popen(
        [Path(sys.executable).parent / "zorro", "serve", "--port", str(port), "--bundles", args.bundles],
        stdin=subprocess.DEVNULL,
        env=os.environ | {"ZORRO_HOST": "127.0.0.1"},
    )
    try:
        wait_until_ready(server, f"http://127.0.0.1:{port}", deadline)
        ready_seconds = round(time.monotonic() - started, 2)
        answer = classify(f"http://127.0.0.1:{port}", name, content, deadline)
    finally:
        stop(server)
    best = {x["modality"]: f"{x['labels'][0]['label']} {x['labels'][0]['score']:.0%}" for x in answer["data"]}
    print(
        json.dumps({"ready_seconds": ready_seconds, "model": answer["model"], "clip": name, "answers": best})
    )


def tone(*, seconds: float = 1.0, hz: float = 440.0) -> bytes:
    """A WAV file."""
    samples = (
        int(8_000 * math.sin(2 * math.pi * hz * i / SAMPLE_RATE)) for i in range(int(seconds * SAMPLE_RATE))
    )
    file = io.BytesIO()
    with wave.open(file, "wb") as audio:
        audio.setnchannels(1)
        audio.setsampwidth(2)
        audio.setframerate(SAMPLE_RATE)
        audio.writeframes(b"".join(struct.pack("<h", sample) for sample in samples))
    return file.getvalue()


def free_port() -> int:
    """A free port of this machine."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def wait_until_ready(server: subprocess.Popen[bytes], url: str, deadline: float) -> None:
    """Return when /readyz says yes; exit if the server ends or the time is over."""
    while time.monotonic() < deadline:
        if server.poll() is not None:
            sys.exit(f"zorro serve ended with status {server.returncode} before it was ready")
        try:
            with urllib.request.urlopen(f"{url}/readyz", timeout=5):
                return
        except (urllib.error.URLError, ConnectionError, TimeoutError):
            time.sleep(0.1)
    sys.exit(f"{url}/readyz did not say yes in time")


def classify(url: str, name: str, content: bytes, deadline: float) -> dict[str, Any]:
    """The server's answer for the whole clip."""
    boundary = uuid.uuid4().hex
    parts = (
        f'--{boundary}\r\nContent-Disposition: form-data; name="scope"\r\n\r\nasset\r\n'
        f'--{boundary}\r\nContent-Disposition: form-data; name="file"; filename="{name}"\r\n'
        "Content-Type: application/octet-stream\r\n\r\n"
    )
    body = parts.encode() + content + f"\r\n--{boundary}--\r\n".encode()
    headers = {"Content-Type": f"multipart/form-data; boundary={boundary}"}
    request = urllib.request.Request(f"{url}/v1/classify", data=body, headers=headers, method="POST")
    try:
        with urllib.request.urlopen(request, timeout=max(1.0, deadline - time.monotonic())) as response:
            answer: dict[str, Any] = json.load(response)
    except urllib.error.HTTPError as error:
        sys.exit(f"the clip got status {error.code}: {error.read().decode(errors='replace')}")
    if not answer["data"]:
        sys.exit(f"the clip got an answer without labels: {answer}")
    return answer


def stop(server: subprocess.Popen[bytes]) -> None:
    """Stop the server by SIGTERM; kill it and exit if it does not stop."""
    server.terminate()
    try:
        server.wait(timeout=15)
    except subprocess.TimeoutExpired:
        server.kill()
        server.wait()
        sys.exit("zorro serve did not stop within 15 s of SIGTERM")


if __name__ == "__main__":
    main()
