"""The application as a function of its settings: `create_app(settings)`; nothing happens at import."""

import asyncio
import functools
import gc
import logging
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from fastapi import FastAPI, Request
from starlette.exceptions import HTTPException
from starlette.responses import Response

from .admission import Admission
from .errors import DecoderFailed, ServiceError, code_of, problem_response
from .inference import InferenceEngine
from .metrics import Metrics
from .middleware import RequestMiddleware
from .model_repository import ModelRepository, load_models
from .routes import add_routes
from .settings import Settings
from .state import ServerState, set_state
from .temporary_folders import clean_leftovers, private_folder
from .tracing import otlp_exporter, trace_requests, tracer_provider

if TYPE_CHECKING:
    from opentelemetry.sdk.trace.export import SpanExporter

service_log = logging.getLogger("zorro.service")


def create_app(settings: Settings, *, span_exporter: "SpanExporter | None" = None) -> FastAPI:
    """The server. Models are loaded and self-tested in the background after it starts.

    Until then it is not ready.

    Args:
        settings: all that an operator can set.
        span_exporter: where traces go; default the operator's OTLP address, or nowhere.

    Raises:
        ModuleNotFoundError: traces are wanted and the extra `otel` is not installed.
    """
    if span_exporter is None and settings.traces_endpoint is not None:
        span_exporter = otlp_exporter(settings.traces_endpoint)
    tracing = None if span_exporter is None else tracer_provider(span_exporter)
    stop_tracing = (lambda: None) if tracing is None else tracing.shutdown
    metrics = Metrics()
    app = FastAPI(
        title="Zorro AV",
        version="1",
        description="What a clip's sound says, what its picture says, and what both say together.",
        lifespan=functools.partial(_lifespan, settings, metrics, stop_tracing),
    )
    app.add_middleware(RequestMiddleware, metrics=metrics, on_error=functools.partial(_problem, metrics))
    if tracing is not None:
        trace_requests(app, tracing)
    for kind in (ServiceError, HTTPException, Exception):
        app.add_exception_handler(kind, functools.partial(_on_error, metrics))
    add_routes(app)
    return app


@asynccontextmanager
async def _lifespan(
    settings: Settings, metrics: Metrics, stop_tracing: Callable[[], None], app: FastAPI
) -> AsyncIterator[None]:
    for parent in {settings.upload_parent, settings.windows_parent}:
        clean_leftovers(parent)
    with (
        private_folder(settings.upload_parent) as uploads,
        private_folder(settings.windows_parent) as windows,
    ):
        engine = InferenceEngine(settings, windows)
        loading = asyncio.ensure_future(_load(settings, engine))
        loading.add_done_callback(_log_failure)
        metrics.watch(engine, loading)
        state = ServerState(
            settings=settings,
            metrics=metrics,
            engine=engine,
            loading=loading,
            clip_admission=Admission(max_inside=settings.max_inside),
            tensor_admission=Admission(max_inside=settings.max_inside),
            upload_folder=uploads,
        )
        set_state(app, state)
        yield
        await asyncio.wait([loading])
        gc.unfreeze()
        await engine.close()
        await asyncio.to_thread(stop_tracing)


async def _load(settings: Settings, engine: InferenceEngine) -> ModelRepository:
    models = await asyncio.to_thread(load_models, settings)
    await engine.start(models)
    gc.collect()
    gc.freeze()  # what is here stays; each collection that looks through it would stop the event loop
    return models


def _log_failure(loading: "asyncio.Future[ModelRepository]") -> None:
    """Tell the operator at once, and not at the first request, why the server never becomes ready."""
    if not loading.cancelled() and (error := loading.exception()) is not None:
        service_log.error("the models could not be loaded: %s", error)


async def _on_error(metrics: Metrics, request: Request, error: Exception) -> Response:
    return _problem(metrics, request.state.id, error, where=f"{request.method} {request.url.path}")


def _problem(metrics: Metrics, request_id: str, error: Exception, *, where: str = "") -> Response:
    if isinstance(error, HTTPException):
        code = {404: "not_found", 405: "method_not_allowed"}.get(error.status_code, "internal_error")
        return problem_response(code, f"{where}: see /docs for the routes", request_id)
    code = code_of(error) or "internal_error"
    metrics.rejected.labels(code).inc()
    if code == "internal_error":
        service_log.error("request %s failed", request_id, exc_info=error)
        return problem_response(code, f"the server failed; tell its operator the id {request_id}", request_id)
    if isinstance(error, DecoderFailed):
        service_log.error("request %s: the decoder failed", request_id, exc_info=error)
    retry = getattr(error, "retry_after_seconds", None)
    return problem_response(code, str(error), request_id, retry_after_seconds=retry)
