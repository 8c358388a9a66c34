"""Zorro-ViT's trunk: transformer blocks whose weights audio, video and fusion tokens share.

Dosovitskiy et al. 2021, arXiv:2010.11929.
"""

from typing import ClassVar

from torch import Tensor, nn

from .attention import Pairing, Tokens, attend, join_streams
from .config import ZorroConfig
from .layers import DropPath, Trunk, gelu_mlp
from .mask import Stream, reads_under


class VitTrunk(Trunk):
    """`config.depth` pre-norm blocks and a last norm."""

    separable: ClassVar[bool] = False

    def __init__(self, config: ZorroConfig) -> None:
        super().__init__()
        deepest = max(config.depth - 1, 1)
        rates = [config.drop_path_rate * i / deepest for i in range(config.depth)]
        self.blocks = nn.ModuleList(VitBlock(config, drop_path_rate=rate) for rate in rates)
        self.norm = nn.LayerNorm(config.embed_dim)

    def forward(self, tokens: Tokens, pairing: Pairing | None) -> Tokens:
        for block in self.blocks:
            tokens = block(tokens, pairing)
        return {stream: self.norm(x) for stream, x in tokens.items()}


class VitBlock(nn.Module):
    """Self-attention by the rule of `mask`, then an MLP.

    Each stream has a call of its own, so its shapes, and the bits of its result, do not depend on the others.
    """

    def __init__(self, config: ZorroConfig, *, drop_path_rate: float) -> None:
        super().__init__()
        dim = config.embed_dim
        self.num_heads = config.num_heads
        self.reads = reads_under(config.masking)
        self.norm1, self.norm2 = nn.LayerNorm(dim), nn.LayerNorm(dim)
        self.qkv, self.proj = nn.Linear(dim, 3 * dim), nn.Linear(dim, dim)
        self.mlp = gelu_mlp(dim, config.mlp_ratio)
        self.drop_path = DropPath(drop_path_rate)

    def forward(self, tokens: Tokens, pairing: Pairing | None) -> Tokens:
        queries, keys, values = self._project(tokens)
        out: Tokens = {}
        for stream, x in tokens.items():
            # Only fusion rows may read items of another number; audio and video items read themselves.
            rows = pairing if stream == Stream.FUSION else None
            key, mask = join_streams(keys, self.reads[stream], rows)
            value, _ = join_streams(values, self.reads[stream], rows)
            read = attend(queries[stream], key, value, num_heads=self.num_heads, key_mask_BM=mask)
            x = x + self.drop_path(self.proj(read))
            out[stream] = x + self.drop_path(self.mlp(self.norm2(x)))
        return out

    def _project(self, tokens: Tokens) -> tuple[Tokens, Tokens, Tokens]:
        projected: dict[Stream, tuple[Tensor, ...]] = {
            stream: self.qkv(self.norm1(x)).chunk(3, dim=-1) for stream, x in tokens.items()
        }
        queries, keys, values = ({s: parts[i] for s, parts in projected.items()} for i in range(3))
        return queries, keys, values
