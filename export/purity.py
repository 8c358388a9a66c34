"""Purity, proven on the graph: which inputs an output can depend on, by following every edge."""

from pathlib import Path

import onnx

from media import Modality

MAY_READ = {"audio": {"audio"}, "video": {"video"}, "fusion": {"audio", "video"}}
"""Inputs that a stream's outputs may depend on: the Zorro mask, as it must show in a graph."""


class ImpureGraphError(ValueError):
    """An output depends on an input that its stream must not read, or not on one that it must."""


def reached_inputs(graph: onnx.GraphProto) -> dict[str, set[str]]:
    """For each output the inputs from which a path leads to it."""
    inputs = {value.name for value in graph.input}
    reached = {name: {name} for name in inputs}
    for node in graph.node:  # ONNX keeps nodes in topological order
        if any(attribute.HasField("g") for attribute in node.attribute):
            raise ImpureGraphError(f"node {node.name} holds a subgraph, which this proof does not follow")
        sources = set().union(*(reached.get(name, set()) for name in node.input))
        for name in node.output:
            reached[name] = sources
    return {value.name: reached[value.name] for value in graph.output}


def prove_purity(path: Path, modality: Modality) -> dict[str, list[str]]:
    """What each output of the graph reads; every stream reads exactly what it may.

    Raises:
        ImpureGraphError: names the output and the input.
    """
    graph = onnx.load(path, load_external_data=False).graph
    reads = reached_inputs(graph)
    given = {value.name for value in graph.input}
    for output, sources in reads.items():
        wanted = MAY_READ[output.split("_")[0]] & given
        if sources != wanted:
            raise ImpureGraphError(f"{modality}: {output} reads {sorted(sources)}, its stream reads {sorted(wanted)}")
    return {output: sorted(sources) for output, sources in reads.items()}
