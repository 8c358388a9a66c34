"""The application as a function of its parts: `create_app(settings)`; nothing happens at import."""

import asyncio
import functools
import logging
import time
import uuid
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import orjson
from fastapi import FastAPI, Request
from fastapi.responses import FileResponse
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.responses import Response

from media import MediaLimits, Modality
from runtime import ClipResult, Zorro

from .answers import to_answers
from .errors import PROBLEMS, ServiceError, code_of, problem_response
from .models import Models, describe
from .options import CLASSIFY, EMBED, Encoding, Scope, parse_options, resolve_segmentation
from .schemas import Answers, ProblemAnswer
from .settings import Settings
from .upload import Upload, receive

log = logging.getLogger("zorro.service")
PAGE = Path(__file__).parent / "static" / "index.html"
RENAMED = {"start_sec": "start_seconds", "end_sec": "end_seconds", "stride_sec": "stride_seconds",
           "on_missing_modality": "skip_missing"}  # fmt: skip


def create_app(settings: Settings) -> FastAPI:
    """The server. Models are loaded and self-tested in the background of its start; until then it is not ready."""
    app = FastAPI(
        title="Zorro AV",
        version="1",
        description="What a clip's sound says, what its picture says, and what both say together.",
        lifespan=functools.partial(_lifespan, settings),
    )
    app.state.models = Models(settings)
    app.state.settings = settings
    app.state.num_inside = 0
    app.middleware("http")(_identify)
    app.add_exception_handler(Exception, _on_error)
    for kind in (ServiceError, HTTPException):
        app.add_exception_handler(kind, _on_error)
    _add_health(app)
    _add_questions(app)
    return app


@asynccontextmanager
async def _lifespan(settings: Settings, app: FastAPI) -> AsyncIterator[None]:
    with TemporaryDirectory(dir=settings.temporary_dir, prefix="zorro-") as folder:
        app.state.upload_dir = Path(folder)
        with ThreadPoolExecutor(settings.num_workers, thread_name_prefix="zorro") as workers:
            app.state.workers = workers
            loading = asyncio.get_running_loop().run_in_executor(None, app.state.models.load)
            loading.add_done_callback(_log_failure)
            app.state.loading = loading
            yield
            await asyncio.wait([loading])


def _log_failure(loading: "asyncio.Future[None]") -> None:
    """An operator shall see at once, and not at the first request, why the server never gets ready."""
    if not loading.cancelled() and (error := loading.exception()) is not None:
        log.error("the models could not be loaded: %s", error)


async def _identify(request: Request, call_next: Callable[..., Any]) -> Response:
    """Give the request an id, the client's if it sent a sane one, and turn what escapes into a problem."""
    given = request.headers.get("x-request-id", "")
    request.state.id = given if 0 < len(given) <= 128 and given.isascii() and given.isprintable() else uuid.uuid4().hex
    try:
        response: Response = await call_next(request)
    except ClientDisconnect:
        response = Response(status_code=499)
    except Exception as error:
        response = _on_error(request, error)
    response.headers["X-Request-ID"] = request.state.id
    return response


def _on_error(request: Request, error: Exception) -> Response:
    if isinstance(error, HTTPException):
        code = {404: "not_found", 405: "method_not_allowed"}.get(error.status_code, "internal_error")
        return problem_response(code, f"{request.method} {request.url.path}: see /docs for the routes", request.state.id)
    code = code_of(error) or "internal_error"
    if code == "internal_error":
        log.error("request %s failed", request.state.id, exc_info=error)
        detail = f"the server failed; tell its operator the id {request.state.id}"
        return problem_response(code, detail, request.state.id)
    return problem_response(code, str(error), request.state.id)


def _add_health(app: FastAPI) -> None:
    @app.get("/", include_in_schema=False)
    async def page() -> FileResponse:
        return FileResponse(PAGE)

    @app.get("/livez", summary="The process runs")
    async def livez() -> dict[str, str]:
        return {"status": "alive"}

    @app.get("/readyz", summary="All models are loaded and have passed their self-test")
    async def readyz(request: Request) -> Response:
        _ready(request)
        return _json({"status": "ready"})

    @app.get("/v1/models", summary="The models that answer")
    async def models(request: Request) -> Response:
        return _json({"object": "list", "data": [describe(model) for model in _ready(request).all()]})

    @app.get("/v1/models/{model_id:path}", summary="One model")
    async def model(request: Request, model_id: str) -> Response:
        return _json(describe(_ready(request).get(model_id)))


