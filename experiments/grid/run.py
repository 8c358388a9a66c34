"""Train and score the runs of the plan, several at a time, one thread each.

What was done is not done again.
"""

import json
import os
from collections.abc import Iterable
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from fnmatch import fnmatch
from multiprocessing import get_context
from pathlib import Path

from .plan import Experiment, experiments

RESULT_FILE = "test.json"


def run_all(data_dir: Path, runs_dir: Path, *, only: str = "*", parallel: int | None = None) -> None:
    """Run every experiment whose name fits `only` and that has no result yet.

    A run waits for the one that it starts from. A run that was stopped goes on where it was saved.

    Raises:
        ValueError: a run starts from one that is neither done nor chosen.
    """
    waiting = [
        e for e in experiments() if fnmatch(e.name, only) and not (runs_dir / e.name / RESULT_FILE).is_file()
    ]
    parallel = parallel or os.cpu_count() or 1
    running: dict[Future[None], str] = {}
    context = get_context("spawn")
    with ProcessPoolExecutor(parallel, context, initializer=_take_one_thread, max_tasks_per_child=1) as pool:
        while waiting or running:
            for experiment in _ready(waiting, runs_dir)[: parallel - len(running)]:
                waiting.remove(experiment)
                running[pool.submit(run_one, experiment, data_dir, runs_dir)] = experiment.name
            if not running:
                raise ValueError(
                    f"nothing to start {[e.name for e in waiting]} from; run what they start from first"
                )
            for done in wait(running, return_when=FIRST_COMPLETED).done:
                print(f"{running.pop(done)}: done", flush=True)
                done.result()


def _take_one_thread() -> None:
    import torch

    torch.set_num_threads(1)


def _ready(waiting: Iterable[Experiment], runs_dir: Path) -> list[Experiment]:
    return [e for e in waiting if e.start_from is None or (runs_dir / e.start_from / RESULT_FILE).is_file()]


def run_one(experiment: Experiment, data_dir: Path, runs_dir: Path) -> None:
    """Train, score on the test split, by linear probes what has no labels, and write the result."""
    from datasets.layouts import read_items
    from models.weights import load_checkpoint
    from training.loop import train

    from .probe import probe_words
    from .score import TestSplit

    folder = runs_dir / experiment.name
    start = runs_dir / experiment.start_from / "checkpoint" if experiment.start_from else None
    checkpoint = train(experiment.recipe, folder, data_dir=data_dir, start_from=start)
    items, cache = read_items(data_dir).items, runs_dir / "cache"
    result = TestSplit(items, experiment.recipe, cache).score(checkpoint)
    if not experiment.recipe.supervised:
        result["probe"] = probe_words(load_checkpoint(checkpoint).model, items, experiment.recipe, cache)
    part = folder / (RESULT_FILE + ".part")
    part.write_text(json.dumps(result | {"name": experiment.name, "start_from": experiment.start_from}))
    part.replace(folder / RESULT_FILE)
