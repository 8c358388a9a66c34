"""Zorro-Swin's trunk: a tower of windowed attention per modality, and fusion tokens that read both.

The tokens of a tower lie on a grid, (time, frequency) or (time, height, width). They attend within windows,
which every second block shifts by half a window. Between stages neighbouring tokens merge: the grid shrinks
and the width grows. Fusion tokens read both towers in each stage. Everything is written for grids of any
number of axes.

Liu et al. 2021, arXiv:2103.14030; on video Liu et al. 2022, arXiv:2106.13230.
"""

from itertools import pairwise
from math import prod
from typing import ClassVar

import torch
from jaxtyping import Float, Int, Shaped
from torch import Tensor, nn

from .attention import Pairing, Tokens, attend, join_streams
from .config import ZorroConfig
from .layers import DropPath, FusionStep, Trunk, TrunkStage, gelu_mlp, run_stages
from .mask import READS, Stream

Sizes = tuple[int, ...]
"""Tokens along each axis of a grid, a window or a shift."""

MASKED_SCORE = -100.0
"""Added to the score of a pair that must not attend, as in Swin: its softmax is then zero in float32."""

# B items, which are written -1 (see `attention`), N tokens, C width, W windows, T tokens of a window,
# H heads, K head_dim


class SwinTrunk(Trunk):
    """One `TrunkStage` per entry of `config.swin.depths`, and a last norm per stream.

    Raises:
        ValueError: a window does not divide its grid, or a side to be halved is odd.
    """

    separable: ClassVar[bool] = True

    def __init__(self, config: ZorroConfig) -> None:
        super().__init__()
        swin = config.swin
        assert swin is not None
        audio = plan_stages("audio", config.audio_grid, swin.audio_window, len(swin.depths))
        video = plan_stages("video", config.video_grid, swin.video_window, len(swin.depths))
        last = max(sum(swin.depths) - 1, 1)
        firsts = [sum(swin.depths[:i]) for i in range(len(swin.depths) + 1)]
        self.stages = nn.ModuleList()
        for i, blocks in enumerate(pairwise(firsts)):
            rates = [config.drop_path_rate * block / last for block in range(*blocks)]
            stage = TrunkStage(
                audio=TowerStage(config, i, *audio[i], rates),
                video=TowerStage(config, i, *video[i], rates),
                fusion=SwinFusionBlock(config, i, rates[-1]),
            )
            self.stages.append(stage)
        self.norms = nn.ModuleDict({stream.key: nn.LayerNorm(config.features_dim) for stream in READS})

    def forward(self, tokens: Tokens, pairing: Pairing | None) -> Tokens:
        return run_stages(self.stages, self.norms, tokens, pairing)


