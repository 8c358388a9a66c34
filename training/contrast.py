"""Contrastive pre-training: InfoNCE between the streams.

The loss is over the rows of all ranks, in as little memory as there is.

A row that lacks a modality is dropped from rows and columns of every contrast that needs it: it is nobody's
negative. Rows travel as one dict, which `embedding_rows` makes, `gather_over_ranks` joins and
`contrastive_losses` takes: `contrastive_losses(**gather_over_ranks(embedding_rows(out, pairing)),
temperature=0.08)`.
"""

import math
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from models.attention import Pairing
from models.heads import StreamOutput
from models.zorro import ZorroOutput

from .losses import info_nce

Rows = dict[str, Tensor]
"""Name to tensor, one row per clip: embeddings `audio`, `video` and `fusion`, and flags `has_audio` and
`has_video`."""

ChunkT = TypeVar("ChunkT")


@dataclass(frozen=True, slots=True)
class Contrast:
    """Losses by the names of two streams, and how often the nearest row is the right one."""

    losses: dict[str, Tensor]
    """`audio_video`, `fusion_audio`, `fusion_video`; 0 where fewer than two rows have both."""
    accuracies: dict[str, Tensor]
    """`audio_to_video` and so on, without gradient; only of contrasts that have at least two rows."""


def contrastive_losses(
    audio: Float[Tensor, "batch dim"],
    video: Float[Tensor, "batch dim"],
    fusion: Float[Tensor, "batch dim"],
    *,
    has_audio: Bool[Tensor, " batch"],
    has_video: Bool[Tensor, " batch"],
    temperature: float | Tensor,
    group: Int[Tensor, " batch"] | None = None,
) -> Contrast:
    """Symmetric InfoNCE audio-video, fusion-audio and fusion-video, in float32 whatever the autocast.

    Args:
        audio: L2-normalised embeddings; rows without audio may hold anything, NaN too.
        video: the same for video.
        fusion: of every row.
        has_audio: False where a row has no audio.
        has_video: False where a row has no video.
        temperature: similarities are divided by it.
        group: rows of one group are positives of each other, see `info_nce`; None if every row is its own.

    Raises:
        ValueError: shapes differ, or the temperature is not positive.
    """
    if not (
        audio.shape == video.shape == fusion.shape and has_audio.shape == has_video.shape == audio.shape[:1]
    ):
        shapes = [tuple(x.shape) for x in (audio, video, fusion, has_audio, has_video)]
        raise ValueError(
            f"got shapes {shapes}, wanted three times (batch, dim) and twice (batch,), one row per clip"
        )
    if isinstance(temperature, float | int) and temperature <= 0:
        raise ValueError(f"{temperature=} must be positive; 0.08 is usual")
    group = torch.arange(len(audio), device=audio.device) if group is None else group
    contrasts = {
        ("audio", "video"): (audio, video, has_audio & has_video),
        ("fusion", "audio"): (fusion, audio, has_audio),
        ("fusion", "video"): (fusion, video, has_video),
    }
    losses, accuracies = {}, {}
    with torch.autocast(audio.device.type, enabled=False):
        for (a_name, b_name), (a_all, b_all, both) in contrasts.items():
            a, b, kept = a_all[both].float(), b_all[both].float(), group[both]
            if len(a) < 2:  # nothing to tell apart; the sum keeps the path to the weights, for DDP
                losses[f"{a_name}_{b_name}"] = (a.sum() + b.sum()) * 0.0
                continue
            losses[f"{a_name}_{b_name}"] = info_nce(a, b, temperature=temperature, group=kept)
            accuracies[f"{a_name}_to_{b_name}"] = _accuracy(a, b, kept)
            accuracies[f"{b_name}_to_{a_name}"] = _accuracy(b, a, kept)
    return Contrast(losses, accuracies)


@torch.no_grad()
def _accuracy(queries: Tensor, answers: Tensor, group: Tensor) -> Tensor:
    """Share of the queries whose most similar answer is of their group."""
    nearest = (queries @ answers.T).argmax(1)
    return (group[nearest] == group).float().mean()


