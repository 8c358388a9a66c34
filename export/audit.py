"""Whether every engine can run a graph.

The audit counts what the graph holds, and names each node that TensorRT or we do not take.

No GPU and no engine is asked: the rules are `graph_checks`, for every graph, and `tensorrt.ops`, `rules` and
    `restrictions`, for those that TensorRT is to run.
"""

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from . import graph_checks
from .graph_view import GraphFault, GraphView
from .tensorrt import rules
from .tensorrt.ops import PARSER_OPSETS, check_support
from .tensorrt.restrictions import check_restrictions

OPSET_VERSION = 20
TENSORRT = "11.0"
MAX_LISTED = 8


class AuditError(ValueError):
    """A graph holds what it must not; the message names the nodes, and `faults` has all of them."""

    def __init__(self, message: str, faults: tuple[GraphFault, ...]) -> None:
        super().__init__(message)
        self.faults = faults


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditReport:
    """What is in a graph, and what is wrong with it."""

    file: str
    tensorrt: str | None
    """The version it was checked for; None if it is not for TensorRT."""
    opset: int
    num_nodes: int
    operators: Mapping[str, int]
    """How often each is there, the most frequent first."""
    element_types: Mapping[str, int]
    """How many nodes answer in which type, as `FLOAT16`."""
    faults: tuple[GraphFault, ...]


def audit_graph(
    path: Path, *, tensorrt: str = TENSORRT, for_tensorrt: bool = True, max_opset: int = OPSET_VERSION
) -> AuditReport:
    """Refuse a graph that has faults; for arguments see `examine_graph`.

    Raises:
        AuditError: lists up to eight faults.
        ValueError: a version of TensorRT whose operators are not known here.
    """
    report = examine_graph(path, tensorrt=tensorrt, for_tensorrt=for_tensorrt, max_opset=max_opset)
    if report.faults:
        told = "; ".join(f"({i}) {fault}" for i, fault in enumerate(report.faults[:MAX_LISTED], 1))
        raise AuditError(f"{path.name} has {len(report.faults)} faults: {told}", report.faults)
    return report


def examine_graph(
    path: Path, *, tensorrt: str = TENSORRT, for_tensorrt: bool = True, max_opset: int = OPSET_VERSION
) -> AuditReport:
    """Count what a graph holds, and find its faults.

    Args:
        path: the graph, beside its weights.
        tensorrt: version of TensorRT that is to run it, "11.0" or "10.1".
        for_tensorrt: is it to? If not, as of int8 for processors, only what no engine takes gladly is a
            fault.
        max_opset: newest opset allowed, of a variant that needs a newer one than we export by default.

    Raises:
        ValueError: a version of TensorRT whose operators are not known here.
    """
    if tensorrt not in PARSER_OPSETS:
        raise ValueError(f"{tensorrt=} is not known; give one of {', '.join(PARSER_OPSETS)}")
    view = GraphView(path)
    types = Counter(view.type_of(node.output[0]) for node in view.graph.node if node.output)
    return AuditReport(
        file=path.name,
        tensorrt=tensorrt if for_tensorrt else None,
        opset=view.opsets.get("", 0),
        num_nodes=len(view.graph.node),
        operators=dict(Counter(node.op_type for node in view.graph.node).most_common()),
        element_types=dict(types.most_common()),
        faults=tuple(_faults(view, tensorrt if for_tensorrt else None, max_opset)),
    )


def _faults(view: GraphView, tensorrt: str | None, max_opset: int) -> Iterator[GraphFault]:
    yield from graph_checks.check_opsets(view, max_opset=max_opset)
    yield from graph_checks.check_operators(view)
    yield from graph_checks.check_names(view)
    yield from graph_checks.check_unused(view)
    yield from graph_checks.check_shapes(view)
    yield from graph_checks.check_weights(view)
    if tensorrt is not None:
        yield from check_support(view, tensorrt)
        yield from check_restrictions(view, tensorrt)
        yield from rules.check_interface(view)
        yield from rules.check_late_shapes(view)
        yield from rules.check_constants(view)
        yield from rules.check_precision(view)
        yield from rules.check_quantisation(view)
