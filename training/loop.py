"""The training loop: `train(recipe, run_dir, data_dir=...)` makes a checkpoint, and after a kill goes on exactly.

A run folder holds `state.pt` (all that exact resume needs), `metrics.jsonl`, `curves.png`, and `checkpoint/` with the
averaged weights of the end.
"""

import json
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import nn

from media.spec import ClipSpec
from models.config import ZorroConfig, preset
from models.weights import save_checkpoint
from models.zorro import Zorro, ZorroOutput

from .batch import Batch, BatchMaker
from .calibration import calibrate
from .curves import draw_curves
from .data import load_material
from .evaluate import ModelPredictor, evaluate_split
from .losses import distillation, info_nce, soft_cross_entropy
from .manifests import Item, label_table, read_manifest
from .recipe import Recipe
from .schedule import WeightAverage, warmup_cosine

Progress = Callable[[str, int, int, dict[str, float]], None]
"""Called with the stage, how much is done, of how much, and figures worth showing."""


def train(
    recipe_path: str | Path,
    run_dir: str | Path,
    *,
    data_dir: str | Path,
    resume: bool = True,
    on_progress: Progress | None = None,
) -> Path:
    """Run a recipe to its end and return the checkpoint's folder.

    Args:
        recipe_path: TOML, see `training.recipe.Recipe`.
        run_dir: made if absent; a run found there is continued from its last saved step.
        data_dir: the folder that holds `manifest.csv`.
        resume: if False, an earlier run there is an error rather than continued.
        on_progress: told of every step.

    Raises:
        ValueError: the recipe, or a run there that had another recipe or must not be continued.
        ManifestError, MediaError: the data.
    """
    recipe, run_dir = Recipe.load(recipe_path), Path(run_dir)
    report = on_progress or (lambda *_: None)
    run_dir.mkdir(parents=True, exist_ok=True)
    if not resume and (run_dir / "state.pt").exists():
        raise ValueError(f"{run_dir} holds a run already; continue it or choose another folder")
    items = read_manifest(Path(data_dir) / "manifest.csv")
    labels = label_table(items)
    targets = {str(label["id"]): i for i, label in enumerate(labels)}
    material = load_material(
        [i for i in items if i.split == "train"], recipe.spec, targets, run_dir.parent / "cache",
        lambda done, total: report("decode", done, total, {}),
    )  # fmt: skip
    run = Run(recipe, run_dir, model_config(recipe, len(labels)))
    maker = BatchMaker(material, recipe, len(labels), run.generator)
    validation = [i for i in items if i.split == "val"]
    while run.step < recipe.num_steps:
        losses = run.train_step(maker.draw())
        report("train", run.step, recipe.num_steps, losses)
        if run.step % recipe.evaluate_every == 0 or run.step == recipe.num_steps:
            scores = run.evaluate(validation, targets)
            report("evaluate", run.step, recipe.num_steps, scores)
        if run.step % recipe.save_every == 0 or run.step == recipe.num_steps:
            run.save()
    draw_curves(run_dir / "metrics.jsonl", run_dir / "curves.png")
    return run.finish(validation, labels, targets)


def model_config(recipe: Recipe, num_classes: int) -> ZorroConfig:
    """The recipe's preset with its changes, shaped and normalised by its ClipSpec."""
    spec: ClipSpec = recipe.spec
    shapes = {"audio_shape": spec.audio_shape, "video_shape": spec.video_shape}
    numbers = {name: getattr(spec, name) for name in ("audio_mean", "audio_std", "video_mean", "video_std")}
    changes = {k: tuple(v) if isinstance(v, list) else v for k, v in recipe.model.items()}
    return preset(recipe.preset, num_classes=num_classes, **shapes, **numbers, **changes)


