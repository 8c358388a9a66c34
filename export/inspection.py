"""What a graph is made of and what it costs.

The figures are operators, weights, operations, and the memory of activations.

Everything is read from the graph's shapes; nothing is run, and the weights' file is not opened. A node whose
cost cannot be known is refused by name, so that no figure here leaves something out in silence.
"""

import math
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper

from .purity import sources_of
from .weights_file import external_files

UNCOUNTED = frozenset({
    "Attention", "ConvInteger", "ConvTranspose", "DeformConv", "Einsum", "GRU", "LSTM", "MatMulInteger",
    "QLinearConv", "QLinearMatMul", "RNN",
})  # fmt: skip
"""Operators that hold products which are not counted here: none of ours."""

DEFAULT_DOMAIN = ("", "ai.onnx")
FLOAT_TYPES = frozenset({TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.BFLOAT16, TensorProto.DOUBLE})


@dataclass(frozen=True, slots=True, kw_only=True)
class TensorFacts:
    """A tensor that flows through a graph."""

    name: str
    dtype: str
    shape: tuple[int | str, ...]
    """A free axis is its name."""

    @property
    def num_bytes(self) -> int:
        """Size where no axis is free."""
        return math.prod(int(size) for size in self.shape) * _item_bytes(self.dtype)


@dataclass(frozen=True, slots=True, kw_only=True)
class ActivationMemory:
    """Activations while a graph runs node by node in its own order: an estimate.

    A runtime that fuses nodes or works in place takes less; one that pads, or copies between layouts, takes
    more. Weights, and what is made of weights alone, are not counted.
    """

    batch: int
    peak_bytes: int
    """Most bytes alive at once.

    Inputs and outputs are the caller's and stay; all else goes after its last reader.
    """
    peak_node: str
    """Where that is."""
    largest: TensorFacts
    """The largest tensor that a node makes."""
    largest_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class GraphFacts:
    """One graph on disk."""

    nodes: int
    operators: dict[str, int]
    """How many nodes of each kind, most frequent first."""
    parameters: int
    """Elements of weights, however they are stored; scales, zero points, shapes and lone numbers are none."""
    weight_bytes: dict[str, int]
    """Bytes of those weights by element type."""
    gflops: float
    """Products at batch 1, a multiplication with its addition as two operations; int8 ones too."""
    memory: ActivationMemory
    inputs: tuple[TensorFacts, ...]
    outputs: tuple[TensorFacts, ...]
    opset: int
    producer: str
    metadata: dict[str, str]
    file_bytes: int
    external_bytes: dict[str, int]
    """Size on disk of each file that holds weights; other graphs may share it."""


def inspect_graph(path: Path, *, batch: int = 1) -> GraphFacts:
    """Read the facts of the graph at `path`; `batch` is that of the memory alone.

    A graph whose inputs have no free axis is counted as it is.

    Raises:
        ValueError: a node whose shapes or operations are not known, named; a batch below 1, or another one
            than 1 of a graph that has none; or a file of weights that is not there.
    """
    if batch < 1:
        raise ValueError(f"got {batch=}, wanted 1 or more")
    model = onnx.load(path, load_external_data=False)
    graph = model.graph
    _refuse_uncounted(graph)
    weights = list(_weights(graph))
    weight_bytes: Counter[str] = Counter()
    for tensor in weights:
        weight_bytes[_dtype(tensor.data_type)] += math.prod(tensor.dims) * _item_bytes(
            _dtype(tensor.data_type)
        )
    at_one = _tensors_at(model, 1)
    return GraphFacts(
        nodes=len(graph.node),
        operators=dict(Counter(node.op_type for node in graph.node).most_common()),
        parameters=sum(math.prod(tensor.dims) for tensor in weights),
        weight_bytes=dict(weight_bytes.most_common()),
        gflops=sum(_operations(node, at_one) for node in graph.node) / 1e9,
        memory=_memory(graph, at_one if batch == 1 else _tensors_at(model, batch), batch),
        inputs=tuple(_facts(value) for value in _inputs(graph)),
        outputs=tuple(_facts(value) for value in graph.output),
        opset=next(opset.version for opset in model.opset_import if opset.domain in DEFAULT_DOMAIN),
        producer=f"{model.producer_name} {model.producer_version}".strip(),
        metadata={entry.key: entry.value for entry in model.metadata_props},
        file_bytes=path.stat().st_size,
        external_bytes=_external_bytes(graph, path.parent),
    )


