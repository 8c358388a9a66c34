"""Faults while others are being answered: a poisoned clip, a model that raises, a full disk.

Nobody else notices.
"""

import errno
import re
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Lock
from typing import Any

import numpy as np
import pytest
from fastapi.testclient import TestClient

from media import Clip
from service.app import create_app
from service.graph_queue import GraphOutputs
from service.settings import Settings
from tests.made_media import tone, write_clip
from tests.service.ready_client import ready_client, state_behind

pytestmark = pytest.mark.slow

NUM_CLIENTS, NUM_REQUESTS = 6, 36
GRAPH = "small/1/audio"


@pytest.fixture
def client(bundle: Path, tmp_path: Path) -> Iterator[TestClient]:
    settings = Settings(
        bundles=bundle.parents[1], temporary_dir=tmp_path, windows_dir=tmp_path, num_decode_workers=2
    )
    with ready_client(create_app(settings)) as client:
        yield client
        assert [path for path in tmp_path.rglob("zorro-upload-*") if path.is_file()] == []
        assert _metric(client, "zorro_in_flight") == 0


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    return write_clip(tmp_path_factory.mktemp("media") / "a.wav", waveform=tone(0.6)).read_bytes()


@pytest.fixture(scope="module")
def silence(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    return write_clip(
        tmp_path_factory.mktemp("media") / "b.wav", waveform=np.zeros(9600, np.float32)
    ).read_bytes()


def _metric(client: TestClient, name: str) -> float:
    found = re.search(rf"^{name}(?:{{[^}}]*}})? (\S+)$", client.get("/metrics").text, flags=re.MULTILINE)
    return float(found[1]) if found else 0.0


def _ask_all(client: TestClient, contents: Sequence[bytes]) -> list[Any]:
    with ThreadPoolExecutor(NUM_CLIENTS) as clients:
        return list(
            clients.map(lambda content: client.post("/v1/classify", files={"file": content}), contents)
        )


def _instead(
    client: TestClient, run: Callable[[Callable[..., GraphOutputs], Sequence[Clip]], GraphOutputs]
) -> None:
    """Run the audio graph through `run`."""
    queue = state_behind(client).engine.batcher.queues[GRAPH]
    for name in ("run", "run_alone"):
        real = getattr(queue, name)
        setattr(queue, name, lambda clips, real=real: run(real, clips))


def test_a_poisoned_clip_fails_alone(client: TestClient, sound: bytes, silence: bytes) -> None:
    def choke(real: Callable[..., GraphOutputs], clips: Sequence[Clip]) -> GraphOutputs:
        if any(clip.is_silent for clip in clips):
            raise RuntimeError("a kernel choked")
        return real(clips)

    _instead(client, choke)
    contents = [silence if i % 9 == 4 else sound for i in range(NUM_REQUESTS)]
    answers = _ask_all(client, contents)
    for content, answer in zip(contents, answers, strict=True):
        assert answer.status_code == (500 if content is silence else 200)
    assert {a.json()["code"] for a in answers if a.status_code == 500} == {"internal_error"}
    assert _metric(client, "zorro_failed_batches_total") >= 4
    assert "choked" not in "".join(a.text for a in answers)  # strangers do not read our errors
    assert client.post("/v1/classify", files={"file": sound}).status_code == 200


def test_a_model_that_raises_once_costs_at_most_a_batch_of_one(client: TestClient, sound: bytes) -> None:
    lock, calls = Lock(), Counter[str]()

    def raise_once(real: Callable[..., GraphOutputs], clips: Sequence[Clip]) -> GraphOutputs:
        with lock:
            calls["all"] += 1
            if calls["all"] == 10:
                calls["size"] = len(clips)
                raise RuntimeError("out of device memory")
        return real(clips)

    _instead(client, raise_once)
    answers = _ask_all(client, [sound] * NUM_REQUESTS)
    lost = [answer for answer in answers if answer.status_code != 200]
    assert len(lost) == (calls["size"] == 1)  # a larger batch runs again, window by window
    assert _metric(client, "zorro_failed_batches_total") == 1
    assert client.get("/livez").status_code == 200
    assert client.post("/v1/classify", files={"file": sound}).status_code == 200


def test_a_full_disk_costs_only_what_does_not_fit(
    client: TestClient, sound: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = tempfile.NamedTemporaryFile

    def small(**options: Any) -> Any:
        file = real(**options)
        write, written = file.file.write, 0

        def limited(content: bytes) -> int:
            nonlocal written
            written += len(content)
            if written > 2 * len(sound):
                raise OSError(errno.ENOSPC, "No space left on device")
            return int(write(content))

        file.write = limited
        return file

    monkeypatch.setattr("service.upload.NamedTemporaryFile", small)
    large = sound + bytes(2 * len(sound))
    contents = [large if i % 6 == 5 else sound for i in range(NUM_REQUESTS)]
    for content, answer in zip(contents, _ask_all(client, contents), strict=True):
        if content is sound:
            assert answer.status_code == 200
        else:
            assert (answer.status_code, answer.json()["code"]) == (503, "out_of_space")
            assert answer.headers["Retry-After"] == "1"
    assert 'zorro_rejected_total{code="out_of_space"} 6.0' in client.get("/metrics").text
