"""JSON bodies of the API, made of the runtime's results; `schemas` describes their shapes."""

import base64
import functools
from typing import Any

import numpy as np
import orjson
from starlette.responses import Response

from media import ClipSpec, Modality
from runtime import ClipResult, StreamResult, Zorro

from .clip_request import ClipRequest, EmbeddingOptions, Encoding, Scope


def json_response(body: Any) -> Response:
    """A response with `body` as JSON; numpy arrays are written as lists."""
    return Response(orjson.dumps(body, option=orjson.OPT_SERIALIZE_NUMPY), media_type="application/json")


def clip_response_body(
    model: Zorro, request: ClipRequest, result: ClipResult, *, request_id: str, num_bytes: int
) -> dict[str, Any]:
    """The body of `schemas.ClipResponse`, without its `timings_ms`."""
    bundle = model.bundle
    encoding = request.output.encoding if isinstance(request.output, EmbeddingOptions) else Encoding.FLOAT
    segments = _segments if request.scope == Scope.CLIP else _whole_clip
    return {
        "object": "list",
        "model": bundle.name,
        "model_version": bundle.version,
        "model_sha256": bundle.sha256,
        "preprocessing": _spec_hash(bundle.clip_spec),
        "data": segments(result, encoding),
        "streams": {str(modality): _status(result, str(modality)) for modality in Modality},
        "media": _media(result),
        "usage": {
            "bytes": num_bytes,
            "segments": len(result.windows),
            "media_sec": _start_and_end(result)[1],
        },
        "warnings": list(result.warnings),
        "request_id": request_id,
    }


def model_description(model: Zorro) -> dict[str, Any]:
    """The body of `schemas.ModelDescription`."""
    bundle = model.bundle
    return {
        "id": f"{bundle.name}/{bundle.version}",
        "object": "model",
        "name": bundle.name,
        "version": bundle.version,
        "sha256": bundle.sha256,
        "preprocessing": _spec_hash(bundle.clip_spec),
        "window_sec": bundle.clip_spec.window_seconds,
        "variant": model.variant.name,
        "variants": list(bundle.variants),
        "modalities": [str(modality) for modality in Modality],
        "labels": [{"id": x.id, "label": x.label, "modalities": list(x.modalities)} for x in bundle.labels],
        "scores": str(bundle.scores),
        "providers": model.providers,
        "parity": bundle.manifest["variants"][model.variant.name]["parity"],
        "metrics": bundle.manifest["metrics"],
        "about": bundle.manifest["about"],
    }


@functools.cache
def _spec_hash(spec: ClipSpec) -> str:
    """Computed once for each model, not for each response."""
    return spec.hash


def _segments(result: ClipResult, encoding: Encoding) -> list[dict[str, Any]]:
    return [
        {
            "index": window.index,
            "modality": name,
            "scope": Scope.CLIP,
            "start_sec": window.start_seconds,
            "end_sec": window.end_seconds,
            "padded": window.padded,
            "silent": window.is_silent,
        }
        | _value(stream, encoding)
        for window in result.windows
        for name, stream in window.streams.items()
    ]


def _whole_clip(result: ClipResult, encoding: Encoding) -> list[dict[str, Any]]:
    start, end = _start_and_end(result)
    silent = all(window.is_silent for window in result.windows)
    padded = any(window.padded for window in result.windows)
    return [
        {
            "index": 0,
            "modality": name,
            "scope": Scope.ASSET,
            "start_sec": start,
            "end_sec": end,
            "padded": padded,
            "silent": silent,
        }
        | _value(stream, encoding)
        for name, stream in result.whole.items()
    ]


def _value(stream: StreamResult, encoding: Encoding) -> dict[str, Any]:
    if stream.labels is not None:
        return {"labels": [{"id": x.id, "label": x.label, "score": x.score} for x in stream.labels]}
    assert stream.embedding is not None
    vector = np.ascontiguousarray(stream.embedding, "<f4")
    return {
        "embedding": base64.b64encode(vector.tobytes()).decode() if encoding == Encoding.BASE64 else vector
    }


def _start_and_end(result: ClipResult) -> tuple[float, float]:
    """Start and end of the answered part in seconds, without the padding of the last window."""
    start, end = result.windows[0].start_seconds, result.windows[-1].end_seconds
    duration = result.media.duration_seconds
    return start, end if duration is None else min(end, duration)


def _status(result: ClipResult, name: str) -> str:
    if name in result.whole:
        return "answered"
    return "absent" if name in result.absent else "not_requested"


def _media(result: ClipResult) -> dict[str, Any]:
    info = result.media
    return {
        "duration_sec": info.duration_seconds,
        "has_audio": info.has_audio,
        "has_video": info.has_video,
        "width": info.width,
        "height": info.height,
        "fps": info.frames_per_second,
        "sample_rate": info.sample_rate,
        "container": info.container,
        "is_still": info.is_still,
    }
