"""Zorro-ViT's trunk: one set of transformer weights, run over the three streams in mask-free attention calls."""

from typing import ClassVar

import torch
from torch import Tensor, nn

from .attention import Pairing, attend, gather_rows
from .config import ZorroConfig
from .mask import Stream, reads_of

Tokens = dict[Stream, Tensor]
"""Stream to tokens: audio and video per item, fusion per row, each [items, tokens, embed_dim]."""


class VitTrunk(nn.Module):
    """`depth` pre-norm transformer blocks (Dosovitskiy et al. 2021), shared by audio, video and fusion tokens."""

    separable: ClassVar[bool] = False

    def __init__(self, config: ZorroConfig) -> None:
        super().__init__()
        deepest = max(config.depth - 1, 1)
        rates = [config.drop_path_rate * i / deepest for i in range(config.depth)]
        self.blocks = nn.ModuleList(Block(config, drop_path_rate=rate) for rate in rates)
        self.norm = nn.LayerNorm(config.embed_dim)

    def forward(self, tokens: Tokens, pairing: Pairing | None) -> Tokens:
        for block in self.blocks:
            tokens = block(tokens, pairing)
        return {stream: self.norm(x) for stream, x in tokens.items()}


class Block(nn.Module):
    """Self-attention by the rule of `mask`, then an MLP; each stream is a separate call, so shapes and bits stay its own."""

    def __init__(self, config: ZorroConfig, *, drop_path_rate: float) -> None:
        super().__init__()
        dim, hidden = config.embed_dim, int(config.embed_dim * config.mlp_ratio)
        self.num_heads = config.num_heads
        self.reads = reads_of(config.masking)
        self.norm1, self.norm2 = nn.LayerNorm(dim), nn.LayerNorm(dim)
        self.qkv, self.proj = nn.Linear(dim, 3 * dim), nn.Linear(dim, dim)
        self.mlp = nn.Sequential(nn.Linear(dim, hidden), nn.GELU(), nn.Linear(hidden, dim))
        self.drop_path = DropPath(drop_path_rate)

    def forward(self, tokens: Tokens, pairing: Pairing | None) -> Tokens:
        queries, keys, values = self._project(tokens)
        out = {}
        for stream, x in tokens.items():
            # Fusion rows differ from items only in a mixed batch; audio and video read themselves alone.
            rows = pairing if stream == Stream.FUSION else None
            key, mask = gather_rows(keys, self.reads[stream], rows)
            value, _ = gather_rows(values, self.reads[stream], rows)
            read = attend(queries[stream], key, value, num_heads=self.num_heads, key_mask_BM=mask)
            x = x + self.drop_path(self.proj(read))
            out[stream] = x + self.drop_path(self.mlp(self.norm2(x)))
        return out

    def _project(self, tokens: Tokens) -> tuple[Tokens, Tokens, Tokens]:
        projected = {stream: self.qkv(self.norm1(x)).chunk(3, dim=-1) for stream, x in tokens.items()}
        queries, keys, values = ({s: parts[i] for s, parts in projected.items()} for i in range(3))
        return queries, keys, values


class DropPath(nn.Module):
    """Stochastic depth per item in training (Huang et al. 2016): the branch is dropped or scaled to keep its mean."""

    def __init__(self, rate: float) -> None:
        super().__init__()
        self.rate = rate

    def forward(self, branch: Tensor) -> Tensor:
        if not self.training or self.rate == 0:
            return branch
        keep = torch.rand(len(branch), 1, 1, device=branch.device) >= self.rate
        return branch * keep / (1 - self.rate)
