"""The Open Inference Protocol, version 2: requests for inference parsed, responses written. No HTTP here.

One model has three graphs, and the inputs of a request choose one: `audio`, `video`, or both, which answers
for all three streams. Tensors are JSON, or raw bytes after the JSON by the protocol's extension for binary
data.

References: Open Inference Protocol (github.com/kserve/open-inference-protocol), binary tensor data extension
(Triton).
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import orjson

from media import Clip, Modality
from runtime import Zorro
from runtime.signature import GRAPH_INPUTS, input_tensors, output_names

from .errors import ServiceError

DATATYPES: dict[str, np.dtype[Any]] = {"FP32": np.dtype("<f4"), "UINT8": np.dtype("u1")}
DATATYPE_NAMES = {str(dtype): name for name, dtype in DATATYPES.items()}


@dataclass(frozen=True, slots=True)
class TensorRequest:
    """An inference request whose inputs fit one graph of the model."""

    id: Any
    """As the client wrote it, or the default."""
    modality: Modality
    clips: list[Clip]
    raw_outputs: dict[str, bool]
    """The requested outputs in order, and for each whether it is to be raw bytes."""


def parse_request(body: bytes, header_length: str | None, model: Zorro, *, default_id: str) -> TensorRequest:
    """Parse an inference request.

    Args:
        body: JSON, and raw tensors after it.
        header_length: the header `Inference-Header-Content-Length`, which is the length of the JSON; None if
            all of the body is JSON.
        model: whose inputs the tensors must fit.
        default_id: for a request that has no id.

    Raises:
        ServiceError: the body is no such request, or no graph of the model has such inputs or outputs.
    """
    header, raw = split_body(body, header_length)
    modality, clips = _parse_inputs(header["inputs"], raw, model)
    return TensorRequest(header.get("id", default_id), modality, clips, _requested_outputs(header, modality))


def write_response(
    model: Zorro, request: TensorRequest, outputs: Mapping[str, np.ndarray]
) -> tuple[bytes, int | None]:
    """The body of an inference response, and the length of its JSON if raw tensors follow it.

    Args:
        model: that answered.
        request: says which outputs to write, and how.
        outputs: all outputs of the graph, by name.
    """
    entries, parts = [], []
    for name, is_raw in request.raw_outputs.items():
        value = outputs[name]
        entry: dict[str, Any] = {"name": name, "datatype": "FP32", "shape": value.shape}
        if is_raw:
            parts.append(np.ascontiguousarray(value, "<f4").tobytes())
            entry["parameters"] = {"binary_data_size": len(parts[-1])}
        else:
            entry["data"] = np.ascontiguousarray(value).reshape(-1)
        entries.append(entry)
    about = {"model_name": model.bundle.name, "model_version": model.bundle.version, "id": request.id}
    header = orjson.dumps(about | {"outputs": entries}, option=orjson.OPT_SERIALIZE_NUMPY)
    return (header + b"".join(parts), len(header)) if parts else (header, None)


def model_metadata(model: Zorro) -> dict[str, Any]:
    """The protocol's description of a model: its name, versions and tensors."""
    bundle = model.bundle
    outputs = bundle.manifest["variants"][model.variant.name]["graphs"][Modality.FUSED]["outputs"]
    return {
        "name": bundle.name,
        "versions": [bundle.version],
        "platform": "onnxruntime_onnx",
        "inputs": [
            {"name": x.name, "datatype": DATATYPE_NAMES[x.dtype], "shape": [-1, *x.shape]}
            for x in input_tensors(Modality.FUSED, bundle.clip_spec)
        ],
        "outputs": [{"name": x["name"], "datatype": "FP32", "shape": [-1, *x["shape"][1:]]} for x in outputs],
    }


