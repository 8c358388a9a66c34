"""Several processes as one run: which rank this process is, and what ranks share or add up.

Processes are started by `torchrun`.
"""

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TypeVar

import torch
import torch.distributed as dist
from torch import nn

IndexT = TypeVar("IndexT")


@dataclass(frozen=True, slots=True, kw_only=True)
class Ranks:
    """This process among those of the run."""

    rank: int
    world_size: int
    device: torch.device


@contextmanager
def started_ranks() -> Iterator[Ranks]:
    """The process group that `torchrun` meant this process for, destroyed at the end.

    Without it, one rank and no group.

    Raises:
        ValueError: torchrun's variables are there in part, or are no such numbers.
    """
    ranks = ranks_from_environment()
    if "RANK" not in os.environ:
        yield ranks
        return
    is_gpu = ranks.device.type == "cuda"
    if is_gpu:
        torch.cuda.set_device(ranks.device)
    dist.init_process_group("nccl" if is_gpu else "gloo", device_id=ranks.device if is_gpu else None)
    try:
        yield ranks
    finally:
        dist.destroy_process_group()


def ranks_from_environment() -> Ranks:
    """Read `RANK`, `WORLD_SIZE` and `LOCAL_RANK`; a GPU per local rank if there are GPUs, else the CPU.

    Raises:
        ValueError: they are there in part, or are no such numbers.
    """
    got = {name: os.environ.get(name) for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK")}
    numbers = [
        int(x) if x and x.isdecimal() else -1
        for x in (got.values() if any(got.values()) else ("0", "1", "0"))
    ]
    rank, world_size, local_rank = numbers
    if not (0 <= rank < world_size and 0 <= local_rank < world_size):
        raise ValueError(
            f"got {got}, wanted 0 <= RANK < WORLD_SIZE and a LOCAL_RANK: start with torchrun, or unset them"
        )
    has_gpu = torch.cuda.is_available()
    return Ranks(
        rank=rank,
        world_size=world_size,
        device=torch.device("cuda", local_rank) if has_gpu else torch.device("cpu"),
    )


def share(indices: Sequence[IndexT], ranks: Ranks) -> Sequence[IndexT]:
    """This rank's part of a batch that all ranks draw alike.

    It is every `world_size`-th item, so the joint batch is that of one rank.

    Raises:
        ValueError: the parts would be unequal, and an average over ranks no average over the batch.
    """
    if len(indices) % ranks.world_size:
        raise ValueError(
            f"{len(indices)} clips do not divide among {ranks.world_size} ranks; change the number of either"
        )
    return indices[ranks.rank :: ranks.world_size]


def average_gradients(parameters: Iterable[nn.Parameter]) -> None:
    """Average over ranks the gradients of weights that no engine wraps, before their step.

    A temperature is such a weight.
    """
    for parameter in parameters:
        if parameter.grad is not None and dist.is_initialized():
            dist.all_reduce(parameter.grad)
            parameter.grad /= dist.get_world_size()


def union_over_ranks(found: Mapping[str, str]) -> dict[str, str]:
    """All that the ranks have found, on every one; every rank makes this call."""
    parts: list[dict[str, str]] = [dict(found)]
    if dist.is_initialized():
        parts = parts * dist.get_world_size()
        dist.all_gather_object(parts, dict(found))
    return {name: value for part in parts for name, value in part.items()}
