"""The training loop: `train(recipe, run_dir, data_dir=...)` makes a checkpoint, and after a kill goes on exactly.

A run folder holds `state.pt` (all that exact resume needs), `metrics.jsonl`, `curves.png`, and `checkpoint/` with the
averaged weights of the end.
"""

import copy
import json
import os
import time
from pathlib import Path
from typing import Any

import torch
from torch import nn

from media.spec import ClipSpec
from models.config import ZorroConfig
from models.presets import preset
from models.transfer import transfer
from models.weights import Checkpoint, load_checkpoint, save_checkpoint
from models.zorro import Zorro

from .adapt import add_lora, freeze, merge_lora, parameter_groups
from .batch import Batch
from .curves import draw_curves
from .finetune import finetuning_recipe
from .layouts import read_items
from .objective import step_losses
from .recipe import Recipe
from .schedule import WeightAverage, warmup_cosine
from .tasks import Progress, Task, open_task


def train(
    recipe: str | Path | Recipe | None,
    run_dir: str | Path,
    *,
    data_dir: str | Path,
    start_from: str | Path | None = None,
    resume: bool = True,
    on_progress: Progress | None = None,
) -> Path:
    """Run a recipe to its end and return the checkpoint's folder.

    Args:
        recipe: or the path of one as TOML; None for what `finetune` makes of the data and of the checkpoint to start from.
        run_dir: made if absent; a run found there is continued from its last saved step.
        data_dir: a folder of one of the layouts that `layouts.read_items` knows.
        start_from: a checkpoint whose weights the run starts from; its labels need not be these.
        resume: if False, an earlier run there is an error rather than continued.
        on_progress: told of every step.

    Raises:
        ValueError: the recipe, or a run there that had another recipe or must not be continued.
        ManifestError, MediaError, CheckpointError: the data, or what to start from.
    """
    run_dir, report = Path(run_dir), on_progress or (lambda *_: None)
    run_dir.mkdir(parents=True, exist_ok=True)
    if not resume and (run_dir / "state.pt").exists():
        raise ValueError(f"{run_dir} holds a run already; continue it or choose another folder")
    start = load_checkpoint(start_from) if start_from is not None else None
    listing = read_items(data_dir)
    report("list", len(listing.items), len(listing.items) + len(listing.missing), {"missing": len(listing.missing)})
    if recipe is None:
        if start is None:
            raise ValueError("got neither a recipe nor a checkpoint to start from; give one of them")
        recipe = finetuning_recipe(start, listing.items)
    recipe = recipe if isinstance(recipe, Recipe) else Recipe.load(recipe)
    task = open_task(recipe, listing.items, run_dir.parent / "cache", report)
    run = Run(recipe, run_dir, model_config(recipe, max(1, len(task.labels))), task, start)
    for batch in task.batches(run.step):
        losses = run.train_step(batch)
        report("train", run.step, recipe.num_steps, losses)
        if run.step % recipe.evaluate_every == 0 or run.step == recipe.num_steps:
            report("evaluate", run.step, recipe.num_steps, run.evaluate())
        if run.step % recipe.save_every == 0 or run.step == recipe.num_steps:
            run.save()
    draw_curves(run_dir / "metrics.jsonl", run_dir / "curves.png")
    return run.finish()


def model_config(recipe: Recipe, num_classes: int) -> ZorroConfig:
    """The recipe's preset with its changes, shaped and normalised by its ClipSpec."""
    spec: ClipSpec = recipe.spec
    shapes = {"audio_shape": spec.audio_shape, "video_shape": spec.video_shape}
    numbers = {name: getattr(spec, name) for name in ("audio_mean", "audio_std", "video_mean", "video_std")}
    return preset(recipe.preset, num_classes=num_classes, **shapes, **numbers, **recipe.model)


