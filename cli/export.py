"""`zorro export`: a checkpoint to a bundle."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import typer

from .bundle_tables import parity_table
from .console import explained, out, stage_bars


def export(
    source: Annotated[
        Path, typer.Argument(metavar="CHECKPOINT", help="What `zorro train` wrote, or a bundle with it.")
    ],
    folder: Annotated[Path, typer.Argument(metavar="OUT", help="Folder NAME/VERSION to be made.")],
    data: Annotated[
        Path | None,
        typer.Option(
            "--data", help="Check parity on its test split too; calibrate int8 on its training split."
        ),
    ] = None,
    variant: Annotated[
        list[str] | None,
        typer.Option(help="fp32, fp16, int8-cpu, int8-qdq; may repeat. Default: all that can be had."),
    ] = None,
    card: Annotated[
        Path | None, typer.Option(help="Model card, Markdown; default the bundle's, if it is from one.")
    ] = None,
    metrics: Annotated[
        Path | None, typer.Option(help="Scores, JSON of `zorro evaluate --json`; default as card.")
    ] = None,
    about: Annotated[
        Path | None, typer.Option(help="Licence and provenance of data, JSON; default as card.")
    ] = None,
    decision: Annotated[
        Path | None,
        typer.Option(help="Known labels and thresholds, JSON; default the bundle's or the checkpoint's."),
    ] = None,
    with_checkpoint: Annotated[
        bool,
        typer.Option(
            "--checkpoint/--no-checkpoint", help="Put it in, to be trained on; else a third smaller."
        ),
    ] = True,
    half_checkpoint: Annotated[
        bool,
        typer.Option(
            "--half-checkpoint",
            help="Round the weights to float16 first: the checkpoint has half the size.",
        ),
    ] = False,
    force: Annotated[bool, typer.Option(help="Replace a bundle that is there.")] = False,
) -> None:
    """Export a checkpoint to a bundle and check each of its variants.

    Each variant is proven pure, and equal to the model within its tolerance.
    """
    with explained():
        from export.bundle_writer import ExportOptions, export_checkpoint
        from export.variants import VARIANTS, Calibration
        from runtime import read_bundle
        from verification.checkpoint_source import open_checkpoint_source
        from verification.export_clips import calibration_clips, parity_clips

        origin = open_checkpoint_source(source)
        name, version = folder.resolve().parts[-2:]
        options = ExportOptions(
            variants=variant or (VARIANTS if data else ("fp32", "fp16")),
            may_lack=() if variant else VARIANTS,
            model_card=card.read_text() if card else origin.card,
            metrics=_read_json(metrics) if metrics else origin.metrics,
            about=_read_json(about) if about else origin.about,
            decision=_read_json(decision) if decision else origin.decision,
            with_checkpoint=with_checkpoint,
            half_checkpoint=half_checkpoint,
        )
        with stage_bars() as on_progress:
            if data is not None:
                on_progress("reading clips", 0, 2)
                calibration = Calibration(calibration_clips(origin.checkpoint, data))
                on_progress("reading clips", 1, 2)
                clips = parity_clips(origin.checkpoint, data)
                on_progress("reading clips", 2, 2)
                options = replace(options, calibration=calibration, clips=clips)
            path = export_checkpoint(
                origin.checkpoint,
                folder,
                name=name,
                version=version,
                options=options,
                force=force,
                on_progress=on_progress,
            )
        bundle = read_bundle(path)
        out.print(f"bundle: {path}", highlight=False, markup=False, soft_wrap=True)
        for lacking, reason in bundle.manifest["left_out"].items():
            out.print(f"left out: {lacking}: {reason}", highlight=False, markup=False)
        out.print(parity_table(bundle))


def _read_json(path: Path) -> dict[str, Any]:
    """A file's JSON object.

    Raises:
        ValueError: it holds something else.
    """
    try:
        content = json.loads(path.read_text())
    except ValueError as error:
        raise ValueError(f"{path} is not JSON: {error}") from error
    if not isinstance(content, dict):
        raise ValueError(f"{path} holds {type(content).__name__}, wanted a JSON object")
    return content
