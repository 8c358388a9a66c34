"""Initialise the trunk and the video embedding with a timm ViT.

The patch embedding is divided equally among the frames of a tubelet, and positions in time become zero. So
where grids are equal, a video that does not move gives at each time step the tokens that the ViT gives for
its picture. We normalise pixels differently, which is folded into the patch embedding's weight and bias.
"""

from collections.abc import Mapping
from math import isqrt

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

_HALF = (0.5, 0.5, 0.5)


def import_timm_vit(
    model: ZorroModel,
    state_dict: Mapping[str, Tensor],
    *,
    mean: tuple[float, float, float] = _HALF,
    std: tuple[float, float, float] = _HALF,
) -> ImportReport:
    """Copy a ViT's blocks, patch embedding and positions into the model.

    If anything does not fit, the model stays as it is.

    Args:
        model: a Zorro-ViT of the same depth and width, with stem "patch".
        state_dict: timm's keys: `cls_token, pos_embed, patch_embed.proj, blocks.{i}..., norm, head`. From a
            file: `torch.load(path, map_location="cpu", weights_only=True)`, or
            `safetensors.torch.load_file(path)`.
        mean: mean that the ViT's training subtracted, of RGB in [0, 1]; timm's `pretrained_cfg` has it. The
            default is that of timm's `augreg` weights; DeiT and MAE need ImageNet's (0.485, 0.456, 0.406).
        std: standard deviation likewise; ImageNet's is (0.229, 0.224, 0.225).

    Raises:
        ValueError: the model is no Zorro-ViT with stem "patch".
        CheckpointError: the depth or width differs, or keys or shapes do, which the message lists.
    """
    config = model.config
    check_config(config)
    check_trunk(state_dict, config)
    positions = patch_positions(state_dict, config.embed_dim)
    own, names = float_weights(model), trunk_names(config)
    wanted = {other: tuple(own[name].shape) for name, other in names.items()} | {
        "patch_embed.proj.weight": (config.embed_dim, 3, *config.tubelet_size[1:]),
        "patch_embed.proj.bias": (config.embed_dim,),
        "pos_embed": tuple(state_dict["pos_embed"].shape),
    }
    unused = check_source(state_dict, wanted, ignored=(*UNUSED_KEYS, "pre_logits."))
    weight, bias = _inflate(model, state_dict, mean, std)
    weights = {name: state_dict[other].float() for name, other in names.items()} | {
        "video_tokens.embed.weight": weight,
        "video_tokens.embed.bias": bias,
        "video_tokens.pos_space": _resize_square(positions, config.video_grid[1:])[None],
    }
    return write(model, weights, zeroed=("video_tokens.pos_time",), unused=unused)


def _inflate(
    model: ZorroModel, state_dict: Mapping[str, Tensor], mean: tuple[float, ...], std: tuple[float, ...]
) -> tuple[Tensor, Tensor]:
    """Weight [dim, frames * 3, height, width] and bias [dim] that read our normalised pixels.

    Of a pixel p in 0 to 255 we make x = (p - mean) / std, the ViT makes y = (p / 255 - mean) / std. So
    y = scale * x + shift. Of a mean picture (`Centre.PICTURE`) the average colour is taken, so load it before
    the import. Under `Centre.MOTION` the ViT reads the motion added to `video_mean`.
    """
    weight, bias = (state_dict[f"patch_embed.proj.{part}"].detach().float() for part in ("weight", "bias"))
    tokens = model.video_tokens
    own_mean, own_std = tokens.mean.to(weight).reshape(-1, 3).mean(dim=0), tokens.std.to(weight)
    vit_mean, vit_std = weight.new_tensor(mean), weight.new_tensor(std)
    scale, shift = own_std / (255 * vit_std), (own_mean / 255 - vit_mean) / vit_std
    frames = tokens.tubelet_frames
    # Channels are those of the first frame, then those of the next.
    inflated = (weight * scale[:, None, None]).repeat(1, frames, 1, 1) / frames
    return inflated, bias + (weight.sum(dim=(2, 3)) * shift).sum(dim=1)


def _resize_square(positions: Tensor, grid: tuple[int, int]) -> Tensor:
    """Positions on a square to [height * width, dim] on our grid, bicubically."""
    side = isqrt(len(positions))
    if side * side != len(positions):
        raise CheckpointError(f"pos_embed holds {len(positions)} patches, which are no square")
    if (side, side) == grid:
        return positions
    return resize_grid(positions, (side, side), grid, mode="bicubic").flatten(0, 1)
