"""The masking rule as a truth table, the direction in which it is read, and its alternatives."""

import pytest
import torch

from models.mask import POOL_READS, READS, Masking, Stream, pool_reads_under, reads_under, zorro_mask


def test_truth_table() -> None:
    allowed = zorro_mask(torch.tensor([Stream.AUDIO, Stream.VIDEO, Stream.FUSION]))
    assert allowed.tolist() == [[True, False, False], [False, True, False], [True, True, True]]


def test_rows_are_readers() -> None:
    allowed = zorro_mask(torch.tensor([Stream.AUDIO, Stream.FUSION]))
    assert not allowed[0, 1], "audio must not read fusion"
    assert allowed[1, 0], "fusion reads audio"


def test_nobody_reads_a_global_query() -> None:
    assert all(Stream.GLOBAL not in read for read in (*READS.values(), *POOL_READS.values()))


@pytest.mark.parametrize(
    ("masking", "audio", "video", "fusion", "leaks"),
    [
        (Masking.ZORRO, "a", "v", "avf", False),
        (Masking.NONE, "avf", "avf", "avf", True),
        (Masking.BOTTLENECK, "af", "vf", "avf", True),
        (Masking.INDEPENDENT, "a", "v", "f", False),
    ],
)
def test_what_tokens_read_under_each_masking(
    masking: Masking, audio: str, video: str, fusion: str, leaks: bool
) -> None:
    letters = {Stream.AUDIO: "a", Stream.VIDEO: "v", Stream.FUSION: "f"}
    reads = {stream: "".join(letters[s] for s in read) for stream, read in reads_under(masking).items()}
    assert reads == {Stream.AUDIO: audio, Stream.VIDEO: video, Stream.FUSION: fusion}
    assert masking.leaks == leaks


def test_the_fusion_output_reads_audio_and_video_where_fusion_tokens_do_not() -> None:
    for masking in Masking:
        pools = pool_reads_under(masking)
        assert pools[Stream.FUSION] == (
            (Stream.AUDIO, Stream.VIDEO, Stream.FUSION)
            if masking == Masking.INDEPENDENT
            else (Stream.FUSION,)
        )
        assert {s: r for s, r in pools.items() if s != Stream.FUSION} == {
            s: r for s, r in POOL_READS.items() if s != Stream.FUSION
        }
