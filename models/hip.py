"""Zorro-HiP's trunk: a Hierarchical Perceiver per modality, and fusion tokens that read both.

A block splits the tokens of a modality into groups, and each group is read by latents of its own. Groups do
not read one another; they come together because the next block has fewer of them. Fusion tokens read the
latents of both modalities in each block. Audio, video and fusion share neither groups nor weights.

Carreira et al. 2022, arXiv:2202.10890.
"""

from math import prod
from typing import ClassVar

import torch
from torch import Tensor, nn

from .attention import Pairing, Tokens, attend, join_streams
from .config import HipConfig, ZorroConfig
from .layers import DropPath, FusionStep, Trunk, TrunkStage, run_stages
from .mask import READS, Stream

MLP_RATIO = 4

# B items or rows, N tokens, C their width, G groups, L latents of a group, D width of the latents


class HipTrunk(Trunk):
    """One `TrunkStage` per entry of `config.hip`, and a last norm per stream.

    Raises:
        ValueError: the groups of the first block do not divide the tokens of audio or video.
    """

    separable: ClassVar[bool] = True

    def __init__(self, config: ZorroConfig) -> None:
        super().__init__()
        hip = config.hip
        assert hip is not None
        _check_groups(config, hip)
        self.blocks = nn.ModuleList()
        for i, rates in enumerate(_drop_path_rates(config.drop_path_rate, hip.depths)):
            width = hip.dims[i - 1] if i else config.embed_dim
            stage = TrunkStage(
                audio=GroupBlock(hip, i, width, rates),
                video=GroupBlock(hip, i, width, rates),
                fusion=HipFusionBlock(hip, i, rates),
            )
            self.blocks.append(stage)
        self.norms = nn.ModuleDict({stream.key: nn.LayerNorm(hip.dims[-1]) for stream in READS})

    def forward(self, tokens: Tokens, pairing: Pairing | None) -> Tokens:
        return run_stages(self.blocks, self.norms, tokens, pairing)


