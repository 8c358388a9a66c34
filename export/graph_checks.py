"""What no graph of ours holds, wherever it runs.

That is guards, masks, control flow, shapes known too late, and remains.

Each rule yields the faults of one kind.
"""

from collections import Counter
from collections.abc import Iterator
from itertools import chain

from onnx import TensorProto

from .graph_view import GraphFault, GraphView, fault_of, inputs_of, missing_bytes

FORBIDDEN_OPERATORS = {
    "IsNaN": "is a guard that softmax does not need",
    "IsInf": "is a guard that softmax does not need",
    "Where": "is a mask: attention has none, and a padded batch is the caller's",
    "If": "is control flow",
    "Loop": "is control flow",
    "Scan": "is control flow",
    "NonZero": "has a shape that depends on values",
    "Compress": "has a shape that depends on values",
    "Unique": "has a shape that depends on values",
    "NonMaxSuppression": "has a shape that depends on values",
    "RandomNormal": "is chance",
    "RandomNormalLike": "is chance",
    "RandomUniform": "is chance",
    "RandomUniformLike": "is chance",
    "Bernoulli": "is chance",
    "Multinomial": "is chance",
    "Dropout": "is training",
}
"""Operators and why they are not there."""

MIN_OPSET = 17  # the first with LayerNormalization
MAX_INLINE_BYTES = 2**31 - 1  # of a protobuf message
CODE = "change the model's code"


def check_opsets(view: GraphView, *, max_opset: int) -> Iterator[GraphFault]:
    """ONNX's own operators alone, of the versions that engines of today read."""
    version = view.opsets.get("", 0)
    if set(view.opsets) - {""}:
        yield _of_graph(view, f"declares the domains {sorted(view.opsets)}", "declare ONNX's own alone")
    if not MIN_OPSET <= version <= max_opset:
        yield _of_graph(
            view, f"is of opset {version}, wanted {MIN_OPSET} to {max_opset}", "export it with a wanted opset"
        )


def check_operators(view: GraphView) -> Iterator[GraphFault]:
    """None of another domain, none that is forbidden."""
    for node in view.graph.node:
        if node.domain not in ("", "ai.onnx"):
            reason = f"is {node.domain}.{node.op_type}, of another domain than ONNX's"
            yield fault_of(node, reason, "write it in ONNX's operators")
        elif node.op_type in FORBIDDEN_OPERATORS:
            yield fault_of(node, FORBIDDEN_OPERATORS[node.op_type], CODE)


def check_names(view: GraphView) -> Iterator[GraphFault]:
    """Every node has a name of its own, so that a fault has an address."""
    seen = Counter(node.name for node in view.graph.node)
    for node in view.graph.node:
        if not node.name:
            yield fault_of(node, "has no name", "name it when exporting")
        elif seen[node.name] > 1:
            yield fault_of(
                node, f"shares its name with {seen.pop(node.name) - 1} more nodes", "name nodes apart"
            )


def check_unused(view: GraphView) -> Iterator[GraphFault]:
    """Everything that is there is needed for an answer."""
    needed = view.needed()
    for node in view.graph.node:
        if not needed.intersection(node.output):
            yield fault_of(node, "is dead: no answer depends on it", "remove it")
    read = set(chain.from_iterable(inputs_of(node) for node in view.graph.node)) | {
        v.name for v in view.graph.output
    }
    for name in view.initializers:
        if name not in read:
            yield GraphFault(node=name, operator="weight", reason="is read by no node", remedy="remove it")
    for value in view.graph.input:
        if value.name not in read and value.name not in view.initializers:
            yield GraphFault(
                node=value.name, operator="input", reason="is read by no node", remedy="remove it"
            )


def check_shapes(view: GraphView) -> Iterator[GraphFault]:
    """Inputs and outputs are fixed but for a first axis named batch.

    Intermediates may have the batch anywhere.
    """
    for kind, values in (("input", view.graph.input), ("output", view.graph.output)):
        for value in values:
            dims = view.dims_of(value.name)
            if not dims or dims[0] != "batch" or not all(isinstance(d, int) and d > 0 for d in dims[1:]):
                reason = f"must have a first axis named batch and fixed ones after it, and has {_text(dims)}"
                yield GraphFault(
                    node=value.name,
                    operator=kind,
                    reason=reason,
                    remedy="export with the batch alone dynamic",
                )
    for node in view.graph.node:
        for name in filter(None, node.output):
            dims = view.dims_of(name)
            if dims is None or sum(not isinstance(d, int) for d in dims) > 1:
                reason = f"makes {name!r}, whose shape {_text(dims)} is not inferred"
                yield fault_of(node, reason, "infer shapes before saving")
    if view.inference_error:
        yield _of_graph(view, f"cannot be inferred: {view.inference_error}", "correct the node")


def check_weights(view: GraphView) -> Iterator[GraphFault]:
    """Weights outside the graph are beside it and whole; those inside leave it readable."""
    for name, tensor in view.initializers.items():
        if missing := missing_bytes(tensor, view.folder):
            yield GraphFault(
                node=name,
                operator="weight",
                reason=missing,
                remedy="export again, and move folders as a whole",
            )
    num_bytes = sum(
        t.ByteSize() for t in view.initializers.values() if t.data_location != TensorProto.EXTERNAL
    )
    if num_bytes > MAX_INLINE_BYTES:
        yield _of_graph(
            view,
            f"holds {num_bytes} bytes of weights, at most {MAX_INLINE_BYTES} can be",
            "store them outside",
        )


def _of_graph(view: GraphView, reason: str, remedy: str) -> GraphFault:
    return GraphFault(node=view.graph.name, operator="graph", reason=reason, remedy=remedy)


def _text(dims: tuple[int | str | None, ...] | None) -> str:
    return "unknown" if dims is None else "[" + ", ".join("?" if d is None else str(d) for d in dims) + "]"
