"""Purity, proven on the graph: which inputs an output can depend on, by following every edge."""

from pathlib import Path

import onnx

from media import Modality

MAY_READ = {"audio": {"audio"}, "video": {"video"}, "fusion": {"audio", "video"}}
"""Inputs that a stream's outputs may depend on: the Zorro mask, as it must show in a graph."""


class ImpureGraphError(ValueError):
    """An output depends on an input that its stream must not read, or not on one that it must."""


def reached_inputs(graph: onnx.GraphProto) -> dict[str, set[str]]:
    """For each output the inputs from which a path leads to it.

    Raises:
        ImpureGraphError: an edge that cannot be followed, as in `sources_of`.
    """
    sources = sources_of(graph)
    return {value.name: sources[value.name] for value in graph.output}


def sources_of(graph: onnx.GraphProto) -> dict[str, set[str]]:
    """For each tensor the inputs from which a path leads to it.

    None for weights and what is made of them alone.

    Every output of a node counts as reading every input of it, its shape too: more than the truth, never
    less.

    Raises:
        ImpureGraphError: an edge that cannot be followed, into a subgraph or from a name that nothing has
            made yet.
    """
    reached: dict[str, set[str]] = {value.name: {value.name} for value in graph.input}
    reached |= {tensor.name: set() for tensor in graph.initializer if tensor.name not in reached}
    reached[""] = set()  # an optional input that is not given
    for node in graph.node:
        if any(attribute.HasField("g") or attribute.graphs for attribute in node.attribute):
            raise ImpureGraphError(f"node {node.name!r} holds a subgraph, which this proof does not follow")
        for name in node.input:
            if name not in reached:
                raise ImpureGraphError(
                    f"node {node.name!r} reads {name!r} before anything makes it; sort the nodes"
                )
        sources: set[str] = set().union(*(reached[name] for name in node.input))
        reached |= {name: sources for name in node.output if name}
    return reached


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
            raise ImpureGraphError(
                f"{modality}: {output} reads {sorted(sources)}, its stream reads {sorted(wanted)}"
            )
    return {output: sorted(sources) for output, sources in reads.items()}