class LearnedTemperature(nn.Module):
    """A temperature learned by its logarithm (Radford et al. 2021, arXiv:2103.00020), held within [0.01, 1].

    It belongs to no model: give it to the optimizer without weight decay, and under DDP or FSDP, which do not
    know it, to `ranks.average_gradients`. A step that leaves the bounds is undone at the next call, so its
    gradient never dies.

    Raises:
        ValueError: it would start outside the bounds.
    """

    bounds = (0.01, 1.0)

    def __init__(self, start: float = 0.08) -> None:
        super().__init__()
        if not self.bounds[0] <= start <= self.bounds[1]:
            raise ValueError(f"a temperature of {start} lies outside {self.bounds}; 0.08 is usual")
        self.log_scale = nn.Parameter(torch.tensor(math.log(start)))

    def forward(self) -> Float[Tensor, ""]:
        """The temperature."""
        with torch.no_grad():
            self.log_scale.clamp_(*map(math.log, self.bounds))
        return self.log_scale.exp()


def embedding_rows(out: ZorroOutput, pairing: Pairing | None) -> Rows:
    """Embeddings of items brought to the rows of `pairing` that read them.

    `pairing` is what `forward_pairs` was given.
    """
    fusion = out.fusion.embedding
    audio, has_audio = _of_rows(out.audio, None if pairing is None else pairing.audio_index, fusion)
    video, has_video = _of_rows(out.video, None if pairing is None else pairing.video_index, fusion)
    return {"audio": audio, "video": video, "fusion": fusion, "has_audio": has_audio, "has_video": has_video}


def _of_rows(out: StreamOutput | None, index: Tensor | None, like: Tensor) -> tuple[Tensor, Tensor]:
    if out is None:
        return torch.zeros_like(like), torch.zeros(len(like), dtype=torch.bool, device=like.device)
    if index is None:
        return out.embedding, out.present
    return out.embedding.index_select(0, index.clamp(min=0)), index >= 0


def gather_over_ranks(rows: Rows) -> Rows:
    """The rows of all ranks, in the order of the ranks; what is given, if no process group is there.

    Gradients: every rank must compute one and the same loss L of all the rows. Then autograd on rank r knows
    the whole of dL/d(rows of r), because the other ranks' parts of it are copies of what it computes itself,
    and nothing need be sent back. With J_r the derivative of rank r's rows by the weights, the gradient of
    one rank with the joint batch is the sum of J_r^T dL/d(rows of r) over ranks. DDP and FSDP average over
    ranks instead, so the gradient that enters each rank's rows is multiplied by the number of ranks here, and
    the average is the joint gradient. A weight that L reads directly, such as a temperature, has the joint
    gradient on every rank, and its average is the same.

    That no collective runs in the backward pass matters: DDP starts its own as gradients appear, and where
    one rank lacks a modality, its order would differ from that of the others, who would wait for ever.

    Raises:
        ValueError: on every rank, if the ranks have unequal numbers of rows.
    """
    if not dist.is_initialized():
        return rows
    counts = torch.tensor([len(x) for x in rows.values()], device=next(iter(rows.values())).device)
    by_rank = [part.tolist() for part in _all_gather(counts)]
    if any(other != by_rank[0] for other in by_rank):
        raise ValueError(
            f"ranks have {by_rank} rows of {list(rows)}, wanted equal numbers on all: "
            "give each its share of one batch, with flags has_audio and has_video for what is missing"
        )
    return {
        name: _gather_with_gradient(x) if x.is_floating_point() else torch.cat(_all_gather(x))
        for name, x in rows.items()
    }


def _gather_with_gradient(rows: Tensor) -> Tensor:
    gathered: Tensor = _GatherRows.apply(rows)  # type: ignore[no-untyped-call]  # torch leaves `apply` untyped
    return gathered


