"""Checkpoints: weights as safetensors, and the numbers and labels needed to use them as JSON beside them."""

import json
import os
import shutil
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from safetensors.torch import load_file, save_file

from .config import ZorroConfig
from .zorro import ZorroModel

WEIGHTS_FILE, MANIFEST_FILE = "model.safetensors", "checkpoint.json"


class CheckpointError(ValueError):
    """A folder is no checkpoint, or its weights are not those of its config."""


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A model with what is needed to use it."""

    model: ZorroModel
    config: ZorroConfig
    clip_spec: dict[str, Any]
    """`media.spec.ClipSpec` as a dict: models do not import media."""
    labels: list[dict[str, Any]]
    """`{"id", "label", "modalities"}` of each class, in the order of the logits."""
    extra: dict[str, Any] = field(default_factory=dict)


def save_checkpoint(
    folder: str | Path,
    model: ZorroModel,
    *,
    clip_spec: dict[str, Any],
    labels: list[dict[str, Any]],
    **extra: Any,
) -> None:
    """Write `model.safetensors` and `checkpoint.json`, each replaced atomically."""
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    weights = {
        name: tensor.detach().float().contiguous()
        for name, tensor in model.state_dict().items()
        if tensor.is_floating_point()
    }
    save_file(weights, folder / (WEIGHTS_FILE + ".part"))
    manifest = {"config": model.config.to_dict(), "clip_spec": clip_spec, "labels": labels, "extra": extra}
    (folder / (MANIFEST_FILE + ".part")).write_text(json.dumps(manifest, indent=1))
    for name in (WEIGHTS_FILE, MANIFEST_FILE):
        os.replace(folder / (name + ".part"), folder / name)


def load_checkpoint(folder: str | Path) -> Checkpoint:
    """Read what `save_checkpoint` wrote; the model is in eval mode.

    Raises:
        CheckpointError: files are missing, or keys or shapes differ from the config's; the message lists
            them.
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
        model.eval(), model.config, manifest["clip_spec"], manifest["labels"], manifest.get("extra", {})
    )


def copy_checkpoint(folder: str | Path, out: str | Path) -> None:
    """Copy a checkpoint's files into the new folder `out`, byte for byte, and nothing else that lies beside them.

    Raises:
        CheckpointError: one of them is not there.
    """
    out = Path(out)
    out.mkdir(parents=True)
    for name in (WEIGHTS_FILE, MANIFEST_FILE):
        try:
            shutil.copyfile(Path(folder) / name, out / name)
        except FileNotFoundError as error:
            raise CheckpointError(f"{folder} is no checkpoint: {error}") from error


def load_weights(model: ZorroModel, weights: dict[str, Any]) -> None:
    """Copy weights into the model; every key and shape must match.

    Raises:
        CheckpointError: lists what is missing, unknown or of another shape.
    """
    own = {name: tensor for name, tensor in model.state_dict().items() if tensor.is_floating_point()}
    missing, unknown = sorted(own.keys() - weights.keys()), sorted(weights.keys() - own.keys())
    reshaped = [
        f"{name}: got {tuple(weights[name].shape)}, wanted {tuple(own[name].shape)}"
        for name in own.keys() & weights.keys()
        if own[name].shape != weights[name].shape
    ]
    if missing or unknown or reshaped:
        raise CheckpointError(f"weights do not fit the config: {missing=}, {unknown=}, {reshaped=}")
    model.load_state_dict(weights, strict=False)
