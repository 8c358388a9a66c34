"""OpenTelemetry traces: a span for each request, and inside it those of upload, decode and inference.

`span` costs next to nothing while nobody collects traces. To collect them the extra `otel` must be installed.
"""

from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING

from fastapi import FastAPI
from opentelemetry import trace

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import SpanExporter

SERVICE_NAME = "zorro-av"
UNTRACED_URLS = "livez,readyz,metrics,v2/health"  # polled by machines all day long
_tracer = trace.get_tracer(SERVICE_NAME)


def span(name: str, **attributes: str | int) -> AbstractContextManager[object]:
    """A span inside the request's for as long as the context is open; none if the request is not traced."""
    if not trace.get_current_span().get_span_context().is_valid:
        return nullcontext()
    return _tracer.start_as_current_span(name, attributes=attributes)


def trace_id() -> str | None:
    """The current request's trace id in hex, as in `traceparent`; None if it is not traced."""
    context = trace.get_current_span().get_span_context()
    return trace.format_trace_id(context.trace_id) if context.is_valid else None


def otlp_exporter(endpoint: str) -> "SpanExporter":
    """An exporter to a collector by OTLP over HTTP, at an address such as http://localhost:4318/v1/traces.

    Raises:
        ModuleNotFoundError: the extra `otel` is not installed.
    """
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter

    return OTLPSpanExporter(endpoint=endpoint)


def tracer_provider(exporter: "SpanExporter") -> "TracerProvider":
    """Send the spans of this process to `exporter` from now on.

    `shutdown` of the provider sends the last ones.
    """
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor

    provider = TracerProvider(resource=Resource.create({"service.name": SERVICE_NAME}))
    provider.add_span_processor(BatchSpanProcessor(exporter))
    trace.set_tracer_provider(provider)
    return provider


def trace_requests(app: FastAPI, provider: "TracerProvider") -> None:
    """Trace every request to `app`, inside the client's trace if it sends a `traceparent`."""
    from opentelemetry.instrumentation.asgi import OpenTelemetryMiddleware

    app.add_middleware(
        OpenTelemetryMiddleware,
        tracer_provider=provider,
        excluded_urls=UNTRACED_URLS,
        exclude_spans=["receive", "send"],
    )
