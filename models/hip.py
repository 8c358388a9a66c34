"""Zorro-HiP's trunk: a Hierarchical Perceiver per modality, and fusion tokens that read both after every block.

In a block each group of tokens is read by latents of its own, and groups never read one another: they meet
    where the next block has fewer of them. Streams never share a group or a weight. Carreira et al. 2022,
    arXiv:2202.10890.
"""

from math import prod
from typing import ClassVar

import torch
from torch import Tensor, nn

from .attention import Pairing, attend, gather_rows
from .config import HipConfig, ZorroConfig
from .mask import READS, Stream
from .vit import DropPath, Tokens

WIDENING = 4  # of the MLPs

# B items or rows, N tokens, C their width, G groups, L latents of a group, D width of the latents


class HipTrunk(nn.Module):
    """Blocks of audio, video and fusion, one of each per entry of `config.hip`.

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
            towers = {s.key: GroupBlock(hip, i, width, rates) for s in (Stream.AUDIO, Stream.VIDEO)}
            self.blocks.append(nn.ModuleDict({**towers, Stream.FUSION.key: FusionBlock(hip, i, rates)}))
        self.norms = nn.ModuleDict({stream.key: nn.LayerNorm(hip.dims[-1]) for stream in READS})

    def forward(self, tokens: Tokens, pairing: Pairing | None) -> Tokens:
        for block in self.blocks:
            out = {stream: block[stream.key](x) for stream, x in tokens.items() if stream != Stream.FUSION}
            if Stream.FUSION in tokens:
                out[Stream.FUSION] = block[Stream.FUSION.key](tokens[Stream.FUSION], out, pairing)
            tokens = out
        return {stream: self.norms[stream.key](x) for stream, x in tokens.items()}


class GroupBlock(nn.Module):
    """Consecutive tokens are split into groups; each is read by its latents, which then attend to each other.

    The cross-attention is never dropped in training: it is the only way from the tokens to the latents.
    """

    def __init__(self, hip: HipConfig, index: int, width: int, drop_path_rates: list[float]) -> None:
        super().__init__()
        dim, num_heads = hip.dims[index], hip.num_heads[index]
        latents = torch.empty(hip.num_groups[index], hip.num_latents[index], dim)
        # About as large as what they read, an average of values. Queries are normalised, but at ViT's 0.02
        # the sum below is nearly that average for every latent: those of a group differ by 2 to 15 % of their
        # size, and later layers see one token L times; at 0.5 they differ by 45 %. At 1 the input counts for
        # a third less (hip-16, untrained).
        self.latents = nn.Parameter(nn.init.trunc_normal_(latents, std=0.5))
        self.norm_latents, self.norm_tokens = nn.LayerNorm(dim), nn.LayerNorm(width)
        self.query, self.proj = nn.Linear(dim, dim), nn.Linear(dim, dim)
        self.key = nn.Linear(
            width, dim, bias=False
        )  # a bias would shift all scores of a query alike, and so none
        self.value = nn.Linear(width, dim)
        self.mlp = _mlp(dim)
        self.layers = nn.ModuleList(Layer(dim, num_heads, drop_path_rate=rate) for rate in drop_path_rates)

    def forward(self, x_BNC: Tensor) -> Tensor:
        """Latents of all groups side by side, [items, groups * latents, dim]: what the next block splits anew."""
        G, L, D = self.latents.shape
        x = (self.latents + self._read(x_BNC)).reshape(-1, L, D)  # groups as if they were items
        x = x + self.mlp(x)
        for layer in self.layers:
            x = layer(x)
        return x.reshape(-1, G * L, D)

    def _read(self, x_BNC: Tensor) -> Tensor:
        """What each group's latents read of its tokens by one head, [items, groups, latents, dim].

        To `attend`, groups are heads: each has its own part of the channels, and none reads another. So the
        latents are one row for all items, and no batch is asked for.
        """
        G, L, D = self.latents.shape
        N, C = x_BNC.shape[1:]
        tokens = self.norm_tokens(x_BNC.reshape(-1, G, N // G, C).transpose(1, 2))
        key, value = (linear(tokens).reshape(-1, N // G, G * D) for linear in (self.key, self.value))
        query = self.query(self.norm_latents(self.latents)).transpose(0, 1).reshape(1, L, G * D)
        read = attend(query, key, value, num_heads=G)
        return self.proj(read.reshape(-1, L, G, D).transpose(1, 2))


class FusionBlock(nn.Module):
    """Fusion tokens, one group of latents per row, read themselves and what audio and video have come to in this block."""

    def __init__(self, hip: HipConfig, index: int, drop_path_rates: list[float]) -> None:
        super().__init__()
        dim, self.num_heads = hip.dims[index], hip.num_heads[index]
        self.widen = nn.Linear(hip.dims[index - 1], dim) if index else nn.Identity()
        self.norm_query, self.norm_read = nn.LayerNorm(dim), nn.LayerNorm(dim)
        self.query, self.kv, self.proj = nn.Linear(dim, dim), nn.Linear(dim, 2 * dim), nn.Linear(dim, dim)
        self.mlp = _mlp(dim)
        self.layers = nn.ModuleList(
            Layer(dim, self.num_heads, drop_path_rate=rate) for rate in drop_path_rates
        )

    def forward(self, fusion: Tensor, latents: Tokens, pairing: Pairing | None) -> Tensor:
        x = self.widen(fusion)
        read = {stream: self.kv(self.norm_read(y)) for stream, y in (*latents.items(), (Stream.FUSION, x))}
        kv, mask = gather_rows(read, READS[Stream.FUSION], pairing)
        key, value = kv.chunk(2, dim=-1)
        x = x + self.proj(
            attend(self.query(self.norm_query(x)), key, value, num_heads=self.num_heads, key_mask_BM=mask)
        )
        x = x + self.mlp(x)
        for layer in self.layers:
            x = layer(x)
        return x


class Layer(nn.Module):
    """Pre-norm self-attention and MLP; stochastic depth drops it per group."""

    def __init__(self, dim: int, num_heads: int, *, drop_path_rate: float) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.norm, self.qkv, self.proj = nn.LayerNorm(dim), nn.Linear(dim, 3 * dim), nn.Linear(dim, dim)
        self.mlp = _mlp(dim)
        self.drop_path = DropPath(drop_path_rate)

    def forward(self, x: Tensor) -> Tensor:
        query, key, value = self.qkv(self.norm(x)).chunk(3, dim=-1)
        x = x + self.drop_path(self.proj(attend(query, key, value, num_heads=self.num_heads)))
        return x + self.drop_path(self.mlp(x))


class SquaredReLU(nn.Module):
    """The square of what is above zero (So et al. 2021, arXiv:2109.08668)."""

    def forward(self, x: Tensor) -> Tensor:
        above = x.relu()
        return above * above


def _mlp(dim: int) -> nn.Sequential:
    hidden = WIDENING * dim
    return nn.Sequential(nn.LayerNorm(dim), nn.Linear(dim, hidden), SquaredReLU(), nn.Linear(hidden, dim))


def _drop_path_rates(deepest: float, depths: tuple[int, ...]) -> list[list[float]]:
    """One rate per self-attention layer of each block, growing linearly from 0 to `deepest`."""
    steps = max(sum(depths) - 1, 1)
    firsts = [sum(depths[:i]) for i in range(len(depths))]
    return [
        [deepest * (first + i) / steps for i in range(depth)]
        for first, depth in zip(firsts, depths, strict=True)
    ]


def _check_groups(config: ZorroConfig, hip: HipConfig) -> None:
    """Later blocks need no check: `HipConfig` makes their groups unions of earlier ones."""
    for name, grid in (("audio", config.audio_grid), ("video", config.video_grid)):
        if prod(grid) % hip.num_groups[0]:
            raise ValueError(
                f"got {prod(grid)} {name} tokens, wanted a multiple of num_groups[0]={hip.num_groups[0]}; "
                f"change num_groups, {name}_shape or its patch"
            )
