"""Scaled dot-product attention over heads, and the pairing of audio and video items that fusion rows read.

Purity has a dividend: unimodal tokens never depend on fusion, so one audio item may serve any number of
    fusion rows. A `Pairing` says which items each row reads; an absent modality is index -1 and its keys are
    masked, which is the only mask at run time and touches fusion rows alone.
"""

from dataclasses import dataclass
from typing import Self

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor

from .mask import Stream

# B batch, N query tokens, M key tokens, H heads, K head_dim, D = H * K embed_dim


def attend(
    q_BND: Tensor, k_BMD: Tensor, v_BMD: Tensor, *, num_heads: int, key_mask_BM: Tensor | None = None
) -> Tensor:
    """Softmax attention of every query to every key; `key_mask_BM` is True where a key exists."""
    q, k, v = (_split_heads(x, num_heads) for x in (q_BND, k_BMD, v_BMD))
    mask = None if key_mask_BM is None else key_mask_BM[:, None, None, :]
    # Written out in a graph, where the exporter would guard the fused call against NaN with nodes nobody
    # needs, and for gradients on a CPU, where the fused call's backward pass takes two to four times as long
    # (bfloat16, 80 tokens).
    if torch.compiler.is_exporting() or (q.requires_grad and q.device.type == "cpu"):
        assert mask is None or not torch.compiler.is_exporting(), (
            "a graph has all its inputs: nothing to mask"
        )
        scores = (q * q.shape[-1] ** -0.5) @ k.transpose(-2, -1)
        scores = scores if mask is None else scores.masked_fill(~mask, -torch.inf)
        out = scores.softmax(dim=-1) @ v
    else:
        out = F.scaled_dot_product_attention(q, k, v, attn_mask=mask)
    return out.transpose(1, 2).reshape(-1, q_BND.shape[1], q_BND.shape[2])


def _split_heads(x_BND: Tensor, num_heads: int) -> Tensor:
    """To [batch, heads, tokens, head_dim].

    The batch is written -1, so that a graph need not ask an input for its shape: that would be a path between
    streams.
    """
    N, D = x_BND.shape[1:]
    return x_BND.reshape(-1, N, num_heads, D // num_heads).transpose(1, 2)


@dataclass(frozen=True, slots=True)
class Pairing:
    """Rows of a mixed batch: row i fuses audio item `audio_index[i]` with video item `video_index[i]`; -1 is absent."""

    audio_index: Int[Tensor, " row"]
    video_index: Int[Tensor, " row"]

    @classmethod
    def of_presence(cls, has_audio: Bool[Tensor, " row"], has_video: Bool[Tensor, " row"]) -> Self:
        """Row i owns the next present item of each modality it has."""
        return cls(*(torch.where(has, has.cumsum(0) - 1, -1) for has in (has_audio, has_video)))

    def index(self, stream: Stream) -> Tensor | None:
        """Items that rows read of `stream`; None for fusion tokens, of which every row has its own."""
        return {Stream.AUDIO: self.audio_index, Stream.VIDEO: self.video_index}.get(stream)


def gather_rows(
    tokens: dict[Stream, Float[Tensor, "item token dim"]],
    streams: tuple[Stream, ...],
    pairing: Pairing | None,
) -> tuple[Float[Tensor, "row key dim"], Bool[Tensor, "row key"] | None]:
    """Tokens of the given streams side by side, one row per fusion row, with a mask where a row lacks a modality."""
    parts = {stream: tokens[stream] for stream in streams if stream in tokens}
    if pairing is None:
        return torch.cat(list(parts.values()), dim=1), None
    rows, masks = [], []
    for stream, part in parts.items():
        index = pairing.index(stream)
        present = torch.ones(len(part), dtype=torch.bool) if index is None else index >= 0
        rows.append(part if index is None else part.index_select(0, index.clamp(min=0)))
        masks.append(present.to(part.device)[:, None].expand(-1, part.shape[1]))
    return torch.cat(rows, dim=1), torch.cat(masks, dim=1)
