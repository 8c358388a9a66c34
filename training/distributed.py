"""Several processes as one run: who is which rank, and a model whose gradients are of the joint batch.

Processes are started by `torchrun`. DDP keeps the whole model on every rank; FSDP keeps a share of each
weight. Either acts on a module's `forward` alone, so what is wrapped is `PairsForward`, and a step is the
same under any engine: `wrapped(audio, video, pairing, read)`. Freeze, add LoRA and move to the device before
`wrap`, make the optimizer after it, from `zorro_of(wrapped)`.
"""

import copy
import itertools
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, TypeVar, assert_never

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.algorithms._checkpoint.checkpoint_wrapper import (
    _CHECKPOINT_PREFIX,
    apply_activation_checkpointing,
)
from torch.distributed.checkpoint.state_dict import (
    StateDictOptions,
    get_model_state_dict,
    get_optimizer_state_dict,
    set_model_state_dict,
    set_optimizer_state_dict,
)
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule, MixedPrecisionPolicy, fully_shard
from torch.nn.parallel import DistributedDataParallel

from models import hip, swin, vit
from models.attention import Pairing
from models.zorro import ZorroModel, ZorroOutput

T = TypeVar("T")

_WHOLE_ON_CPU = StateDictOptions(full_state_dict=True, cpu_offload=True)

BLOCKS = (vit.VitBlock, swin.WindowBlock, swin.SwinFusionBlock, hip.GroupBlock, hip.HipFusionBlock)
"""What the trunks are made of: the unit that is sharded, and whose activations are computed anew."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Ranks:
    """This process among those of the run."""

    rank: int
    world_size: int
    device: torch.device


@contextmanager
def started_ranks() -> Iterator[Ranks]:
    """The process group that `torchrun` meant this process for, destroyed at the end; without it, one rank and no group.

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


def share(indices: Sequence[T], ranks: Ranks) -> Sequence[T]:
    """This rank's part of a batch that all ranks draw alike: every `world_size`-th, so the joint batch is that of one rank.

    Raises:
        ValueError: the parts would be unequal, and an average over ranks no average over the batch.
    """
    if len(indices) % ranks.world_size:
        raise ValueError(
            f"{len(indices)} clips do not divide among {ranks.world_size} ranks; change the number of either"
        )
    return indices[ranks.rank :: ranks.world_size]


class Engine(StrEnum):
    """How the ranks of a run share its model."""

    NONE = "none"  # one process
    DDP = "ddp"  # a whole model each
    FSDP = "fsdp"  # a share of each weight: for models that are too large for one device


class PairsForward(nn.Module):
    """`ZorroModel.forward_pairs` as a forward, which is all that DDP and FSDP act on, ended by what the step reads of it.

    `read` turns the output into named tensors, losses or embeddings, of which the step must use every one,
    and no others.
    DDP asks these which weights will get a gradient: a contrastive step that returned logits as well would
        have it wait for the gradients of classifiers that never come. FSDP finds tensors in a dict, but not
        in a `ZorroOutput`.
    """

    def __init__(self, zorro: ZorroModel) -> None:
        super().__init__()
        self.zorro = zorro

    def forward(
        self,
        audio: Tensor | None,
        video: Tensor | None,
        pairing: Pairing | None,
        read: Callable[[ZorroOutput], dict[str, Tensor]],
    ) -> dict[str, Tensor]:
        """What `read` makes of the answers."""
        return read(self.zorro.forward_pairs(audio, video, pairing))


def wrap(
    model: ZorroModel, engine: Engine, *, bfloat16_blocks: bool = False, checkpoint_activations: bool = False
) -> nn.Module:
    """A `PairsForward` of the model whose gradients are averaged over ranks; all ranks begin with the weights of rank 0.

    Under FSDP every rank must be given the same modalities in a step: ranks without video would not take part
        when the weights that only video uses are gathered and reduced. Under DDP such a rank counts zeros.

    Args:
        model: on this rank's device; changed in place.
        engine: NONE for one process, the others within `started_ranks` under `torchrun`.
        bfloat16_blocks: under FSDP, gather and compute the trunk's blocks in bfloat16, and the tokens between
            them too; gradients are reduced in float32. For use under `torch.autocast`, which is what the
            other parts
            compute in.
        checkpoint_activations: keep only the tokens between the trunk's blocks; the backward pass computes a
            block anew.

    Raises:
        ValueError: the engine does not go with the number of processes, or `bfloat16_blocks` not with the
            engine.
    """
    num_started = dist.get_world_size() if dist.is_initialized() else 0
    if num_started > 1 if engine == Engine.NONE else num_started == 0:
        raise ValueError(
            f"{engine=} with {num_started} ranks started; use none for one process, start others by torchrun"
        )
    if bfloat16_blocks and engine != Engine.FSDP:
        raise ValueError(f"bfloat16_blocks is for fsdp, got {engine=}; use torch.autocast alone")
    if checkpoint_activations:
        apply_activation_checkpointing(model.trunk, check_fn=lambda module: isinstance(module, BLOCKS))
    forward = PairsForward(model)
    match engine:
        case Engine.NONE:
            return forward
        case Engine.DDP:
            return DistributedDataParallel(forward, find_unused_parameters=True, gradient_as_bucket_view=True)
        case Engine.FSDP:
            return _shard(forward, bfloat16_blocks=bfloat16_blocks)
        case _:
            assert_never(engine)


