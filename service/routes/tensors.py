"""Tensors in and out by the Open Inference Protocol, version 2, over HTTP: for clients that prepare clips themselves.

One model has three graphs; the inputs that are given choose: `audio`, `video`, or both for all three streams.
Tensors are JSON, or raw bytes after the JSON by the protocol's extension for binary data.

References: Open Inference Protocol (github.com/kserve/open-inference-protocol), binary tensor data extension
    (Triton).
"""

import math
import time
from collections.abc import Mapping
from typing import Any

import numpy as np
import orjson
from fastapi import FastAPI, Request
from starlette.responses import Response

from media import Clip, Modality
from runtime import Zorro
from runtime.signature import GRAPH_INPUTS, input_tensors, output_names
from service.errors import ServiceError
from service.request_lifecycle import in_turn, unless_client_leaves
from service.upload import body_chunks

from .health import as_json, ready, ready_models
from .plain_route import PlainRoute

HEADER_LENGTH = "inference-header-content-length"
DATATYPES: dict[str, np.dtype[Any]] = {"FP32": np.dtype("<f4"), "UINT8": np.dtype("u1")}
NAMES = {str(dtype): name for name, dtype in DATATYPES.items()}
MODEL_PATHS = ("/v2/models/{model_name}", "/v2/models/{model_name}/versions/{version}")
BODY_TYPES = ("application/json", "application/octet-stream")


def add_tensors(app: FastAPI) -> None:
    """Add the routes."""

    @app.get("/v2", summary="The server, by the Open Inference Protocol")
    async def server() -> dict[str, Any]:
        return {"name": app.title, "version": app.version, "extensions": ["binary_tensor_data"]}

    @app.get("/v2/health/live", summary="The same as /livez, without its look at batches")
    async def live() -> dict[str, bool]:
        return {"live": True}

    @app.get("/v2/health/ready", summary="The same as /readyz")
    async def is_ready(request: Request) -> dict[str, bool]:
        ready(request)
        return {"ready": True}

    for path in MODEL_PATHS:
        names = [name for name in ("model_name", "version") if f"{{{name}}}" in path]
        in_path = [
            {"name": name, "in": "path", "required": True, "schema": {"type": "string"}} for name in names
        ]
        body = {"required": True, "content": {kind: {} for kind in BODY_TYPES}}
        for end, method, answer, summary, extra in (
            ("", "GET", _metadata, "A model's tensors", {}),
            ("/ready", "GET", _model_ready, "It answers", {}),
            ("/infer", "POST", _infer, "Answers for tensors", {"requestBody": body}),
        ):
            app.router.add_api_route(
                path + end,
                answer,
                methods=[method],
                name=path + end,
                summary=summary,
                openapi_extra={"parameters": in_path, **extra},
                route_class_override=PlainRoute,
            )


def _model(request: Request) -> Zorro:
    """The model that the path names."""
    return ready_models(request).get("/".join(request.path_params.values()))


async def _metadata(request: Request) -> Response:
    model = _model(request)
    bundle = model.bundle
    outputs = bundle.manifest["variants"][model.variant.name]["graphs"][Modality.FUSED]["outputs"]
    return as_json(
        {
            "name": bundle.name,
            "versions": [bundle.version],
            "platform": "onnxruntime_onnx",
            "inputs": [
                {"name": x.name, "datatype": NAMES[x.dtype], "shape": [-1, *x.shape]}
                for x in input_tensors(Modality.FUSED, bundle.clip_spec)
            ],
            "outputs": [
                {"name": x["name"], "datatype": "FP32", "shape": [-1, *x["shape"][1:]]} for x in outputs
            ],
        }
    )


async def _model_ready(request: Request) -> Response:
    _model(request)
    ready(request)
    return as_json({"ready": True})


async def _infer(request: Request) -> Response:
    async def answer(deadline: float) -> Response:
        started = time.perf_counter()
        state = request.app.state
        model = _model(request)
        chunks = body_chunks(request, state.settings.max_body_bytes, hint="send fewer windows")
        question, raw = split(b"".join([chunk async for chunk in chunks]), request.headers.get(HEADER_LENGTH))
        modality, clips = parse_inputs(question, raw, model)
        wanted = _wanted(question, modality)
        work = state.engine.run_tensors(model, modality, clips, deadline=deadline)
        result = await unless_client_leaves(request, work)
        state.metrics.stages.labels("inference").observe(result.run_seconds)
        state.metrics.stages.labels("total").observe(time.perf_counter() - started)
        about = {
            "model_name": model.bundle.name,
            "model_version": model.bundle.version,
            "id": question.get("id", request.state.id),
        }
        return to_response(about, {name: result.outputs[name] for name in wanted}, wanted)

    return await in_turn(request, request.app.state.tensor_admission, answer)


def split(body: bytes, header_length: str | None) -> tuple[dict[str, Any], memoryview]:
    """The JSON of a request, and the raw bytes after it.

    Raises:
        ServiceError: it is no such request.
    """
    view = memoryview(body)
    end = len(view)
    if header_length is not None:
        if not header_length.isdecimal() or int(header_length) > end:
            got = f"Inference-Header-Content-Length={header_length[:40]!r} of {end} bytes"
            raise ServiceError(
                "invalid_tensors", f"{got}; give the length of the JSON that the body begins with"
            )
        end = int(header_length)
    try:
        question = orjson.loads(view[:end])
    except orjson.JSONDecodeError as error:
        raise ServiceError("invalid_tensors", f"the request's JSON does not parse: {error}") from error
    if not isinstance(question, dict) or not isinstance(question.get("inputs"), list):
        raise ServiceError("invalid_tensors", 'the JSON has no list of inputs; send {"inputs": [...]}')
    return question, view[end:]


