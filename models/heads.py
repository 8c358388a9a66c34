"""From tokens to answers: learned output queries, then features, embedding and logits of each stream."""

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from .attention import Pairing, attend, gather_rows
from .config import ZorroConfig
from .mask import Stream, pools_of


@dataclass(frozen=True, slots=True)
class StreamOutput:
    """One stream's answer. Rows whose modality is absent are zeros and `present` is False there."""

    features: Float[Tensor, "batch features_dim"]
    """Backbone features, before the heads."""
    embedding: Float[Tensor, "batch projection_dim"]
    """L2-normalised, in the space that audio, video and fusion share."""
    logits: Float[Tensor, "batch classes"]
    present: Bool[Tensor, " batch"]


class AttentionPool(nn.Module):
    """One learned query per stream reads the tokens that `mask` allows it, by cross-attention with shared weights."""

    def __init__(self, config: ZorroConfig) -> None:
        super().__init__()
        dim = config.features_dim
        self.num_heads = config.num_pool_heads
        self.reads = pools_of(config.masking)
        self.queries = nn.Parameter(nn.init.trunc_normal_(torch.empty(len(Stream), dim)))
        self.q, self.kv, self.proj = nn.Linear(dim, dim), nn.Linear(dim, 2 * dim), nn.Linear(dim, dim)
        self.norm = nn.LayerNorm(dim)

    def forward(
        self, stream: Stream, tokens: dict[Stream, Tensor], pairing: Pairing | None
    ) -> Float[Tensor, "batch features_dim"]:
        reads = self.reads[stream]
        # Fusion tokens have a row each; only where others are read beside them must items be brought to rows.
        keys, mask = gather_rows(tokens, reads, pairing if len(reads) > 1 else None)
        key, value = self.kv(keys).chunk(2, dim=-1)
        query = self.q(self.queries[stream.value])[None, None]  # one for all rows
        read = attend(query, key, value, num_heads=self.num_heads, key_mask_BM=mask)
        return self.norm(self.proj(read)[:, 0])


class StreamHead(nn.Module):
    """Linear classifier and contrastive projection of one stream."""

    def __init__(self, config: ZorroConfig) -> None:
        super().__init__()
        self.classify = nn.Linear(config.features_dim, config.num_classes)
        self.project = nn.Linear(config.features_dim, config.projection_dim)

    def forward(self, features: Float[Tensor, "batch features_dim"]) -> StreamOutput:
        present = torch.ones(features.shape[0], dtype=torch.bool, device=features.device)
        projected = self.project(features)
        # Not F.normalize, which asks for the batch's shape in a graph.
        embedding = projected / projected.norm(dim=-1, keepdim=True).clamp(min=1e-12)
        return StreamOutput(features, embedding, self.classify(features), present)
