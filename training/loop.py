"""The training loop: `train(recipe, run_dir, data_dir=...)` makes a checkpoint, and after a kill goes on exactly.

A run folder holds `state.pt` (all that exact resume needs), `metrics.jsonl`, `curves.png`, and `checkpoint/`
with the averaged weights of the end.
"""

import time
from pathlib import Path

from datasets.layouts import read_items
from datasets.shard_reader import ShardReader, has_shards
from media.progress import OnProgress
from media.spec import ClipSpec
from models.config import ZorroConfig
from models.presets import preset
from models.weights import load_checkpoint

from .curves import draw_curves
from .distributed import ParallelStrategy
from .finetune import finetuning_recipe
from .ranks import Ranks, started_ranks
from .recipe import Recipe
from .run import METRICS_FILE, STATE_FILE, TrainingRun
from .tasks import open_task


def train(
    recipe: str | Path | Recipe | None,
    run_dir: str | Path,
    *,
    data_dir: str | Path,
    start_from: str | Path | None = None,
    engine: ParallelStrategy | None = None,
    resume: bool = True,
    on_progress: OnProgress | None = None,
) -> Path:
    """Run a recipe to its end and return the checkpoint's folder.

    Args:
        recipe: or the path of one as TOML; None for what `finetune` makes of the data and of the checkpoint
            to start from.
        run_dir: made if absent; a run found there is continued from its last saved step.
        data_dir: a folder of one of the layouts that `layouts.read_items` knows, or of shards of one.
        start_from: a checkpoint whose weights the run starts from; its labels need not be these.
        engine: how the ranks that `torchrun` has started share the model; default DDP if there are several.
        resume: if False, an earlier run there is an error rather than continued.
        on_progress: told of every step, on rank 0.

    Raises:
        ValueError: the recipe, or a run there that had another recipe or must not be continued.
        ManifestError, ShardError, MediaError, CheckpointError: the data, or what to start from.
    """
    run_dir = Path(run_dir)
    run_dir.mkdir(parents=True, exist_ok=True)
    if not resume and (run_dir / STATE_FILE).exists():
        raise ValueError(f"{run_dir} holds a run already; continue it or choose another folder")
    with started_ranks() as ranks:
        silent = on_progress is None or ranks.rank > 0
        report = (lambda *_: None) if silent else on_progress
        run = _open(recipe, run_dir, Path(data_dir), start_from, engine, ranks, report)
        _go_on(run, report)
        if run.is_first:
            draw_curves(run_dir / METRICS_FILE, run_dir / "curves.png")
        return run.finish()


def _open(
    recipe: str | Path | Recipe | None,
    run_dir: Path,
    data_dir: Path,
    start_from: str | Path | None,
    engine: ParallelStrategy | None,
    ranks: Ranks,
    report: OnProgress,
) -> TrainingRun:
    start = load_checkpoint(start_from) if start_from is not None else None
    data = ShardReader(data_dir) if has_shards(data_dir) else read_items(data_dir)
    left_out = data.left_out if isinstance(data, ShardReader) else {"missing": len(data.missing)}
    report("list", len(data.items), len(data.items) + sum(left_out.values()), dict(left_out))
    if recipe is None:
        if start is None:
            raise ValueError("got neither a recipe nor a checkpoint to start from; give one of them")
        recipe = finetuning_recipe(start, data.items)
    recipe = recipe if isinstance(recipe, Recipe) else Recipe.load(recipe)
    task = open_task(recipe, data, run_dir.parent / "cache", report, ranks)
    config = model_config(recipe, max(1, len(task.labels)))
    default = ParallelStrategy.DDP if ranks.world_size > 1 else ParallelStrategy.NONE
    return TrainingRun(recipe, run_dir, config, task, start, ranks=ranks, engine=engine or default)


def _go_on(run: TrainingRun, report: OnProgress) -> None:
    recipe, started = run.recipe, time.perf_counter()
    for chunks in run.task.batches(run.step):
        figures = run.train_step(chunks)
        seconds = time.perf_counter() - started  # what was waited for a batch counts
        report("train", run.step, recipe.num_steps, figures | {"clips/s": recipe.clips_per_step / seconds})
        if run.step % recipe.evaluate_every == 0 or run.step == recipe.num_steps:
            report("evaluate", run.step, recipe.num_steps, run.evaluate())
        if run.step % recipe.save_every == 0 or run.step == recipe.num_steps:
            run.save()
        started = time.perf_counter()


def model_config(recipe: Recipe, num_classes: int) -> ZorroConfig:
    """The recipe's preset with its changes, shaped and normalised by its ClipSpec."""
    spec: ClipSpec = recipe.spec
    shapes = {"audio_shape": spec.audio_shape, "video_shape": spec.video_shape}
    numbers = {name: getattr(spec, name) for name in ("audio_mean", "audio_std", "video_mean", "video_std")}
    return preset(recipe.preset, num_classes=num_classes, **shapes, **numbers, **recipe.model)
