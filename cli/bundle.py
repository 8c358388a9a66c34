"""`zorro bundle ...`: look after bundles."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Table
from rich.text import Text

from .arguments import AsJson, BundleArgument, BundleOrDefault, VariantOption, bundle_or_default, open_variant
from .console import explained, out, stage_bars, stop

if TYPE_CHECKING:
    from export.inspection import GraphFacts

bundle_app = typer.Typer(no_args_is_help=True, help="Look after bundles.")


@bundle_app.command("verify")
def verify(path: BundleOrDefault = None, as_json: AsJson = False) -> None:
    """Check every byte of a bundle, and the answers of every variant to the golden clips, on this machine."""
    with explained():
        from runtime import Zorro, read_bundle

        path = bundle_or_default(path)
        bundle = read_bundle(path)
        reports = {}
        for name in bundle.variants:
            model = Zorro(bundle, variant=name)
            reports[name] = asdict(model.self_test()) | {"providers": model.providers}
        if as_json:
            print(json.dumps({"sha256": bundle.sha256, "variants": reports}))
            return
        out.print(f"{path}: every byte is as it was made ({bundle.sha256[:12]})")
        for name, report in reports.items():
            error, cosine = max(report["max_abs_error"].values()), min(report["min_cosine"].values())
            out.print(
                f"{name}: every golden answer is within its tolerance: error {error:.2g}, cosine {cosine:.6f}"
            )


@bundle_app.command("prove")
def prove(
    path: BundleArgument,
    data: Annotated[Path, typer.Option("--data", help="Collection whose files are asked.")],
    checkpoint: Annotated[
        Path | None, typer.Option(help="What it was exported from; default the bundle's own.")
    ] = None,
    split: Annotated[str, typer.Option(help="Of the collection.")] = "test",
    as_json: AsJson = False,
) -> None:
    """Answer real files by the model, by every variant's graphs and over HTTP; if all agree, write that into the bundle."""
    with explained():
        from verification.proof import prove_bundle

        with stage_bars() as on_progress:
            report = prove_bundle(path, checkpoint, data, split=split, on_progress=on_progress)
        if as_json:
            print(json.dumps(report))
            return
        titles = (
            "variant",
            "way",
            "stream",
            "clips",
            "windows",
            "score error",
            "cosine",
            "same top-1",
            "top-1",
            "model's",
        )
        table = Table(*titles)
        for name, found in report.items():
            for way in ("graph", "http"):
                for stream, x in found[way].items():
                    cells = [
                        f"{x['max_score_error']:.2g}",
                        f"{x['min_cosine']:.6f}",
                        f"{x['top1_agreement']:.2%}",
                    ]
                    scores = [f"{x[key]:.2%}" if key in x else "" for key in ("top1", "top1_wanted")]
                    table.add_row(name, way, stream, str(x["clips"]), str(x["windows"]), *cells, *scores)
        out.print(table)


