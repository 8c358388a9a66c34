"""The commands `zorro bundle audit` and `zorro bundle build`.

The first checks whether TensorRT takes a bundle's graphs; the second builds engines ahead.
"""

import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer
from rich.table import Table

from .arguments import AsJson, BundleArgument, BundleOrDefault, bundle_or_default, open_variant
from .console import err, explained, out, stage_bars, stop

if TYPE_CHECKING:
    from export.audit import AuditReport
    from export.tensorrt.builders import Builder
    from export.tensorrt.engines import BuiltEngine

RTX: Final = "tensorrt-rtx"
UNVERIFIED = "not verified on hardware: no GPU here"


def audit(
    path: BundleOrDefault = None,
    tensorrt: Annotated[
        str, typer.Option(help="Version of TensorRT whose operators count: 11.0 or 10.1.")
    ] = "11.0",
    build: Annotated[
        bool, typer.Option("--build/--no-build", help=f"Parse and build with {RTX} too.")
    ] = True,
    as_json: AsJson = False,
) -> None:
    """Check without a GPU whether TensorRT takes every node of every variant.

    The graphs are then parsed and built with tensorrt-rtx.

    Engines are thrown away; `zorro bundle build` keeps them. tensorrt-rtx is another product than TensorRT:
    what it takes is evidence, not proof.
    """
    with explained():
        from export.audit import examine_graph
        from export.variants import FOR_CPUS
        from runtime import read_bundle

        path = bundle_or_default(path)
        bundle = read_bundle(path)
        reports = {
            (name, str(modality)): examine_graph(graph, tensorrt=tensorrt, for_tensorrt=name not in FOR_CPUS)
            for name, variant in bundle.variants.items()
            for modality, graph in variant.graphs.items()
        }
        faulty = {key for key, report in reports.items() if report.faults}
        built = _build_all(bundle, bundle.variants.keys() - FOR_CPUS) if build and not faulty else {}
        if as_json:
            rows = [
                {
                    "variant": name,
                    "graph": graph,
                    **_as_dict(report),
                    "engine": _facts(built.get((name, graph))),
                }
                for (name, graph), report in reports.items()
            ]
            print(json.dumps(rows))
        else:
            out.print(_audit_table(f"{path}, TensorRT {tensorrt}", reports, built))
            for (name, graph), report in reports.items():
                for fault in report.faults:
                    err.print(f"{name}/{graph}: {fault}", highlight=False, markup=False)
            if built:
                out.print(
                    f"engines: {UNVERIFIED}" if not _is_verified(built) else "engines: loaded by the GPU here"
                )
        if faulty:
            raise stop(f"{len(faulty)} of {len(reports)} graphs have faults")


def build(
    path: BundleArgument,
    folder: Annotated[
        Path, typer.Argument(metavar="OUT", help="Folder of engines; what is there already is kept.")
    ],
    variant: Annotated[str, typer.Option(help="Which variant.")] = "fp16",
    builder: Annotated[
        str, typer.Option(help="tensorrt, on the GPU that is to run it, or tensorrt-rtx.")
    ] = "tensorrt",
    min_batch: Annotated[int, typer.Option(help="Smallest batch.")] = 1,
    opt_batch: Annotated[int, typer.Option(help="Batch that kernels are chosen for.")] = 8,
    max_batch: Annotated[int, typer.Option(help="Largest batch.")] = 32,
    capability: Annotated[
        list[str] | None,
        typer.Option(help="Of tensorrt-rtx: compute capability, as 8.9; may repeat; default all from 8.0."),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Build TensorRT engines ahead, and write profiles.json.

    That file holds what trtexec and ONNX Runtime's providers must be told.
    """
    with explained():
        from export.tensorrt.builders import load_builder
        from export.tensorrt.engines import build_engine
        from export.tensorrt.options import write_profiles
        from runtime.engines import Profile

        _, chosen = open_variant(path, variant)
        profile = Profile(min=min_batch, opt=opt_batch, max=max_batch)
        loaded = load_builder(builder)  # type: ignore[arg-type]  # it refuses other names
        with stage_bars() as on_progress:
            built = {
                (variant, str(modality)): build_engine(
                    graph,
                    folder,
                    loaded,
                    variant=chosen.name,
                    profile=profile,
                    capabilities=capability or (),
                    on_progress=on_progress,
                )
                for modality, graph in chosen.graphs.items()
            }
        profiles = write_profiles(chosen.graphs, profile, folder, variant=chosen.name)
        if as_json:
            print(json.dumps([{"graph": graph, **_facts(engine)} for (_, graph), engine in built.items()]))
            return
        for (_, graph), engine in built.items():
            what = "cached" if engine.cached else "built"
            size = engine.bytes / 2**20
            out.print(
                f"{graph}: {what}, {engine.seconds:.1f} s, {size:.1f} MiB, {engine.layers} layers, "
                f"{engine.path}"
            )
        out.print(f"profiles: {profiles}")
        out.print("loaded by the GPU here" if _is_verified(built) else UNVERIFIED)


def _build_all(bundle: Any, names: set[str]) -> "dict[tuple[str, str], BuiltEngine]":
    """Engines by tensorrt-rtx, into a folder that goes away; none, and a word, where it is not installed."""
    from export.tensorrt.builders import load_builder
    from export.tensorrt.engines import build_engine

    try:
        builder: Builder = load_builder(RTX)
    except ModuleNotFoundError as error:
        err.print(f"not parsed and not built: {error}", highlight=False, markup=False)
        return {}
    built = {}
    with TemporaryDirectory() as folder, stage_bars() as on_progress:
        for name in sorted(names):
            for modality, graph in bundle.variants[name].graphs.items():
                built[name, str(modality)] = build_engine(
                    graph, Path(folder), builder, variant=name, on_progress=on_progress
                )
    return built


def _audit_table(
    title: str,
    reports: "Mapping[tuple[str, str], AuditReport]",
    built: "Mapping[tuple[str, str], BuiltEngine]",
) -> Table:
    table = Table("variant", "graph", "nodes", "types", "audit", RTX, title=title, title_justify="left")
    for (name, graph), report in reports.items():
        verdict = f"{len(report.faults)} faults" if report.faults else "clean"
        types = ", ".join(f"{type_} {count}" for type_, count in report.element_types.items())
        engine = built.get((name, graph))
        made = f"{engine.layers} layers, {engine.seconds:.1f} s" if engine else "no"
        table.add_row(
            name,
            graph,
            str(report.num_nodes),
            types,
            verdict if report.tensorrt else f"{verdict}, for CPUs",
            made if report.tensorrt else "not for it",
        )
    return table


def _as_dict(report: "AuditReport") -> dict[str, Any]:
    return asdict(report) | {"faults": [str(fault) for fault in report.faults]}


def _facts(engine: "BuiltEngine | None") -> dict[str, Any]:
    """What JSON says of an engine; empty if there is none."""
    if engine is None:
        return {}
    return asdict(engine) | {
        "path": str(engine.path),
        "key": engine.key.hex,
        "timing_cache": str(engine.timing_cache),
    }


def _is_verified(built: "Mapping[tuple[str, str], BuiltEngine]") -> bool:
    return all(engine.verified_on_hardware for engine in built.values())
