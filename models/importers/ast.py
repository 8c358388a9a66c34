"""An Audio Spectrogram Transformer as initialisation of the audio side, and of the trunk if asked.

Gong et al. 2021, arXiv:2104.01778; weights of github.com/YuanGongND/ast. AST lays its 16 x 16 patches over
(frequency, time) at a stride below 16, ours lie over (time, frequency) side by side. Both read the natural
log of mel power at 25/10 ms, with another constant and tilt (AST's front end pre-emphasises and does not
divide by the window's energy), so AST's mean is
taken to be ours and only the scale is folded into the patch embedding: AST divides by twice its standard
    deviation.
"""

from collections.abc import Mapping

import torch.nn.functional as F
from torch import Tensor

from models.weights import CheckpointError
from models.zorro import ZorroModel

from .vit_layout import (
    PREFIX_TOKENS,
    ImportReport,
    check_config,
    check_source,
    check_trunk,
    patch_positions,
    trunk_names,
    write,
)

_PREFIX = "module.v."
_NUM_MEL_BINS, _PATCH = 128, 16  # of every AST
_IGNORED = (*PREFIX_TOKENS, "head.", "head_dist.")


def import_ast(
    model: ZorroModel,
    state_dict: Mapping[str, Tensor],
    *,
    trunk: bool = False,
    stride: int = 10,
    std: float = 4.5689974,
) -> ImportReport:
    """Write AST's patch embedding and positions into the model, which does not change if anything does not fit.

    Positions are split into time plus frequency by averaging, which is the nearest sum. A clip shorter than
    AST's gets the middle of its positions in time, as in AST; then they are interpolated to our grid.

    Args:
        model: a Zorro-ViT of AST's width, with stem "patch" and audio patches of 16 x 16.
        state_dict: AST's, keys under `module.v.`. From a file: `torch.load(path, map_location="cpu",
            weights_only=True)`.
        trunk: write its blocks too; the depth must then be AST's.
        stride: AST's `fstride` and `tstride`, mel frames and bins; 10 in the published weights for AudioSet.
        std: of AST's normalisation, the default AudioSet's.

    Raises:
        ValueError: the model is no Zorro-ViT with stem "patch".
        CheckpointError: another depth or width, or keys and shapes that the message lists.
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
    own, names = model.state_dict(), trunk_names(config) if trunk else {}
    wanted = {other: tuple(own[name].shape) for name, other in names.items()} | {
        "patch_embed.proj.weight": (config.embed_dim, 1, *reversed(config.patch_size)),
        "patch_embed.proj.bias": (config.embed_dim,),
        "pos_embed": tuple(source["pos_embed"].shape),
    }
    unused = check_source(source, wanted, ignored=_IGNORED if trunk else (*_IGNORED, "blocks.", "norm."))
    time, frequency = _split(positions, stride)
    scale = config.audio_std / (2 * std)
    weights = {name: source[other].float() for name, other in names.items()} | {
        "audio_tokens.embed.weight": source["patch_embed.proj.weight"].float().transpose(2, 3) * scale,
        "audio_tokens.embed.bias": source["patch_embed.proj.bias"].float(),
        "audio_tokens.pos_time": _on_line(time, config.audio_grid[0], stride)[:, None],
        "audio_tokens.pos_frequency": _on_line(frequency, config.audio_grid[1], stride)[None],
    }
    return write(model, weights, unused=(*others, *(_PREFIX + name for name in unused)))


def _split(positions: Tensor, stride: int) -> tuple[Tensor, Tensor]:
    """Positions in the order (frequency, time) to [time, dim] and [frequency, dim], whose sums are nearest to them."""
    num_rows = (_NUM_MEL_BINS - _PATCH) // stride + 1
    if len(positions) % num_rows:
        raise CheckpointError(
            f"pos_embed holds {len(positions)} patches, no multiple of the {num_rows} along frequency at {stride=}"
        )
    on_grid = positions.unflatten(0, (num_rows, -1))
    time = on_grid.mean(dim=0)
    return time, on_grid.mean(dim=1) - time.mean(dim=0)


def _on_line(line: Tensor, size: int, stride: int) -> Tensor:
    """The middle of a line that spans as much as `size` of our patches, all of it if we span more, on our `size` points."""
    span = max(1, min(len(line), round(size * _PATCH / stride)))
    start = (len(line) - span) // 2
    middle = line[start : start + span].T[None]
    return F.interpolate(middle, size=size, mode="linear", align_corners=False)[0].T
