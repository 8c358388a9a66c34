"""What one rank does in the tests of `training.distributed`: `python -m tests.training.rank_scenarios FOLDER
SET`.

Every scenario returns what the test compares, and rank r writes all to `FOLDER/SET_r.pt`. Run without ranks,
the same functions give the joint batch's numbers.
"""

import sys
import traceback
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from models import ZorroModel, preset
from models.attention import Pairing
from models.zorro import ZorroOutput
from tests.small_models import SMALL
from training.contrast import (
    LearnedTemperature,
    cached_backward,
    contrastive_losses,
    embedding_rows,
    gather_over_ranks,
)
from training.distributed import (
    ParallelStrategy,
    full_optimizer_state,
    full_state,
    restore,
    restore_optimizer,
    unsynced,
    wrap,
    zorro_of,
)
from training.losses import soft_cross_entropy
from training.ranks import Ranks, average_gradients, share, started_ranks

NUM_CLIPS = 8
LACKS_AUDIO, LACKS_VIDEO = (2,), (3, 4)
ALONE = Ranks(rank=0, world_size=1, device=torch.device("cpu"))


def make_zorro(seed: int = 0, **changes: Any) -> ZorroModel:
    torch.manual_seed(seed)
    plain = {"stem": "patch", "drop_path_rate": 0.0}
    return ZorroModel(preset("vit-tiny", num_classes=4, **SMALL | plain | changes)).train()


def clips(indices: Any) -> dict[str, Tensor]:
    """These of the joint batch, drawn alike by all."""
    draw = torch.Generator().manual_seed(7)
    index = torch.tensor(list(indices))
    return {
        "audio": (torch.randn(NUM_CLIPS, 64, 32, generator=draw) * 4 - 8)[index],
        "video": torch.randint(0, 256, (NUM_CLIPS, 2, 32, 32, 3), dtype=torch.uint8, generator=draw)[index],
        "has_audio": torch.tensor([i not in LACKS_AUDIO for i in index.tolist()]),
        "has_video": torch.tensor([i not in LACKS_VIDEO for i in index.tolist()]),
        "labels": torch.nn.functional.one_hot(index % 4, 4).float(),
    }


def outputs_of(
    wrapped: nn.Module, batch: dict[str, Tensor], read: Callable[..., dict[str, Tensor]]
) -> dict[str, Tensor]:
    """Forward of the clips with what they lack left out; `read` gets the output and the pairing."""
    has_audio, has_video = batch["has_audio"], batch["has_video"]
    pairing = Pairing.of_rows(has_audio, has_video)
    audio, video = (
        x[has] if has.any() else None for x, has in ((batch["audio"], has_audio), (batch["video"], has_video))
    )
    rows: dict[str, Tensor] = wrapped(audio, video, pairing, lambda out: read(out, pairing))
    return rows


def contrast_of(rows: dict[str, Tensor], temperature: LearnedTemperature) -> dict[str, Tensor]:
    return contrastive_losses(**gather_over_ranks(rows), temperature=temperature()).losses


def contrastive(wrapped: nn.Module, indices: Any, temperature: LearnedTemperature) -> dict[str, Tensor]:
    """Losses, with the gradients in the weights."""
    losses = contrast_of(outputs_of(wrapped, clips(indices), embedding_rows), temperature)
    torch.stack(list(losses.values())).sum().backward()
    return losses


def cached(
    wrapped: nn.Module, indices: Any, temperature: LearnedTemperature, *, wait: bool
) -> dict[str, Tensor]:
    """The same in two chunks; gradients are averaged once, or for each chunk."""
    half = len(indices) // 2
    chunks = [clips(indices[:half]), clips(indices[half:])]
    waiting = {"unsynced": partial(unsynced, wrapped)} if wait else {}
    encode = partial(outputs_of, wrapped, read=embedding_rows)
    return cached_backward(encode, chunks, partial(contrast_of, temperature=temperature), **waiting)


def supervised(wrapped: nn.Module, indices: Any, _temperature: LearnedTemperature) -> dict[str, Tensor]:
    """Cross-entropy of fusion; no projection and no unimodal classifier gets a gradient."""
    batch = clips(indices)

    def read(out: ZorroOutput, _pairing: Pairing) -> dict[str, Tensor]:
        return {"fusion": soft_cross_entropy(out.fusion.logits, batch["labels"])}

    losses = outputs_of(wrapped, batch, read)
    losses["fusion"].backward()
    return losses


