"""Graphs as TensorRT takes them: only the batch of an input may vary.

It varies between the least and the most of a profile.
"""

from pathlib import Path

import onnx
from google.protobuf.message import DecodeError  # type: ignore[import-untyped]


class EngineError(ValueError):
    """A graph that TensorRT cannot take; the message names the graph, the node and the builder's reason."""


def read_graph(path: Path) -> onnx.ModelProto:
    """A graph without its external weights.

    Raises:
        EngineError: there is no such file, or it holds no graph.
    """
    if not path.is_file():
        raise EngineError(f"{path}: no such file; export the bundle first")
    try:
        graph = onnx.load(path, load_external_data=False)
    except DecodeError as error:
        raise EngineError(f"{path}: not an ONNX graph, or cut short ({error}); export it again") from error
    if not graph.graph.node or not graph.graph.output:
        raise EngineError(f"{path}: holds no nodes or no outputs; export it again")
    return graph


def input_shapes(path: Path) -> dict[str, tuple[int, ...]]:
    """Shapes of a graph's inputs without the batch, by name.

    Raises:
        EngineError: the batch of an input is fixed, or another axis is free.
    """
    graph = read_graph(path).graph
    stored = {tensor.name for tensor in graph.initializer}
    return {value.name: _shape_of(value, path) for value in graph.input if value.name not in stored}


def _shape_of(value: onnx.ValueInfoProto, path: Path) -> tuple[int, ...]:
    axes = [
        axis.dim_value if axis.HasField("dim_value") else None for axis in value.type.tensor_type.shape.dim
    ]
    if not axes or axes[0] is not None or None in axes[1:]:
        shape = [axis if axis is not None else "free" for axis in axes]
        raise EngineError(
            f"{path}: input {value.name} has shape {shape}; wanted a free batch first and all else fixed"
        )
    return tuple(axis for axis in axes[1:] if axis is not None)
