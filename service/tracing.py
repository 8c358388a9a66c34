"""Traces by OpenTelemetry: a span for each request, and in it those of upload, decode and inference.

`span` costs next to nothing as long as nobody collects. `export_traces` needs the extra `otel`.
"""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING

from fastapi import FastAPI
from opentelemetry import trace

if TYPE_CHECKING:
    from opentelemetry.sdk.trace.export import SpanExporter

SERVICE_NAME = "zorro-av"
NO_SPANS = "livez,readyz,metrics,v2/health"  # what is asked all day long by machines
_tracer = trace.get_tracer(SERVICE_NAME)


def span(name: str, **attributes: str | int) -> AbstractContextManager[object]:
    """A span for as long as the context lasts, inside the request's; none if that has none."""
    if not trace.get_current_span().get_span_context().is_valid:
        return nullcontext()
    return _tracer.start_as_current_span(name, attributes=attributes)


def trace_id() -> str | None:
    """Of the request at work, in hex, as `traceparent` has it; None if nobody collects."""
    context = trace.get_current_span().get_span_context()
    return trace.format_trace_id(context.trace_id) if context.is_valid else None


def otlp_exporter(endpoint: str) -> "SpanExporter":
    """Sends to a collector by OTLP over HTTP, at an address such as http://localhost:4318/v1/traces.

    Raises:
        ModuleNotFoundError: the extra `otel` is not installed.
    """
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter

    return OTLPSpanExporter(endpoint=endpoint)


def export_traces(app: FastAPI, exporter: "SpanExporter") -> Callable[[], None]:
    """Trace every request to `app`; `traceparent` of the client is taken over.

    Returns:
        What sends the last spans and ends it.
    """
    from opentelemetry.instrumentation.asgi import OpenTelemetryMiddleware
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor

    provider = TracerProvider(resource=Resource.create({"service.name": SERVICE_NAME}))
    provider.add_span_processor(BatchSpanProcessor(exporter))
    trace.set_tracer_provider(provider)
    app.add_middleware(
        OpenTelemetryMiddleware,
        tracer_provider=provider,
        excluded_urls=NO_SPANS,
        exclude_spans=["receive", "send"],
    )
    return provider.shutdown