@bundle_app.command("inspect")
def inspect(
    path: BundleOrDefault = None,
    variant: VariantOption = None,
    batch: Annotated[int, typer.Option(help="Windows at once, for the estimate of memory.")] = 1,
    picture: Annotated[
        Path | None, typer.Option(help="SVG to write: which stream reads what of the fused graph.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Print what a variant's graphs hold and cost, and which stream reads what."""
    with explained():
        from export.flow import draw_flow, flow_lines, trace_flow
        from export.inspection import inspect_graph
        from media import Modality

        path = bundle_or_default(path)
        _, chosen = open_variant(path, variant)
        facts = {modality: inspect_graph(file, batch=batch) for modality, file in chosen.graphs.items()}
        flows = {modality: trace_flow(file) for modality, file in chosen.graphs.items()}
        if picture is not None:
            picture.write_text(draw_flow(flows[Modality.FUSED]), encoding="utf-8")
        if as_json:
            print(json.dumps({str(m): asdict(x) | {"flow": flows[m].to_dict()} for m, x in facts.items()}))
        else:
            out.print(_facts_table(f"{path}, {chosen.name}", facts))
            for line in flow_lines(flows[Modality.FUSED]):
                out.print(line, highlight=False)
        if any(flow.leaks for flow in flows.values()):
            raise stop(f"{path} leaks from one modality into another's answers; export it again")


@bundle_app.command("triton")
def triton(
    path: BundleArgument,
    folder: Annotated[Path, typer.Argument(metavar="OUT", help="Model repository to be made.")],
    variant: VariantOption = None,
    device: Annotated[str, typer.Option(help="cpu or gpu.")] = "cpu",
    instances: Annotated[int, typer.Option(help="Of each model; on each GPU if on GPUs.")] = 1,
    threads: Annotated[int, typer.Option(help="Of an instance on the CPU; 0: one per core.")] = 0,
    max_batch_size: Annotated[int, typer.Option(help="Most windows of one batch.")] = 32,
    preferred_batch_sizes: Annotated[str, typer.Option(help="As 8,16; default as many as wait.")] = "",
    max_queue_delay_microseconds: Annotated[
        int, typer.Option(help="How long a request waits for company.")
    ] = 0,
    max_queue_size: Annotated[int, typer.Option(help="Requests that may wait.")] = 1024,
    queue_timeout_microseconds: Annotated[int, typer.Option(help="How long one may wait.")] = 60_000_000,
    tensorrt: Annotated[bool, typer.Option("--tensorrt", help="Run by TensorRT, on GPUs.")] = False,
    engine_cache: Annotated[str | None, typer.Option(help="Folder for engines, as Triton sees it.")] = None,
    copy_weights: Annotated[
        bool, typer.Option("--copy-weights", help="A copy for each model, no links.")
    ] = False,
    force: Annotated[bool, typer.Option("--force", help="Replace these models if they are there.")] = False,
) -> None:
    """Write a model repository for NVIDIA's Triton Inference Server; see docs/triton.md."""
    with explained():
        from export.triton import Provenance, TritonDevice, TritonOptions, write_triton

        bundle, chosen = open_variant(path, variant)
        sizes = tuple(int(size) for size in preferred_batch_sizes.split(",") if size)
        options = TritonOptions(
            device=TritonDevice(device),
            instances=instances,
            threads=threads,
            max_batch_size=max_batch_size,
            preferred_batch_sizes=sizes,
            max_queue_delay_microseconds=max_queue_delay_microseconds,
            max_queue_size=max_queue_size,
            queue_timeout_microseconds=queue_timeout_microseconds,
            tensorrt=tensorrt,
            engine_cache=engine_cache,
        )
        provenance = Provenance(
            version=bundle.version,
            variant=chosen.name,
            clip_spec_hash=bundle.clip_spec.hash,
            bundle_sha256=bundle.sha256,
        )
        written = write_triton(
            chosen.graphs,
            folder,
            name=bundle.name,
            labels=[label.label for label in bundle.labels],
            provenance=provenance,
            options=options,
            link_weights=not copy_weights,
            force=force,
        )
        for model in written.models:
            out.print(f"model: {model}")
        out.print(f"triton: {written.path} (weights {'linked' if written.linked else 'copied'})")


def _facts_table(title: str, facts: "dict[Any, GraphFacts]") -> Table:
    """A column for each graph."""
    table = Table("", *map(str, facts), title=title, title_justify="left")
    for name, cell in _FACTS.items():
        table.add_row(name, *(Text(cell(x)) for x in facts.values()))  # brackets are no markup
    return table


_FACTS = {
    "nodes": lambda x: f"{x.nodes}, opset {x.opset}",
    "operators": lambda x: ", ".join(f"{name} {count}" for name, count in x.operators.items()),
    "parameters": lambda x: f"{x.parameters / 1e6:.2f} M",
    "weights": lambda x: ", ".join(f"{dtype} {size / 1e6:.1f} MB" for dtype, size in x.weight_bytes.items()),
    "GFLOPs per window": lambda x: f"{x.gflops:.3f}",
    "activations, estimated": lambda x: f"{x.memory.peak_bytes / 1e6:.1f} MB for {x.memory.batch}, at {x.memory.peak_node}",
    "inputs": lambda x: _tensors(x.inputs),
    "outputs": lambda x: _tensors(x.outputs),
    "files": lambda x: f"{x.file_bytes / 1e3:.0f} kB, " + ", ".join(
        f"{name} {size / 1e6:.1f} MB" for name, size in x.external_bytes.items()
    ),
}  # fmt: skip


def _tensors(tensors: Any) -> str:
    return "\n".join(f"{x.name} {x.dtype}[{', '.join(map(str, x.shape))}]" for x in tensors)
