"""A timm ViT as initialisation of the trunk and of the video side.

A still video then gives, at each time step, the tokens that the ViT makes of the picture (where grids are
equal): a tubelet's frames share the patch embedding equally, and positions in time begin at zero. Our pixels
are normalised otherwise, which is folded into the patch embedding's weight and bias.
"""

from collections.abc import Mapping
from math import isqrt

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

_IGNORED = (*PREFIX_TOKENS, "head.", "head_dist.", "pre_logits.")
_HALF = (0.5, 0.5, 0.5)


def import_timm_vit(
    model: ZorroModel,
    state_dict: Mapping[str, Tensor],
    *,
    mean: tuple[float, float, float] = _HALF,
    std: tuple[float, float, float] = _HALF,
) -> ImportReport:
    """Write a ViT's blocks, patch embedding and positions into the model, which does not change if anything does not fit.

    Args:
        model: a Zorro-ViT of the same depth and width, with stem "patch".
        state_dict: timm's keys: `cls_token, pos_embed, patch_embed.proj, blocks.{i}..., norm, head`. From a
            file: `torch.load(path, map_location="cpu", weights_only=True)`, or
            `safetensors.torch.load_file(path)`.
        mean: of the normalisation that the ViT was trained with, of RGB in [0, 1]. DeiT and MAE want
            ImageNet's (0.485, 0.456, 0.406), timm's `augreg` weights the default; timm says it in
            `pretrained_cfg`.
        std: the same; ImageNet's is (0.229, 0.224, 0.225).

    Raises:
        ValueError: the model is no Zorro-ViT with stem "patch".
        CheckpointError: another depth or width, or keys and shapes that the message lists.
    """
    config = model.config
    check_config(config)
    check_trunk(state_dict, config)
    positions = patch_positions(state_dict, config.embed_dim)
    own, names = model.state_dict(), trunk_names(config)
    wanted = {other: tuple(own[name].shape) for name, other in names.items()} | {
        "patch_embed.proj.weight": (config.embed_dim, 3, *config.tubelet_size[1:]),
        "patch_embed.proj.bias": (config.embed_dim,),
        "pos_embed": tuple(state_dict["pos_embed"].shape),
    }
    unused = check_source(state_dict, wanted, ignored=_IGNORED)
    weight, bias = _inflate(model, state_dict, mean, std)
    weights = {name: state_dict[other].float() for name, other in names.items()} | {
        "video_tokens.embed.weight": weight,
        "video_tokens.embed.bias": bias,
        "video_tokens.pos_space": _resize(positions, config.video_grid[1:])[None],
    }
    return write(model, weights, zeroed=("video_tokens.pos_time",), unused=unused)


def _inflate(
    model: ZorroModel, state_dict: Mapping[str, Tensor], mean: tuple[float, ...], std: tuple[float, ...]
) -> tuple[Tensor, Tensor]:
    """Weight [dim, frames * 3, height, width] and bias [dim] that read our normalised pixels.

    Ours are x = (p - mean) / std of p in 0 to 255, the ViT's y = (p / 255 - mean) / std; so y = scale * x +
    shift. A mean picture (`Centre.PICTURE`) is taken at its average, so load it first if it is there; under
    `Centre.MOTION` the ViT sees motion on `video_mean`.
    """
    weight, bias = (state_dict[f"patch_embed.proj.{part}"].detach().float() for part in ("weight", "bias"))
    tokens = model.video_tokens
    own_mean, own_std = tokens.mean.to(weight).reshape(-1, 3).mean(dim=0), tokens.std.to(weight)
    vit_mean, vit_std = weight.new_tensor(mean), weight.new_tensor(std)
    scale, shift = own_std / (255 * vit_std), (own_mean / 255 - vit_mean) / vit_std
    frames = tokens.tubelet_frames
    inflated = (weight * scale[:, None, None]).repeat(
        1, frames, 1, 1
    ) / frames  # channels: all of a frame, then the next
    return inflated, bias + (weight.sum(dim=(2, 3)) * shift).sum(dim=1)


def _resize(positions: Tensor, grid: tuple[int, int]) -> Tensor:
    """Positions on a square to [height * width, dim] on our grid, bicubically."""
    side = isqrt(len(positions))
    if side * side != len(positions):
        raise CheckpointError(f"pos_embed holds {len(positions)} patches, which are no square")
    if (side, side) == grid:
        return positions
    on_grid = positions.reshape(1, side, side, -1).permute(0, 3, 1, 2)
    return F.interpolate(on_grid, size=grid, mode="bicubic", align_corners=False)[0].flatten(1).T