KINDS: dict[str, Callable[..., dict[str, Tensor]]] = {
    "contrastive": contrastive,
    "cached": partial(cached, wait=True),
    "cached_synced": partial(cached, wait=False),
    "supervised": supervised,
}


def two_steps(kind: str, wrapped: nn.Module, indices: Any) -> dict[str, Any]:
    """First losses and gradients, averaged over ranks, and the weights and the temperature after two steps of
    SGD."""
    temperature = LearnedTemperature()
    optimizer = torch.optim.SGD(
        [*zorro_of(wrapped).parameters(), temperature.log_scale], lr=0.05, momentum=0.5
    )
    found: dict[str, Any] = {}
    for _ in range(2):
        optimizer.zero_grad()
        losses = KINDS[kind](wrapped, indices, temperature)
        average_gradients(temperature.parameters())
        found.setdefault("losses", {name: averaged(loss) for name, loss in losses.items()})
        found.setdefault("gradients", gradients_of(wrapped))
        optimizer.step()
    return found | {"weights": full_state(wrapped), "temperature": temperature.log_scale.detach()}


def averaged(loss: Tensor) -> float:
    total = loss.detach().clone()
    if dist.is_initialized():
        dist.all_reduce(total)
        total /= dist.get_world_size()
    return float(total)


def gradients_of(wrapped: nn.Module) -> dict[str, Tensor]:
    """Whole gradients by name; of weights that have none, nothing."""
    named = {
        name.replace("_checkpoint_wrapped_module.", ""): p.grad
        for name, p in zorro_of(wrapped).named_parameters()
    }
    whole = {
        name: g.full_tensor() if hasattr(g, "full_tensor") else g
        for name, g in named.items()
        if g is not None
    }
    return {name: g.clone() for name, g in whole.items()}


# --- scenarios of two ranks


def same_batch(ranks: Ranks, kind: str, engine: ParallelStrategy, **options: Any) -> dict[str, Any]:
    """Each rank makes a model of its own seed: the weights of rank 0 must win."""
    wrapped = wrap(make_zorro(seed=ranks.rank), engine, **options)
    return two_steps(kind, wrapped, share(range(NUM_CLIPS), ranks))


def a_rank_without_video(ranks: Ranks) -> dict[str, Any]:
    """Clips 3 and 4 have no video: rank 1 gets only these."""
    indices = (1, 2) if ranks.rank == 0 else LACKS_VIDEO
    return two_steps("contrastive", wrap(make_zorro(), ParallelStrategy.DDP), indices)


def other_kinds_of_steps(_ranks: Ranks) -> list[str]:
    """Contrast and labels by turns: which weights get a gradient changes from step to step."""
    wrapped, temperature = wrap(make_zorro(), ParallelStrategy.DDP), LearnedTemperature()
    had = []
    for kind in ("contrastive", "supervised", "contrastive"):
        zorro_of(wrapped).zero_grad()
        KINDS[kind](wrapped, [0, 1, 5, 6], temperature)
        had.append(
            " ".join(sorted({n.split(".")[2] for n in gradients_of(wrapped) if n.startswith("heads.fusion")}))
        )
    return had


def held_back(ranks: Ranks, engine: ParallelStrategy) -> dict[str, Any]:
    """Gradients within `unsynced`, where there are any yet, and of a weight that no engine knows."""
    wrapped, weight = wrap(make_zorro(), engine), nn.Parameter(torch.ones(1))
    with unsynced(wrapped):
        supervised(wrapped, share(range(NUM_CLIPS), ranks), LearnedTemperature())
    (weight * ranks.rank).backward()
    average_gradients([weight, nn.Parameter(torch.ones(1))])
    assert weight.grad is not None
    return {"gradients": gradients_of(wrapped), "weight": float(weight.grad)}


def in_bfloat16(ranks: Ranks, engine: ParallelStrategy) -> dict[str, Any]:
    options = {"bfloat16_blocks": True} if engine == ParallelStrategy.FSDP else {}
    wrapped = wrap(make_zorro(), engine, **options)
    with torch.autocast("cpu", torch.bfloat16):
        losses = contrastive(wrapped, share(range(NUM_CLIPS), ranks), LearnedTemperature())
    dtypes = {str(p.dtype) for p in zorro_of(wrapped).parameters()}
    return {
        "losses": {k: averaged(v) for k, v in losses.items()},
        "gradients": gradients_of(wrapped),
        "dtypes": dtypes,
    }