def split_body(body: bytes, header_length: str | None) -> tuple[dict[str, Any], memoryview]:
    """The JSON of a request, and the raw bytes after it.

    Raises:
        ServiceError: the length is not that of JSON, or the JSON has no list of inputs.
    """
    view = memoryview(body)
    end = len(view)
    if header_length is not None:
        if not header_length.isdecimal() or int(header_length) > end:
            got = f"Inference-Header-Content-Length={header_length[:40]!r} of {end} bytes"
            raise _invalid(f"{got}; give the length of the JSON that the body begins with")
        end = int(header_length)
    try:
        header = orjson.loads(view[:end])
    except orjson.JSONDecodeError as error:
        raise _invalid(f"the request's JSON does not parse: {error}") from error
    if not isinstance(header, dict) or not isinstance(header.get("inputs"), list):
        raise _invalid('the JSON has no list of inputs; send {"inputs": [...]}')
    return header, view[end:]


def _parse_inputs(inputs: list[Any], raw: memoryview, model: Zorro) -> tuple[Modality, list[Clip]]:
    """The graph that the inputs choose, and its windows."""
    tensors: dict[str, np.ndarray] = {}
    for given in inputs:
        name, tensor, raw = _parse_input(given, raw)
        if name in tensors:
            raise _invalid(f"input {name!r} is given twice")
        tensors[name] = tensor
    if len(raw):
        raise _invalid(f"{len(raw)} bytes after the last tensor; say each one's binary_data_size")
    modality = next((m for m, names in GRAPH_INPUTS.items() if set(names) == tensors.keys()), None)
    if modality is None:
        raise _invalid(f"got inputs {sorted(tensors)}; give audio, video or both")
    _check_shapes(modality, tensors, model)
    num_windows = len(next(iter(tensors.values())))
    return modality, [
        _to_clip(model, {name: tensor[i] for name, tensor in tensors.items()}) for i in range(num_windows)
    ]


def _check_shapes(modality: Modality, tensors: Mapping[str, np.ndarray], model: Zorro) -> None:
    for x in input_tensors(modality, model.bundle.clip_spec):
        tensor = tensors[x.name]
        if tensor.dtype != x.dtype or tensor.shape[1:] != x.shape:
            got = f"{DATATYPE_NAMES[str(tensor.dtype)]}{list(tensor.shape)}"
            shape = ", ".join(map(str, x.shape))
            raise _invalid(f"{x.name} is {got}; give {DATATYPE_NAMES[x.dtype]}[windows, {shape}]")
    counts = [len(tensor) for tensor in tensors.values()]
    if min(counts) != max(counts) or not counts[0]:
        raise _invalid(f"inputs of {counts} windows; give as many of each, at least one")


def _to_clip(model: Zorro, arrays: Mapping[str, np.ndarray]) -> Clip:
    seconds = model.bundle.clip_spec.window_seconds
    audio, video = arrays.get("audio"), arrays.get("video")
    return Clip(0.0, seconds, audio, video, seconds, seconds, is_silent=False, padded=False)


def _parse_input(given: Any, raw: memoryview) -> tuple[str, np.ndarray, memoryview]:
    """Name and value of one input, and the raw bytes that are left after it."""
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
        wanted = (
            f"name, shape, datatype ({' or '.join(DATATYPES)}) and data, "
            "or binary_data_size among its parameters"
        )
        raise _invalid(f"an input is not as it should be ({error}); give {wanted}") from error


def _requested_outputs(header: Mapping[str, Any], modality: Modality) -> dict[str, bool]:
    """The requested outputs, by default all, and for each whether it is to be raw bytes."""
    known = output_names(modality)
    raw_by_default = _parameters(header).get("binary_data_output", False)
    requested = header.get("outputs") or [{"name": name} for name in known]
    raw_outputs = {}
    for output in requested:
        name = output.get("name") if isinstance(output, dict) else None
        if name not in known:
            raise _invalid(f"output {name!r} is not there for these inputs; there are {known}")
        raw_outputs[name] = bool(_parameters(output).get("binary_data", raw_by_default))
    return raw_outputs


def _parameters(given: Mapping[str, Any]) -> Mapping[str, Any]:
    parameters = given.get("parameters")
    return parameters if isinstance(parameters, dict) else {}


def _invalid(detail: str) -> ServiceError:
    return ServiceError("invalid_tensors", detail)