def _dtype(element_type: int) -> str:
    return str(helper.tensor_dtype_to_np_dtype(element_type).name)


def _item_bytes(dtype: str) -> int:
    return helper.tensor_dtype_to_np_dtype(helper.np_dtype_to_tensor_dtype(np.dtype(dtype))).itemsize


def _inputs(graph: onnx.GraphProto) -> list[onnx.ValueInfoProto]:
    """What a caller gives: old graphs list their weights among the inputs."""
    stored = {tensor.name for tensor in graph.initializer}
    return [value for value in graph.input if value.name not in stored]


def _facts(value: onnx.ValueInfoProto) -> TensorFacts:
    kind = value.type.tensor_type
    shape = tuple(dim.dim_value if dim.HasField("dim_value") else dim.dim_param for dim in kind.shape.dim)
    return TensorFacts(name=value.name, dtype=_dtype(kind.elem_type), shape=shape)


def _stored(graph: onnx.GraphProto) -> Iterator[TensorProto]:
    """Tensors that the graph holds.

    They are initialisers, and values of Constant nodes under the name of their output.
    """
    yield from graph.initializer
    for node in graph.node:
        for attribute in node.attribute if node.op_type == "Constant" else ():
            if attribute.name == "value":
                yield TensorProto(name=node.output[0], dims=attribute.t.dims, data_type=attribute.t.data_type)


def _weights(graph: onnx.GraphProto) -> Iterator[TensorProto]:
    """Floats but for lone numbers, and integers that a node takes for floats.

    Scales and zero points of neither.
    """
    linear = [node for node in graph.node if node.op_type in ("QuantizeLinear", "DequantizeLinear")]
    scaling = {name for node in linear for name in node.input[1:]}
    scaled = {node.input[0] for node in linear if node.op_type == "DequantizeLinear"}
    for tensor in _stored(graph):
        is_float = tensor.data_type in FLOAT_TYPES and len(tensor.dims) > 0
        if tensor.name not in scaling and (is_float or tensor.name in scaled):
            yield tensor


def _external_bytes(graph: onnx.GraphProto, folder: Path) -> dict[str, int]:
    names = external_files(graph)
    for name in names:
        if not (folder / name).is_file():
            raise ValueError(
                f"{folder / name} is not there, which the graph keeps weights in; copy it beside the graph"
            )
    return {name: (folder / name).stat().st_size for name in names}


def _tensors_at(model: onnx.ModelProto, batch: int) -> dict[str, TensorFacts]:
    """Every tensor of the graph with a shape of numbers: the free first axis of inputs is `batch`."""
    fixed = onnx.ModelProto()
    fixed.CopyFrom(model)
    graph = fixed.graph
    _fix_batch(graph, batch)
    inferred = onnx.shape_inference.infer_shapes(fixed, data_prop=True).graph
    values = (*inferred.input, *inferred.value_info, *inferred.output)
    tensors = {
        tensor.name: TensorFacts(name=tensor.name, dtype=_dtype(tensor.data_type), shape=tuple(tensor.dims))
        for tensor in _stored(graph)
    }
    tensors |= {value.name: _facts(value) for value in values if _is_known(value)}
    for node in graph.node:
        for name in node.output:
            if name and name not in tensors:
                raise ValueError(
                    f"the shape of {name!r}, made by {_title(node)}, is not known at batch {batch}, so "
                    "neither is its cost; "
                    "export the graph with the shapes of its intermediates"
                )
    return tensors


