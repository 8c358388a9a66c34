"""The layout of weights that timm's ViT, DeiT and AST share, and its checks.

Their blocks compute what ours do, except for the epsilon of layer norms: 1e-6 there, 1e-5 here. Trap: no
shape depends on the number of heads. Widths 192, 384, 768 and 1024 have 3, 6, 12 and 16 heads, there and in
our presets.
"""

import re
from collections.abc import Mapping

from torch import Tensor

from models.config import BackboneName, Stem, ZorroConfig
from models.weights import CheckpointError

_BLOCK = {
    "norm1": "norm1",
    "qkv": "attn.qkv",
    "proj": "attn.proj",
    "norm2": "norm2",
    "mlp.0": "mlp.fc1",
    "mlp.2": "mlp.fc2",
}
PREFIX_TOKENS = ("cls_token", "dist_token")
"""Tokens before the patches, each with a position of its own; weights have none, one or both of them."""
UNUSED_KEYS = (*PREFIX_TOKENS, "head.", "head_dist.")
"""Beginnings of keys that have no counterpart in our model."""


def check_config(config: ZorroConfig) -> None:
    """A ViT's weights fit only a Zorro-ViT with a linear patch embedding.

    Raises:
        ValueError: the model has another backbone or stem.
    """
    if config.backbone != BackboneName.VIT or config.stem != Stem.PATCH:
        raise ValueError(
            "a ViT's weights need backbone=vit and stem=patch, "
            f"the model has backbone={config.backbone}, stem={config.stem}"
        )


def trunk_names(config: ZorroConfig) -> dict[str, str]:
    """Our name of each weight of the trunk, to its name in the layout."""
    layers = {
        f"trunk.blocks.{i}.{own}": f"blocks.{i}.{other}"
        for i in range(config.depth)
        for own, other in _BLOCK.items()
    } | {"trunk.norm": "norm"}
    return {
        f"{own}.{part}": f"{other}.{part}" for own, other in layers.items() for part in ("weight", "bias")
    }


def check_trunk(source: Mapping[str, Tensor], config: ZorroConfig) -> None:
    """Check depth and width by themselves, which reads better than a list of a hundred reshaped weights.

    Raises:
        CheckpointError: the weights have another depth or width than the model.
    """
    depth = len({match[1] for name in source if (match := re.match(r"blocks\.(\d+)\.", name))})
    norm = source.get("norm.weight")
    width = "unknown" if norm is None else len(norm)
    if depth != config.depth or (norm is not None and width != config.embed_dim):
        raise CheckpointError(
            f"the weights have depth {depth} and width {width}, "
            f"the model has depth {config.depth} and width {config.embed_dim}: choose the preset of that size"
        )


def patch_positions(source: Mapping[str, Tensor], dim: int) -> Tensor:
    """Positions of the patches, [patches, dim], without those of the prefix tokens.

    Raises:
        CheckpointError: there are none, or they have another width than the model.
    """
    positions = source.get("pos_embed")
    num_prefix = sum(name in source for name in PREFIX_TOKENS)
    if positions is None or positions.ndim != 3 or len(positions) != 1 or positions.shape[1] <= num_prefix:
        got = "nothing" if positions is None else tuple(positions.shape)
        raise CheckpointError(f"pos_embed: got {got}, wanted (1, {num_prefix} + patches, {dim})")
    if positions.shape[2] != dim:
        raise CheckpointError(f"the weights have width {positions.shape[2]}, the model has width {dim}")
    return positions[0, num_prefix:].detach().float()
