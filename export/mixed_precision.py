"""A float32 graph to mixed float16: products in half precision, sums over many values in full.

LayerNorm, softmax, the normalisation of inputs, and all that follows the last norm (L2 norm, embedding,
logits) stay in float32, and so do inputs and outputs: an engine that is strongly typed does as the graph
says. Each tensor is cast at most once. Weights that half precision reads are stored in it.
"""

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from .shapes import infer_shapes

FULL = frozenset(
    {"LayerNormalization", "Softmax", "ReduceL2", "ReduceMean", "Clip", "Sub", "Div", "Gemm", "Cast", "Shape"}
)
"""Operators that stay in float32.

`Gemm` is what heads are made of, `Sub` and `Div` normalise, and `Shape` counts clips.
"""

HALF = frozenset({
    "MatMul", "Conv", "Add", "Mul", "Gelu", "Relu", "Reshape", "Transpose", "Split", "Concat", "Unsqueeze",
    "Squeeze", "Gather", "Slice", "Expand", "Pad",
})  # fmt: skip
"""Operators that compute or move float16."""

_DTYPES = {TensorProto.FLOAT: np.float32, TensorProto.FLOAT16: np.float16}


def to_mixed_float16(model: onnx.ModelProto) -> onnx.ModelProto:
    """A new graph, with inferred shapes; `model` holds its weights, and is given shapes too.

    Raises:
        ValueError: an operator for which it is not decided here how precise it must be, or a weight beyond
            float16.
    """
    infer_shapes(model)
    graph = _Converted(model.graph)
    for node in model.graph.node:
        graph.add(node)
    made = helper.make_graph(
        graph.nodes,
        model.graph.name,
        list(model.graph.input),
        list(model.graph.output),
        list(graph.weights.values()),
    )
    result = helper.make_model(made, opset_imports=list(model.opset_import), ir_version=model.ir_version)
    result.producer_name = model.producer_name
    helper.set_model_props(result, {entry.key: entry.value for entry in model.metadata_props})
    infer_shapes(result)
    return result


class _Converted:
    """Nodes so far, and in which precisions each tensor is there."""

    def __init__(self, graph: onnx.GraphProto) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.weights: dict[str, TensorProto] = {}
        self._stored = {tensor.name: tensor for tensor in graph.initializer}
        values = (*graph.input, *graph.value_info, *graph.output)
        types = {value.name: value.type.tensor_type.elem_type for value in values}
        types |= {name: tensor.data_type for name, tensor in self._stored.items()}
        self._is_float = {name for name, type_ in types.items() if type_ == TensorProto.FLOAT}
        self._type_of: dict[str, int] = {value.name: TensorProto.FLOAT for value in graph.input}
        self._outputs = {value.name for value in graph.output}

    def add(self, node: onnx.NodeProto) -> None:
        """Append the node with inputs of its precision, after the casts it needs."""
        if node.op_type not in FULL | HALF and self._is_float.intersection((*node.input, *node.output)):
            raise ValueError(
                f"node {node.name!r} is {node.op_type}; say in mixed_precision.py how precise it must be"
            )
        copy = onnx.NodeProto()
        copy.CopyFrom(node)
        wanted = TensorProto.FLOAT if node.op_type in FULL else TensorProto.FLOAT16
        for i, name in enumerate(node.input):
            copy.input[i] = self._read(name, wanted)
        self._type_of |= dict.fromkeys(node.output, wanted)
        self.nodes.append(copy)
        for i, name in enumerate(node.output):
            if name in self._outputs and wanted == TensorProto.FLOAT16:
                copy.output[i] = f"{name}.half"
                self._cast(copy.output[i], name, TensorProto.FLOAT)
                self._type_of |= {copy.output[i]: TensorProto.FLOAT16, name: TensorProto.FLOAT}

    def _read(self, name: str, wanted: int) -> str:
        """The name under which a float tensor is there in the wanted precision.

        Others are read as they are.
        """
        if name in self._stored:
            return self._store(name, wanted)
        if name not in self._is_float or self._type_of[name] == wanted:
            return name
        cast = f"{name}.{'half' if wanted == TensorProto.FLOAT16 else 'full'}"
        if cast not in self._type_of:
            self._cast(name, cast, wanted)
            self._type_of[cast] = wanted
        return cast

    def _cast(self, source: str, target: str, wanted: int) -> None:
        self.nodes.append(helper.make_node("Cast", [source], [target], name=f"{target}/Cast", to=wanted))

    def _store(self, name: str, wanted: int) -> str:
        tensor = self._stored[name]
        if name not in self._is_float or wanted == TensorProto.FLOAT:
            self.weights[name] = tensor
            return name
        half = f"{name}.half"
        if half not in self.weights:
            array = numpy_helper.to_array(tensor)
            if np.abs(array).max(initial=0) > np.finfo(np.float16).max:
                raise ValueError(
                    f"{name} holds {np.abs(array).max():g}, which float16 cannot; export float32 alone"
                )
            self.weights[half] = numpy_helper.from_array(array.astype(np.float16), half)
        return half