class Run:
    """Everything that changes while training, and how to save and restore it."""

    def __init__(self, recipe: Recipe, run_dir: Path, config: ZorroConfig, task: Task, start: Checkpoint | None) -> None:
        self.recipe, self.run_dir, self.task = recipe, run_dir, task
        torch.manual_seed(recipe.seed)
        self.model = Zorro(config).to(memory_format=torch.channels_last)
        if start is None:
            task.prepare(self.model)
        else:
            transfer(start, self.model)
        freeze(self.model, recipe.freeze)
        if recipe.lora_rank:
            add_lora(self.model, recipe.lora_rank, recipe.lora_alpha)
        self.average = WeightAverage(self.model, recipe.average_decay)
        groups = parameter_groups(
            self.model, weight_decay=recipe.weight_decay, learning_rate=0.0, layer_decay=recipe.layer_decay
        )
        self.optimizer = torch.optim.AdamW(groups)
        self.step, self.seconds = 0, 0.0
        self.scores: dict[str, float] = {}
        if (run_dir / "state.pt").exists():
            self._restore()

    def train_step(self, batch: Batch) -> dict[str, float]:
        """One optimiser step; returns the losses."""
        started = time.perf_counter()
        recipe = self.recipe
        rate = warmup_cosine(
            self.step, num_steps=recipe.num_steps, num_warmup_steps=recipe.num_warmup_steps,
            peak=recipe.learning_rate, final=recipe.min_learning_rate,
        )  # fmt: skip
        for group in self.optimizer.param_groups:
            group["lr"] = rate * group["scale"]
        self.model.train()
        with torch.autocast("cpu", torch.bfloat16, enabled=recipe.bfloat16):
            audio, video = (x if len(x) else None for x in (batch.audio, batch.video))
            out = self.model.forward_pairs(audio, video, None if batch.whole_pairs else batch.pairing)
        losses = step_losses(out, batch, recipe)
        total = torch.stack(list(losses.values())).sum()
        if not torch.isfinite(total):
            raise FloatingPointError(f"loss is {float(total)} at step {self.step}; lower learning_rate")
        self.optimizer.zero_grad(set_to_none=True)
        total.backward()
        nn.utils.clip_grad_norm_(self.model.parameters(), recipe.max_gradient_norm)
        self.optimizer.step()
        self.average.update(self.model)
        self.step += 1
        self.seconds += time.perf_counter() - started
        figures = {name: round(float(loss.detach()), 4) for name, loss in losses.items()} | {"learning_rate": rate}
        if self.step % 10 == 0:
            self._log({"kind": "train", "step": self.step, "seconds": round(self.seconds, 1), **figures})
        return figures

    def averaged_model(self) -> Zorro:
        """A copy that holds the averaged weights, in eval mode."""
        model = copy.deepcopy(self.model)
        model.load_state_dict(self.average.weights, strict=False)
        if self.recipe.lora_rank:
            merge_lora(model)
        return model.eval()

    def evaluate(self) -> dict[str, float]:
        """Scores of the averaged weights on the validation split."""
        with torch.random.fork_rng(devices=[]):
            self.scores = self.task.validate(self.averaged_model())
        self._log({"kind": "val", "step": self.step, **self.scores})
        return self.scores

    def finish(self) -> Path:
        """Calibrate the averaged weights on the validation split, write the checkpoint, and return its folder."""
        model = self.averaged_model()
        temperatures = self.task.calibrate(model)
        save_checkpoint(
            self.run_dir / "checkpoint", model, clip_spec=self.recipe.spec.to_dict(), labels=self.task.labels,
            recipe=self.recipe.to_dict(), num_steps=self.step, validation=self.scores, temperatures=temperatures,
        )  # fmt: skip
        return self.run_dir / "checkpoint"

    def save(self) -> None:
        """Write all that exact resume needs, atomically."""
        state = {
            "recipe": self.recipe.to_dict(),
            "step": self.step,
            "seconds": self.seconds,
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "average": self.average.weights,
            "num_updates": self.average.num_updates,
            "torch_rng": torch.get_rng_state(),
            "task": self.task.state(),
            "scores": self.scores,
        }
        part = self.run_dir / "state.pt.part"
        torch.save(state, part)
        os.replace(part, self.run_dir / "state.pt")

    def _restore(self) -> None:
        state = torch.load(self.run_dir / "state.pt", weights_only=True)
        if state["recipe"] != self.recipe.to_dict():
            changed = [k for k, v in self.recipe.to_dict().items() if state["recipe"].get(k) != v]
            raise ValueError(f"{self.run_dir} holds a run of another recipe (differs in {changed}); choose another")
        self.step, self.seconds, self.scores = state["step"], state["seconds"], state["scores"]
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.average.weights, self.average.num_updates = state["average"], state["num_updates"]
        torch.set_rng_state(state["torch_rng"])
        self.task.restore(state["task"])
        self._forget_after(self.step)

    def _forget_after(self, step: int) -> None:
        """Drop logged lines of steps that will be taken again."""
        path = self.run_dir / "metrics.jsonl"
        if path.exists():
            lines = [line for line in path.read_text().splitlines() if json.loads(line)["step"] <= step]
            path.write_text("".join(line + "\n" for line in lines))

    def _log(self, figures: dict[str, Any]) -> None:
        with (self.run_dir / "metrics.jsonl").open("a") as file:
            file.write(json.dumps(figures) + "\n")