class _GatherRows(torch.autograd.Function):
    """Concatenation over ranks; backward, this rank's part of the gradient, times the number of ranks."""

    @staticmethod
    def forward(ctx: Any, rows: Tensor) -> Tensor:
        ctx.num_rows = len(rows)
        return torch.cat(_all_gather(rows))

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        first = dist.get_rank() * ctx.num_rows
        return gradient[first : first + ctx.num_rows] * dist.get_world_size()


def _all_gather(x: Tensor) -> list[Tensor]:
    x = x.detach().contiguous()
    parts = [torch.empty_like(x) for _ in range(dist.get_world_size())]
    dist.all_gather(parts, x)
    return parts


def cached_backward(
    encode: Callable[[ChunkT], Rows],
    chunks: Sequence[ChunkT],
    losses_of: Callable[[Rows], dict[str, Tensor]],
    *,
    unsynced: Callable[[], AbstractContextManager[None]] = nullcontext,
) -> dict[str, Tensor]:
    """Backward of a contrast over all chunks in the memory of one.

    This is GradCache (Gao et al. 2021, arXiv:2101.06983).

    Embeddings are made without gradient, chunk by chunk; the loss of all gives their gradients; then each
    chunk is encoded again, with the same random state, and its gradients go on into the weights. So gradients
    are those of the plain backward through the same chunks, for a second forward. Batch norm has the
    statistics of a chunk, not of the batch, and takes each chunk into its running averages twice: a model
    with the conv stem learns something else in chunks, one with the patch stem does not. Under stochastic
    depth, chunks draw one after the other, as they would in a plain loop.

    Args:
        encode: a chunk to rows by name, the same names for every chunk; called twice for each.
        chunks: parts of the batch, each small enough for a backward pass.
        losses_of: named losses of the rows of all chunks; they are summed. `gather_over_ranks` belongs in
            here.
        unsynced: for all chunks but the last, what keeps gradients from being averaged over ranks, such as
            `partial(distributed.unsynced, wrapped)`. Without it they are averaged for every chunk, to the
            same sum.

    Returns:
        The losses, without gradient; gradients are added to those of the weights.

    Raises:
        ValueError: no chunks, or chunks with different names.
    """
    if not chunks:
        raise ValueError("got no chunks; give at least one")
    states, parts = [], []
    for chunk in chunks:
        states.append(_random_state())
        with torch.no_grad():
            parts.append(encode(chunk))
    if any(part.keys() != parts[0].keys() for part in parts):
        raise ValueError(
            f"chunks have rows of {[sorted(part) for part in parts]}; encode each to the same names"
        )
    whole = {name: torch.cat([part[name] for part in parts]) for name in parts[0]}
    learned = {name: x.requires_grad_() for name, x in whole.items() if x.is_floating_point()}
    losses = losses_of(whole)
    torch.stack(list(losses.values())).sum().backward()
    sizes = {name: [len(part[name]) for part in parts] for name in learned}
    gradients = {name: x.grad.split(sizes[name]) for name, x in learned.items() if x.grad is not None}
    after = _random_state()
    for i, chunk in enumerate(chunks):
        with unsynced() if i < len(chunks) - 1 else nullcontext():
            _set_random_state(states[i])
            again = encode(chunk)
            pairs = [
                (again[name], gradient[i])
                for name, gradient in gradients.items()
                if again[name].requires_grad
            ]
            torch.autograd.backward([x for x, _ in pairs], [gradient for _, gradient in pairs])
    _set_random_state(after)
    return {name: loss.detach() for name, loss in losses.items()}


def _random_state() -> tuple[Tensor, Tensor | None]:
    """Of the CPU and of the current GPU, if there is one."""
    return torch.get_rng_state(), torch.cuda.get_rng_state() if torch.cuda.is_available() else None


def _set_random_state(state: tuple[Tensor, Tensor | None]) -> None:
    torch.set_rng_state(state[0])
    if state[1] is not None:
        torch.cuda.set_rng_state(state[1])
