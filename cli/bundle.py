"""`zorro bundle ...`: look after bundles."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.table import Table

from .arguments import AsJson, BundleArgument, BundleOrDefault, VariantOption, bundle_or_default, open_variant
from .console import err, explained, make_table, out, stage_bars, stop
from .inspection import NEEDS_ONNX, has_onnx, inspect_graphs, print_bundle, tensors_to_dict

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
        out.print(
            f"{path}: every byte is as it was made ({bundle.sha256[:12]})", highlight=False, soft_wrap=True
        )
        table = make_table(
            "variant", "max error", "cosine", "runs on", title="golden answers, all within their tolerance"
        )
        for name, report in reports.items():
            error, cosine = max(report["max_abs_error"].values()), min(report["min_cosine"].values())
            first = {providers[0] for providers in report["providers"].values()}
            table.add_row(name, f"{error:.2g}", f"{cosine:.6f}", ", ".join(sorted(first)))
        out.print(table)


@bundle_app.command("prove")
def prove(
    path: BundleArgument,
    data: Annotated[Path, typer.Option("--data", help="Collection whose files are sent.")],
    checkpoint: Annotated[
        Path | None, typer.Option(help="What it was exported from; default the bundle's own.")
    ] = None,
    split: Annotated[str, typer.Option(help="Of the collection.")] = "test",
    as_json: AsJson = False,
) -> None:
    """Compare model, graphs and a real server on real files; if all agree, write that into the bundle."""
    with explained():
        from verification.proof import prove_bundle

        with stage_bars() as on_progress:
            report = prove_bundle(path, checkpoint, data, split=split, on_progress=on_progress)
        if as_json:
            print(json.dumps(report))
            return
        for name, found in report.items():
            out.print(_proof_table(name, found))


@bundle_app.command("inspect")
def inspect(
    path: BundleOrDefault = None,
    variant: VariantOption = None,
    batch: Annotated[int, typer.Option(help="Windows at once, for the estimate of memory.")] = 1,
    picture: Annotated[
        Path | None,
        typer.Option(help="SVG to write: which stream reads what of the fused graph. Needs onnx."),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Print what a bundle holds.

    Where onnx is installed, also what its graphs cost and which stream reads what.
    """
    with explained():
        from runtime import Zorro

        path = bundle_or_default(path)
        bundle, chosen = open_variant(path, variant)
        model = Zorro(bundle, variant=chosen.name)
        graphs = inspect_graphs(chosen, batch=batch) if picture is not None or has_onnx() else None
        if graphs is not None and picture is not None:
            graphs.draw(picture)
        if as_json:
            print(json.dumps(tensors_to_dict(model) if graphs is None else graphs.to_dict()))
        else:
            print_bundle(path, model)
            if graphs is not None:
                graphs.print()
        if graphs is None:
            err.print(NEEDS_ONNX, highlight=False, markup=False, soft_wrap=True)
        elif graphs.leak:
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
            name=bundle.name,
            version=bundle.version,
            variant=chosen.name,
            clip_spec_hash=bundle.clip_spec.hash,
            bundle_sha256=bundle.sha256,
        )
        written = write_triton(
            chosen.graphs,
            folder,
            labels=[label.label for label in bundle.labels],
            provenance=provenance,
            options=options,
            link_weights=not copy_weights,
            force=force,
        )
        for model in written.models:
            out.print(f"model: {model}")
        out.print(f"triton: {written.path} (weights {'linked' if written.linked else 'copied'})")


def _proof_table(variant: str, found: dict[str, Any]) -> Table:
    """How far a variant's graphs and its server are from the model, by stream."""
    table = make_table("by", "stream", title=f"{variant}, against the model")
    for title in ("clips", "windows", "score error", "cosine", "same top-1", "top-1", "model's top-1"):
        table.add_column(title, justify="right")
    for source in ("graph", "http"):
        for stream, x in found[source].items():
            cells = [f"{x['max_score_error']:.2g}", f"{x['min_cosine']:.6f}", f"{x['top1_agreement']:.2%}"]
            scores = [f"{x[key]:.2%}" if key in x else "" for key in ("top1", "top1_wanted")]
            table.add_row(source, stream, str(x["clips"]), str(x["windows"]), *cells, *scores)
    return table
