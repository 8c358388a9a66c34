"""Clips per second of training, and the share that drawing batches costs.

The ceiling is the rate of the same steps on a single batch. The recipe is that of GRID's words, on films made
in code, with one training thread and one drawing worker.
"""

import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import torch

from datasets.manifests import Item
from training.batch import TrainingBatch
from training.paired_task import PairedTask
from training.ranks import ranks_from_environment
from training.recipe import Recipe
from training.run import TrainingRun

from .films import write_film
from .machine import ROOT
from .measure import interleave
from .result import Ratio, Result

RECIPE = ROOT / "training/recipes/grid-words.toml"
MIN_SHARE_OF_CEILING = 0.90
NUM_FILMS = 4
WORDS_PER_FILM = 20
STEPS = 20  # per measurement
ONE, DRAWN = "steps on one batch", "steps on drawn batches"


def run(rounds: int = 5) -> Result:
    """Measure in turn steps on one batch and steps on drawn batches."""
    torch.set_num_threads(1)
    result = Result(
        name="training", parameters={"threads": 1, "workers": 1, "steps": STEPS, "rounds": rounds}
    )
    with tempfile.TemporaryDirectory() as folder:
        recipe = replace(Recipe.load(RECIPE), num_workers=1, num_steps=STEPS * (rounds + 2))
        task = PairedTask(
            recipe, _items(Path(folder)), Path(folder), lambda *_: None, ranks_from_environment()
        )
        training = TrainingRun(Path(folder), task)
        batch, drawn = task.drawn[0], task.batches(0)
        sides = {ONE: _steps(training, lambda: batch), DRAWN: _steps(training, lambda: next(drawn))}
        result.entries |= interleave(sides, rounds=rounds)
    ceiling, real = (result.entries[name].min / STEPS for name in (ONE, DRAWN))
    result.counts |= {
        "clips per second": recipe.num_clips / real,
        "clips per second, ceiling": recipe.num_clips / ceiling,
    }
    result.ratios.append(
        Ratio(
            what="training, clips per second",
            against="forward and backward alone",
            value=ceiling / real,
            at_least=MIN_SHARE_OF_CEILING,
        )
    )
    return result


def _steps(training: TrainingRun, next_batch: Callable[[], list[TrainingBatch]]) -> Callable[[], None]:
    def take() -> None:
        for _ in range(STEPS):
            training.train_step(next_batch())

    return take


def _items(folder: Path) -> list[Item]:
    """Spans of a quarter of a second, spread over a few films."""
    films = [
        write_film(folder / f"{i}.mp4", width=320, height=240, preset="ultrafast") for i in range(NUM_FILMS)
    ]
    return [
        Item(film, "both", (f"word {k % 10}",), split, "", 0.4 * k + 0.3, 0.4 * k + 0.55)
        for film in films
        for k in range(WORDS_PER_FILM)
        for split in (("train", "val") if k < 2 else ("train",))
    ]
