"""Traces: a span for each request with its stages inside, the client's trace taken over, and nothing unless
asked for."""

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from fastapi.testclient import TestClient
from opentelemetry import trace
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from service.app import create_app
from service.settings import Settings
from service.tracing import otlp_exporter, trace_id
from tests.service.ready_client import ready_client

pytestmark = pytest.mark.slow

TRACE = "0af7651916cd43dd8448eb211c80319c"


@pytest.fixture(scope="module")
def exporter() -> InMemorySpanExporter:
    return InMemorySpanExporter()


@pytest.fixture(scope="module")
def client(
    bundle: Path, exporter: InMemorySpanExporter, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[TestClient]:
    folder = tmp_path_factory.mktemp("server")
    assert trace_id() is None
    settings = Settings(bundles=bundle.parents[1], temporary_dir=folder, windows_dir=folder)
    app = create_app(settings, span_exporter=exporter)
    with ready_client(app) as client:
        yield client


def test_a_request_is_a_span_with_its_stages_inside(
    client: TestClient, exporter: InMemorySpanExporter, film: Path, caplog: pytest.LogCaptureFixture
) -> None:
    headers = {"traceparent": f"00-{TRACE}-b7ad6b7169203331-01"}
    with caplog.at_level("INFO", "zorro.access"):
        assert (
            client.post("/v1/classify", files={"file": film.read_bytes()}, headers=headers).status_code == 200
        )
    client.get("/livez")
    assert trace.get_tracer_provider().force_flush()  # type: ignore[attr-defined]
    spans = {span.name: span for span in exporter.get_finished_spans()}
    assert spans.keys() >= {"upload", "decode", "inference", "POST /v1/classify"}
    assert not any("livez" in name or "readyz" in name for name in spans)
    whole = spans["POST /v1/classify"]
    assert f"{whole.context.trace_id:032x}" == TRACE
    assert any(vars(record)["fields"].get("trace_id") == TRACE for record in caplog.records)
    for name in ("upload", "decode", "inference"):
        assert spans[name].context.trace_id == whole.context.trace_id
        assert spans[name].parent is not None
        assert whole.start_time <= spans[name].start_time <= spans[name].end_time <= whole.end_time
    assert spans["inference"].attributes["windows"] == 3
    assert spans["inference"].attributes["lanes"] == "small/1/fused"


def test_an_address_needs_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    assert otlp_exporter("http://127.0.0.1:1/v1/traces")
    monkeypatch.setitem(sys.modules, "opentelemetry.exporter.otlp.proto.http.trace_exporter", None)
    with pytest.raises(ModuleNotFoundError, match="opentelemetry"):
        create_app(Settings(traces_endpoint="http://127.0.0.1:1/v1/traces"))
