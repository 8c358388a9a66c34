"""Checkpoints: weights as safetensors, and beside them the config, clip spec and labels as JSON."""

import json
import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from safetensors.torch import load_file, save_file
from torch import Tensor

from .config import ZorroConfig
from .zorro import ZorroModel

WEIGHTS_FILE, MANIFEST_FILE = "model.safetensors", "checkpoint.json"


class CheckpointError(ValueError):
    """A folder holds no checkpoint, or weights do not fit the model they are for."""


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A model, and what is needed to use it."""

    model: ZorroModel
    config: ZorroConfig
    clip_spec: dict[str, Any]
    """`media.spec.ClipSpec` as a dict, because `models` does not import `media`."""
    labels: list[dict[str, Any]]
    """`{"id", "label", "modalities"}` of each class, in the order of the logits."""
    extra: dict[str, Any] = field(default_factory=dict)
    """What `save_checkpoint` got besides, for example the recipe, or `decision`, which export puts into the
    bundle."""


def save_checkpoint(
    folder: str | Path,
    model: ZorroModel,
    *,
    clip_spec: dict[str, Any],
    labels: list[dict[str, Any]],
    **extra: Any,
) -> None:
    """Write `model.safetensors` and `checkpoint.json`, each replaced atomically.

    Args:
        folder: made if it does not exist.
        model: its weights are written in float32.
        clip_spec: `media.spec.ClipSpec` as a dict.
        labels: `{"id", "label", "modalities"}` of each class, in the order of the logits.
        extra: whatever else JSON can hold; `Checkpoint.extra` when the checkpoint is read.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    weights = {name: x.detach().float().contiguous() for name, x in float_weights(model).items()}
    save_file(weights, folder / (WEIGHTS_FILE + ".part"))
    manifest = {"config": model.config.to_dict(), "clip_spec": clip_spec, "labels": labels, "extra": extra}
    (folder / (MANIFEST_FILE + ".part")).write_text(json.dumps(manifest, indent=1))
    for name in (WEIGHTS_FILE, MANIFEST_FILE):
        os.replace(folder / (name + ".part"), folder / name)


def load_checkpoint(folder: str | Path) -> Checkpoint:
    """Read what `save_checkpoint` wrote; the model is in eval mode.

    Raises:
        CheckpointError: files are missing, or the weights do not fit the config; the message lists which.
    """
    folder = Path(folder)
    try:
        manifest = json.loads((folder / MANIFEST_FILE).read_text())
        weights = load_file(folder / WEIGHTS_FILE)
    except (OSError, json.JSONDecodeError) as error:
        raise CheckpointError(f"{folder} is no checkpoint: {error}") from error
    model = ZorroModel(ZorroConfig.from_dict(manifest["config"]))
    load_weights(model, weights)
    return Checkpoint(
        model=model.eval(),
        config=model.config,
        clip_spec=manifest["clip_spec"],
        labels=manifest["labels"],
        extra=manifest.get("extra", {}),
    )


def copy_checkpoint(folder: str | Path, out: str | Path) -> None:
    """Copy the two files of a checkpoint, and nothing beside them, into the new folder `out`.

    Raises:
        CheckpointError: one of them is missing.
    """
    out = Path(out)
    out.mkdir(parents=True)
    for name in (WEIGHTS_FILE, MANIFEST_FILE):
        try:
            shutil.copyfile(Path(folder) / name, out / name)
        except FileNotFoundError as error:
            raise CheckpointError(f"{folder} is no checkpoint: {error}") from error


def halve_checkpoint(folder: str | Path, out: str | Path) -> None:
    """Write a checkpoint into the new folder `out` with its matrices and kernels rounded to float16.

    It has about half the size, and is read into float32 again. Vectors, such as biases and the statistics of
    batch norms, stay as they are.

    Raises:
        CheckpointError: `folder` holds none, or a weight is too large for float16.
    """
    out = Path(out)
    copy_checkpoint(folder, out)
    weights = load_file(out / WEIGHTS_FILE)
    halved = {name: x.half() if x.dim() > 1 else x for name, x in weights.items()}
    if too_large := sorted(name for name, x in halved.items() if not x.isfinite().all()):
        raise CheckpointError(f"{', '.join(too_large)} do not fit float16; keep the checkpoint in float32")
    save_file(halved, out / WEIGHTS_FILE)


def load_weights(model: ZorroModel, weights: Mapping[str, Tensor]) -> None:
    """Copy weights into the model; every key and shape must match.

    Raises:
        CheckpointError: lists what is missing, unknown or of another shape.
    """
    wanted = {name: tuple(tensor.shape) for name, tensor in float_weights(model).items()}
    if found := mismatches(weights, wanted):
        raise CheckpointError(f"weights do not fit the config: {found}")
    model.load_state_dict(weights, strict=False)


def float_weights(model: ZorroModel) -> dict[str, Tensor]:
    """Parameters and statistics of a model, by name: what a checkpoint holds.

    The state dict has integers besides, the batch counters of batch norms.
    """
    return {name: tensor for name, tensor in model.state_dict().items() if tensor.is_floating_point()}


def mismatches(given: Mapping[str, Tensor], wanted: Mapping[str, tuple[int, ...]]) -> str:
    """Which names are missing, unknown or of another shape than wanted, in words; empty if all fit."""
    missing, unknown = sorted(wanted.keys() - given.keys()), sorted(given.keys() - wanted.keys())
    reshaped = [
        f"{name}: got {tuple(given[name].shape)}, wanted {wanted[name]}"
        for name in sorted(wanted.keys() & given.keys())
        if tuple(given[name].shape) != wanted[name]
    ]
    return f"{missing=}, {unknown=}, {reshaped=}" if missing or unknown or reshaped else ""
