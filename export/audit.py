"""What a graph must not hold, so that every engine can run it: masks and guards, control flow, shapes known too late.

A node of another domain, of a forbidden kind, or with an output whose shape is unknown beyond the batch is refused.
"""

from collections.abc import Iterator
from pathlib import Path

import onnx

OPSET_VERSION = 20
FORBIDDEN = {
    "IsNaN": "a guard that softmax does not need",
    "IsInf": "a guard that softmax does not need",
    "Where": "a mask: attention has none, and a padded batch is the caller's",
    "If": "control flow",
    "Loop": "control flow",
    "Scan": "control flow",
    "NonZero": "a shape that depends on values",
    "RandomNormal": "chance",
    "RandomUniform": "chance",
    "Dropout": "training",
}
"""Operators and why they are not there."""


class AuditError(ValueError):
    """A graph holds what it must not; the message names the node."""


def audit_graph(path: Path) -> None:
    """Check one graph.

    Raises:
        AuditError: lists up to eight faults.
    """
    faults = list(_faults(onnx.load(path, load_external_data=False)))
    if faults:
        raise AuditError(f"{path.name} has {len(faults)} faults; change the model's code: " + "; ".join(faults[:8]))


def _faults(model: onnx.ModelProto) -> Iterator[str]:
    opsets = {opset.domain: opset.version for opset in model.opset_import}
    if opsets != {"": OPSET_VERSION}:
        yield f"opsets are {opsets}, wanted {OPSET_VERSION} of the default domain alone"
    for node in model.graph.node:
        if node.domain:
            yield f"node {node.name!r} is {node.domain}.{node.op_type}, of another domain than ONNX's"
        elif node.op_type in FORBIDDEN:
            yield f"node {node.name!r} is {node.op_type}: {FORBIDDEN[node.op_type]}"
    yield from _shape_faults(model.graph)


def _shape_faults(graph: onnx.GraphProto) -> Iterator[str]:
    """Inputs and outputs are fixed but for a first axis named batch; intermediates may have the batch anywhere."""
    for value in (*graph.input, *graph.output):
        dims = value.type.tensor_type.shape.dim
        if not dims or dims[0].dim_param != "batch" or not all(d.dim_value > 0 for d in dims[1:]):
            yield f"{value.name} must have a first axis named batch and fixed ones after it"
    known = {value.name: value for value in (*graph.value_info, *graph.input, *graph.output)}
    for node in graph.node:
        for name in (name for name in node.output if name):
            shape = known[name].type.tensor_type.shape if name in known else None
            if shape is None or sum(d.dim_value <= 0 for d in shape.dim) > 1:
                yield f"the shape of {name!r}, made by node {node.name!r}, is not inferred"
