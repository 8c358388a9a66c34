"""`zorro export`: a checkpoint to a bundle."""

import json
from pathlib import Path
from typing import Annotated

import typer

from .console import err, explained, out


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
    with_checkpoint: Annotated[
        bool,
        typer.Option(
            "--checkpoint/--no-checkpoint", help="Put it in, to be trained on; else a third smaller."
        ),
    ] = True,
    force: Annotated[bool, typer.Option(help="Replace a bundle that is there.")] = False,
) -> None:
    """Export a checkpoint to a bundle: its variants, each proven pure and equal to the model within its tolerance."""
    with explained():
        from export.bundle_writer import export_checkpoint
        from export.variants import VARIANTS, Calibration
        from verification.checkpoint_source import open_origin
        from verification.export_clips import calibration_clips, parity_clips

        origin = open_origin(source)
        checkpoint = origin.checkpoint
        variants = variant or (VARIANTS if data else ("fp32", "fp16"))
        name, version = folder.resolve().parts[-2:]
        with err.status("reading clips") as status:
            path = export_checkpoint(
                checkpoint,
                folder,
                name=name,
                version=version,
                force=force,
                variants=variants,
                may_lack=() if variant else VARIANTS,
                calibration=Calibration(calibration_clips(checkpoint, data)) if data else None,
                clips=parity_clips(checkpoint, data) if data else None,
                model_card=card.read_text() if card else origin.card,
                metrics=json.loads(metrics.read_text()) if metrics else origin.metrics,
                about=json.loads(about.read_text()) if about else origin.about,
                with_checkpoint=with_checkpoint,
                on_progress=lambda stage: status.update(stage),
            )
        for name, reason in json.loads((path / "bundle.json").read_text())["left_out"].items():
            err.print(f"left out: {name}: {reason}", highlight=False, markup=False)
        out.print(f"bundle: {path}")