def _shard(forward: PairsForward, *, bfloat16_blocks: bool) -> nn.Module:
    for tensor in itertools.chain(forward.parameters(), forward.buffers()):
        dist.broadcast(
            tensor.detach(), src=0
        )  # DDP does so by itself; FSDP would join shares of different weights
    mesh = init_device_mesh(forward.zorro.fusion_tokens.device.type, (dist.get_world_size(),))
    policy = (
        MixedPrecisionPolicy(param_dtype=torch.bfloat16, reduce_dtype=torch.float32)
        if bfloat16_blocks
        else None
    )
    for module in forward.zorro.trunk.modules():
        if isinstance(module, BLOCKS):
            fully_shard(module, mesh=mesh, mp_policy=policy or MixedPrecisionPolicy())
    return fully_shard(forward, mesh=mesh)


def zorro_of(wrapped: nn.Module) -> ZorroModel:
    """The model that `wrap` was given."""
    forward = wrapped.module if isinstance(wrapped, DistributedDataParallel) else wrapped
    assert isinstance(forward, PairsForward)
    return forward.zorro


@contextmanager
def unsynced(wrapped: nn.Module) -> Iterator[None]:
    """Forward and backward passes in here add to this rank's gradients; the next pass outside averages the sum of them."""
    if isinstance(wrapped, DistributedDataParallel):
        with wrapped.no_sync():
            yield
        return
    if not isinstance(wrapped, FSDPModule):
        yield
        return
    wrapped.set_requires_gradient_sync(False)
    try:
        yield
    finally:
        wrapped.set_requires_gradient_sync(True)


def average_gradients(parameters: Iterable[nn.Parameter]) -> None:
    """Average over ranks the gradients of weights that no engine wraps, such as a temperature's, before their step."""
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


def full_state(wrapped: nn.Module) -> dict[str, Tensor]:
    """The model's whole state dict on the CPU, under the names it has unwrapped, on rank 0; empty on the others.

    A collective call: every rank makes it, and rank 0 saves.
    """
    return get_model_state_dict(zorro_of(wrapped), options=_WHOLE_ON_CPU)


def restore(wrapped: nn.Module, state: dict[str, Tensor]) -> None:
    """Put back a state of `full_state`, saved from any number of ranks; every rank gives the same one.

    Raises:
        ValueError: weights are missing, unknown or of another shape.
    """
    zorro = zorro_of(wrapped)
    got, wanted = (
        {name: tuple(x.shape) for name, x in weights.items()} for weights in (state, zorro.state_dict())
    )
    if got != wanted:
        wrong = sorted(name for name in got.keys() | wanted.keys() if got.get(name) != wanted.get(name))
        raise ValueError(
            f"{len(wrong)} weights are missing, unknown or of another shape, such as {wrong[0]}: other model"
        )
    set_model_state_dict(zorro, dict(state), options=StateDictOptions(full_state_dict=True))


def full_optimizer_state(wrapped: nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, Any]:
    """As `full_state`, of the optimizer, by the names of the weights rather than their numbers."""
    return get_optimizer_state_dict(zorro_of(wrapped), optimizer, options=_WHOLE_ON_CPU)


def restore_optimizer(wrapped: nn.Module, optimizer: torch.optim.Optimizer, state: dict[str, Any]) -> None:
    """As `restore`, of an optimizer; weights that had taken no step then have taken none now.

    Raises:
        ValueError: the optimizer is not for the same weights.
    """
    zorro = zorro_of(wrapped)
    names = {parameter: name.replace(_CHECKPOINT_PREFIX, "") for name, parameter in zorro.named_parameters()}
    got = {name for group in state["param_groups"] for name in group["params"]}
    wanted = {names[parameter] for group in optimizer.param_groups for parameter in group["params"]}
    if got != wanted:
        raise ValueError(
            f"the optimizer's state is of other weights, such as {min(got ^ wanted)}: freeze the same parts"
        )
    # Strict, torch would want a state of every weight; and of those that have none it would make one, of a
    # step by zero.
    set_optimizer_state_dict(
        zorro, optimizer, copy.deepcopy(state), options=StateDictOptions(full_state_dict=True, strict=False)
    )
    for parameter in list(optimizer.state):
        if names[parameter] not in state["state"]:
            del optimizer.state[parameter]
