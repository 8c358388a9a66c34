"""Run: everything that changes while training, one step of it, and how it is saved and restored.

Every rank of a distributed run has one; rank 0 alone scores and writes. What a step draws, such as dropped
paths, is seeded by the recipe's seed, the step and the rank, so there is little to save.
"""

import hashlib
import json
import logging
import os
import time
from collections.abc import Callable
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor, distribute_tensor

from models.transfer import transfer
from models.weights import Checkpoint, save_checkpoint
from models.zorro import ZorroModel, ZorroOutput

from .adapt import absorb_statistics, add_lora, freeze, freeze_statistics, merge_lora, parameter_groups
from .batch import TrainingBatch
from .contrast import LearnedTemperature, Rows, cached_backward
from .distributed import (
    ParallelStrategy,
    full_optimizer_state,
    full_state,
    restore,
    restore_optimizer,
    unsynced,
    wrap,
    zorro_of,
)
from .model_config import model_config
from .objective import contrast_loss, contrast_rows, step_losses
from .ranks import Ranks, average_gradients, ranks_from_environment
from .recipe import Pairs, Recipe
from .run_origin import RunOrigin
from .schedule import WeightAverage, warmup_cosine
from .task import Task

STATE_FILE, METRICS_FILE = "state.pt", "metrics.jsonl"
RECIPE_OF_OLD_STATES = Recipe().to_dict() | {"pairs": str(Pairs.BY_LABEL)}
"""What a key meant where the state of a run is older than the key."""
logger = logging.getLogger(__name__)