def plan_stages(name: str, grid: Sizes, window: Sizes, num_stages: int) -> list[tuple[Sizes, Sizes]]:
    """Grid and window of every stage.

    Merging halves the last two axes of the grid. A window that is larger than its grid is cut to it.

    Raises:
        ValueError: a window does not divide its grid, or a side to be halved is odd.
    """
    change = f"change swin.{name}_window, swin.depths, {name}_shape or its patch"
    plan: list[tuple[Sizes, Sizes]] = []
    for i in range(num_stages):
        if i:
            if grid[-2] % 2 or grid[-1] % 2:
                raise ValueError(
                    f"got {grid} {name} tokens to merge before stage {i}, "
                    f"wanted even last two sides; {change}"
                )
            grid = (*grid[:-2], grid[-2] // 2, grid[-1] // 2)
        cut = tuple(min(size, step) for size, step in zip(grid, window, strict=True))
        if any(step < 1 or size % step for size, step in zip(grid, cut, strict=True)):
            raise ValueError(
                f"got {grid} {name} tokens in stage {i}, wanted multiples of the window {cut}; {change}"
            )
        plan.append((grid, cut))
    return plan


class TowerStage(nn.Module):
    """Patch merging, except in the first stage, then blocks whose windows are shifted in every second one."""

    def __init__(
        self, config: ZorroConfig, index: int, grid: Sizes, window: Sizes, drop_path_rates: list[float]
    ) -> None:
        super().__init__()
        dim, num_heads = config.embed_dim << index, config.num_heads << index
        self.merge = PatchMerging(grid, dim) if index else nn.Identity()
        half = tuple(step // 2 if step < size else 0 for size, step in zip(grid, window, strict=True))
        self.blocks = nn.ModuleList()
        for i, rate in enumerate(drop_path_rates):
            attention = WindowAttention(dim, num_heads, grid, window, half if i % 2 else (0,) * len(grid))
            self.blocks.append(WindowBlock(attention, dim, mlp_ratio=config.mlp_ratio, drop_path_rate=rate))

    def forward(self, x_BNC: Tensor) -> Tensor:
        x: Tensor = self.merge(x_BNC)
        for block in self.blocks:
            x = block(x)
        return x


class PatchMerging(nn.Module):
    """Merge four neighbours on the last two axes into one token of twice the width.

    `grid` and `dim` are those after the merging.
    """

    def __init__(self, grid: Sizes, dim: int) -> None:
        super().__init__()
        self.neighbours = (*(1 for _ in grid[:-2]), 2, 2)
        self.grid = tuple(size * step for size, step in zip(grid, self.neighbours, strict=True))
        self.norm, self.reduction = nn.LayerNorm(2 * dim), nn.Linear(2 * dim, dim, bias=False)

    def forward(self, x_BNC: Tensor) -> Tensor:
        N, C = x_BNC.shape[1:]
        four = split_windows(x_BNC, self.grid, self.neighbours).reshape(-1, N // 4, 4 * C)
        merged: Tensor = self.reduction(self.norm(four))
        return merged


class WindowBlock(nn.Module):
    """Pre-norm attention within windows, then an MLP; stochastic depth drops either per item."""

    def __init__(
        self, attention: "WindowAttention", dim: int, *, mlp_ratio: float, drop_path_rate: float
    ) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(dim), nn.LayerNorm(dim)
        self.attention, self.mlp = attention, gelu_mlp(dim, mlp_ratio)
        self.drop_path = DropPath(drop_path_rate)

    def forward(self, x_BNC: Tensor) -> Tensor:
        x = x_BNC + self.drop_path(self.attention(self.norm1(x_BNC)))
        return x + self.drop_path(self.mlp(self.norm2(x)))


class WindowAttention(nn.Module):
    """Self-attention of the tokens of each window, with a learned bias per head and relative position.

    Shifted windows are windows of the rolled grid. Those at its end then hold tokens of both borders, which a
    mask keeps apart, so all windows have one size.
    """

    positions: Tensor
    mask_W1TT: Tensor | None

    def __init__(self, dim: int, num_heads: int, grid: Sizes, window: Sizes, shift: Sizes) -> None:
        super().__init__()
        self.num_heads, self.grid, self.window, self.shift = num_heads, grid, window, shift
        self.qkv, self.proj = nn.Linear(dim, 3 * dim), nn.Linear(dim, dim)
        pos_bias = torch.empty(num_heads, prod(2 * size - 1 for size in window))
        self.pos_bias = nn.Parameter(nn.init.trunc_normal_(pos_bias, std=0.02))
        self.register_buffer("positions", relative_positions(window).flatten(), persistent=False)
        self.register_buffer(
            "mask_W1TT", shift_mask(grid, window, shift) if any(shift) else None, persistent=False
        )

    def forward(self, x_BNC: Tensor) -> Tensor:
        x_BWTC = split_windows(
            roll(x_BNC, self.grid, tuple(-step for step in self.shift)), self.grid, self.window
        )
        W, T, C = x_BWTC.shape[1:]
        qkv: tuple[Tensor, ...] = self.qkv(x_BWTC).chunk(3, dim=-1)
        heads = (part.reshape(-1, W, T, self.num_heads, C // self.num_heads) for part in qkv)
        q, k, v = (part.transpose(2, 3) for part in heads)  # -> BWHTK
        bias_HTT = self.pos_bias.index_select(1, self.positions).reshape(self.num_heads, T, T)
        scores = (q * q.shape[-1] ** -0.5) @ k.transpose(-2, -1) + bias_HTT
        # Two sums, not one of bias and mask: a runtime would fold that into a constant of W times H matrices.
        scores = scores if self.mask_W1TT is None else scores + self.mask_W1TT
        read = (scores.softmax(dim=-1) @ v).transpose(2, 3).reshape(-1, W, T, C)
        return roll(join_windows(self.proj(read), self.grid, self.window), self.grid, self.shift)


class SwinFusionBlock(FusionStep):
    """Fusion tokens read themselves and both towers, with keys and values of each, then an MLP."""

    def __init__(self, config: ZorroConfig, index: int, drop_path_rate: float) -> None:
        super().__init__()
        dim, self.num_heads = config.features_dim, config.num_pool_heads
        tower = config.embed_dim << index
        widths = {Stream.AUDIO.key: tower, Stream.VIDEO.key: tower, Stream.FUSION.key: dim}
        self.norms = nn.ModuleDict({key: nn.LayerNorm(width) for key, width in widths.items()})
        self.kv = nn.ModuleDict({key: nn.Linear(width, 2 * dim) for key, width in widths.items()})
        self.query, self.proj = nn.Linear(dim, dim), nn.Linear(dim, dim)
        self.norm_mlp, self.mlp = nn.LayerNorm(dim), gelu_mlp(dim, config.mlp_ratio)
        self.drop_path = DropPath(drop_path_rate)

    def forward(self, fusion: Tensor, towers: Tokens, pairing: Pairing | None) -> Tensor:
        normed = {
            stream: self.norms[stream.key](x) for stream, x in (towers | {Stream.FUSION: fusion}).items()
        }
        keys_values = {stream: self.kv[stream.key](x) for stream, x in normed.items()}
        kv, mask = join_streams(keys_values, READS[Stream.FUSION], pairing)
        key, value = kv.chunk(2, dim=-1)
        query = self.query(normed[Stream.FUSION])
        read = attend(query, key, value, num_heads=self.num_heads, key_mask_BM=mask)
        x = fusion + self.drop_path(self.proj(read))
        return x + self.drop_path(self.mlp(self.norm_mlp(x)))


def split_windows(
    x_BNC: Shaped[Tensor, "item token dim"], grid: Sizes, window: Sizes
) -> Shaped[Tensor, "item window token_of_window dim"]:
    """Tokens of a grid by window; windows, and the tokens in each, are in row-major order."""
    axes = len(grid)
    counts = tuple(size // step for size, step in zip(grid, window, strict=True))
    sides = [side for pair in zip(counts, window, strict=True) for side in pair]
    x = x_BNC.reshape(-1, *sides, x_BNC.shape[2])
    x = x.permute(0, *range(1, 2 * axes, 2), *range(2, 2 * axes + 1, 2), 2 * axes + 1)
    return x.reshape(-1, prod(counts), prod(window), x_BNC.shape[2])


def join_windows(
    x_BWTC: Float[Tensor, "item window token_of_window dim"], grid: Sizes, window: Sizes
) -> Float[Tensor, "item token dim"]:
    """The inverse of `split_windows`."""
    axes = len(grid)
    counts = tuple(size // step for size, step in zip(grid, window, strict=True))
    x = x_BWTC.reshape(-1, *counts, *window, x_BWTC.shape[3])
    x = x.permute(0, *(axis for i in range(1, axes + 1) for axis in (i, axes + i)), 2 * axes + 1)
    return x.reshape(-1, prod(grid), x_BWTC.shape[3])


def roll(
    x_BNC: Float[Tensor, "item token dim"], grid: Sizes, shift: Sizes
) -> Float[Tensor, "item token dim"]:
    """The grid moved by `shift`; what leaves it at one border enters at the other."""
    axes = {axis: step for axis, step in enumerate(shift, start=1) if step}
    if not axes:
        return x_BNC
    rolled = x_BNC.reshape(-1, *grid, x_BNC.shape[2]).roll(tuple(axes.values()), tuple(axes))
    return rolled.reshape(-1, *x_BNC.shape[1:])


def relative_positions(window: Sizes) -> Int[Tensor, "query key"]:
    """Index of the offset from key to query, one of the prod(2 * window - 1) offsets within a window."""
    places = torch.cartesian_prod(*map(torch.arange, window)).reshape(prod(window), len(window))
    offsets = places[:, None] - places[None, :]
    number = torch.zeros_like(offsets[..., 0])
    for axis, size in enumerate(window):
        number = number * (2 * size - 1) + offsets[..., axis] + size - 1
    return number


def shift_mask(grid: Sizes, window: Sizes, shift: Sizes) -> Float[Tensor, "window 1 query key"]:
    """What keeps tokens of a shifted window apart that were no neighbours before the grid was rolled.

    It is `MASKED_SCORE` for pairs of which one token was rolled in from the other border, and 0 elsewhere.
    """
    rolled_in = [torch.arange(size) >= size - step for size, step in zip(grid, shift, strict=True)]
    sides = torch.stack(torch.meshgrid(*rolled_in, indexing="ij"), dim=-1).reshape(1, prod(grid), len(grid))
    sides_WTA = split_windows(sides, grid, window)[0]
    is_apart = (sides_WTA[:, :, None] != sides_WTA[:, None, :]).any(dim=-1)
    return is_apart[:, None] * MASKED_SCORE
