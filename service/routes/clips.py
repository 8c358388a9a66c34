"""POST /v1/classify and /v1/embed: answers for an uploaded clip, for all modalities or one."""

import time
from collections.abc import Awaitable, Callable
from typing import Any

from fastapi import FastAPI, Request
from starlette.responses import Response

from media import Modality
from runtime import ClipResult
from service.clip_form import ClipForm
from service.clip_request import ClipTask
from service.errors import PROBLEMS
from service.metrics import Metrics
from service.request_lifecycle import answer_admitted, cancel_if_client_leaves
from service.responses import clip_response_body, json_response
from service.schemas import ClipResponse, ProblemDetails
from service.state import server_state
from service.upload import receive_upload

from .plain_route import PlainRoute


def add_clip_routes(app: FastAPI) -> None:
    """Add a route for each task, and for each task and modality."""
    for task in ClipTask:
        for modality in (None, *Modality):
            form = ClipForm(task, modality)
            path = f"/v1/{task}" if modality is None else f"/v1/{task}/{modality}"
            app.router.add_api_route(
                path,
                _endpoint(form),
                methods=["POST"],
                name=path,
                summary=f"{task.capitalize()} a clip" + (f" by {modality} alone" if modality else ""),
                responses=_describe_responses(),
                openapi_extra={"requestBody": _describe_body(form)},
                route_class_override=PlainRoute,
            )


def _endpoint(form: ClipForm) -> Callable[[Request], Awaitable[Response]]:
    """The endpoint of the route that takes `form`."""

    async def answer(request: Request) -> Response:
        started = time.perf_counter()
        return await answer_admitted(
            request,
            server_state(request).clip_admission,
            lambda deadline: _answer_clip(request, form, started=started, deadline=deadline),
        )

    return answer


async def _answer_clip(request: Request, form: ClipForm, *, started: float, deadline: float) -> Response:
    state = server_state(request)
    max_bytes, folder = state.settings.max_body_bytes, state.upload_folder
    async with receive_upload(request, max_bytes=max_bytes, folder=folder) as upload:
        uploaded = time.perf_counter()
        model, clip_request = form.read(upload.fields, state.ready_models())
        work = state.engine.answer_clip(model, clip_request, upload.path, deadline=deadline)
        result = await cancel_if_client_leaves(request, work)
    body = clip_response_body(
        model, clip_request, result, request_id=request.state.id, num_bytes=upload.num_bytes
    )
    seconds = _stage_seconds(
        result, upload_seconds=uploaded - started, total_seconds=time.perf_counter() - started
    )
    return _with_times(body, seconds, state.metrics)


def _stage_seconds(result: ClipResult, *, upload_seconds: float, total_seconds: float) -> dict[str, float]:
    """Time in each stage; what is in no other stage was spent in a queue."""
    seconds = {
        "upload": upload_seconds,
        "decode": result.decode_seconds,
        "inference": result.inference_seconds,
    }
    seconds["queue"] = max(0.0, total_seconds - sum(seconds.values()))
    seconds["total"] = total_seconds
    return seconds


def _with_times(body: dict[str, Any], seconds: dict[str, float], metrics: Metrics) -> Response:
    """The response with its times, in the body, in `Server-Timing` and in the metrics."""
    timings_ms = {name: round(1000 * value, 3) for name, value in seconds.items()}
    for name, value in seconds.items():
        metrics.stages.labels(name).observe(value)
    response = json_response(body | {"timings_ms": timings_ms})
    response.headers["Server-Timing"] = ", ".join(f"{name};dur={ms}" for name, ms in timings_ms.items())
    return response


def _describe_body(form: ClipForm) -> dict[str, Any]:
    """The request's body for OpenAPI."""
    fields = {x.name: {"type": "string", "description": x.wanted} for x in form.fields}
    file = {
        "file": {
            "type": "string",
            "format": "binary",
            "description": "the clip: a video, a sound or a picture",
        }
    }
    schema = {
        "type": "object",
        "required": ["file"],
        "properties": file | fields,
        "additionalProperties": False,
    }
    return {"required": True, "content": {"multipart/form-data": {"schema": schema}}}


def _describe_responses() -> dict[int | str, dict[str, Any]]:
    """The responses for OpenAPI, those of errors with their codes."""
    responses: dict[int | str, dict[str, Any]] = {200: {"model": ClipResponse}}
    codes_by_status: dict[int, list[str]] = {}
    for code, problem in PROBLEMS.items():
        codes_by_status.setdefault(problem.status, []).append(code)
    return responses | {
        status: {
            "description": ", ".join(codes),
            "content": {"application/problem+json": {"schema": ProblemDetails.model_json_schema()}},
        }
        for status, codes in codes_by_status.items()
    }
