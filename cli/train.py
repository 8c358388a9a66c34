"""The `zorro train` command: by a recipe, or on a folder of clips from a checkpoint."""

from pathlib import Path
from typing import Annotated

import typer

from .console import explained, out, stage_bars


def train(
    data: Annotated[
        Path, typer.Option("--data", help="Label folders, a manifest.csv, a known collection, or shards.")
    ],
    recipe: Annotated[Path | None, typer.Argument(help="TOML file; may be left out with --from.")] = None,
    start_from: Annotated[
        Path | None,
        typer.Option(
            "--from", help="Checkpoint, or bundle that holds one, to start from; labels may differ."
        ),
    ] = None,
    run: Annotated[
        Path | None, typer.Option(help="Folder of the run; default runs/RECIPE, or runs/FOLDER.")
    ] = None,
    engine: Annotated[str | None, typer.Option(help="Under torchrun: ddp (default) or fsdp.")] = None,
    fresh: Annotated[bool, typer.Option(help="Refuse to continue a run that is there.")] = False,
) -> None:
    """Train by a recipe, or on a folder of clips from a checkpoint; a run that was stopped goes on where it was saved."""
    with explained(), stage_bars() as on_progress:
        from training.distributed import ParallelStrategy
        from training.loop import train as run_training
        from verification.checkpoint_source import open_origin

        start = open_origin(start_from).checkpoint if start_from else None
        folder = run or Path("runs") / (recipe or data.resolve()).stem
        checkpoint = run_training(
            recipe,
            folder,
            data_dir=data,
            start_from=start,
            engine=ParallelStrategy(engine) if engine else None,
            resume=not fresh,
            on_progress=on_progress,
        )
    out.print(f"checkpoint: {checkpoint}")
