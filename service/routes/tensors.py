"""The routes below /v2: the Open Inference Protocol over HTTP.

They are for clients that prepare windows themselves.
"""

import time
from typing import Any

from fastapi import FastAPI, Request
from starlette.responses import Response

from runtime import Zorro
from service.open_inference import model_metadata, parse_request, write_response
from service.request_lifecycle import answer_admitted, cancel_if_client_leaves
from service.responses import json_response
from service.state import server_state
from service.upload import body_chunks

from .plain_route import PlainRoute

HEADER_LENGTH = "Inference-Header-Content-Length"
MODEL_PATHS = ("/v2/models/{model_name}", "/v2/models/{model_name}/versions/{version}")
BODY_TYPES = ("application/json", "application/octet-stream")


def add_tensor_routes(app: FastAPI) -> None:
    """Add the routes about the server, and those about each model."""

    @app.get("/v2", summary="The server, by the Open Inference Protocol")
    async def server() -> dict[str, Any]:
        return {"name": app.title, "version": app.version, "extensions": ["binary_tensor_data"]}

    @app.get("/v2/health/live", summary="The same as /livez, without its look at batches")
    async def live() -> dict[str, bool]:
        return {"live": True}

    @app.get("/v2/health/ready", summary="The same as /readyz")
    async def is_ready(request: Request) -> dict[str, bool]:
        server_state(request).check_ready()
        return {"ready": True}

    for path in MODEL_PATHS:
        _add_model_routes(app, path)


def _add_model_routes(app: FastAPI, path: str) -> None:
    names = [name for name in ("model_name", "version") if f"{{{name}}}" in path]
    in_path = [{"name": name, "in": "path", "required": True, "schema": {"type": "string"}} for name in names]
    body = {"required": True, "content": {kind: {} for kind in BODY_TYPES}}
    for end, method, endpoint, summary, extra in (
        ("", "GET", _metadata, "A model's tensors", {}),
        ("/ready", "GET", _model_ready, "It answers", {}),
        ("/infer", "POST", _infer, "Answers for tensors", {"requestBody": body}),
    ):
        app.router.add_api_route(
            path + end,
            endpoint,
            methods=[method],
            name=path + end,
            summary=summary,
            openapi_extra={"parameters": in_path, **extra},
            route_class_override=PlainRoute,
        )


def _model_in_path(request: Request) -> Zorro:
    """The model that the path names.

    Raises:
        ServiceError: there is none, or the models are not ready.
    """
    return server_state(request).ready_models().get("/".join(request.path_params.values()))


async def _metadata(request: Request) -> Response:
    return json_response(model_metadata(_model_in_path(request)))


async def _model_ready(request: Request) -> Response:
    _model_in_path(request)
    server_state(request).check_ready()
    return json_response({"ready": True})


async def _infer(request: Request) -> Response:
    async def answer(deadline: float) -> Response:
        return await _answer_tensors(request, deadline)

    return await answer_admitted(request, server_state(request).tensor_admission, answer)


async def _answer_tensors(request: Request, deadline: float) -> Response:
    started = time.perf_counter()
    state = server_state(request)
    model = _model_in_path(request)
    chunks = body_chunks(request, state.settings.max_body_bytes, hint="send fewer windows")
    body = b"".join([chunk async for chunk in chunks])
    header_length = request.headers.get(HEADER_LENGTH)
    tensors = parse_request(body, header_length, model, default_id=request.state.id)
    work = state.engine.run_tensors(model, tensors.modality, tensors.clips, deadline=deadline)
    result = await cancel_if_client_leaves(request, work)
    state.metrics.stages.labels("inference").observe(result.run_seconds)
    state.metrics.stages.labels("total").observe(time.perf_counter() - started)
    content, json_length = write_response(model, tensors, result.outputs)
    if json_length is None:
        return Response(content, media_type="application/json")
    headers = {HEADER_LENGTH: str(json_length)}
    return Response(content, headers=headers, media_type="application/octet-stream")