class TrainingRun:
    """A model in training.

    Args:
        run_dir: a folder; a state that is found there is gone on from.
        task: what is learned, by which recipe.
        start: weights to start from.
        origin: what the run belongs to; None where a state need not know.
        ranks: this process among those of the run; default what `torchrun` says, or one alone.
        strategy: how ranks share the model.

    Raises:
        ValueError: the folder holds a run of another recipe or origin.
        CheckpointError: the weights to start from do not fit.
    """

    def __init__(
        self,
        run_dir: Path,
        task: Task,
        start: Checkpoint | None = None,
        *,
        origin: RunOrigin | None = None,
        ranks: Ranks | None = None,
        strategy: ParallelStrategy = ParallelStrategy.NONE,
    ) -> None:
        recipe = task.recipe
        self.recipe, self.run_dir, self.task, self.origin = recipe, run_dir, task, origin
        self.ranks = ranks or ranks_from_environment()
        torch.manual_seed(recipe.seed)
        model = ZorroModel(model_config(recipe, max(1, len(task.labels))))
        if strategy != ParallelStrategy.FSDP:  # which takes contiguous weights only
            # torch's overloads of Module.to lack the one of a memory format alone.
            model = model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        has_state = (run_dir / STATE_FILE).exists()  # which has all weights, and what a task has given them
        if start is not None:
            transfer(start, model)
        elif not has_state:
            task.prepare(model)
        freeze(model, recipe.freeze)
        if recipe.freeze_statistics:
            freeze_statistics(model)
        if recipe.lora_rank:
            add_lora(model, recipe.lora_rank, recipe.lora_alpha)
        self.wrapped = wrap(
            model.to(self.ranks.device),
            strategy,
            bfloat16_blocks=recipe.bfloat16 and strategy == ParallelStrategy.FSDP,
            checkpoint_activations=recipe.checkpoint_activations,
        )
        self.model = zorro_of(self.wrapped)
        self.average = WeightAverage(self.model, recipe.average_decay)
        groups = parameter_groups(
            self.model, weight_decay=recipe.weight_decay, learning_rate=0.0, layer_decay=recipe.layer_decay
        )
        self.optimizer = torch.optim.AdamW(groups, fused=True)
        self.temperature = LearnedTemperature(recipe.temperature).to(self.ranks.device)
        self.temperature_optimizer = torch.optim.AdamW(self.temperature.parameters(), weight_decay=0.0)
        self.step, self.seconds = 0, 0.0
        self.scores: dict[str, float] = {}
        if has_state:
            self._restore()
        elif self.is_first:
            self._forget_after(0)  # lines of a run that ended before it had saved anything

    @property
    def is_first(self) -> bool:
        """Whether this is the rank that writes."""
        return self.ranks.rank == 0

    def train_step(self, chunks: list[TrainingBatch]) -> dict[str, float]:
        """One optimiser step on this rank's part of a batch; returns its losses.

        Args:
            chunks: parts of the batch, of which one is in memory at a time. Contrast alone keeps the
                negatives of all of them; with supervision it is of each chunk.

        Raises:
            FloatingPointError: the loss is not finite.
        """
        started, recipe = time.perf_counter(), self.recipe
        torch.manual_seed(_step_seed(recipe.seed, self.step, self.ranks.rank))
        rate = self._set_rates()
        self.wrapped.train()
        self.optimizer.zero_grad(set_to_none=True)
        self.temperature_optimizer.zero_grad(set_to_none=True)
        chunks = [chunk.to(self.ranks.device) for chunk in chunks]
        losses = self._accumulate(chunks) if recipe.supervised or len(chunks) == 1 else self._cache(chunks)
        if not torch.isfinite(torch.stack(list(losses.values()))).all():
            raise FloatingPointError(f"losses are {losses} at step {self.step}; lower learning_rate")
        nn.utils.clip_grad_norm_(self.model.parameters(), recipe.max_gradient_norm)
        self.optimizer.step()
        if recipe.learn_temperature:
            average_gradients(self.temperature.parameters())
            self.temperature_optimizer.step()
        self.average.update(self.model)
        self.step += 1
        self.seconds += time.perf_counter() - started
        figures = {name: round(float(loss), 4) for name, loss in losses.items()} | {"learning_rate": rate}
        if recipe.learn_temperature:
            figures["temperature"] = round(float(self.temperature().detach()), 4)
        if self.step % 10 == 0:
            self._log({"kind": "train", "step": self.step, "seconds": round(self.seconds, 1), **figures})
        return figures

    def _set_rates(self) -> float:
        recipe = self.recipe
        rate = warmup_cosine(
            self.step,
            num_steps=recipe.num_steps,
            num_warmup_steps=recipe.num_warmup_steps,
            peak=recipe.learning_rate,
            final=recipe.min_learning_rate,
        )
        for group in self.optimizer.param_groups:
            group["lr"] = rate * group["scale"]
        self.temperature_optimizer.param_groups[0]["lr"] = rate
        return rate

    def _accumulate(self, chunks: list[TrainingBatch]) -> dict[str, Tensor]:
        """Backward passes of all chunks, averaged."""
        sums: dict[str, Tensor] = {}
        for i, chunk in enumerate(chunks):
            with unsynced(self.wrapped) if i < len(chunks) - 1 else nullcontext():
                losses = self._forward(chunk, partial(self._losses, chunk))
                shares = {name: loss / len(chunks) for name, loss in losses.items()}
                torch.stack(list(shares.values())).sum().backward()
            sums = {name: sums.get(name, 0) + share.detach() for name, share in shares.items()}
        return sums

    def _losses(self, chunk: TrainingBatch, out: ZorroOutput) -> dict[str, Tensor]:
        return step_losses(out, chunk, self.recipe, self._temperature())

    def _cache(self, chunks: list[TrainingBatch]) -> dict[str, Tensor]:
        """The backward pass of one contrast over all chunks."""

        def losses_of(rows: Rows) -> dict[str, Tensor]:
            loss = contrast_loss(rows, self.recipe, self._temperature())
            return {"contrastive": self.recipe.contrastive_weight * loss}

        return cached_backward(
            lambda chunk: self._forward(chunk, partial(contrast_rows, batch=chunk)),
            chunks,
            losses_of,
            unsynced=partial(unsynced, self.wrapped),
        )

    def _forward(
        self, batch: TrainingBatch, read: Callable[[ZorroOutput], dict[str, Tensor]]
    ) -> dict[str, Tensor]:
        audio, video = (x if len(x) else None for x in (batch.audio, batch.video))
        with torch.autocast(self.ranks.device.type, torch.bfloat16, enabled=self.recipe.bfloat16):
            tensors: dict[str, Tensor] = self.wrapped(
                audio, video, None if batch.whole_pairs else batch.pairing, read
            )
        return tensors

    def _temperature(self) -> float | Tensor:
        return self.temperature() if self.recipe.learn_temperature else self.recipe.temperature

    def averaged_model(self) -> ZorroModel:
        """A model of its own on the CPU that holds the averaged weights, in eval mode.

        Every rank makes this call.
        """
        weights = self._whole_average()
        model = ZorroModel(self.model.config)
        if self.recipe.lora_rank:
            add_lora(model, self.recipe.lora_rank, self.recipe.lora_alpha)
        model.load_state_dict(weights, strict=False)
        if self.recipe.lora_rank:
            merge_lora(model)
        return model.eval()

    def _whole_average(self) -> dict[str, Tensor]:
        return {
            name: (x.full_tensor() if isinstance(x, DTensor) else x).cpu()
            for name, x in self.average.weights.items()
        }

    def evaluate(self) -> dict[str, float]:
        """Scores of the averaged weights on the validation split.

        Every rank makes this call, rank 0 scores.
        """
        model = self.averaged_model()
        if self.is_first:
            with torch.random.fork_rng(devices=[]):
                self.scores = self.task.validate(model)
            self._log({"kind": "val", "step": self.step, **self.scores})
        return self.scores

    def finish(self) -> Path:
        """Calibrate the averaged weights, write the checkpoint, and return its folder.

        They are calibrated on the validation split.
        """
        model, folder = self.averaged_model(), self.run_dir / "checkpoint"
        if self.is_first:
            temperatures = self.task.calibrate(model)
            if self.recipe.freeze_statistics:
                absorb_statistics(model)
            save_checkpoint(
                folder,
                model,
                clip_spec=self.recipe.spec.to_dict(),
                labels=self.task.labels,
                recipe=self.recipe.to_dict(),
                num_steps=self.step,
                seconds=round(self.seconds, 1),
                validation=self.scores,
                temperatures=temperatures,
            )
        return folder

    def save(self) -> None:
        """Write all that exact resume needs, atomically; every rank makes this call."""
        state = {
            "recipe": self.recipe.to_dict(),
            "origin": self.origin.to_dict() if self.origin else None,
            "step": self.step,
            "seconds": self.seconds,
            "model": full_state(self.wrapped),
            "optimizer": full_optimizer_state(self.wrapped, self.optimizer),
            "average": self._whole_average(),
            "num_updates": self.average.num_updates,
            "temperature": self.temperature.state_dict(),
            "temperature_optimizer": self.temperature_optimizer.state_dict(),
            "torch_rng": torch.get_rng_state(),
            "task": self.task.state(),
            "scores": self.scores,
        }
        if self.is_first:
            part = self.run_dir / (STATE_FILE + ".part")
            torch.save(state, part)
            os.replace(part, self.run_dir / STATE_FILE)

    @staticmethod
    def check_origin(run_dir: Path, origin: RunOrigin) -> None:
        """Refuse a run in the folder that belongs to something else, if there is one.

        Raises:
            ValueError: see `RunOrigin.check_same`.
        """
        if not (run_dir / STATE_FILE).exists():
            return
        state = torch.load(run_dir / STATE_FILE, weights_only=True, map_location="cpu", mmap=True)
        if state.get("origin") is None:
            logger.warning("the run in %s is of a version that did not keep what its data was", run_dir)
        else:
            origin.check_same(RunOrigin(**state["origin"]), run_dir)

    def _restore(self) -> None:
        state = torch.load(self.run_dir / STATE_FILE, weights_only=True, map_location="cpu")
        before = RECIPE_OF_OLD_STATES | state["recipe"]
        now = self.recipe.to_dict()
        if before != now:
            changed = [k for k, v in now.items() if before[k] != v]
            raise ValueError(
                f"{self.run_dir} holds a run of another recipe (differs in {changed}); "
                "give this run another folder with --run"
            )
        self.step, self.seconds, self.scores = state["step"], state["seconds"], state["scores"]
        restore(self.wrapped, state["model"])
        restore_optimizer(self.wrapped, self.optimizer, state["optimizer"])
        self.temperature.load_state_dict(state["temperature"])
        self.temperature_optimizer.load_state_dict(state["temperature_optimizer"])
        self.average.num_updates = state["num_updates"]
        for name, own in self.average.weights.items():
            whole = state["average"][name].to(self.ranks.device)
            is_share = isinstance(own, DTensor)
            own.copy_(distribute_tensor(whole, own.device_mesh, own.placements) if is_share else whole)
        torch.set_rng_state(state["torch_rng"])
        self.task.restore(state["task"])
        if self.is_first:
            self._forget_after(self.step)

    def _forget_after(self, step: int) -> None:
        """Drop logged lines of steps that will be taken again."""
        path = self.run_dir / METRICS_FILE
        if path.exists():
            lines = [line for line in path.read_text().splitlines() if json.loads(line)["step"] <= step]
            path.write_text("".join(line + "\n" for line in lines))

    def _log(self, figures: dict[str, Any]) -> None:
        if self.is_first:
            with (self.run_dir / METRICS_FILE).open("a") as file:
                file.write(json.dumps(figures) + "\n")


def _step_seed(seed: int, step: int, rank: int) -> int:
    return int.from_bytes(hashlib.sha256(f"step {seed} {step} {rank}".encode()).digest()[:7], "big")