def refusals(ranks: Ranks) -> list[str]:
    """Messages of what must fail, on every rank."""
    return [
        message_of(lambda: gather_over_ranks({"audio": torch.ones(3 + ranks.rank, 2)})),
        message_of(lambda: wrap(make_zorro(), ParallelStrategy.NONE)),
        message_of(lambda: share(range(7), ranks)),
        message_of(lambda: wrap(make_zorro(), ParallelStrategy.DDP, bfloat16_blocks=True)),
    ]


def message_of(call: Callable[[], Any]) -> str:
    try:
        call()
    except ValueError as error:
        return str(error)
    return ""


def trained_state(ranks: Ranks, engine: ParallelStrategy) -> dict[str, Any]:
    """A state after one step of AdamW, of a model with batch norm, which has buffers."""
    wrapped = wrap(make_zorro(stem="conv"), engine)
    optimizer = torch.optim.AdamW(zorro_of(wrapped).parameters(), lr=1e-3)
    contrastive(wrapped, share(range(NUM_CLIPS), ranks), LearnedTemperature())
    optimizer.step()
    return {"model": full_state(wrapped), "optimizer": full_optimizer_state(wrapped, optimizer)}


# --- scenarios of three ranks


def restored(_ranks: Ranks, folder: Path, name: str, engine: ParallelStrategy) -> dict[str, Any]:
    """The state that two ranks saved, into an engine, and out again; one more step must go on from it.

    FSDP also computes activations anew here, which must not show in names.
    """
    state = torch.load(folder / f"{name}.pt", weights_only=True)
    wrapped = wrap(
        make_zorro(seed=9, stem="conv"), engine, checkpoint_activations=engine == ParallelStrategy.FSDP
    )
    optimizer = torch.optim.AdamW(zorro_of(wrapped).parameters(), lr=1e-3)
    restore(wrapped, state["model"])
    restore_optimizer(wrapped, optimizer, state["optimizer"])
    back = {"model": full_state(wrapped), "optimizer": full_optimizer_state(wrapped, optimizer)}
    back = {part: clone(tree) for part, tree in back.items()}
    losses = supervised(
        wrapped, [0, 1, 5], LearnedTemperature()
    )  # every rank the same clips: batch norm's statistics too
    optimizer.step()
    return {"back": back, "losses": {k: averaged(v) for k, v in losses.items()}, "next": full_state(wrapped)}


def clone(tree: Any) -> Any:
    return torch.utils._pytree.tree_map(lambda x: x.clone() if isinstance(x, Tensor) else x, tree)


def scenarios(name: str, folder: Path) -> dict[str, Callable[[Ranks], Any]]:
    if name == "three":
        cases = [
            (saved, engine)
            for saved in ("ddp", "fsdp")
            for engine in (ParallelStrategy.DDP, ParallelStrategy.FSDP)
        ]
        return {f"{s} to {e}": partial(restored, folder=folder, name=s, engine=e) for s, e in cases}
    engines = (ParallelStrategy.DDP, ParallelStrategy.FSDP)
    return {
        **{
            f"{kind} {engine}": partial(same_batch, kind=kind, engine=engine)
            for kind in KINDS
            for engine in engines
        },
        **{
            f"checkpointed {e}": partial(
                same_batch, kind="contrastive", engine=e, checkpoint_activations=True
            )
            for e in engines
        },
        "without video": a_rank_without_video,
        "by turns": other_kinds_of_steps,
        **{f"bfloat16 {engine}": partial(in_bfloat16, engine=engine) for engine in engines},
        **{f"held back {engine}": partial(held_back, engine=engine) for engine in engines},
        "refusals": refusals,
        **{f"state {engine}": partial(trained_state, engine=engine) for engine in engines},
    }


def main(folder: Path, name: str) -> None:
    torch.set_num_threads(1)
    with started_ranks() as ranks:
        found = {}
        for scenario, work in scenarios(name, folder).items():
            try:
                found[scenario] = work(ranks)
            except Exception:
                sys.exit(f"rank {ranks.rank} in {scenario!r}:\n{traceback.format_exc()}")
        torch.save(found, folder / f"{name}_{ranks.rank}.pt")


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2])
