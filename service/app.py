"""The application as a function of its parts: `create_app(settings)`; nothing happens at import."""

import asyncio
import functools
import gc
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import FastAPI, Request
from starlette.exceptions import HTTPException
from starlette.responses import Response

from .admission import Admission
from .errors import DecoderFailed, ServiceError, code_of, problem_response
from .inference import InferenceEngine
from .metrics import Metrics
from .middleware import RequestMiddleware
from .models import Models
from .routes.clips import add_questions
from .routes.health import add_health
from .routes.tensors import add_tensors
from .settings import Settings
from .temporary_folders import clean_leftovers, private_folder
from .tracing import export_traces, otlp_exporter

log = logging.getLogger("zorro.service")


def create_app(settings: Settings) -> FastAPI:
    """The server. Models are loaded and self-tested in the background of its start; until then it is not ready."""
    app = FastAPI(
        title="Zorro AV",
        version="1",
        description="What a clip's sound says, what its picture says, and what both say together.",
        lifespan=functools.partial(_lifespan, settings),
    )
    app.state.settings = settings
    app.state.models = Models(settings)
    app.state.metrics = Metrics()
    app.state.admission = Admission(max_inside=settings.max_inside)
    app.state.tensor_admission = Admission(max_inside=settings.max_inside)  # tensors do not wait for decoding
    app.state.is_draining = False
    app.add_middleware(
        RequestMiddleware, metrics=app.state.metrics, on_error=functools.partial(_problem, app)
    )
    app.state.stop_traces = lambda: None
    if settings.traces_endpoint is not None:
        app.state.stop_traces = export_traces(app, otlp_exporter(settings.traces_endpoint))
    for kind in (ServiceError, HTTPException, Exception):
        app.add_exception_handler(kind, _on_error)
    add_tensors(app)  # routes are tried in order: the shortest requests first
    add_questions(app)
    add_health(app)
    return app


@asynccontextmanager
async def _lifespan(settings: Settings, app: FastAPI) -> AsyncIterator[None]:
    for parent in {settings.upload_parent, settings.windows_parent}:
        clean_leftovers(parent)
    with (
        private_folder(settings.upload_parent) as uploads,
        private_folder(settings.windows_parent) as windows,
    ):
        app.state.upload_dir = uploads
        engine = InferenceEngine(settings, app.state.models, windows)
        app.state.engine = engine
        app.state.metrics.watch(engine)
        app.state.loading = asyncio.ensure_future(_load(app.state.models, engine))
        app.state.loading.add_done_callback(_log_failure)
        yield
        await asyncio.wait([app.state.loading])
        gc.unfreeze()
        await engine.close()
        await asyncio.to_thread(app.state.stop_traces)


async def _load(models: Models, engine: InferenceEngine) -> None:
    await asyncio.to_thread(models.load)
    await engine.start()
    gc.collect()
    gc.freeze()  # all that stays need not be looked through again and again, which would stop the event loop meanwhile
    models.is_ready = True


def _log_failure(loading: "asyncio.Future[None]") -> None:
    """An operator shall see at once, and not at the first request, why the server never gets ready."""
    if not loading.cancelled() and (error := loading.exception()) is not None:
        log.error("the models could not be loaded: %s", error)


async def _on_error(request: Request, error: Exception) -> Response:
    where = f"{request.method} {request.url.path}"
    return _problem(request.app, request.state.id, error, where=where)


def _problem(app: FastAPI, request_id: str, error: Exception, *, where: str = "") -> Response:
    if isinstance(error, HTTPException):
        code = {404: "not_found", 405: "method_not_allowed"}.get(error.status_code, "internal_error")
        return problem_response(code, f"{where}: see /docs for the routes", request_id)
    code = code_of(error) or "internal_error"
    app.state.metrics.rejected.labels(code).inc()
    if code == "internal_error":
        log.error("request %s failed", request_id, exc_info=error)
        return problem_response(code, f"the server failed; tell its operator the id {request_id}", request_id)
    if isinstance(error, DecoderFailed):
        log.error("request %s: the decoder failed", request_id, exc_info=error)
    retry = getattr(error, "retry_after_seconds", None)
    return problem_response(code, str(error), request_id, retry_after_seconds=retry)
