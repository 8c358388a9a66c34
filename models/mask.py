"""The Zorro mask: which stream may read which. The only masking logic there is.

Audio reads audio, video reads video, fusion reads everything; nobody else reads fusion.
Recasens et al. 2023, arXiv:2301.09595.

The model never builds the N x N mask: it asks `READS` which keys a stream attends to and attends to just
    those, in one mask-free call per stream. So an audio output cannot have seen the picture: no operation
    connects them. `zorro_mask` is the same rule as a truth table, for the tests and for reading.
"""

from enum import IntEnum, StrEnum
from typing import assert_never

import torch
from jaxtyping import Bool, Int
from torch import Tensor


class Stream(IntEnum):
    """What a token, or an output query, belongs to. GLOBAL is an output query only: it reads all and is never read."""

    AUDIO = 0
    VIDEO = 1
    FUSION = 2
    GLOBAL = 3

    @property
    def key(self) -> str:
        """Name in outputs and weights; `global` is a word of Python and cannot be one."""
        return "overall" if self == Stream.GLOBAL else self.name.lower()


READS: dict[Stream, tuple[Stream, ...]] = {
    Stream.AUDIO: (Stream.AUDIO,),
    Stream.VIDEO: (Stream.VIDEO,),
    Stream.FUSION: (Stream.AUDIO, Stream.VIDEO, Stream.FUSION),
}
"""In the trunk: the streams whose tokens a stream's tokens read."""

POOLS: dict[Stream, tuple[Stream, ...]] = {
    Stream.AUDIO: (Stream.AUDIO,),
    Stream.VIDEO: (Stream.VIDEO,),
    Stream.FUSION: (Stream.FUSION,),
    Stream.GLOBAL: (Stream.AUDIO, Stream.VIDEO, Stream.FUSION),
}
"""At the outputs: the streams whose tokens an output query reads."""


class Masking(StrEnum):
    """Zorro's rule, and the three that the paper compares it with, in which audio and video do not stay pure."""

    ZORRO = "zorro"
    NONE = "none"  # everybody reads everybody: fusion at the input
    BOTTLENECK = "bottleneck"  # audio and video meet in fusion tokens, which they read (Nagrani et al. 2021)
    INDEPENDENT = "independent"  # nobody reads another until the outputs: pure, and fused last

    @property
    def leaks(self) -> bool:
        """Whether audio or video reads what another stream has read."""
        return any(set(reads_of(self)[stream]) != {stream} for stream in (Stream.AUDIO, Stream.VIDEO))


_EVERYTHING = (Stream.AUDIO, Stream.VIDEO, Stream.FUSION)


def reads_of(masking: Masking) -> dict[Stream, tuple[Stream, ...]]:
    """`READS`, or what stands in its place under another masking."""
    match masking:
        case Masking.ZORRO:
            return READS
        case Masking.NONE:
            return dict.fromkeys(READS, _EVERYTHING)
        case Masking.BOTTLENECK:
            return {
                stream: _EVERYTHING if stream == Stream.FUSION else (stream, Stream.FUSION)
                for stream in READS
            }
        case Masking.INDEPENDENT:
            return {stream: (stream,) for stream in READS}
        case _:
            assert_never(masking)


def pools_of(masking: Masking) -> dict[Stream, tuple[Stream, ...]]:
    """`POOLS`; where streams are independent, the fusion output reads sound and picture, which nobody has joined."""
    return POOLS | {Stream.FUSION: _EVERYTHING} if masking == Masking.INDEPENDENT else POOLS


def zorro_mask(stream_of_token: Int[Tensor, " tokens"]) -> Bool[Tensor, "query key"]:
    """True where the query (row) may read the key (column), in every layer of the trunk."""
    query, key = stream_of_token[:, None], stream_of_token[None, :]
    allowed = torch.zeros(len(stream_of_token), len(stream_of_token), dtype=torch.bool)
    for reader, read in READS.items():
        for stream in read:
            is_reader, is_read = query == reader, key == stream
            allowed |= is_reader & is_read
    return allowed
