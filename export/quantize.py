"""Turn a float32 graph into int8 with Q/DQ nodes.

Ranges are static and come from real clips; a weight has one scale per output channel.

Linear maps and convolutions read int8; everything else, their sums too, stays float32. Where quantising all
of them moves an answer by more than is allowed, the layers that do most harm by themselves are found and left
as they are. A layer is a
weight: the streams that share it are quantised alike. Ranges and nodes come from `onnxruntime.quantization`.
"""

import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
from onnxruntime.quantization import CalibrationDataReader, CalibrationMethod, QuantType
from onnxruntime.quantization.calibrate import TensorsData, create_calibrator
from onnxruntime.quantization.qdq_quantizer import QDQQuantizer

from media.progress import OnProgress, ignore_progress
from runtime.providers import CPU

from .shapes import infer_shapes

NUM_SEARCH_CLIPS, NUM_SEARCH_CLIPS_PER_LAYER = 32, 8
"""Clips on which all layers are compared together, and each alone."""
MAX_SHARE_LEFT = 0.75
QUANTISED = ("MatMul", "Conv")

Inputs = Mapping[str, np.ndarray]
"""One batch of a graph's inputs."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Scheme:
    """Which integers activations become; weights are int8 around zero."""

    activations: QuantType
    symmetric: bool
    """Zero is 0, as TensorRT wants it."""
    reduce_range: bool
    """Weights of 7 bits: processors without VNNI add two products in 16 bits, which overflow with 8."""


SCHEMES = {
    "int8-cpu": Scheme(activations=QuantType.QUInt8, symmetric=False, reduce_range=True),
    "int8-qdq": Scheme(activations=QuantType.QInt8, symmetric=True, reduce_range=False),
}


class QuantisationError(ValueError):
    """Int8 cannot be had within what it may differ by; the message says by how much it misses."""


def measure_ranges(path: Path, batches: Sequence[Inputs]) -> TensorsData:
    """Least and greatest value of every tensor that a linear map or convolution reads, over all batches.

    Raises:
        QuantisationError: there are no batches.
    """
    if not batches:
        raise QuantisationError(
            f"{path.name}: got 0 clips to measure ranges on; give data with a training split"
        )
    with tempfile.TemporaryDirectory() as folder:
        calibrator = create_calibrator(
            path,
            QUANTISED,
            augmented_model_path=str(Path(folder) / "observed.onnx"),
            calibrate_method=CalibrationMethod.MinMax,
        )
        calibrator.collect_data(_Reader(batches))
        ranges: TensorsData = calibrator.compute_data()
    return ranges


def layers_of(graph: onnx.GraphProto) -> dict[str, list[str]]:
    """Nodes that can be quantised, by the weight they read."""
    weights = {tensor.name for tensor in graph.initializer if len(tensor.dims) > 1}
    layers: dict[str, list[str]] = {}
    for node in graph.node:
        if node.op_type in QUANTISED and node.input[1] in weights:
            layers.setdefault(node.input[1], []).append(node.name)
    return layers


def quantise(
    path: Path,
    ranges: TensorsData,
    scheme: Scheme,
    *,
    only: Sequence[str] | None = None,
    without: Sequence[str] = (),
) -> onnx.ModelProto:
    """The graph at `path` with Q/DQ nodes around its layers.

    They go around all layers, or those given in `only`, except those in `without`.
    """
    model = onnx.load(path)
    nodes = [
        node
        for layer, names in layers_of(model.graph).items()
        if layer not in without and (only is None or layer in only)
        for node in names
    ]
    if not nodes:
        return model
    stored = {entry.key: entry.value for entry in model.metadata_props}
    quantiser = QDQQuantizer(
        model,
        True,
        scheme.reduce_range,
        QuantType.QInt8,
        scheme.activations,
        ranges,
        nodes,
        [],
        list(QUANTISED),
        {
            "OpTypesToExcludeOutputQuantization": list(QUANTISED),
            "ActivationSymmetric": scheme.symmetric,
            "WeightSymmetric": True,
            "QuantizeBias": False,
        },
    )
    quantiser.quantize_model()
    quantiser.model.topological_sort()
    result: onnx.ModelProto = quantiser.model.model
    del result.metadata_props[:]
    onnx.helper.set_model_props(result, stored)
    result.producer_name = "zorro-av"
    infer_shapes(result)
    return result


def find_sensitive(
    path: Path,
    ranges: TensorsData,
    scheme: Scheme,
    batches: Sequence[Inputs],
    *,
    min_cosine: float,
    on_progress: OnProgress = ignore_progress,
) -> list[str]:
    """Layers to leave in float32 so that int8 answers stay close enough.

    Each answer's cosine to the float32 graph's is then at least `min_cosine`.

    Empty if all layers can be quantised. Else each layer is quantised alone, and those that do most harm are
    left out, half as many more each time, until it is enough.

    Raises:
        QuantisationError: three quarters of the layers left out are not enough.
    """
    batches = batches[:NUM_SEARCH_CLIPS]
    expected = list(_run(onnx.load(path), batches))
    layers = list(layers_of(onnx.load(path, load_external_data=False).graph))
    found = _min_cosine(quantise(path, ranges, scheme), batches, expected)
    if found >= min_cosine:
        return []
    few = slice(None, None, max(1, len(batches) // NUM_SEARCH_CLIPS_PER_LAYER))
    alone = {}
    for done, layer in enumerate(layers):
        on_progress("sensitive layers", done, len(layers))
        only = quantise(path, ranges, scheme, only=[layer])
        alone[layer] = _min_cosine(only, batches[few], expected[few])
    on_progress("sensitive layers", len(layers), len(layers))
    worst = sorted(layers, key=alone.__getitem__)
    tried, count = 0, 1
    while count <= MAX_SHARE_LEFT * len(layers):
        found = _min_cosine(quantise(path, ranges, scheme, without=worst[:count]), batches, expected)
        on_progress("float32 layers", count, len(layers), {"cosine": found})
        if found >= min_cosine:
            return sorted(worst[:count])
        tried, count = count, count + max(1, count // 2)
    raise QuantisationError(
        f"{path.name}: with {tried} of {len(layers)} layers in float32 the cosine is {found:.5f}, wanted "
        f"{min_cosine}; "
        "leave int8 out"
    )


class _Reader(CalibrationDataReader):  # type: ignore[misc]
    """Batches, one after the other, as the calibrator asks for them."""

    def __init__(self, batches: Sequence[Inputs]) -> None:
        self._remaining = iter(batches)

    def get_next(self) -> dict[str, np.ndarray] | None:
        """The next batch; None at the end."""
        batch = next(self._remaining, None)
        return None if batch is None else dict(batch)


def _run(model: onnx.ModelProto, batches: Sequence[Inputs]) -> Iterator[list[np.ndarray]]:
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=[CPU])
    for batch in batches:
        yield session.run(None, dict(batch))


def _min_cosine(
    model: onnx.ModelProto, batches: Sequence[Inputs], expected: Sequence[Sequence[np.ndarray]]
) -> float:
    """Least cosine of any answer to any clip."""
    pairs = zip(_run(model, batches), expected, strict=True)
    return float(
        np.min([cosine(x, y).min() for got, wanted in pairs for x, y in zip(got, wanted, strict=True)])
    )


def cosine(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Cosine of rows of two arrays [clips, dim]; 0 where one is zero, NaN where one is not finite."""
    cosines: np.ndarray = (x * y).sum(1) / np.maximum(
        np.linalg.norm(x, axis=1) * np.linalg.norm(y, axis=1), 1e-12
    )
    return cosines
