"""What `zorro bundle inspect` prints of a bundle.

Everyone gets the facts of the bundle. The facts of its graphs need onnx.
"""

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.table import Table
from rich.text import Text

from .bundle_tables import parity_table
from .console import EXTRA_OF, make_table, out

if TYPE_CHECKING:
    from export.inspection import GraphFacts
    from export.stream_flow import Flow
    from media import Modality
    from runtime import Bundle, Variant, Zorro
    from runtime.signature import TensorInfo

NEEDS_ONNX = (
    "operators, parameters, operations, memory and the flow between streams need onnx, which is not "
    "installed: "
    f"pip install -c constraints.txt --editable '.[{EXTRA_OF['onnx']}]'"
)


def has_onnx() -> bool:
    """Whether graphs can be read node by node here."""
    return find_spec("onnx") is not None


def print_bundle(path: Path, model: "Zorro") -> None:
    """Print what the manifest and ONNX Runtime's sessions tell."""
    bundle = model.bundle
    facts = Table.grid(padding=(0, 2, 0, 0))
    for name, value in _bundle_rows(path, bundle):
        facts.add_row(name, Text(value))
    out.print(facts)
    out.print(parity_table(bundle))
    out.print(_tensor_table(model))


def _bundle_rows(path: Path, bundle: "Bundle") -> Iterable[tuple[str, str]]:
    from media import Modality
    from runtime.bundle import ANY_PROVIDER

    spec = bundle.clip_spec
    frames = "x".join(map(str, spec.video_shape[1:3]))
    yield "bundle", f"{bundle.name}/{bundle.version}, {path}"
    yield "sha256", bundle.sha256
    yield "labels", f"{len(bundle.labels)}, scored by {bundle.scores}"
    if bundle.decision is not None:
        sure = ", ".join(f"{modality} {bundle.decision.threshold_of(modality):g}" for modality in Modality)
        known = "; audio and video know their own labels" if bundle.decision.known_labels_only else ""
        yield "sure from", sure + known
    yield "window", f"{spec.window_seconds:g} s"
    yield "sound", f"{spec.sample_rate} Hz, as {'x'.join(map(str, spec.audio_shape))} log-mel values"
    yield "picture", f"{spec.video_shape[0]} frames of {frames} pixels"
    providers = {"all others" if x == ANY_PROVIDER else x: name for x, name in bundle.variant_of.items()}
    yield "default", ", ".join(f"{name} for {provider}" for provider, name in reversed(providers.items()))


def _tensor_table(model: "Zorro") -> Table:
    """A row per graph, as its session describes it."""
    from media import Modality

    table = make_table("graph", "inputs", "outputs", title=f"graphs of {model.variant.name}")
    for modality in Modality:
        session = model.session(modality)
        table.add_row(str(modality), Text(_lines(session.inputs)), Text(_lines(session.outputs)))
    return table


def _lines(tensors: "Iterable[TensorInfo]") -> str:
    return "\n".join(f"{x.name} {x.dtype}[{', '.join(map(str, ('batch', *x.shape)))}]" for x in tensors)


def tensors_to_dict(model: "Zorro") -> dict[str, Any]:
    """For JSON: inputs and outputs of each graph, with the names that `GraphFacts` has for them."""
    from media import Modality

    return {
        str(modality): {
            side: [{"name": x.name, "dtype": x.dtype, "shape": ["batch", *x.shape]} for x in tensors]
            for side, tensors in (
                ("inputs", model.session(modality).inputs),
                ("outputs", model.session(modality).outputs),
            )
        }
        for modality in Modality
    }


@dataclass(frozen=True, slots=True)
class InspectedGraphs:
    """Facts and flow of a variant's graphs, read node by node."""

    facts: "Mapping[Modality, GraphFacts]"
    flows: "Mapping[Modality, Flow]"

    @property
    def leak(self) -> bool:
        """Whether an answer depends on a modality that it must not read."""
        return any(flow.leaks for flow in self.flows.values())

    def to_dict(self) -> dict[str, Any]:
        """For JSON, by graph."""
        return {str(m): asdict(x) | {"flow": self.flows[m].to_dict()} for m, x in self.facts.items()}

    def draw(self, path: Path) -> None:
        """Write the fused graph's flow as SVG."""
        from export.stream_flow_svg import draw_flow
        from media import Modality

        path.write_text(draw_flow(self.flows[Modality.FUSED]), encoding="utf-8")

    def print(self) -> None:
        """Print tables of what the graphs cost, their operators, and the flow of the fused one."""
        from export.stream_flow import flow_lines
        from media import Modality

        out.print(_cost_table(self.facts))
        for modality, facts in self.facts.items():
            operators = ", ".join(f"{name} {count}" for name, count in facts.operators.items())
            out.print(f"operators of {modality}: {operators}", highlight=False)
        for line in flow_lines(self.flows[Modality.FUSED]):
            out.print(line, highlight=False)


def inspect_graphs(variant: "Variant", *, batch: int) -> InspectedGraphs:
    """Read the graphs of a variant; memory is estimated for `batch` windows.

    Raises:
        ModuleNotFoundError: onnx is not installed.
        ValueError: a graph whose cost cannot be known; see `export.inspection`.
    """
    from export.inspection import inspect_graph
    from export.stream_flow import trace_flow

    return InspectedGraphs(
        facts={modality: inspect_graph(file, batch=batch) for modality, file in variant.graphs.items()},
        flows={modality: trace_flow(file) for modality, file in variant.graphs.items()},
    )


def _cost_table(facts: "Mapping[Modality, GraphFacts]") -> Table:
    batch = next(iter(facts.values())).memory.batch
    title = f"cost, with activations estimated for a batch of {batch}"
    table = make_table(
        "graph", "nodes", "parameters", "weights", "GFLOPs", "activations", "file", title=title
    )
    for modality, x in facts.items():
        table.add_row(
            str(modality),
            str(x.nodes),
            f"{x.parameters / 1e6:.2f} M",
            "\n".join(f"{dtype} {size / 1e6:.1f} MB" for dtype, size in x.weight_bytes.items()),
            f"{x.gflops:.3f}",
            f"{x.memory.peak_bytes / 1e6:.1f} MB",
            f"{x.file_bytes / 1e3:.0f} kB",
        )
    return table
