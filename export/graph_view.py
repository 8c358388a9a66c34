"""A graph as its auditor reads it.

It gives types, axes and constants by name, who makes a tensor, and what an answer needs.

Shapes are those that the file tells; types that it does not tell are inferred. Weights are read one at a
time.
"""

from dataclasses import dataclass
from functools import cached_property
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper


@dataclass(frozen=True, slots=True, kw_only=True)
class GraphFault:
    """What a graph must not hold; its text is one sentence."""

    node: str
    """Name of the node, or of the tensor."""
    operator: str
    """The node's operator; `input`, `output`, `weight` or `graph` where it is no node."""
    reason: str
    remedy: str

    def __str__(self) -> str:
        return f"{self.operator} {self.node!r} {self.reason}; {self.remedy}"


def fault_of(node: onnx.NodeProto, reason: str, remedy: str) -> GraphFault:
    """A fault of a node, called by what it makes if it has no name."""
    name = node.name or next((f"maker of {name}" for name in node.output if name), "")
    return GraphFault(node=name, operator=node.op_type, reason=reason, remedy=remedy)


class GraphView:
    """One graph beside its weights."""

    def __init__(self, path: Path) -> None:
        self.model = onnx.load(path, load_external_data=False)
        self.graph = self.model.graph
        self.folder = path.parent
        self.initializers = {tensor.name: tensor for tensor in self.graph.initializer}
        stored = {node.output[0]: _stored_in(node) for node in self.graph.node if node.op_type == "Constant"}
        self.constants = self.initializers | {
            name: tensor for name, tensor in stored.items() if tensor is not None
        }
        self.maker_of = {name: node for node in self.graph.node for name in node.output if name}
        self.values = {v.name: v for v in (*self.graph.value_info, *self.graph.input, *self.graph.output)}

    @property
    def opsets(self) -> dict[str, int]:
        """Versions of operators by domain; ONNX's own is the empty one."""
        return {
            "" if opset.domain == "ai.onnx" else opset.domain: opset.version
            for opset in self.model.opset_import
        }

    @cached_property
    def _inferred(self) -> tuple[list[onnx.ValueInfoProto], str]:
        """Tensors that the file does not describe, and why some could not be inferred."""
        if all(name in self.values for name in self.maker_of):
            return [], ""
        try:
            return list(onnx.shape_inference.infer_shapes(self.model).graph.value_info), ""
        except (
            onnx.shape_inference.InferenceError,
            ValueError,
        ) as error:  # the latter of a Loop without a body
            return [], str(error)

    @property
    def inference_error(self) -> str:
        """Why types that the file does not tell cannot be inferred; nothing if they can."""
        return self._inferred[1]

    @cached_property
    def _types(self) -> dict[str, int]:
        """Element types by tensor, those that the file does not tell by inference."""
        values = {value.name: value for value in self._inferred[0]} | self.values
        types = {name: value.type.tensor_type.elem_type for name, value in values.items()}
        return types | {name: tensor.data_type for name, tensor in self.constants.items()}

    def type_of(self, name: str) -> str:
        """As `FLOAT16`; `UNDEFINED` where nobody knows."""
        return str(TensorProto.DataType.Name(self._types.get(name, TensorProto.UNDEFINED)))

    def dims_of(self, name: str) -> tuple[int | str | None, ...] | None:
        """Lengths of axes, each a number, a name or unknown; None if the file does not even tell how many."""
        if name in self.constants:
            return tuple(self.constants[name].dims)
        if name not in self.values or not self.values[name].type.tensor_type.HasField("shape"):
            return None
        dims = self.values[name].type.tensor_type.shape.dim
        return tuple(d.dim_value if d.HasField("dim_value") else d.dim_param or None for d in dims)

    def is_constant(self, name: str) -> bool:
        """Is it an initialiser or a Constant? So is an input left out."""
        return not name or name in self.constants

    def array(self, name: str) -> np.ndarray | None:
        """Content of a constant; None of one that is made at run time, or whose bytes are not there."""
        tensor = self.constants.get(name)
        if tensor is None or missing_bytes(tensor, self.folder):
            return None
        return numpy_helper.to_array(tensor, str(self.folder))

    def needed(self) -> set[str]:
        """Tensors that an answer depends on."""
        found: set[str] = set()
        ahead = [value.name for value in self.graph.output]
        while ahead:
            name = ahead.pop()
            if name not in found:
                found.add(name)
                ahead += inputs_of(self.maker_of[name]) if name in self.maker_of else []
        return found


def inputs_of(node: onnx.NodeProto) -> list[str]:
    """What a node reads, in its branches too."""
    names = [name for name in node.input if name]
    for attribute in node.attribute:
        for graph in (attribute.g, *attribute.graphs):
            names += [name for inner in graph.node for name in inputs_of(inner)]
            names += [value.name for value in graph.output]
    return names


def attributes_of(node: onnx.NodeProto) -> dict[str, Any]:
    """Attributes by name; text is str."""
    found = {attribute.name: helper.get_attribute_value(attribute) for attribute in node.attribute}
    return {name: value.decode() if isinstance(value, bytes) else value for name, value in found.items()}


def missing_bytes(tensor: TensorProto, folder: Path) -> str:
    """What is wrong with the file that a tensor's content is in; nothing if all of it is there."""
    if tensor.data_location != TensorProto.EXTERNAL:
        return ""
    place = {entry.key: entry.value for entry in tensor.external_data}
    location = place.get("location", "")
    if not location or Path(location).name != location:
        return f"is in {location!r}, which is not beside the graph"
    path = folder / location
    if not path.is_file():
        return f"is in {location}, which is not there"
    end = int(place.get("offset", 0)) + max(int(place.get("length", 0)), _num_bytes(tensor))
    return (
        f"ends at byte {end} of {location}, which has {path.stat().st_size}"
        if end > path.stat().st_size
        else ""
    )


def _num_bytes(tensor: TensorProto) -> int:
    num_bits = 4 if tensor.data_type in (TensorProto.INT4, TensorProto.UINT4) else 0
    num_bits = num_bits or 8 * helper.tensor_dtype_to_np_dtype(tensor.data_type).itemsize
    return int(prod(tensor.dims) * num_bits + 7) // 8


def _stored_in(node: onnx.NodeProto) -> TensorProto | None:
    """The tensor that a Constant holds; None if it is of a form that engines do not take."""
    given = attributes_of(node)
    if isinstance(tensor := given.get("value"), TensorProto):
        return tensor
    for suffix, dtype in (("float", np.float32), ("int", np.int64)):
        for name in (f"value_{suffix}", f"value_{suffix}s"):
            if name in given:
                return numpy_helper.from_array(np.array(given[name], dtype))
    return None
