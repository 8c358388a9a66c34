"""The training loop: `train(recipe, run_dir, data_dir=...)` makes a checkpoint.

After a kill it goes on exactly.

A run folder holds `state.pt` (all that exact resume needs), `metrics.jsonl`, `curves.png`, and `checkpoint/`
with the averaged weights of the end.
"""

import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from datasets.layouts import read_items
from datasets.shard_reader import ShardReader, has_shards
from media.progress import OnProgress, ignore_progress
from models.weights import load_checkpoint

from .batch import TrainingBatch
from .curves import draw_curves
from .distributed import ParallelStrategy
from .finetune import finetuning_recipe
from .interrupts import Interrupts
from .ranks import Ranks, started_ranks
from .recipe import Recipe
from .run import METRICS_FILE, STATE_FILE, TrainingRun
from .run_origin import run_origin
from .tasks import open_task


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingOptions:
    """How a run is started, beside its recipe and its data."""

    strategy: ParallelStrategy | None = None
    """How the ranks that `torchrun` has started share the model; default DDP if there are several."""
    resume: bool = True
    """If False, an earlier run in the folder is an error rather than continued."""
    changes: Mapping[str, Any] = field(default_factory=dict)
    """Keys of the recipe to be changed, such as `num_steps`."""


def train(
    recipe: str | Path | Recipe | None,
    run_dir: str | Path,
    *,
    data_dir: str | Path,
    start_from: str | Path | None = None,
    options: TrainingOptions | None = None,
    on_progress: OnProgress = ignore_progress,
) -> Path:
    """Run a recipe to its end and return the checkpoint's folder.

    Args:
        recipe: or the path of one as TOML; None for what `finetune` makes of the data and of the checkpoint
            to start from.
        run_dir: made if absent; a run found there is continued from its last saved step.
        data_dir: a folder of one of the layouts that `layouts.read_items` knows, or of shards of one.
        start_from: a checkpoint whose weights the run starts from; its labels need not be these.
        options: how the run is started.
        on_progress: told of every step, on rank 0.

    Raises:
        ValueError: the recipe; or a run there that had another recipe, other data or another start, or must
            not be continued.
        ManifestError, ShardError, CheckpointError: the data, or what to start from.
        TrainingInterrupted: SIGINT or SIGTERM; the run was saved after the step that was under way, but where
            there are several ranks, which stop at once.
    """
    run_dir, options = Path(run_dir), options or TrainingOptions()
    run_dir.mkdir(parents=True, exist_ok=True)
    if not options.resume and (run_dir / STATE_FILE).exists():
        raise ValueError(f"{run_dir} holds a run already; continue it or choose another folder")
    with Interrupts() as interrupts, started_ranks() as ranks:
        on_progress = on_progress if ranks.rank == 0 else ignore_progress
        start = Path(start_from) if start_from is not None else None
        run = _open_run(recipe, run_dir, Path(data_dir), start, options, ranks, on_progress)
        interrupts.saved_step = run.step
        _take_steps(run, interrupts, on_progress)
        if run.is_first:
            draw_curves(run_dir / METRICS_FILE, run_dir / "curves.png")
        return run.finish()


def _open_run(
    recipe: str | Path | Recipe | None,
    run_dir: Path,
    data_dir: Path,
    start: Path | None,
    options: TrainingOptions,
    ranks: Ranks,
    on_progress: OnProgress,
) -> TrainingRun:
    checkpoint = load_checkpoint(start) if start is not None else None
    data = ShardReader(data_dir) if has_shards(data_dir) else read_items(data_dir)
    left_out = data.left_out if isinstance(data, ShardReader) else {"missing": len(data.missing)}
    on_progress("list", len(data.items), len(data.items) + sum(left_out.values()), left_out)
    if recipe is None:
        if checkpoint is None:
            raise ValueError("got neither a recipe nor a checkpoint to start from; give one of them")
        recipe = finetuning_recipe(checkpoint, data.items)
    recipe = recipe if isinstance(recipe, Recipe) else Recipe.load(recipe)
    recipe = replace(recipe, **options.changes)
    origin = run_origin(data_dir, data, start)
    TrainingRun.check_origin(run_dir, origin)  # before hours of decoding
    task = open_task(recipe, data, data_dir, run_dir.parent / "cache", on_progress, ranks)
    default = ParallelStrategy.DDP if ranks.world_size > 1 else ParallelStrategy.NONE
    return TrainingRun(
        run_dir, task, checkpoint, origin=origin, ranks=ranks, strategy=options.strategy or default
    )


def _take_steps(run: TrainingRun, interrupts: Interrupts, on_progress: OnProgress) -> None:
    recipe = run.recipe
    on_progress("start", run.step, recipe.num_steps, {"clips per step": run.task.clips_per_step})
    batches = run.task.batches(run.step)
    while run.step < recipe.num_steps:
        if run.ranks.world_size > 1:  # ranks that stop at different steps could not save one state
            _take_step(run, batches, interrupts, on_progress)
            continue
        with interrupts.held_back():
            _take_step(run, batches, interrupts, on_progress)
            if interrupts.received is not None and interrupts.saved_step != run.step:
                run.save()
                interrupts.saved_step = run.step
        interrupts.raise_received()


def _take_step(
    run: TrainingRun, batches: Iterator[list[TrainingBatch]], interrupts: Interrupts, on_progress: OnProgress
) -> None:
    recipe, started = run.recipe, time.perf_counter()
    is_last = run.step + 1 == recipe.num_steps
    figures = run.train_step(next(batches))
    seconds = time.perf_counter() - started  # what was waited for a batch counts
    speed = {"clips/s": run.task.clips_per_step / seconds}
    on_progress("train", run.step, recipe.num_steps, figures | speed)
    if run.step % recipe.evaluate_every == 0 or is_last:
        on_progress("evaluate", run.step, recipe.num_steps, run.evaluate())
    if run.step % recipe.save_every == 0 or is_last:
        run.save()
        interrupts.saved_step = run.step
        on_progress("save", run.step, recipe.num_steps)
