"""The `zorro train` command: by a recipe, or on a folder of clips from a checkpoint."""

import logging
import shlex
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer

from .console import err, explained, out


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
    steps: Annotated[int | None, typer.Option(help="Number of steps, in place of the recipe's.")] = None,
    preset: Annotated[
        str | None, typer.Option(help="Size of the model, such as vit-tiny, in place of the recipe's.")
    ] = None,
    engine: Annotated[str | None, typer.Option(help="Under torchrun: ddp (default) or fsdp.")] = None,
    fresh: Annotated[bool, typer.Option(help="Refuse to continue a run that is there.")] = False,
) -> None:
    """Train by a recipe, or on a folder of clips from a checkpoint.

    A run that was stopped goes on where it was saved.
    """
    with explained(), _log_lines():
        from training.distributed import ParallelStrategy
        from training.interrupts import TrainingInterrupted
        from training.loop import TrainingOptions
        from training.loop import train as run_training
        from verification.checkpoint_source import open_checkpoint_source

        from .training_output import TrainingLines

        folder = run or Path("runs") / (recipe or data.resolve()).stem
        options = TrainingOptions(
            strategy=ParallelStrategy(engine) if engine else None,
            resume=not fresh,
            changes=_changes(steps, preset, has_recipe=recipe is not None),
        )
        try:
            checkpoint = run_training(
                recipe,
                folder,
                data_dir=data,
                start_from=open_checkpoint_source(start_from).checkpoint if start_from else None,
                options=options,
                on_progress=TrainingLines(err),
            )
        except KeyboardInterrupt as stop:
            words = {"--data": data, "--from": start_from, "--run": run, "--steps": steps, "--preset": preset}
            again = ["zorro", "train", *([str(recipe)] if recipe else [])]
            again += [
                str(x)
                for name, value in (words | {"--engine": engine}).items()
                if value
                for x in (name, value)
            ]
            step = stop.saved_step if isinstance(stop, TrainingInterrupted) else 0
            saved = f"step {step} is saved in {folder}" if step else "nothing was saved yet"
            err.print(f"stopped; {saved}. Go on with:", highlight=False, markup=False, soft_wrap=True)
            err.print(f"  {shlex.join(again)}", highlight=False, markup=False, soft_wrap=True)
            number = stop.signal_number if isinstance(stop, TrainingInterrupted) else 2
            raise typer.Exit(128 + number) from stop
    out.print(f"checkpoint: {checkpoint}", highlight=False, markup=False, soft_wrap=True)
    following = shlex.join(["zorro", "evaluate", str(checkpoint), "--data", str(data)])
    out.print(f"next: {following}", highlight=False, markup=False, soft_wrap=True)


def _changes(steps: int | None, preset: str | None, *, has_recipe: bool) -> dict[str, Any]:
    """Keys of the recipe that options replace.

    Raises:
        ValueError: a preset without a recipe.
    """
    if preset is not None and not has_recipe:
        raise ValueError("--preset changes a recipe's; without a recipe the model is that of --from")
    changes: dict[str, Any] = {} if steps is None else {"num_steps": steps}
    return changes if preset is None else changes | {"preset": preset}


@contextmanager
def _log_lines() -> Iterator[None]:
    """Warnings of what decodes and trains, such as files that are passed over, as lines among the others."""
    from .training_output import ConsoleHandler

    handler = ConsoleHandler(err)
    loggers = [logging.getLogger(name) for name in ("datasets", "training")]
    for logger in loggers:
        logger.addHandler(handler)
    try:
        yield
    finally:
        for logger in loggers:
            logger.removeHandler(handler)
