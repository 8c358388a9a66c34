"""A model that several ranks share: wrapped by DDP or FSDP, and its state saved and restored whole.

DDP keeps the whole model on every rank; FSDP keeps a share of each
weight. Either acts on a module's `forward` alone, so what is wrapped is `PairsForward`, and a step is the
same under any engine: `wrapped(audio, video, pairing, read)`. Freeze, add LoRA and move to the device before
`wrap`, make the optimizer after it, from `zorro_of(wrapped)`.
"""

import copy
import itertools
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from enum import StrEnum
from typing import Any, assert_never, cast

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

_WHOLE_ON_CPU = StateDictOptions(full_state_dict=True, cpu_offload=True)

BLOCKS = (vit.VitBlock, swin.WindowBlock, swin.SwinFusionBlock, hip.GroupBlock, hip.HipFusionBlock)
"""What the trunks are made of: the unit that is sharded, and whose activations are computed anew."""


class ParallelStrategy(StrEnum):
    """How the ranks of a run share its model."""

    NONE = "none"  # one process
    DDP = "ddp"  # a whole model each
    FSDP = "fsdp"  # a share of each weight: for models that are too large for one device


class PairsForward(nn.Module):
    """`ZorroModel.forward_pairs` as a forward that ends in what the step reads of it.

    DDP and FSDP act on nothing but a forward.

    `read` turns the output into named tensors, losses or embeddings, of which the step must use every one,
    and no others. DDP asks these which weights will get a gradient: a contrastive step that returned logits
    as well would have it wait for the gradients of classifiers that never come. FSDP finds tensors in a dict,
    but not in a `ZorroOutput`.
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
    model: ZorroModel,
    engine: ParallelStrategy,
    *,
    bfloat16_blocks: bool = False,
    checkpoint_activations: bool = False,
) -> nn.Module:
    """A `PairsForward` of the model whose gradients are averaged over ranks.

    All ranks begin with the weights of rank 0.

    Under FSDP every rank must be given the same modalities in a step: ranks without video would not take part
    when the weights that only video uses are gathered and reduced. Under DDP such a rank counts zeros.

    Args:
        model: on this rank's device; changed in place.
        engine: NONE for one process, the others within `ranks.started_ranks` under `torchrun`.
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
    if num_started > 1 if engine == ParallelStrategy.NONE else num_started == 0:
        raise ValueError(
            f"{engine=} with {num_started} ranks started; use none for one process, start others by torchrun"
        )
    if bfloat16_blocks and engine != ParallelStrategy.FSDP:
        raise ValueError(f"bfloat16_blocks is for fsdp, got {engine=}; use torch.autocast alone")
    if checkpoint_activations:
        apply_activation_checkpointing(model.trunk, check_fn=lambda module: isinstance(module, BLOCKS))
    forward = PairsForward(model)
    match engine:
        case ParallelStrategy.NONE:
            return forward
        case ParallelStrategy.DDP:
            return DistributedDataParallel(forward, find_unused_parameters=True, gradient_as_bucket_view=True)
        case ParallelStrategy.FSDP:
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
    fully_shard(forward, mesh=mesh)  # changes it in place
    return forward


def zorro_of(wrapped: nn.Module) -> ZorroModel:
    """The model that `wrap` was given."""
    forward = wrapped.module if isinstance(wrapped, DistributedDataParallel) else wrapped
    assert isinstance(forward, PairsForward)
    return forward.zorro


@contextmanager
def unsynced(wrapped: nn.Module) -> Iterator[None]:
    """Forward and backward passes in here add to this rank's gradients.

    The next pass outside averages the sum of them.
    """
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


def full_state(wrapped: nn.Module) -> dict[str, Tensor]:
    """The model's whole state dict on the CPU, under the names it has unwrapped, on rank 0.

    Empty on the others.

    A collective call: every rank makes it, and rank 0 saves.
    """
    state = get_model_state_dict(zorro_of(wrapped), options=_WHOLE_ON_CPU)
    return cast(dict[str, Tensor], state)  # torch's type allows for extra state, which no layer here has


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
    names: dict[Tensor, str] = {
        parameter: name.replace(_CHECKPOINT_PREFIX, "") for name, parameter in zorro.named_parameters()
    }
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