def _fix_batch(graph: onnx.GraphProto, batch: int) -> None:
    """Give the free first axis of inputs a size, here and wherever it is named.

    Other free axes are left for inference.
    """
    symbols = set()
    for value in _inputs(graph):
        dims = value.type.tensor_type.shape.dim
        free = [i for i, dim in enumerate(dims) if not dim.HasField("dim_value")]
        if free not in ([], [0]) or not value.type.tensor_type.HasField("shape"):
            shape = _facts(value).shape
            raise ValueError(
                f"input {value.name!r} has shape {shape}; only its first axis, the batch, may be free"
            )
        if free:
            symbols.add(dims[0].dim_param)
            dims[0].dim_value = batch
    if batch > 1 and not symbols:
        raise ValueError(
            f"the inputs of graph {graph.name!r} have fixed shapes, so its memory at batch {batch} is not "
            "known"
        )
    for value in (*graph.value_info, *graph.output):
        for dim in value.type.tensor_type.shape.dim:
            if dim.dim_param and dim.dim_param in symbols:
                dim.dim_value = batch
            elif not dim.HasField("dim_value"):
                dim.Clear()


def _is_known(value: onnx.ValueInfoProto) -> bool:
    kind = value.type.tensor_type
    return (
        kind.elem_type != 0
        and kind.HasField("shape")
        and all(dim.HasField("dim_value") for dim in kind.shape.dim)
    )


def _refuse_uncounted(graph: onnx.GraphProto) -> None:
    for node in graph.node:
        if node.domain not in DEFAULT_DOMAIN or node.op_type in UNCOUNTED:
            kind = f"{_title(node)} of domain {node.domain or 'ai.onnx'}"
            raise ValueError(f"how many operations {kind} takes is not known; say so in inspection.py")


def _title(node: onnx.NodeProto) -> str:
    return f"node {node.name!r} ({node.op_type})"


def _operations(node: onnx.NodeProto, tensors: Mapping[str, TensorFacts]) -> int:
    """Multiplications and additions of a node's products; all else counts as nothing."""
    if node.op_type not in ("MatMul", "Gemm", "Conv"):
        return 0
    left, right, out = (tensors[name].shape for name in (node.input[0], node.input[1], node.output[0]))
    match node.op_type:
        case "Conv":
            terms = math.prod(map(int, right[1:]))  # channels of a group times the kernel
        case "Gemm" if any(attribute.name == "transA" and attribute.i for attribute in node.attribute):
            terms = int(left[0])
        case _:
            terms = int(left[-1])
    return 2 * terms * math.prod(map(int, out))


def _memory(graph: onnx.GraphProto, tensors: Mapping[str, TensorFacts], batch: int) -> ActivationMemory:
    """Follow the nodes in order, and add up the memory that is held at each.

    What a node makes is held from that node to the last node that reads it.
    """
    given = {value.name for value in _inputs(graph)}
    size = {name: tensors[name].num_bytes for name, sources in sources_of(graph).items() if sources & given}
    made = [name for node in graph.node for name in node.output if name in size]
    if not made:
        raise ValueError(f"no node of graph {graph.name!r} reads an input; it computes nothing")
    dying = _dying(graph, set(made) - {value.name for value in graph.output})
    alive = peak = sum(size[name] for name in given)
    peak_node = ""
    for node, names in zip(graph.node, dying, strict=True):
        alive += sum(size.get(name, 0) for name in node.output)
        if alive > peak:
            peak, peak_node = alive, node.name or node.op_type
        alive -= sum(size[name] for name in names)
    largest = max(made, key=size.__getitem__)
    return ActivationMemory(
        batch=batch,
        peak_bytes=peak,
        peak_node=peak_node,
        largest=tensors[largest],
        largest_bytes=size[largest],
    )


def _dying(graph: onnx.GraphProto, names: set[str]) -> list[list[str]]:
    """For each node those of `names` that nothing reads after it."""
    last = {
        name: i for i, node in enumerate(graph.node) for name in (*node.output, *node.input) if name in names
    }
    dying: list[list[str]] = [[] for _ in graph.node]
    for name, i in last.items():
        dying[i].append(name)
    return dying
