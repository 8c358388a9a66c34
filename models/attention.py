"""Scaled dot-product attention over heads, and which audio and video items fusion rows read.

Audio and video tokens never depend on fusion tokens, so one audio item is computed once and may be read by
any number of fusion rows. A `Pairing` says which items each row reads. A modality that a row lacks has index
-1, and its keys are masked. That is the only mask at run time, and it concerns fusion rows alone.
"""

from dataclasses import dataclass
from typing import Self

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor

from .mask import Stream

# B batch, N query tokens, M key tokens, H heads, K head_dim, D = H * K embed_dim

Tokens = dict[Stream, Tensor]
"""Tokens of each stream, [items, tokens, embed_dim]: audio and video by item, fusion by row of the batch."""


def attend(
    q_BND: Tensor, k_BMD: Tensor, v_BMD: Tensor, *, num_heads: int, key_mask_BM: Tensor | None = None
) -> Tensor:
    """Softmax attention of every query to every key, [batch, queries, embed_dim].

    `key_mask_BM` is True where a key exists; without it, all do.
    """
    q, k, v = (_split_heads(x, num_heads) for x in (q_BND, k_BMD, v_BMD))
    mask = None if key_mask_BM is None else key_mask_BM[:, None, None, :]
    # Written out in a graph, where the exporter would guard the fused call against NaN with nodes that are
    # not needed, and for gradients on a CPU, where the fused call's backward pass takes two to four times as
    # long (bfloat16, 80 tokens).
    if torch.compiler.is_exporting() or (q.requires_grad and q.device.type == "cpu"):
        assert mask is None or not torch.compiler.is_exporting(), (
            "a graph has all its inputs: nothing to mask"
        )
        scores = (q * q.shape[-1] ** -0.5) @ k.transpose(-2, -1)
        scores = scores if mask is None else scores.masked_fill(~mask, -torch.inf)
        read: Tensor = scores.softmax(dim=-1) @ v
    else:
        read = F.scaled_dot_product_attention(q, k, v, attn_mask=mask)
    return read.transpose(1, 2).reshape(-1, q_BND.shape[1], q_BND.shape[2])


def _split_heads(x_BND: Tensor, num_heads: int) -> Tensor:
    """To [batch, heads, tokens, head_dim].

    The batch is written -1, so that an exported graph does not read its size from an input: to read it from
    the audio for the video tokens would be a path between the streams.
    """
    N, D = x_BND.shape[1:]
    return x_BND.reshape(-1, N, num_heads, D // num_heads).transpose(1, 2)


@dataclass(frozen=True, slots=True)
class Pairing:
    """Which items fusion rows read: row i reads audio item `audio_index[i]`, video item `video_index[i]`.

    -1 means that the row lacks the modality. There may be fewer or more items than rows.
    """

    audio_index: Int[Tensor, " row"]
    video_index: Int[Tensor, " row"]

    @classmethod
    def of_rows(cls, has_audio: Bool[Tensor, " row"], has_video: Bool[Tensor, " row"]) -> Self:
        """Item j of a modality belongs to the j-th of the rows that have the modality, and to no other."""
        return cls(*(torch.where(has, has.cumsum(0) - 1, -1) for has in (has_audio, has_video)))

    def index(self, stream: Stream) -> Tensor | None:
        """Index of the item of `stream` that each row reads; None for fusion, whose tokens every row has."""
        return {Stream.AUDIO: self.audio_index, Stream.VIDEO: self.video_index}.get(stream)


def join_streams(
    tokens: dict[Stream, Float[Tensor, "item token dim"]],
    streams: tuple[Stream, ...],
    pairing: Pairing | None,
) -> tuple[Float[Tensor, "row key dim"], Bool[Tensor, "row key"] | None]:
    """Tokens of the given streams side by side, those of each fusion row in one row of the result.

    Returns:
        The tokens, and a mask that is False at tokens of a modality that the row lacks. Without a pairing,
        item i belongs to row i and there is no mask.
    """
    parts = {stream: tokens[stream] for stream in streams if stream in tokens}
    if pairing is None:
        return torch.cat(list(parts.values()), dim=1), None
    rows, masks = [], []
    for stream, part in parts.items():
        index = pairing.index(stream)
        exists = torch.ones(len(part), dtype=torch.bool) if index is None else index >= 0
        rows.append(part if index is None else part.index_select(0, index.clamp(min=0)))
        masks.append(exists.to(part.device)[:, None].expand(-1, part.shape[1]))
    return torch.cat(rows, dim=1), torch.cat(masks, dim=1)
