"""Which stream each node of a graph belongs to, and how many edges lead from stream to stream: purity to be looked at.

A node that one input reaches belongs to that input's stream. One that both reach belongs to fusion, unless it
serves answers
of a pure stream alone: then it belongs there, and the edges by which the other input came in are the leak.
"""

import math
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from xml.sax.saxutils import escape

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
        """Edges, and outputs made by another group than their stream, that the Zorro mask forbids; none if pure."""
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
    """A table for terminals: a row per reader, a column per what is read, as in a table of the mask; then the verdict."""
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


WIDTH, ROW, BOX, TOP = (
    720,
    118,
    72,
    56,
)  # pixels: picture, from stream to stream, height of a box, above the first
LEFT = {"audio": 218, "video": 218, "fusion": 322}
"""Where a stream's box begins: fusion leaves room for what would pass it from audio to video."""
RIGHT, OUTPUTS = 502, 576
LANES = {
    ("audio", "video"): 244, ("video", "audio"): 292, ("audio", "fusion"): 362, ("fusion", "audio"): 442,
    ("video", "fusion"): 362, ("fusion", "video"): 442,
}  # fmt: skip
"""Where the arrow of each pair of streams runs down or up."""

HEADINGS = ((90, "inputs"), (360, "nodes, and edges between them"), (643, "outputs"))

CSS = """
  svg { --paper: #ffffff; --ink: #1f2328; --none: #8c959f; --audio: #0969da; --fusion: #8250df; --video:
  #1a7f37;
    --leak: #cf222e; }
  @media (prefers-color-scheme: dark) { svg { --paper: #0d1117; --ink: #e6edf3; --none: #7d8590; --audio:
  #58a6ff;
    --fusion: #bc8cff; --video: #3fb950; --leak: #ff6a69; } }
  text { font: 13px system-ui, -apple-system, "Segoe UI", "DejaVu Sans", sans-serif; fill: var(--ink); }
  .paper { fill: var(--paper); } .small { font-size: 12px; } .name { font-size: 15px; font-weight: 600; }
  .count { font-weight: 600; }  .box { fill-opacity: .12; stroke-width: 1.5; }
"""
COLOURS = "".join(
    f"  .{name} {{ stroke: var(--{name}); fill: var(--{name}); }} text.{name} {{ stroke: none; }}\n"
    for name in (*FLOW_STREAMS, "leak", "none")
)


def draw_flow(flow: Flow) -> str:
    """The picture as SVG: inputs, streams and outputs from left to right, and an arrow for each pair of streams.

    What the mask forbids is a grey dashed arrow with a 0, or a red one with its count. Light or dark as the
    reader's system.
    """
    height = TOP + ROW * (len(flow.streams) - 1) + BOX + 48
    size = f'width="{WIDTH}" height="{height}"'
    leaking = sum(flow.leaks.values())
    below = f"not pure: {_number(leaking, 'edge')} that should not be" if leaking else verdict(flow)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" {size} role="img">',
        f"<title>{escape(verdict(flow))}</title>",
        f"<style>{CSS}{COLOURS}</style>",
        f'<rect class="paper" {size} rx="8"/>',
        *(_text(x, 32, heading, "small") for x, heading in HEADINGS),
        *(part for stream in flow.streams for part in _row(flow, stream)),
        *(part for pair in LANES if {*pair} <= {*flow.streams} for part in _between(flow, *pair)),
        *_to_outputs(flow),
        _text(WIDTH / 2, height - 18, below, "name leak" if leaking else "name"),
        "</svg>",
    ]
    return "\n".join(parts) + "\n"


def _middle(flow: Flow, stream: str) -> float:
    return TOP + ROW * flow.streams.index(stream) + BOX / 2


def _row(flow: Flow, stream: str) -> Iterator[str]:
    """A stream's input, if it has one, its nodes, and its outputs."""
    y = _middle(flow, stream)
    if stream in flow.inputs:
        yield from _box(14, 166, y, stream, [stream, flow.inputs[stream]])
        yield from _arrow((166, y), (LEFT[stream], y), stream, 2)
    count, within = flow.nodes.get(stream, 0), flow.edges.get((stream, stream), 0)
    yield from _box(
        LEFT[stream], RIGHT, y, stream, [stream, _number(count, "node"), f"{_number(within, 'edge')} within"]
    )
    yield from _box(
        OUTPUTS, 710, y, stream, [name for name in flow.outputs if stream_of(name) == stream], heading=False
    )


def _number(count: int, noun: str) -> str:
    return f"{count} {noun}{'' if count == 1 else 's'}"


def _between(flow: Flow, source: str, target: str) -> Iterator[str]:
    """The arrow from one stream's box to another's, with the number of edges."""
    start, end = _middle(flow, source), _middle(flow, target)
    down = math.copysign(BOX / 2, end - start)
    x, count = LANES[source, target], flow.edges.get((source, target), 0)
    kind = "none" if not count else source if allowed(source, target) else "leak"
    yield from _arrow((x, start + down), (x, end - down), kind, _width(count))
    yield _text(x + 14, (start + end) / 2 + 5, str(count), f"count {kind}", anchor="start")


def _to_outputs(flow: Flow) -> Iterator[str]:
    """An arrow from each group to each stream whose outputs it makes."""
    for (group, stream), count in Counter(
        (group, stream_of(name)) for name, group in flow.outputs.items()
    ).items():
        if group not in FLOW_STREAMS:
            continue  # made of weights alone: the verdict tells it
        start, end = (RIGHT, _middle(flow, group)), (OUTPUTS, _middle(flow, stream))
        kind = stream if group == stream else "leak"
        yield from _arrow(start, end, kind, _width(count))
        if kind == "leak":
            yield _text((start[0] + end[0]) / 2, (start[1] + end[1]) / 2 - 8, str(count), "count leak")


def _width(count: int) -> float:
    """Of an arrow for so many edges, in pixels."""
    return 1.5 + 1.2 * math.log2(1 + count) if count else 1.5


def _box(
    left: float, right: float, y: float, kind: str, lines: list[str], *, heading: bool = True
) -> Iterator[str]:
    yield f'<rect class="box {kind}" x="{left}" y="{y - BOX / 2:g}" width="{right - left:g}" height="{BOX}" rx="6"/>'
    first = y + 5 - 9 * (len(lines) - 1)
    for i, line in enumerate(lines):
        yield _text((left + right) / 2, first + 18 * i, line, "name" if heading and not i else "small")


def _arrow(start: tuple[float, float], end: tuple[float, float], kind: str, width: float) -> Iterator[str]:
    """A line that ends in a head; dashed if its kind is none."""
    length = math.dist(start, end)
    ux, uy = (end[0] - start[0]) / length, (end[1] - start[1]) / length
    head, half = 7 + width, 3.5 + width * 0.7
    x, y = end[0] - ux * head, end[1] - uy * head
    dashes = ' stroke-dasharray="5 4"' if kind == "none" else ""
    ends = f'x1="{start[0]:g}" y1="{start[1]:g}" x2="{x:g}" y2="{y:g}"'
    yield f'<line class="{kind}" {ends} stroke-width="{width:.1f}"{dashes}/>'
    corners = (end, (x - uy * half, y + ux * half), (x + uy * half, y - ux * half))
    yield f'<polygon class="{kind}" points="{" ".join(f"{a:g},{b:g}" for a, b in corners)}"/>'


def _text(x: float, y: float, line: str, kind: str, *, anchor: str = "middle") -> str:
    return f'<text class="{kind}" x="{x:g}" y="{y:g}" text-anchor="{anchor}">{escape(line)}</text>'
