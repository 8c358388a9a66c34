"""A Zorro-ViT with a dense mask, as a baseline: one sequence of all tokens under one N x N mask.

It has the weights of a `ZorroModel` and the outputs of its fused graph. In torch the masked attention is the
fused call. In a graph it is written out as softmax(q k + mask) v, like that of `ZorroModel`, so that no guard
against NaN slows it down.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.config import ZorroConfig
from models.mask import POOL_READS, Stream, zorro_mask
from models.vit import VitBlock, VitTrunk
from models.zorro import ZorroModel

# B batch, N tokens, H heads, K head_dim, D = H * K embed_dim
OUTPUTS = (Stream.AUDIO, Stream.VIDEO, Stream.FUSION, Stream.GLOBAL)
NUM_GRAPH_OUTPUTS = 3  # streams that the fused graph outputs; GLOBAL is computed but not output


class DenseZorro(nn.Module):
    """The weights of `model`, run under a dense additive mask."""

    trunk_mask: Tensor
    pool_mask: Tensor

    def __init__(self, model: ZorroModel) -> None:
        super().__init__()
        self.model = model
        pools = [
            torch.isin(stream_of_token(model.config), torch.tensor(POOL_READS[stream])) for stream in OUTPUTS
        ]
        self.register_buffer("trunk_mask", additive_mask(model.config), persistent=False)
        self.register_buffer("pool_mask", _additive(torch.stack(pools)), persistent=False)

    def forward(self, audio: Tensor, video: Tensor) -> tuple[Tensor, ...]:
        model = self.model
        audio_tokens, video_tokens = model.audio_tokens(audio), model.video_tokens(video)
        fusion_tokens = model.fusion_tokens.expand(audio_tokens.shape[0], -1, -1)
        x_BND = torch.cat([audio_tokens, video_tokens, fusion_tokens], dim=1)
        trunk = model.trunk
        assert isinstance(trunk, VitTrunk)
        for block in trunk.blocks:
            assert isinstance(block, VitBlock)
            q, k, v = block.qkv(block.norm1(x_BND)).chunk(3, dim=-1)
            x_BND = x_BND + block.proj(attend_densely(q, k, v, self.trunk_mask, block.num_heads))
            x_BND = x_BND + block.mlp(block.norm2(x_BND))
        return self._outputs(trunk.norm(x_BND))

    def _outputs(self, x_BND: Tensor) -> tuple[Tensor, ...]:
        pool = self.model.pool
        key, value = pool.kv(x_BND).chunk(2, dim=-1)
        query = pool.q(pool.queries)[None]
        features = pool.norm(pool.proj(attend_densely(query, key, value, self.pool_mask, pool.num_heads)))
        heads = [self.model.heads[stream.key](features[:, i]) for i, stream in enumerate(OUTPUTS)]
        return tuple(
            x for out in heads[:NUM_GRAPH_OUTPUTS] for x in (out.features, out.embedding, out.logits)
        )


def num_tokens(config: ZorroConfig) -> dict[Stream, int]:
    """Number of tokens of each stream, in the order of the sequence."""
    return {
        Stream.AUDIO: math.prod(config.audio_grid),
        Stream.VIDEO: math.prod(config.video_grid),
        Stream.FUSION: config.num_fusion_tokens,
    }


def stream_of_token(config: ZorroConfig) -> Tensor:
    """Stream of each token of the sequence."""
    return torch.tensor([stream for stream, count in num_tokens(config).items() for _ in range(count)])


def additive_mask(config: ZorroConfig) -> Tensor:
    """[N, N]: 0 where the query may read the key, minus infinity elsewhere."""
    return _additive(zorro_mask(stream_of_token(config)))


def attend_densely(q_BND: Tensor, k_BND: Tensor, v_BND: Tensor, mask: Tensor, num_heads: int) -> Tensor:
    """Attention of every query to every key under `mask`."""
    q, k, v = (
        x.reshape(-1, x.shape[1], num_heads, x.shape[2] // num_heads).transpose(1, 2)
        for x in (q_BND, k_BND, v_BND)
    )
    if torch.compiler.is_exporting():
        out: Tensor = ((q * q.shape[-1] ** -0.5) @ k.transpose(-2, -1) + mask).softmax(dim=-1) @ v
    else:
        out = F.scaled_dot_product_attention(q.expand(k.shape[0], -1, -1, -1), k, v, attn_mask=mask)
    return out.transpose(1, 2).reshape(-1, q_BND.shape[1], q_BND.shape[2])


def _additive(allowed: Tensor) -> Tensor:
    return torch.zeros(allowed.shape).masked_fill(~allowed, -torch.inf)