def _add_questions(app: FastAPI) -> None:
    for task, known in (("classify", CLASSIFY), ("embed", EMBED)):
        for modality in (None, *Modality):
            path = f"/v1/{task}" if modality is None else f"/v1/{task}/{modality}"
            options = {k: v for k, v in known.items() if modality is None or k != "modalities"}
            app.add_api_route(
                path,
                _question(task, modality, options),
                methods=["POST"],
                name=path,
                summary=f"{task.capitalize()} a clip" + (f" by {modality} alone" if modality else ""),
                responses=_answer_docs(),
                openapi_extra={"requestBody": _body_docs(options)},
            )


def _question(
    task: str, modality: Modality | None, known: dict[str, tuple[Callable[[str], Any], str]]
) -> Callable[[Request], Any]:
    """The route of one task, for all modalities or one."""

    async def ask(request: Request) -> Response:
        return await _ask(request, task=task, modality=modality, known=known)

    return ask


async def _ask(
    request: Request, *, task: str, modality: Modality | None, known: dict[str, tuple[Callable[[str], Any], str]]
) -> Response:
    models, settings = _ready(request), request.app.state.settings
    started = time.perf_counter()
    folder = request.app.state.upload_dir
    with _place(request):
        async with receive(request, max_bytes=settings.max_body_bytes, folder=folder) as upload:
            uploaded = time.perf_counter()
            options = parse_options(upload.fields, known)
            model = models.get(options.pop("model", None))
            options = resolve_segmentation(options, window_seconds=model.bundle.clip_spec.window_seconds)
            scope, encoding = options.pop("scope", Scope.CLIP), options.pop("encoding_format", Encoding.FLOAT)
            if modality is not None:
                options["modalities"] = [modality]
            result = await _run(request, model, task, upload, options)
    body = to_answers(model, result, scope=scope, encoding=encoding, request_id=request.state.id, num_bytes=upload.num_bytes)
    total = time.perf_counter() - started
    decode, inference = result.decode_seconds, result.inference_seconds
    seconds = {"upload": uploaded - started, "decode": decode, "inference": inference, "total": total}
    seconds["queue"] = max(0.0, total - sum(seconds[k] for k in ("upload", "decode", "inference")))
    body["timings_ms"] = {name: round(1000 * value, 3) for name, value in seconds.items()}
    return _json(body)


async def _run(request: Request, model: Zorro, task: str, upload: Upload, options: dict[str, Any]) -> ClipResult:
    """Decode and infer off the event loop; the upload's file lives until that has ended, whoever leaves."""
    settings = request.app.state.settings
    limits = MediaLimits(
        max_duration_seconds=settings.max_duration_seconds, max_pixels=settings.max_pixels,
        max_streams=settings.max_streams, max_windows=settings.max_windows,
    )  # fmt: skip
    arguments = {RENAMED.get(name, name): value for name, value in options.items()}
    call = functools.partial(getattr(model, task), upload.file, limits=limits, **arguments)
    job = request.app.state.workers.submit(call)
    running = asyncio.wrap_future(job)
    try:
        return await asyncio.shield(running)
    except asyncio.CancelledError:
        # Trap: an asyncio future cancels even while its thread runs on; only the job knows whether it has begun.
        if not job.cancel():
            await asyncio.wait([running])
            running.exception()
        raise


@contextmanager
def _place(request: Request) -> Iterator[None]:
    """One of the places for requests at work or waiting; taken before the body is read, so that disk is bounded too."""
    state = request.app.state
    most = state.settings.num_workers + state.settings.max_waiting
    if state.num_inside >= most:
        raise ServiceError("overloaded", f"{most} requests are at work or waiting already; try again later")
    state.num_inside += 1
    try:
        yield
    finally:
        state.num_inside -= 1


def _ready(request: Request) -> Models:
    models: Models = request.app.state.models
    loading = request.app.state.loading
    if loading.done() and loading.exception() is not None:
        raise RuntimeError("the models could not be loaded") from loading.exception()
    if not models.is_ready:
        raise ServiceError("not_ready", "the models are being loaded and tested; ask /readyz and try again")
    return models


def _json(body: Any) -> Response:
    return Response(orjson.dumps(body, option=orjson.OPT_SERIALIZE_NUMPY), media_type="application/json")


def _body_docs(options: dict[str, tuple[Callable[[str], Any], str]]) -> dict[str, Any]:
    properties = {name: {"type": "string", "description": wanted} for name, (_, wanted) in options.items()}
    file = {"file": {"type": "string", "format": "binary", "description": "the clip: a film, a sound or a picture"}}
    schema = {"type": "object", "required": ["file"], "properties": file | properties, "additionalProperties": False}
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
