"""The Zorro masking rule: which stream may read which. Nothing else in the project decides this.

    audio  reads audio
    video  reads video
    fusion reads audio, video and fusion

Why an audio output cannot depend on the video: the paper puts all tokens into one sequence and adds a mask to
its attention scores. This model builds no mask. Each stream has an attention call of its own, and the keys of
that call are the tokens of the streams that `READS` lists. Audio lists only itself, and fusion tokens, which
have read the video, are listed by nobody else. So no operation leads from the video to an audio output, and
audio outputs are equal to the last bit whatever the video is. The same holds with audio and video exchanged.

`zorro_mask` states the rule as the paper's mask, for tests and for readers.
Recasens et al. 2023, arXiv:2301.09595.
"""

from enum import IntEnum, StrEnum
from typing import assert_never

import torch
from jaxtyping import Bool, Int
from torch import Tensor


class Stream(IntEnum):
    """The stream a token or an output query belongs to.

    GLOBAL has an output query but no tokens: it reads all streams and is read by none.
    """

    AUDIO = 0
    VIDEO = 1
    FUSION = 2
    GLOBAL = 3

    @property
    def key(self) -> str:
        """Name in outputs and weights; GLOBAL is `overall`, because `global` is a keyword of Python."""
        return "overall" if self == Stream.GLOBAL else self.name.lower()


StreamReads = dict[Stream, tuple[Stream, ...]]
"""Each stream, and the streams whose tokens it reads."""

TOKEN_STREAMS = (Stream.AUDIO, Stream.VIDEO, Stream.FUSION)
"""The streams that have tokens."""

READS: StreamReads = {
    Stream.AUDIO: (Stream.AUDIO,),
    Stream.VIDEO: (Stream.VIDEO,),
    Stream.FUSION: TOKEN_STREAMS,
}
"""In the trunk: the streams whose tokens the tokens of a stream read."""

POOL_READS: StreamReads = {
    Stream.AUDIO: (Stream.AUDIO,),
    Stream.VIDEO: (Stream.VIDEO,),
    Stream.FUSION: (Stream.FUSION,),
    Stream.GLOBAL: TOKEN_STREAMS,
}
"""At the outputs: the streams whose tokens the output query of a stream reads."""


class Masking(StrEnum):
    """Zorro's rule, and the three alternatives that the paper compares it with."""

    ZORRO = "zorro"
    NONE = "none"  # every stream reads every stream: fusion from the input on
    BOTTLENECK = "bottleneck"  # audio and video read fusion tokens besides their own (Nagrani et al. 2021)
    INDEPENDENT = "independent"  # each stream reads itself until the outputs: fusion at the end

    @property
    def leaks(self) -> bool:
        """Whether audio or video tokens read another stream, so that their outputs are not pure."""
        reads = reads_under(self)
        return any(set(reads[stream]) != {stream} for stream in (Stream.AUDIO, Stream.VIDEO))


def reads_under(masking: Masking) -> StreamReads:
    """What the tokens of each stream read in the trunk; `READS` under Zorro's rule."""
    match masking:
        case Masking.ZORRO:
            return READS
        case Masking.NONE:
            return dict.fromkeys(READS, TOKEN_STREAMS)
        case Masking.BOTTLENECK:
            return {
                Stream.AUDIO: (Stream.AUDIO, Stream.FUSION),
                Stream.VIDEO: (Stream.VIDEO, Stream.FUSION),
                Stream.FUSION: TOKEN_STREAMS,
            }
        case Masking.INDEPENDENT:
            return {stream: (stream,) for stream in READS}
        case _:
            assert_never(masking)


def pool_reads_under(masking: Masking) -> StreamReads:
    """What the output query of each stream reads; `POOL_READS`, except under INDEPENDENT.

    There the fusion tokens have read neither audio nor video, so the fusion output reads both itself.
    """
    if masking == Masking.INDEPENDENT:
        return POOL_READS | {Stream.FUSION: TOKEN_STREAMS}
    return POOL_READS


def zorro_mask(stream_of_token: Int[Tensor, " tokens"]) -> Bool[Tensor, "query key"]:
    """The rule as a mask: True where, in all layers, the query (row) may read the key (column)."""
    query, key = stream_of_token[:, None], stream_of_token[None, :]
    allowed = torch.zeros(len(stream_of_token), len(stream_of_token), dtype=torch.bool)
    for reader, read in READS.items():
        for stream in read:
            is_reader, is_read = query == reader, key == stream
            allowed |= is_reader & is_read
    return allowed
