"""Results of the runtime as answers of the API."""

import base64
import functools
from typing import Any

import numpy as np

from media import ClipSpec, Modality
from runtime import ClipResult, StreamResult, Zorro

from .options import Encoding, Scope


def to_answers(
    model: Zorro, result: ClipResult, *, scope: Scope, encoding: Encoding, request_id: str, num_bytes: int
) -> dict[str, Any]:
    """The body of an answer, see `schemas.Answers`, without its timings."""
    bundle = model.bundle
    return {
        "object": "list",
        "model": bundle.name,
        "model_version": bundle.version,
        "model_sha256": bundle.sha256,
        "preprocessing": _hash(bundle.clip_spec),
        "data": _segments(result, encoding) if scope == Scope.CLIP else _whole(result, encoding),
        "streams": {str(modality): _status(result, str(modality)) for modality in Modality},
        "media": _media(result),
        "usage": {"bytes": num_bytes, "segments": len(result.windows), "media_sec": _span(result)[1]},
        "warnings": list(result.warnings),
        "request_id": request_id,
    }


@functools.cache
def _hash(spec: ClipSpec) -> str:
    """Reckoned once for each model, not for each answer."""
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


def _whole(result: ClipResult, encoding: Encoding) -> list[dict[str, Any]]:
    start, end = _span(result)
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


def _span(result: ClipResult) -> tuple[float, float]:
    """Start and end of what was answered, the padding of the last window left out."""
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
