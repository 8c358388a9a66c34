"""Which stream each node of a graph belongs to, and how many edges lead from stream to stream.

A node that one input reaches belongs to that input's stream. A node that both inputs reach belongs to fusion,
unless it serves outputs of a pure stream alone: then it belongs to that stream, and the edges by which the
other input came in are the leak. `stream_flow_svg` draws it.
"""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import onnx

from .purity import MAY_READ, sources_of

FLOW_STREAMS = ("audio", "fusion", "video")
CONSTANT = "constant"
"""The group of nodes that no input reaches: what is made of weights alone."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Flow:
    """Nodes by group, and what they read of each other."""

    inputs: dict[str, str]
    """Shape of each input, as text; an input is part of its stream."""
    nodes: dict[str, int]
    """Nodes of each group: audio, fusion, video, constant; groups without nodes are left out."""
    edges: dict[tuple[str, str], int]
    """How often nodes of the second group read a tensor of the first, the input itself included."""
    outputs: dict[str, str]
    """The group that makes each output; an output's stream is the first word of its name."""

    @property
    def streams(self) -> tuple[str, ...]:
        """Streams that the graph has, in the order in which they are shown."""
        there = {*self.inputs, *self.nodes, *map(stream_of, self.outputs)}
        return tuple(stream for stream in FLOW_STREAMS if stream in there)

    @property
    def leaks(self) -> dict[tuple[str, str], int]:
        """Edges, and outputs made by another group than their stream, that the Zorro mask forbids.

        None if pure.
        """
        crossing = Counter({pair: count for pair, count in self.edges.items() if not allowed(*pair)})
        crossing.update(
            (group, stream_of(name)) for name, group in self.outputs.items() if group != stream_of(name)
        )
        return dict(crossing)

    def to_dict(self) -> dict[str, Any]:
        """For JSON, which has no pairs for keys: `edges` and `leaks` by source, then by target."""
        nested: dict[str, dict[str, dict[str, int]]] = {"edges": {}, "leaks": {}}
        for name, counts in (("edges", self.edges), ("leaks", self.leaks)):
            for (source, target), count in counts.items():
                nested[name].setdefault(source, {})[target] = count
        return {"inputs": self.inputs, "nodes": self.nodes, "outputs": self.outputs, **nested}


def allowed(source: str, target: str) -> bool:
    """Whether nodes of group `target` may read what group `source` makes."""
    return source in (CONSTANT, target) or target == "fusion"


def stream_of(output: str) -> str:
    """The stream that an output answers for.

    Raises:
        ValueError: the name begins with none.
    """
    stream = output.split("_")[0]
    if stream not in FLOW_STREAMS:
        raise ValueError(
            f"output {output!r} names no stream; wanted audio_, fusion_ or video_ before its name"
        )
    return stream


def trace_flow(path: Path) -> Flow:
    """Group the nodes of the graph at `path`, and count its edges.

    Raises:
        ValueError: inputs or outputs are not those of a Zorro, or an edge cannot be followed, as in `purity`.
    """
    graph = onnx.load(path, load_external_data=False).graph
    stored = {tensor.name for tensor in graph.initializer}
    inputs = {value.name: _shape(value) for value in graph.input if value.name not in stored}
    if not inputs or not inputs.keys() <= MAY_READ["fusion"]:
        raise ValueError(f"{path.name} has inputs {sorted(inputs)}, wanted audio, video or both")
    made_by = {name: name for name in inputs} | _groups(graph, set(inputs))
    edges = Counter(
        (made_by[name], made_by[_first_output(node)])
        for node in graph.node
        for name in node.input
        if name in made_by
    )
    return Flow(
        inputs=inputs,
        nodes=dict(Counter(made_by[_first_output(node)] for node in graph.node).most_common()),
        edges=dict(edges.most_common()),
        outputs={value.name: made_by.get(value.name, CONSTANT) for value in graph.output},
    )


def _shape(value: onnx.ValueInfoProto) -> str:
    return "\N{MULTIPLICATION SIGN}".join(
        str(dim.dim_param or dim.dim_value) for dim in value.type.tensor_type.shape.dim
    )


def _groups(graph: onnx.GraphProto, inputs: set[str]) -> dict[str, str]:
    """The group of each tensor that a node makes."""
    sources, serves = sources_of(graph), _served_streams(graph)
    groups: dict[str, str] = {}
    for node in graph.node:
        group = _group(sources[_first_output(node)] & inputs, serves[_first_output(node)])
        groups |= {name: group for name in node.output if name}
    return groups


def _first_output(node: onnx.NodeProto) -> str:
    return str(next(name for name in node.output if name))


def _group(read: set[str], served: set[str]) -> str:
    """Of a node that depends on the inputs `read` and on which outputs of the streams `served` depend."""
    if len(read) < 2:
        return next(iter(read), CONSTANT)
    return next(iter(served)) if len(served) == 1 else "fusion"


def _served_streams(graph: onnx.GraphProto) -> Mapping[str, set[str]]:
    """For each tensor the streams whose outputs depend on what its node makes."""
    served = {value.name: {stream_of(value.name)} for value in graph.output}
    for node in reversed(graph.node):
        by_node: set[str] = set().union(*(served.get(name, set()) for name in node.output))
        served |= dict.fromkeys(node.output, by_node)
        served |= {name: served.get(name, set()) | by_node for name in node.input}
    return served


def flow_lines(flow: Flow) -> list[str]:
    """A table for terminals: a row per reader, a column per what is read, as in a table of the mask.

    Then the verdict.
    """
    columns = [*flow.streams, *([CONSTANT] if CONSTANT in flow.nodes else [])]
    lines = [
        "reads edges of".ljust(16) + "".join(name.rjust(10) for name in columns) + "     nodes   outputs"
    ]
    for target in columns:
        cells = [_cell(flow, source, target) for source in columns]
        outputs = sum(group == target for group in flow.outputs.values())
        lines.append(target.ljust(16) + "".join(cells) + f"{flow.nodes.get(target, 0):10}{outputs:10}")
    return [*lines, verdict(flow)]


def _cell(flow: Flow, source: str, target: str) -> str:
    count = flow.edges.get((source, target), 0)
    return (str(count) if allowed(source, target) or not count else f"LEAK {count}").rjust(10)


def verdict(flow: Flow) -> str:
    """Pure, or what leaks where, in one line."""
    if not flow.leaks:
        return "pure: nothing of another stream enters " + " or ".join(
            s for s in flow.streams if s != "fusion"
        )
    return "not pure: " + ", ".join(
        f"{source} → {target} {count}" for (source, target), count in flow.leaks.items()
    )
