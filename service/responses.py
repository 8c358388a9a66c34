"""JSON bodies of the API, made of the runtime's results; `schemas` describes their shapes."""

import base64
import functools
from collections.abc import Callable
from typing import Any

import numpy as np
import orjson
from starlette.responses import Response

from media import ClipSpec, Modality
from runtime import ClipResult, LabelScore, StreamResult, Zorro
from runtime.bundle import Label

from .clip_request import ClipRequest, EmbeddingOptions, Encoding, Scope

StreamValue = Callable[[StreamResult], dict[str, Any]]


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
        "data": segments(result, functools.partial(_value, encoding, decides=bundle.decision is not None)),
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


def model_description(model: Zorro, *, whole_labels: bool) -> dict[str, Any]:
    """The body of `schemas.ModelDescription`.

    Args:
        model: that is described.
        whole_labels: tell all that is known of each label. It more than doubles the body of a model with a
            thousand labels, so the list of models does without.
    """
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
        "labels": _written_labels(bundle.labels, whole=whole_labels),
        "scores": str(bundle.scores),
        "providers": model.providers,
        "parity": bundle.manifest["variants"][model.variant.name]["parity"],
        "metrics": bundle.manifest["metrics"],
        "about": bundle.manifest["about"],
        **({"decision": bundle.decision.to_dict()} if bundle.decision is not None else {}),
    }


@functools.cache
def _written_labels(labels: tuple[Label, ...], *, whole: bool) -> orjson.Fragment:
    """The labels as JSON, written once for each model: a thousand of them take a while."""
    return orjson.Fragment(orjson.dumps([_label(label, whole=whole) for label in labels]))


def _label(label: Label, *, whole: bool) -> dict[str, Any]:
    """A label; if it is to be whole, with what else is known of it, where there is anything."""
    plain = {"id": label.id, "label": label.label, "modalities": list(label.modalities)}
    if not whole:
        return plain
    further = {
        "parents": list(label.parents),
        "mid": label.mid,
        "wnid": label.wnid,
        "bridges": list(label.bridges),
    }
    return plain | {name: value for name, value in further.items() if value}


@functools.cache
def _spec_hash(spec: ClipSpec) -> str:
    """Computed once for each model, not for each response."""
    return spec.hash


def _segments(result: ClipResult, value: StreamValue) -> list[dict[str, Any]]:
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
        | value(stream)
        for window in result.windows
        for name, stream in window.streams.items()
    ]


def _whole_clip(result: ClipResult, value: StreamValue) -> list[dict[str, Any]]:
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
        | value(stream)
        for name, stream in result.whole.items()
    ]


def _value(encoding: Encoding, stream: StreamResult, *, decides: bool) -> dict[str, Any]:
    """What a stream says; how sure it is only of a model that has a decision."""
    if stream.labels is not None:
        labels = {"labels": [_label_score(x) for x in stream.labels]}
        return labels | (_sureness(stream) if decides else {})
    assert stream.embedding is not None
    vector = np.ascontiguousarray(stream.embedding, "<f4")
    return {
        "embedding": base64.b64encode(vector.tobytes()).decode() if encoding == Encoding.BASE64 else vector
    }


def _label_score(label: LabelScore) -> dict[str, Any]:
    return {"id": label.id, "label": label.label, "score": label.score}


def _sureness(stream: StreamResult) -> dict[str, Any]:
    guess = stream.best_guess
    return {
        "threshold": stream.threshold,
        "sure": stream.is_sure,
        "best_guess": None if guess is None else _label_score(guess),
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
