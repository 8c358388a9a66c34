"""Initialise the audio embedding, and on request the trunk, with an Audio Spectrogram Transformer.

Gong et al. 2021, arXiv:2104.01778; weights of github.com/YuanGongND/ast. AST lays its 16 x 16 patches over
(frequency, time) with a stride below 16; ours lie over (time, frequency) without overlap.

Both models read the natural log of mel power at 25/10 ms. The spectrograms differ by a constant and a tilt,
because AST's front end pre-emphasises and does not divide by the window's energy. So AST's mean is taken to
be ours, and only the scale is folded into the patch embedding: AST divides by twice its standard deviation.
"""

from collections.abc import Mapping

from torch import Tensor

from models.grids import resize_grid
from models.weights import CheckpointError, float_weights
from models.zorro import ZorroModel

from .report import ImportReport, check_source, write
from .vit_layout import (
    UNUSED_KEYS,
    check_config,
    check_trunk,
    patch_positions,
    trunk_names,
)

_PREFIX = "module.v."
_NUM_MEL_BINS, _PATCH = 128, 16  # of every AST


def import_ast(
    model: ZorroModel,
    state_dict: Mapping[str, Tensor],
    *,
    trunk: bool = False,
    stride: int = 10,
    std: float = 4.5689974,
) -> ImportReport:
    """Copy AST's patch embedding and positions into the model.

    If anything does not fit, the model stays as it is. AST learns one position per patch, we learn time plus
    frequency; AST's positions are split by averages, which is the nearest sum. A clip shorter than AST's gets
    the middle of AST's positions in time, as in AST itself. Then positions are interpolated to our grid.

    Args:
        model: a Zorro-ViT of AST's width, with stem "patch" and audio patches of 16 x 16.
        state_dict: AST's, keys under `module.v.`. From a file: `torch.load(path, map_location="cpu",
            weights_only=True)`.
        trunk: copy the transformer blocks too; the model must then have AST's depth.
        stride: AST's `fstride` and `tstride`, in mel bins and frames; 10 in the published AudioSet weights.
        std: standard deviation of AST's normalisation; the default is AudioSet's.

    Raises:
        ValueError: the model is no Zorro-ViT with stem "patch".
        CheckpointError: the depth or width differs, or keys or shapes do, which the message lists.
    """
    config = model.config
    check_config(config)
    source = {
        name.removeprefix(_PREFIX): tensor for name, tensor in state_dict.items() if name.startswith(_PREFIX)
    }
    others = tuple(sorted(name for name in state_dict if not name.startswith(_PREFIX)))
    if not source:
        raise CheckpointError(f"no key starts with {_PREFIX!r}, as AST's do; got {others[:5]}, ...")
    positions = patch_positions(source, config.embed_dim)
    if trunk:
        check_trunk(source, config)
    own, names = float_weights(model), trunk_names(config) if trunk else {}
    wanted = {other: tuple(own[name].shape) for name, other in names.items()} | {
        "patch_embed.proj.weight": (config.embed_dim, 1, *reversed(config.patch_size)),
        "patch_embed.proj.bias": (config.embed_dim,),
        "pos_embed": tuple(source["pos_embed"].shape),
    }
    unused = check_source(
        source, wanted, ignored=UNUSED_KEYS if trunk else (*UNUSED_KEYS, "blocks.", "norm.")
    )
    time, frequency = _split_axes(positions, stride)
    scale = config.audio_std / (2 * std)
    weights = {name: source[other].float() for name, other in names.items()} | {
        "audio_tokens.embed.weight": source["patch_embed.proj.weight"].float().transpose(2, 3) * scale,
        "audio_tokens.embed.bias": source["patch_embed.proj.bias"].float(),
        "audio_tokens.pos_time": _middle(time, config.audio_grid[0], stride)[:, None],
        "audio_tokens.pos_frequency": _middle(frequency, config.audio_grid[1], stride)[None],
    }
    return write(model, weights, unused=(*others, *(_PREFIX + name for name in unused)))


def _split_axes(positions: Tensor, stride: int) -> tuple[Tensor, Tensor]:
    """Positions in the order (frequency, time), to [time, dim] and [frequency, dim] with the nearest sums."""
    num_rows = (_NUM_MEL_BINS - _PATCH) // stride + 1
    if len(positions) % num_rows:
        raise CheckpointError(
            f"pos_embed holds {len(positions)} patches, "
            f"wanted a multiple of the {num_rows} along frequency at {stride=}"
        )
    on_grid = positions.reshape(num_rows, -1, positions.shape[1])
    time = on_grid.mean(dim=0)
    return time, on_grid.mean(dim=1) - time.mean(dim=0)


def _middle(line: Tensor, size: int, stride: int) -> Tensor:
    """The middle of AST's positions along an axis, interpolated to `size` points.

    The middle is as long as `size` of our patches; it is the whole if they are longer.
    """
    span = max(1, min(len(line), round(size * _PATCH / stride)))
    start = (len(line) - span) // 2
    return resize_grid(line[start : start + span], (span,), (size,), mode="linear")