class GroupBlock(nn.Module):
    """Consecutive tokens form groups; each group is read by its latents, which then attend to each other.

    The cross-attention is never dropped in training: no other path leads from the tokens to the latents.
    """

    def __init__(self, hip: HipConfig, index: int, width: int, drop_path_rates: list[float]) -> None:
        super().__init__()
        dim, num_heads = hip.dims[index], hip.num_heads[index]
        latents = torch.empty(hip.num_groups[index], hip.num_latents[index], dim)
        # About as large as what they read, which is an average of values. At ViT's 0.02 the sum in `forward`
        # is nearly that average for every latent: the latents of a group differ by 2 to 15 % of their size,
        # and to later layers they are one token L times. At 0.5 they differ by 45 %. At 1 the input counts
        # for a third less (hip-16, untrained).
        self.latents = nn.Parameter(nn.init.trunc_normal_(latents, std=0.5))
        self.norm_latents, self.norm_tokens = nn.LayerNorm(dim), nn.LayerNorm(width)
        self.query, self.proj = nn.Linear(dim, dim), nn.Linear(dim, dim)
        # No bias: it would shift all scores of a query alike, which the softmax ignores.
        self.key = nn.Linear(width, dim, bias=False)
        self.value = nn.Linear(width, dim)
        self.mlp = squared_relu_mlp(dim)
        self.layers = _self_attention(dim, num_heads, drop_path_rates)

    def forward(self, x_BNC: Tensor) -> Tensor:
        """Latents of all groups side by side, [items, groups * latents, dim]."""
        G, L, D = self.latents.shape
        x: Tensor = (self.latents + self._read(x_BNC)).reshape(
            -1, L, D
        )  # a group is to the layers what an item is
        x = x + self.mlp(x)
        for layer in self.layers:
            x = layer(x)
        return x.reshape(-1, G * L, D)

    def _read(self, x_BNC: Tensor) -> Tensor:
        """What the latents of each group read of its tokens, by one head, [items, groups, latents, dim].

        `attend` takes the groups as heads: each has its own part of the channels and none reads another. So
        one row of latents serves all items, and an exported graph does not read the size of the batch.
        """
        G, L, D = self.latents.shape
        N, C = x_BNC.shape[1:]
        tokens = self.norm_tokens(x_BNC.reshape(-1, G, N // G, C).transpose(1, 2))
        key, value = (linear(tokens).reshape(-1, N // G, G * D) for linear in (self.key, self.value))
        query = self.query(self.norm_latents(self.latents)).transpose(0, 1).reshape(1, L, G * D)
        read = attend(query, key, value, num_heads=G)
        projected: Tensor = self.proj(read.reshape(-1, L, G, D).transpose(1, 2))
        return projected


class HipFusionBlock(FusionStep):
    """Fusion tokens, one group of latents per row, read themselves and the latents of audio and video."""

    def __init__(self, hip: HipConfig, index: int, drop_path_rates: list[float]) -> None:
        super().__init__()
        dim, self.num_heads = hip.dims[index], hip.num_heads[index]
        self.widen = nn.Linear(hip.dims[index - 1], dim) if index else nn.Identity()
        self.norm_query, self.norm_read = nn.LayerNorm(dim), nn.LayerNorm(dim)
        self.query, self.kv, self.proj = nn.Linear(dim, dim), nn.Linear(dim, 2 * dim), nn.Linear(dim, dim)
        self.mlp = squared_relu_mlp(dim)
        self.layers = _self_attention(dim, self.num_heads, drop_path_rates)

    def forward(self, fusion: Tensor, latents: Tokens, pairing: Pairing | None) -> Tensor:
        x: Tensor = self.widen(fusion)
        keys_values = {s: self.kv(self.norm_read(y)) for s, y in (latents | {Stream.FUSION: x}).items()}
        kv, mask = join_streams(keys_values, READS[Stream.FUSION], pairing)
        key, value = kv.chunk(2, dim=-1)
        query = self.query(self.norm_query(x))
        x = x + self.proj(attend(query, key, value, num_heads=self.num_heads, key_mask_BM=mask))
        x = x + self.mlp(x)
        for layer in self.layers:
            x = layer(x)
        return x


class SelfAttentionLayer(nn.Module):
    """Pre-norm self-attention and MLP, [groups, latents, dim]; stochastic depth drops either per group."""

    def __init__(self, dim: int, num_heads: int, *, drop_path_rate: float) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.norm, self.qkv, self.proj = nn.LayerNorm(dim), nn.Linear(dim, 3 * dim), nn.Linear(dim, dim)
        self.mlp = squared_relu_mlp(dim)
        self.drop_path = DropPath(drop_path_rate)

    def forward(self, x: Tensor) -> Tensor:
        query, key, value = self.qkv(self.norm(x)).chunk(3, dim=-1)
        x = x + self.drop_path(self.proj(attend(query, key, value, num_heads=self.num_heads)))
        return x + self.drop_path(self.mlp(x))


class SquaredReLU(nn.Module):
    """The square of max(x, 0) (So et al. 2021, arXiv:2109.08668)."""

    def forward(self, x: Tensor) -> Tensor:
        above = x.relu()
        return above * above


def squared_relu_mlp(dim: int) -> nn.Sequential:
    """A norm, then an MLP that is `MLP_RATIO` times as wide inside."""
    hidden = MLP_RATIO * dim
    return nn.Sequential(nn.LayerNorm(dim), nn.Linear(dim, hidden), SquaredReLU(), nn.Linear(hidden, dim))


def _self_attention(dim: int, num_heads: int, drop_path_rates: list[float]) -> nn.ModuleList:
    return nn.ModuleList(SelfAttentionLayer(dim, num_heads, drop_path_rate=x) for x in drop_path_rates)


def _drop_path_rates(deepest: float, depths: tuple[int, ...]) -> list[list[float]]:
    """One rate per self-attention layer of each block, growing linearly from 0 to `deepest`."""
    steps = max(sum(depths) - 1, 1)
    firsts = [sum(depths[:i]) for i in range(len(depths))]
    return [
        [deepest * (first + i) / steps for i in range(depth)]
        for first, depth in zip(firsts, depths, strict=True)
    ]


def _check_groups(config: ZorroConfig, hip: HipConfig) -> None:
    """The first block's groups must divide the tokens; `HipConfig` has checked those of the other blocks."""
    for name, grid in (("audio", config.audio_grid), ("video", config.video_grid)):
        if prod(grid) % hip.num_groups[0]:
            raise ValueError(
                f"got {prod(grid)} {name} tokens, wanted a multiple of num_groups[0]={hip.num_groups[0]}; "
                f"change num_groups, {name}_shape or its patch"
            )
