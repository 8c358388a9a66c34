"""The truth table, and the direction in which it is read."""

import torch

from models.mask import POOL_READS, READS, Stream, zorro_mask


def test_truth_table() -> None:
    allowed = zorro_mask(torch.tensor([Stream.AUDIO, Stream.VIDEO, Stream.FUSION]))
    assert allowed.tolist() == [[True, False, False], [False, True, False], [True, True, True]]


def test_rows_are_readers() -> None:
    allowed = zorro_mask(torch.tensor([Stream.AUDIO, Stream.FUSION]))
    assert not allowed[0, 1], "audio must not read fusion"
    assert allowed[1, 0], "fusion reads audio"


def test_nobody_reads_a_global_query() -> None:
    assert all(Stream.GLOBAL not in read for read in (*READS.values(), *POOL_READS.values()))