def parse_inputs(question: Mapping[str, Any], raw: memoryview, model: Zorro) -> tuple[Modality, list[Clip]]:
    """The graph that the inputs choose, and its windows.

    Raises:
        ServiceError: inputs that no graph of the model takes.
    """
    tensors = {}
    for given in question["inputs"]:
        name, tensor, raw = _tensor(given, raw)
        if name in tensors:
            raise ServiceError("invalid_tensors", f"input {name!r} is given twice")
        tensors[name] = tensor
    if len(raw):
        raise ServiceError(
            "invalid_tensors", f"{len(raw)} bytes after the last tensor; say each one's binary_data_size"
        )
    modality = next((m for m, names in GRAPH_INPUTS.items() if set(names) == tensors.keys()), None)
    if modality is None:
        raise ServiceError("invalid_tensors", f"got inputs {sorted(tensors)}; give audio, video or both")
    for x in input_tensors(modality, model.bundle.clip_spec):
        tensor = tensors[x.name]
        if tensor.dtype != x.dtype or tensor.shape[1:] != x.shape:
            got, shape = f"{NAMES[str(tensor.dtype)]}{list(tensor.shape)}", ", ".join(map(str, x.shape))
            raise ServiceError(
                "invalid_tensors", f"{x.name} is {got}; give {NAMES[x.dtype]}[windows, {shape}]"
            )
    counts = [len(tensor) for tensor in tensors.values()]
    if min(counts) != max(counts) or not counts[0]:
        raise ServiceError(
            "invalid_tensors", f"inputs of {counts} windows; give as many of each, at least one"
        )
    return modality, [
        _window(model, {name: tensor[i] for name, tensor in tensors.items()}) for i in range(counts[0])
    ]


def _window(model: Zorro, arrays: Mapping[str, np.ndarray]) -> Clip:
    seconds = model.bundle.clip_spec.window_seconds
    audio, video = arrays.get("audio"), arrays.get("video")
    return Clip(0.0, seconds, audio, video, seconds, seconds, is_silent=False, padded=False)


def _tensor(given: Any, raw: memoryview) -> tuple[str, np.ndarray, memoryview]:
    """Name and value of one input, and what is left of the raw bytes."""
    try:
        name, shape, dtype = given["name"], tuple(given["shape"]), DATATYPES[given["datatype"]]
        size = given.get("parameters", {}).get("binary_data_size")
        if not all(isinstance(length, int) and length >= 0 for length in shape):
            raise ValueError(f"shape {list(shape)}")
        num_bytes = math.prod(shape) * dtype.itemsize
        if size is None:
            return name, np.asarray(given["data"], dtype).reshape(shape), raw
        if size != num_bytes or len(raw) < num_bytes:
            raise ValueError(
                f"{len(raw)} bytes are left, binary_data_size is {size}, its shape takes {num_bytes}"
            )
        return name, np.frombuffer(raw[:num_bytes], dtype).reshape(shape), raw[num_bytes:]
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
        wanted = f"name, shape, datatype ({' or '.join(DATATYPES)}) and data, or binary_data_size among its parameters"
        raise ServiceError(
            "invalid_tensors", f"an input is not as it should be ({error}); give {wanted}"
        ) from error


def _wanted(question: Mapping[str, Any], modality: Modality) -> dict[str, bool]:
    """Names of the outputs that are asked for, and whether each shall be raw; all of them by default."""
    there = output_names(modality)
    is_raw = _parameters(question).get("binary_data_output", False)
    asked = question.get("outputs") or [{"name": name} for name in there]
    wanted = {}
    for output in asked:
        name = output.get("name") if isinstance(output, dict) else None
        if name not in there:
            raise ServiceError(
                "invalid_tensors", f"output {name!r} is not there for these inputs; there are {there}"
            )
        wanted[name] = bool(_parameters(output).get("binary_data", is_raw))
    return wanted


def _parameters(given: Mapping[str, Any]) -> Mapping[str, Any]:
    parameters = given.get("parameters")
    return parameters if isinstance(parameters, dict) else {}


def to_response(
    about: Mapping[str, Any], outputs: Mapping[str, np.ndarray], is_raw: Mapping[str, bool]
) -> Response:
    """Outputs as JSON, those that shall be raw as bytes after it."""
    described, parts = [], []
    for name, value in outputs.items():
        entry: dict[str, Any] = {"name": name, "datatype": "FP32", "shape": value.shape}
        if is_raw[name]:
            parts.append(np.ascontiguousarray(value, "<f4").tobytes())
            entry["parameters"] = {"binary_data_size": len(parts[-1])}
        else:
            entry["data"] = np.ascontiguousarray(value).reshape(-1)
        described.append(entry)
    header = orjson.dumps({**about, "outputs": described}, option=orjson.OPT_SERIALIZE_NUMPY)
    if not parts:
        return Response(header, media_type="application/json")
    headers = {"Inference-Header-Content-Length": str(len(header))}
    return Response(header + b"".join(parts), headers=headers, media_type="application/octet-stream")
