"""The questions of the API: POST /v1/classify and /v1/embed, for all streams or one."""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from fastapi import FastAPI, Request
from starlette.responses import Response

from media import Modality
from media.time_range import TimeRange
from runtime import ClipResult, Zorro
from service.errors import PROBLEMS
from service.inference import Asked, make_asked
from service.options import CLASSIFY, EMBED, Encoding, Scope, parse_options, resolve_segmentation
from service.request_lifecycle import in_turn, unless_client_leaves
from service.responses import to_answers
from service.schemas import Answers, ProblemAnswer
from service.upload import receive

from .health import as_json
from .plain_route import PlainRoute

Options = dict[str, tuple[Callable[[str], Any], str]]


def add_questions(app: FastAPI) -> None:
    """Add the routes."""
    for task, known in (("classify", CLASSIFY), ("embed", EMBED)):
        for modality in (None, *Modality):
            path = f"/v1/{task}" if modality is None else f"/v1/{task}/{modality}"
            options = {k: v for k, v in known.items() if modality is None or k != "modalities"}
            app.router.add_api_route(
                path,
                _question(task, modality, options),
                methods=["POST"],
                name=path,
                summary=f"{task.capitalize()} a clip" + (f" by {modality} alone" if modality else ""),
                responses=_answer_docs(),
                openapi_extra={"requestBody": _body_docs(options)},
                route_class_override=PlainRoute,
            )


def _question(task: str, modality: Modality | None, known: Options) -> Callable[[Request], Any]:
    """The route of one task, for all modalities or one."""

    async def ask(request: Request) -> Response:
        started = time.perf_counter()
        return await in_turn(
            request,
            request.app.state.admission,
            lambda deadline: _ask(request, task, modality, known, started=started, deadline=deadline),
        )

    return ask


async def _ask(
    request: Request, task: str, modality: Modality | None, known: Options, *, started: float, deadline: float
) -> Response:
    state = request.app.state
    async with receive(request, max_bytes=state.settings.max_body_bytes, folder=state.upload_dir) as upload:
        uploaded = time.perf_counter()
        options = parse_options(upload.fields, known)
        model = state.models.get(options.pop("model", None))
        options = resolve_segmentation(options, window_seconds=model.bundle.clip_spec.window_seconds)
        scope, encoding = options.pop("scope", Scope.CLIP), options.pop("encoding_format", Encoding.FLOAT)
        asked = _asked(model, task, modality, options)
        work = state.engine.answer_clip(model, asked, Path(upload.file.name), deadline=deadline)
        result = await unless_client_leaves(request, work)
    body = to_answers(
        model, result, scope=scope, encoding=encoding, request_id=request.state.id, num_bytes=upload.num_bytes
    )
    return _timed(
        request, body, result, upload_seconds=uploaded - started, total_seconds=time.perf_counter() - started
    )


def _asked(model: Zorro, task: str, modality: Modality | None, options: dict[str, Any]) -> Asked:
    make_request = model.label_request if task == "classify" else model.embedding_request
    known = ("top_k", "threshold") if task == "classify" else ("space", "normalize")
    return make_asked(
        make_request(**{name: options[name] for name in known if name in options}),
        modalities=[modality] if modality is not None else options.get("modalities"),
        times=TimeRange(
            start_seconds=options.get("start_sec", 0.0),
            end_seconds=options.get("end_sec"),
            stride_seconds=options.get("stride_sec"),
        ),
        skip_missing=options.get("on_missing_modality", False),
    )


def _timed(
    request: Request, body: dict[str, Any], result: ClipResult, *, upload_seconds: float, total_seconds: float
) -> Response:
    """The answer with its times, in the body, in `Server-Timing` and in the metrics."""
    seconds = {
        "upload": upload_seconds,
        "decode": result.decode_seconds,
        "inference": result.inference_seconds,
    }
    seconds["queue"] = max(0.0, total_seconds - sum(seconds.values()))
    seconds["total"] = total_seconds
    body["timings_ms"] = {name: round(1000 * value, 3) for name, value in seconds.items()}
    for name, value in seconds.items():
        request.app.state.metrics.stages.labels(name).observe(value)
    response = as_json(body)
    response.headers["Server-Timing"] = ", ".join(
        f"{name};dur={ms}" for name, ms in body["timings_ms"].items()
    )
    return response


def _body_docs(options: Options) -> dict[str, Any]:
    properties = {name: {"type": "string", "description": wanted} for name, (_, wanted) in options.items()}
    file = {
        "file": {
            "type": "string",
            "format": "binary",
            "description": "the clip: a film, a sound or a picture",
        }
    }
    schema = {
        "type": "object",
        "required": ["file"],
        "properties": file | properties,
        "additionalProperties": False,
    }
    return {"required": True, "content": {"multipart/form-data": {"schema": schema}}}


def _answer_docs() -> dict[int | str, dict[str, Any]]:
    answers: dict[int | str, dict[str, Any]] = {200: {"model": Answers}}
    titles: dict[int, list[str]] = {}
    for code, problem in PROBLEMS.items():
        titles.setdefault(problem.status, []).append(code)
    return answers | {
        status: {
            "description": ", ".join(codes),
            "content": {"application/problem+json": {"schema": ProblemAnswer.model_json_schema()}},
        }
        for status, codes in titles.items()
    }