class Run:
    """Everything that changes while training, and how to save and restore it."""

    def __init__(self, recipe: Recipe, run_dir: Path, config: ZorroConfig) -> None:
        self.recipe, self.run_dir = recipe, run_dir
        torch.manual_seed(recipe.seed)
        self.generator = torch.Generator().manual_seed(recipe.seed)
        self.model = Zorro(config).to(memory_format=torch.channels_last)
        self.average = WeightAverage(self.model, recipe.average_decay)
        self.optimizer = torch.optim.AdamW(_parameter_groups(self.model, recipe.weight_decay), lr=0.0)
        self.step, self.seconds = 0, 0.0
        self.scores: dict[str, float] = {}
        self._validation_clips: Any = None
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
            group["lr"] = rate
        self.model.train()
        with torch.autocast("cpu", torch.bfloat16, enabled=recipe.bfloat16):
            out = self.model.forward_pairs(batch.audio, batch.video, batch.pairing)
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
        model = Zorro(self.model.config)
        model.load_state_dict(self.average.weights, strict=False)
        return model.eval()

    def evaluate(self, items: list[Item], targets: dict[str, int]) -> dict[str, float]:
        """Scores of the averaged weights on the validation split."""
        state = torch.get_rng_state()
        predictor = ModelPredictor(self.averaged_model())
        result = evaluate_split(predictor, items, targets, self.recipe.spec, clips=self._validation_clips)
        self._validation_clips = result.clips
        torch.set_rng_state(state)
        self.scores = {
            f"{name}_top1": table["top1"] for name, table in result.tables.items() if "top1" in table
        }
        self._log({"kind": "val", "step": self.step, **self.scores})
        return self.scores

    def finish(self, items: list[Item], labels: list[dict[str, Any]], targets: dict[str, int]) -> Path:
        """Calibrate the averaged weights on the validation split, write the checkpoint, and return its folder."""
        model = self.averaged_model()
        temperatures = calibrate(model, items, targets, self.recipe.spec, clips=self._validation_clips)
        save_checkpoint(
            self.run_dir / "checkpoint", model, clip_spec=self.recipe.spec.to_dict(), labels=labels,
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
            "sampler_rng": self.generator.get_state(),
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
        self.generator.set_state(state["sampler_rng"])
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


def step_losses(out: ZorroOutput, batch: Batch, recipe: Recipe) -> dict[str, torch.Tensor]:
    """Weighted losses of one step by name."""
    assert out.audio is not None
    assert out.video is not None
    smooth = {"label_smoothing": recipe.label_smoothing}
    losses = {
        "audio": soft_cross_entropy(out.audio.logits, batch.audio_targets, weights=batch.audio_kept, **smooth),
        "video": soft_cross_entropy(out.video.logits, batch.video_targets, weights=batch.video_kept, **smooth),
        "fusion": recipe.fusion_weight
        * soft_cross_entropy(out.fusion.logits, batch.row_targets, weights=batch.row_kept, **smooth),
        "overall": recipe.overall_weight
        * soft_cross_entropy(out.overall.logits, batch.row_targets, weights=batch.row_kept, **smooth),
    }
    count = batch.pairs.stop - batch.pairs.start
    if count and recipe.contrastive_weight:
        audio, video = out.audio.embedding[:count], out.video.embedding[:count]
        fusion = out.fusion.embedding[batch.pairs]
        terms = [
            info_nce(a, b, temperature=recipe.temperature, group=batch.pair_labels)
            for a, b in ((audio, video), (fusion, audio), (fusion, video))
        ]
        losses["contrastive"] = recipe.contrastive_weight * torch.stack(terms).mean()
    if count and recipe.distillation_weight:
        teacher = out.fusion.logits[batch.pairs]
        students = (out.audio.logits[:count], out.video.logits[:count])
        losses["distillation"] = recipe.distillation_weight * sum(distillation(s, teacher) for s in students)
    return losses


def _parameter_groups(model: nn.Module, weight_decay: float) -> list[dict[str, Any]]:
    """Weight decay on matrices and kernels; none on biases, norms, positions, queries and tokens."""
    plain = ("pos_", "queries", "fusion_tokens")
    decayed, rest = [], []
    for name, parameter in model.named_parameters():
        is_plain = parameter.dim() < 2 or any(word in name for word in plain)
        (rest if is_plain else decayed).append(parameter)
    return [{"params": decayed, "weight_decay": weight_decay}, {"params": rest, "weight_decay": 0.0}]
