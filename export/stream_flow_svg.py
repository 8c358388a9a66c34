"""The flow between the streams of a graph, drawn as SVG."""

import math
from collections import Counter
from collections.abc import Iterator
from xml.sax.saxutils import escape

from .stream_flow import FLOW_STREAMS, Flow, allowed, stream_of, verdict

# Pixels: of the picture, from stream to stream, height of a box, above the first box.
WIDTH, ROW, BOX, TOP = 720, 118, 72, 56
LEFT = {"audio": 218, "video": 218, "fusion": 322}
"""Where a stream's box begins: fusion leaves room for what would pass it from audio to video."""
RIGHT, OUTPUTS = 502, 576
COLUMN_OF = {
    ("audio", "video"): 244, ("video", "audio"): 292, ("audio", "fusion"): 362, ("fusion", "audio"): 442,
    ("video", "fusion"): 362, ("fusion", "video"): 442,
}  # fmt: skip
"""The x at which the arrow of each pair of streams runs down or up."""

HEADINGS = ((90, "inputs"), (360, "nodes, and edges between them"), (643, "outputs"))

CSS = """
  svg { --paper: #ffffff; --ink: #1f2328; --none: #8c959f; --leak: #cf222e;
    --audio: #0969da; --fusion: #8250df; --video: #1a7f37; }
  @media (prefers-color-scheme: dark) { svg { --paper: #0d1117; --ink: #e6edf3; --none: #7d8590; --leak:
  #ff6a69;
    --audio: #58a6ff; --fusion: #bc8cff; --video: #3fb950; } }
  text { font: 13px system-ui, -apple-system, "Segoe UI", "DejaVu Sans", sans-serif; fill: var(--ink); }
  .paper { fill: var(--paper); } .small { font-size: 12px; } .name { font-size: 15px; font-weight: 600; }
  .count { font-weight: 600; }  .box { fill-opacity: .12; stroke-width: 1.5; }
"""
COLOURS = "".join(
    f"  .{name} {{ stroke: var(--{name}); fill: var(--{name}); }} text.{name} {{ stroke: none; }}\n"
    for name in (*FLOW_STREAMS, "leak", "none")
)


def draw_flow(flow: Flow) -> str:
    """The picture as SVG, with an arrow for each pair of streams.

    Inputs, streams and outputs stand from left to right.

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
        *(part for pair in COLUMN_OF if {*pair} <= {*flow.streams} for part in _between(flow, *pair)),
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
    x, count = COLUMN_OF[source, target], flow.edges.get((source, target), 0)
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
    yield (
        f'<rect class="box {kind}" x="{left}" y="{y - BOX / 2:g}" '
        f'width="{right - left:g}" height="{BOX}" rx="6"/>'
    )
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
