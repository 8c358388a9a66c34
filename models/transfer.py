"""Load the weights of a checkpoint into a model for another task.

The task may have other labels, and clips of another length or resolution. The trunk is copied. Positions and
the mean picture lie on a grid and are resized to the new one. Classifiers are initialised, except for labels
that both tasks have, if the caller names them. Trap: positions of a 2 x 8 and of a 4 x 4 grid have the same
shape, so grids are compared, never shapes.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from torch import Tensor

from .config import Centre, ZorroConfig
from .grids import Grid, resize_grid
from .mask import Stream
from .weights import Checkpoint, CheckpointError, float_weights, load_weights
from .zorro import ZorroModel

_TRUNK_FIELDS = ("backbone", "masking", "embed_dim", "depth", "num_heads", "mlp_ratio", "swin", "hip")
"""Fields of the config that must be equal; most of them, like num_heads, change no shape of a weight."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TransferReport:
    """Where the weights of a model come from; each is in one of `copied`, `resized` and `initialised`."""

    copied: tuple[str, ...]
    """Equal to the checkpoint's."""
    resized: dict[str, tuple[Grid, Grid]]
    """Interpolated, with their old and new grids."""
    initialised: tuple[str, ...]
    """As the new model initialised them, except for the rows of `kept_labels`."""
    kept_labels: tuple[str, ...]
    """Ids of the labels whose rows of the classifiers were copied."""

    def __str__(self) -> str:
        grids = [f"{name} {_sides(old)} to {_sides(new)}" for name, (old, new) in self.resized.items()]
        return (
            f"copied {len(self.copied)} weights; resized {', '.join(grids) or 'none'}; "
            f"initialised {', '.join(self.initialised) or 'none'}; kept {len(self.kept_labels)} labels"
        )


def config_for(
    config: ZorroConfig,
    *,
    num_classes: int,
    audio_shape: tuple[int, int] | None = None,
    video_shape: tuple[int, int, int, int] | None = None,
) -> ZorroConfig:
    """The config of a new task for a trunk that was trained under `config`.

    Stems lose the classifiers of their own, which know the labels of the old task.

    Args:
        config: of the trained model.
        num_classes: of the new task.
        audio_shape: (mel frames, mel bins); None: as before.
        video_shape: (video frames, height, width, 3); None: as before.

    Raises:
        ValueError: the new shapes are no multiples of the patches.
    """
    return replace(
        config.without_stem_classifiers(),
        num_classes=num_classes,
        audio_shape=audio_shape or config.audio_shape,
        video_shape=video_shape or config.video_shape,
    )


def transfer(
    checkpoint: Checkpoint, model: ZorroModel, *, labels: Sequence[dict[str, Any]] | None = None
) -> TransferReport:
    """Give a new model the weights of a checkpoint; the model does not change if anything does not fit.

    Classifiers of the stems' own are copied if both models have them, and left out if the new one has none.

    Args:
        checkpoint: pre-trained; it is not changed.
        model: new, made from a `config_for` of the checkpoint's config.
        labels: those of the new task, in the order of its logits. Classifier rows of labels that the
            checkpoint has too, by `id`, are then copied. None: no row of a classifier is copied.

    Raises:
        CheckpointError: the trunks differ, or weights do not fit (the message lists them), or no label is
            shared.
        ValueError: `labels` are not one per class, or an id occurs twice.
    """
    _check_trunk(checkpoint.config, model.config)
    rows = {} if labels is None else _shared_rows(checkpoint, labels, model.config.num_classes)
    own = float_weights(model)
    weights = {n: x for n, x in float_weights(checkpoint.model).items() if n in own or not _is_of_stems(n)}
    added = [name for name in own if name not in weights and _is_of_stems(name)]
    weights |= {name: own[name] for name in added}
    changed = _changed_grids(checkpoint.config, model.config)
    for name, (old, new) in changed.items():
        weights[name] = resize_grid(weights[name], old, new, mode=_mode(name)).reshape(own[name].shape)
    classifiers = [f"heads.{stream.key}.classify.{part}" for stream in Stream for part in ("weight", "bias")]
    for name in classifiers:
        weights[name] = _with_rows(own[name], weights[name], rows)
    load_weights(model, weights)
    initialised = added if len(rows) == model.config.num_classes else [*classifiers, *added]
    return TransferReport(
        copied=tuple(name for name in weights if name not in changed and name not in initialised),
        resized=changed,
        initialised=tuple(initialised),
        kept_labels=tuple(str(labels[row]["id"]) for row in rows) if labels else (),
    )


def _is_of_stems(name: str) -> bool:
    """Whether a weight is of a classifier of a stem's own, which not every task has."""
    return name.startswith("stem_classifiers.")


def _check_trunk(old: ZorroConfig, new: ZorroConfig) -> None:
    differ = [
        f"{name}: got {getattr(old, name)}, wanted {getattr(new, name)}"
        for name in _TRUNK_FIELDS
        if getattr(old, name) != getattr(new, name)
    ]
    if differ:
        raise CheckpointError(
            f"the checkpoint has another trunk than the model: {'; '.join(differ)}; see config_for"
        )


def _shared_rows(
    checkpoint: Checkpoint, labels: Sequence[dict[str, Any]], num_classes: int
) -> dict[int, int]:
    """For labels that both tasks have: their row in the new classifiers, and their row in the old."""
    new, old = ([str(label["id"]) for label in part] for part in (labels, checkpoint.labels))
    if len(old) != checkpoint.config.num_classes:
        raise CheckpointError(
            f"the checkpoint names {len(old)} labels for {checkpoint.config.num_classes} classes"
        )
    if len(new) != num_classes:
        raise ValueError(f"got {len(new)} labels for a model of {num_classes} classes")
    for ids in (new, old):
        if twice := sorted({x for x in ids if ids.count(x) > 1}):
            raise ValueError(f"label ids must be unique, these are not: {', '.join(twice)}")
    rows = {i: old.index(x) for i, x in enumerate(new) if x in old}
    if not rows:
        raise CheckpointError(
            f"no label is shared: the checkpoint has {old[:5]}, the new task {new[:5]}; "
            "give no labels to initialise all classifiers"
        )
    return rows


def _with_rows(own: Tensor, other: Tensor, rows: dict[int, int]) -> Tensor:
    """A copy of `own` in which row i is row j of `other`, for each i to j in `rows`."""
    mixed = own.clone()
    mixed[list(rows)] = other[list(rows.values())].to(own)
    return mixed


def _grids(config: ZorroConfig) -> dict[str, Grid]:
    """Names of the weights that lie on a grid, and their grids."""
    grids: dict[str, Grid] = {
        "audio_tokens.pos_time": config.audio_grid[:1],
        "audio_tokens.pos_frequency": config.audio_grid[1:],
        "video_tokens.pos_time": config.video_grid[:1],
        "video_tokens.pos_space": config.video_grid[1:],
    }
    if config.centre == Centre.PICTURE:
        grids["video_tokens.mean"] = config.video_shape[1:3]
    return grids


def _changed_grids(old: ZorroConfig, new: ZorroConfig) -> dict[str, tuple[Grid, Grid]]:
    before, after = _grids(old), _grids(new)
    return {
        name: (before[name], after[name]) for name in before if name in after and before[name] != after[name]
    }


def _mode(name: str) -> str:
    return {"video_tokens.pos_space": "bicubic", "video_tokens.mean": "bilinear"}.get(name, "linear")


def _sides(grid: Grid) -> str:
    return "x".join(map(str, grid))
