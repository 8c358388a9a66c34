"""Routes about the server itself: the page, life, readiness, metrics and models."""

from pathlib import Path
from typing import Any

import orjson
from fastapi import FastAPI, Request
from fastapi.responses import FileResponse
from starlette.responses import Response

from service.errors import ServiceError
from service.models import Models, describe
from service.schemas import ModelDescription, ModelDescriptions

PAGE = Path(__file__).parents[1] / "static" / "index.html"
METRICS_TYPE = "text/plain; version=0.0.4; charset=utf-8"


def add_health(app: FastAPI) -> None:
    """Add the routes."""

    @app.get("/", include_in_schema=False)
    async def page() -> FileResponse:
        return FileResponse(PAGE)

    @app.get("/livez", summary="The process runs, and no batch hangs")
    async def livez(request: Request) -> dict[str, str]:
        state = request.app.state
        stuck = state.engine.batcher.stuck_seconds
        if stuck > state.settings.stuck_seconds:
            raise ServiceError("stuck", f"a batch has run for {stuck:.0f} s; the process should be replaced")
        return {"status": "alive"}

    @app.get(
        "/readyz", summary="All models are loaded and have passed their self-test, and the server is to stay"
    )
    async def readyz(request: Request) -> Response:
        ready(request)
        return as_json({"status": "ready"})

    @app.get("/metrics", summary="Counts and times, as Prometheus reads them", response_class=Response)
    async def metrics(request: Request) -> Response:
        state = request.app.state
        state.metrics.in_flight.set(state.admission.num_inside + state.tensor_admission.num_inside)
        return Response(state.metrics.text(), media_type=METRICS_TYPE)

    @app.get("/v1/models", summary="The models that answer", responses={200: {"model": ModelDescriptions}})
    async def models(request: Request) -> Response:
        return as_json({"object": "list", "data": [describe(model) for model in ready_models(request).all()]})

    @app.get("/v1/models/{model_id:path}", summary="One model", responses={200: {"model": ModelDescription}})
    async def model(request: Request, model_id: str) -> Response:
        return as_json(describe(ready_models(request).get(model_id)))


def ready(request: Request) -> None:
    """Nothing, if the server is ready and is to stay.

    Raises:
        ServiceError: it is not.
    """
    ready_models(request)
    if request.app.state.is_draining:
        raise ServiceError("draining", "the server is about to stop; ask another one")


def ready_models(request: Request) -> Models:
    """The models, once they are ready.

    Raises:
        ServiceError: they are not, yet.
        RuntimeError: they never will be.
    """
    models: Models = request.app.state.models
    loading = request.app.state.loading
    if loading.done() and loading.exception() is not None:
        raise RuntimeError("the models could not be loaded") from loading.exception()
    if not models.is_ready:
        raise ServiceError("not_ready", "the models are being loaded and tested; ask /readyz and try again")
    return models


def as_json(body: Any) -> Response:
    """An answer; numpy arrays are lists in it."""
    return Response(orjson.dumps(body, option=orjson.OPT_SERIALIZE_NUMPY), media_type="application/json")
