"""The layout that timm's ViT, DeiT and AST share: its blocks onto our trunk, checks, and the report of an import.

Blocks are the same function in both, up to the epsilon of layer norms: 1e-6 there, 1e-5 here. Trap: the
    number of heads shows in no shape; widths 192, 384, 768 and 1024 have 3, 6, 12 and 16 there and in our
    presets.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from models.config import BackboneName, Stem, ZorroConfig
from models.weights import CheckpointError
from models.zorro import ZorroModel

_BLOCK = {
    "norm1": "norm1", "qkv": "attn.qkv", "proj": "attn.proj", "norm2": "norm2", "mlp.0": "mlp.fc1", "mlp.2": "mlp.fc2",
}  # fmt: skip
PREFIX_TOKENS = ("cls_token", "dist_token")
"""Tokens that stand before the patches, each with a position of its own, if the weights have them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ImportReport:
    """What an import did; each weight of the model is in exactly one of the first three."""

    loaded: tuple[str, ...]
    """Weights of the model that now hold others' numbers."""
    zeroed: tuple[str, ...]
    """Weights set to zero, so that they do not disturb what was loaded."""
    kept: tuple[str, ...]
    """Weights as the model was made."""
    unused: tuple[str, ...]
    """Keys of the state dict that have no place in the model."""


def check_config(config: ZorroConfig) -> None:
    """Only Zorro-ViT with a linear patch embedding has a place for a ViT's weights.

    Raises:
        ValueError: another backbone or stem.
    """
    if config.backbone != BackboneName.VIT or config.stem != Stem.PATCH:
        raise ValueError(
            f"a ViT's weights need backbone=vit and stem=patch, the model has backbone={config.backbone}, stem={config.stem}"
        )


def trunk_names(config: ZorroConfig) -> dict[str, str]:
    """Our name of every weight of the trunk to the layout's."""
    layers = {
        f"trunk.blocks.{i}.{own}": f"blocks.{i}.{other}"
        for i in range(config.depth)
        for own, other in _BLOCK.items()
    } | {"trunk.norm": "norm"}
    return {
        f"{own}.{part}": f"{other}.{part}" for own, other in layers.items() for part in ("weight", "bias")
    }


def check_trunk(source: Mapping[str, Tensor], config: ZorroConfig) -> None:
    """Depth and width first, for a list of a hundred reshaped weights says it badly.

    Raises:
        CheckpointError: the trunk of the weights has another depth or width.
    """
    depth = len({match[1] for name in source if (match := re.match(r"blocks\.(\d+)\.", name))})
    norm = source.get("norm.weight")
    width = "unknown" if norm is None else len(norm)
    if depth != config.depth or (norm is not None and width != config.embed_dim):
        raise CheckpointError(
            f"the weights have depth {depth} and width {width}, "
            f"the model has depth {config.depth} and width {config.embed_dim}: choose the preset of that size"
        )


def check_source(
    source: Mapping[str, Tensor], wanted: Mapping[str, tuple[int, ...]], *, ignored: tuple[str, ...]
) -> tuple[str, ...]:
    """Check every key and shape; returns the keys that nobody uses, which start with one of `ignored`.

    Raises:
        CheckpointError: lists what is missing, unknown or of another shape.
    """
    unused = {name for name in source if name not in wanted and name.startswith(ignored)}
    missing, unknown = sorted(wanted.keys() - source.keys()), sorted(source.keys() - wanted.keys() - unused)
    reshaped = [
        f"{name}: got {tuple(source[name].shape)}, wanted {shape}"
        for name, shape in wanted.items()
        if name in source and tuple(source[name].shape) != shape
    ]
    if missing or unknown or reshaped:
        raise CheckpointError(f"weights do not fit the model: {missing=}, {unknown=}, {reshaped=}")
    return tuple(sorted(unused))


def patch_positions(source: Mapping[str, Tensor], dim: int) -> Tensor:
    """Positions of the patches, [patches, dim], without those of the tokens before them.

    Raises:
        CheckpointError: there are none, or not as wide as the model.
    """
    positions = source.get("pos_embed")
    num_prefix = sum(name in source for name in PREFIX_TOKENS)
    if positions is None or positions.ndim != 3 or len(positions) != 1 or positions.shape[1] <= num_prefix:
        got = "nothing" if positions is None else tuple(positions.shape)
        raise CheckpointError(f"pos_embed: got {got}, wanted (1, {num_prefix} + patches, {dim})")
    if positions.shape[2] != dim:
        raise CheckpointError(f"the weights have width {positions.shape[2]}, the model has width {dim}")
    return positions[0, num_prefix:].detach().float()


@torch.no_grad()
def write(
    model: ZorroModel, weights: Mapping[str, Tensor], *, zeroed: tuple[str, ...] = (), unused: tuple[str, ...]
) -> ImportReport:
    """Copy checked weights into the model; shapes that differ are our own mistake."""
    own = {name: tensor for name, tensor in model.state_dict().items() if tensor.is_floating_point()}
    for name in (*weights, *zeroed):
        assert name in zeroed or weights[name].shape == own[name].shape, name
        own[name].copy_(torch.zeros_like(own[name]) if name in zeroed else weights[name])
    kept = tuple(name for name in own if name not in weights and name not in zeroed)
    return ImportReport(loaded=tuple(weights), zeroed=zeroed, kept=kept, unused=unused)
