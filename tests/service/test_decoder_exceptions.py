"""An exception that nobody foresaw in a decode process: an answer, a count and a line in the log, and no
500."""

import functools
import json
import logging
from collections.abc import Iterator
from pathlib import Path

import pytest
from fastapi.testclient import TestClient

import service.inference
from service.app import create_app
from service.decode_pool import DecodePool
from service.logs import JsonFormatter
from service.settings import Settings
from tests.service.faulty_decoders import break_as_told
from tests.service.ready_client import ready_client

pytestmark = pytest.mark.slow

METRIC = 'zorro_decode_exceptions_total{exception="ValueError"}'


@pytest.fixture
def client(bundle: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[TestClient]:
    """A server whose decode processes raise what the file says."""
    faulty = functools.partial(DecodePool, decode=break_as_told)
    monkeypatch.setattr(service.inference, "DecodePool", faulty)
    with ready_client(create_app(Settings(bundles=bundle.parents[1], num_decode_workers=1))) as client:
        yield client


def test_an_unknown_exception_is_answered_counted_and_logged_once(
    client: TestClient, song: Path, caplog: pytest.LogCaptureFixture
) -> None:
    assert METRIC not in client.get("/metrics").text
    headers = {"X-Request-ID": "mine"}
    failed = client.post("/v1/classify", files={"file": b"raise ValueError"}, headers=headers)
    assert (failed.status_code, failed.json()["code"]) == (422, "decoder_failed")
    assert "ValueError" in failed.json()["detail"]
    assert "31 is not" not in failed.text  # the exception's own words are for the log

    (record,) = [record for record in caplog.records if record.levelno >= logging.WARNING]
    line = JsonFormatter().format(record)
    assert "\n" not in line
    assert json.loads(line)["message"] == "request mine: the decoder failed"
    for part in ("ValueError: 31 is not a valid Type", "in _raise", "faulty_decoders.py"):
        assert part in json.loads(line)["exception"]

    metrics = client.get("/metrics").text
    assert f"{METRIC} 1.0" in metrics
    assert 'zorro_rejected_total{code="decoder_failed"} 1.0' in metrics
    assert client.post("/v1/classify", files={"file": song.read_bytes()}).status_code == 200
