"""From tokens to outputs: a learned query per stream, then features, embedding and logits."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from .attention import Pairing, Tokens, attend, join_streams
from .config import ZorroConfig
from .mask import Stream, pool_reads_under


@dataclass(frozen=True, slots=True)
class StreamOutput:
    """Output of one stream. Rows that lack the modality are zeros, and `present` is False there."""

    features: Float[Tensor, "batch features_dim"]
    """Backbone features, before the heads."""
    embedding: Float[Tensor, "batch projection_dim"]
    """L2-normalised, in the space that audio, video and fusion share."""
    logits: Float[Tensor, "batch classes"]
    """Unnormalised class scores."""
    present: Bool[Tensor, " batch"]
    """Which rows have the modality."""


class AttentionPool(nn.Module):
    """Cross-attention of one learned query per stream to the tokens that `mask` lets it read.

    The streams share all weights but the queries.
    """

    __call__: Callable[..., Tensor]

    def __init__(self, config: ZorroConfig) -> None:
        super().__init__()
        dim = config.features_dim
        self.num_heads = config.num_pool_heads
        self.reads = pool_reads_under(config.masking)
        self.queries = nn.Parameter(nn.init.trunc_normal_(torch.empty(len(Stream), dim)))
        self.q, self.kv, self.proj = nn.Linear(dim, dim), nn.Linear(dim, 2 * dim), nn.Linear(dim, dim)
        self.norm = nn.LayerNorm(dim)

    def forward(
        self, stream: Stream, tokens: Tokens, pairing: Pairing | None
    ) -> Float[Tensor, "batch features_dim"]:
        reads = self.reads[stream]
        # A stream that is read alone stays as it is, by item or by row; several are brought to rows.
        keys, mask = join_streams(tokens, reads, pairing if len(reads) > 1 else None)
        key, value = self.kv(keys).chunk(2, dim=-1)
        query = self.q(self.queries[stream.value])[None, None]  # one for all rows
        read = attend(query, key, value, num_heads=self.num_heads, key_mask_BM=mask)
        features: Tensor = self.norm(self.proj(read)[:, 0])
        return features


class StreamHead(nn.Module):
    """Linear classifier and contrastive projection of one stream.

    Where stems have classifiers of their own (`stems`), this one adds to their logits, and starts at zero.
    """

    __call__: Callable[..., StreamOutput]

    def __init__(self, config: ZorroConfig) -> None:
        super().__init__()
        self.adds_to_stems = config.has_stem_classifiers
        self.classify = nn.Linear(config.features_dim, config.num_classes)
        self.project = nn.Linear(config.features_dim, config.projection_dim)

    def forward(
        self, features: Float[Tensor, "batch features_dim"], base: Tensor | None = None
    ) -> StreamOutput:
        """`base` is where the logits begin, [batch, classes] or [classes]; None: at zero."""
        present = torch.ones(features.shape[0], dtype=torch.bool, device=features.device)
        projected = self.project(features)
        # Not F.normalize, which reads the size of the batch in a graph.
        embedding = projected / projected.norm(dim=-1, keepdim=True).clamp(min=1e-12)
        logits = self.classify(features)
        return StreamOutput(features, embedding, logits if base is None else base + logits, present)
