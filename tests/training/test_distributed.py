"""Ranks: two processes with a batch between them learn what one process learns from all of it."""

import os
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from models import BackboneName, HipConfig, SwinConfig, ZorroConfig
from models.zorro import ZorroModel
from tests.training.rank_scenarios import (
    ALONE,
    LACKS_VIDEO,
    NUM_CLIPS,
    contrastive,
    gradients_of,
    make_zorro,
    two_steps,
)
from training.contrast import LearnedTemperature
from training.distributed import (
    BLOCKS,
    ParallelStrategy,
    full_optimizer_state,
    full_state,
    restore,
    restore_optimizer,
    unsynced,
    wrap,
    zorro_of,
)
from training.ranks import Ranks, average_gradients, ranks_from_environment, share, started_ranks

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
MAX_SECONDS = 180  # of all scenarios together, on a machine with other work
ENGINES = (ParallelStrategy.DDP, ParallelStrategy.FSDP)
Found = list[dict[str, Any]]
"""By rank, by scenario."""


def run_ranks(folder: Path, name: str, num_ranks: int) -> Found:
    """Start processes as torchrun does, each with warnings as errors, and read what they found."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    common = {
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
        "WORLD_SIZE": str(num_ranks),
        "OMP_NUM_THREADS": "1",
    }
    command = [sys.executable, "-W", "error", "-m", "tests.training.rank_scenarios", str(folder), name]
    logs = [(folder / f"{name}_{rank}.log").open("w") for rank in range(num_ranks)]
    processes = [
        subprocess.Popen(
            command,
            cwd=ROOT,
            stdout=log,
            stderr=log,
            env=os.environ
            | common
            | {"RANK": str(rank), "LOCAL_RANK": str(rank), "CUDA_VISIBLE_DEVICES": ""},
        )
        for rank, log in enumerate(logs)
    ]
    try:
        deadline = time.monotonic() + MAX_SECONDS
        while any(process.poll() is None for process in processes) and time.monotonic() < deadline:
            if any(process.returncode for process in processes):
                break  # one has failed: the others would wait for it
            time.sleep(0.05)
    finally:
        for process in processes:
            process.kill()
            process.wait()
        for log in logs:
            log.close()
    if any(process.returncode for process in processes):
        pytest.fail(
            "\n".join(Path(log.name).read_text() for log in logs) or f"ranks were not done in {MAX_SECONDS} s"
        )
    return [torch.load(folder / f"{name}_{rank}.pt", weights_only=True) for rank in range(num_ranks)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("ranks")


@pytest.fixture(scope="module")
def two(folder: Path) -> Found:
    return run_ranks(folder, "two", 2)


@pytest.fixture(scope="module")
def three(folder: Path, two: Found) -> Found:
    for engine in ENGINES:
        torch.save(two[0][f"state {engine}"], folder / f"{engine}.pt")
    return run_ranks(folder, "three", 3)


@pytest.fixture(scope="module")
def alone() -> dict[str, dict[str, Any]]:
    """What one process finds with the joint batch."""
    kinds = ("contrastive", "supervised")
    return {
        kind: two_steps(kind, wrap(make_zorro(), ParallelStrategy.NONE), range(NUM_CLIPS)) for kind in kinds
    }


def assert_close(got: dict[str, Tensor], wanted: dict[str, Tensor]) -> None:
    assert got.keys() == wanted.keys()
    for name, tensor in wanted.items():
        torch.testing.assert_close(got[name], tensor, rtol=1e-5, atol=1e-5, msg=lambda m, n=name: f"{n}: {m}")


# --- ranks learn what one process learns


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("kind", ["contrastive", "cached", "cached_synced", "supervised", "checkpointed"])
def test_two_ranks_equal_one_with_the_joint_batch(
    two: Found, alone: dict[str, Any], kind: str, engine: ParallelStrategy
) -> None:
    wanted = alone["supervised" if kind == "supervised" else "contrastive"]
    for rank in two:
        found = rank[f"{kind} {engine}"]
        assert found["losses"] == pytest.approx(wanted["losses"], abs=1e-5)
        assert_close(found["gradients"], wanted["gradients"])
        assert float(found["temperature"]) == pytest.approx(float(wanted["temperature"]), abs=1e-5)
    assert_close(two[0][f"{kind} {engine}"]["weights"], wanted["weights"])
    assert two[1][f"{kind} {engine}"]["weights"] == {}


def test_the_comparison_above_would_notice(alone: dict[str, Any]) -> None:
    """Gradients are far above the tolerance, steps move the weights, and negatives of one's own half give
    other losses."""
    contrast = alone["contrastive"]
    assert float(contrast["gradients"]["trunk.blocks.0.qkv.weight"].abs().max()) > 1e-2
    moved = (
        contrast["weights"]["trunk.blocks.0.qkv.weight"]
        - make_zorro().state_dict()["trunk.blocks.0.qkv.weight"]
    )
    assert float(moved.abs().max()) > 1e-3
    assert contrast["temperature"] != LearnedTemperature().log_scale.detach()
    half = contrastive(
        wrap(make_zorro(), ParallelStrategy.NONE), range(0, NUM_CLIPS, 2), LearnedTemperature()
    )
    assert float(half["audio_video"].detach()) < contrast["losses"]["audio_video"] - 0.3


def test_a_rank_without_video_counts(two: Found) -> None:
    wanted = two_steps("contrastive", wrap(make_zorro(), ParallelStrategy.NONE), [1, 2, *LACKS_VIDEO])
    found = two[0]["without video"]
    assert found["losses"] == pytest.approx(wanted["losses"], abs=1e-5)
    assert_close(found["gradients"], wanted["gradients"])
    assert_close(found["weights"], wanted["weights"])


def test_weights_that_a_step_does_not_use_get_no_gradient(two: Found) -> None:
    for rank in two:
        assert rank["by turns"] == ["project", "classify", "project"]
        assert not any("classify" in name for name in rank["contrastive ddp"]["gradients"])


def test_gradients_are_held_back_until_they_are_to_be_averaged(two: Found, alone: dict[str, Any]) -> None:
    own = [rank["held back ddp"]["gradients"] for rank in two]
    assert not torch.allclose(own[0]["fusion_tokens"], own[1]["fusion_tokens"], rtol=0.1)
    assert_close(
        {name: (own[0][name] + own[1][name]) / 2 for name in own[0]}, alone["supervised"]["gradients"]
    )
    assert [rank["held back fsdp"]["gradients"] for rank in two] == [
        {},
        {},
    ]  # FSDP keeps them elsewhere until then


def test_gradients_of_weights_that_no_engine_wraps_are_averaged(two: Found) -> None:
    assert [rank["held back ddp"]["weight"] for rank in two] == [0.5, 0.5]  # of 0 and 1


def test_ranks_refuse(two: Found) -> None:
    for rank in two:
        uneven, none, remainder, precision = rank["refusals"]
        assert "ranks have [[3], [4]] rows of ['audio'], wanted equal numbers" in uneven
        assert "'none'> with 2 ranks started" in none
        assert "7 clips do not divide among 2 ranks" in remainder
        assert "bfloat16_blocks is for fsdp" in precision


@pytest.mark.parametrize("engine", ENGINES)
def test_bfloat16_stays_finite_and_near(two: Found, alone: dict[str, Any], engine: ParallelStrategy) -> None:
    for rank in two:
        found = rank[f"bfloat16 {engine}"]
        assert found["dtypes"] == {"torch.float32"}
        assert all(bool(gradient.isfinite().all()) for gradient in found["gradients"].values())
        assert found["losses"] == pytest.approx(alone["contrastive"]["losses"], rel=0.05)
        assert found["losses"] != pytest.approx(
            alone["contrastive"]["losses"], abs=1e-5
        )  # it was in bfloat16


# --- states


@pytest.mark.parametrize("engine", ENGINES)
def test_a_state_of_two_ranks_goes_into_one(two: Found, engine: ParallelStrategy) -> None:
    state, wrapped = two[0][f"state {engine}"], wrap(make_zorro(seed=9, stem="conv"), ParallelStrategy.NONE)
    assert not torch.equal(state["model"]["pool.queries"], zorro_of(wrapped).state_dict()["pool.queries"])
    restore(wrapped, state["model"])
    assert_same(zorro_of(wrapped).state_dict(), state["model"])
    make_zorro(seed=9, stem="conv").load_state_dict(state["model"])  # a plain model reads it, too
    assert two[1][f"state {engine}"] == {"model": {}, "optimizer": {}}


@pytest.mark.parametrize("to", ENGINES)
@pytest.mark.parametrize("saved", ENGINES)
def test_a_state_of_two_ranks_goes_into_three(
    two: Found, three: Found, saved: ParallelStrategy, to: ParallelStrategy
) -> None:
    state, found = two[0][f"state {saved}"], three[0][f"{saved} to {to}"]
    assert_same(found["back"]["model"], state["model"])
    assert found["back"]["optimizer"]["state"].keys() == state["optimizer"]["state"].keys()
    for name, moments in state["optimizer"]["state"].items():
        assert_same(found["back"]["optimizer"]["state"][name], moments)
    assert any(float(moments["exp_avg"].abs().max()) > 0 for moments in state["optimizer"]["state"].values())
    for rank in three:
        assert rank[f"{saved} to {to}"]["losses"] == pytest.approx(found["losses"])
    assert not torch.equal(found["next"]["fusion_tokens"], state["model"]["fusion_tokens"])


def test_a_state_of_another_model_fails() -> None:
    wrapped = wrap(make_zorro(), ParallelStrategy.NONE)
    state = make_zorro().state_dict()
    with pytest.raises(ValueError, match=r"1 weights are missing.*pool\.queries"):
        restore(wrapped, {name: x for name, x in state.items() if name != "pool.queries"})
    with pytest.raises(ValueError, match="unknown.*such as extra"):
        restore(wrapped, state | {"extra": torch.ones(1)})
    with pytest.raises(ValueError, match="another shape, such as fusion_tokens"):
        restore(wrapped, state | {"fusion_tokens": torch.ones(5, 32)})


def test_an_optimizers_state_of_other_weights_fails() -> None:
    wrapped = wrap(make_zorro(), ParallelStrategy.NONE)
    whole = torch.optim.SGD(wrapped.parameters(), lr=0.1)
    part = torch.optim.SGD(
        [p for name, p in zorro_of(wrapped).named_parameters() if name != "fusion_tokens"], lr=0.1
    )
    with pytest.raises(ValueError, match="other weights, such as fusion_tokens"):
        restore_optimizer(wrapped, whole, full_optimizer_state(wrapped, part))


def assert_same(got: dict[str, Tensor], wanted: dict[str, Tensor]) -> None:
    assert got.keys() == wanted.keys()
    for name, tensor in wanted.items():
        assert torch.equal(got[name], tensor), name


# --- one process


def test_activation_checkpointing_changes_no_gradient_and_no_name() -> None:
    """Under stochastic depth, too: the second forward of a block draws what the first drew."""
    found = []
    for checkpointed in (False, True):
        wrapped = wrap(
            make_zorro(drop_path_rate=0.5), ParallelStrategy.NONE, checkpoint_activations=checkpointed
        )
        torch.manual_seed(3)
        contrastive(wrapped, range(NUM_CLIPS), LearnedTemperature())
        found.append((gradients_of(wrapped), full_state(wrapped)))
    assert_close(found[1][0], found[0][0])
    assert_same(found[1][1], found[0][1])
    num_checkpointed = sum(
        "_checkpoint_wrapped_module" in name for name, _ in zorro_of(wrapped).trunk.named_parameters()
    )
    assert num_checkpointed == sum(1 for _ in zorro_of(wrapped).trunk.blocks.parameters()) > 0


@pytest.mark.parametrize("backbone", list(BackboneName))
def test_blocks_hold_most_of_every_trunk(backbone: BackboneName) -> None:
    parts = {
        BackboneName.VIT: {"depth": 2},
        BackboneName.SWIN: {"swin": SwinConfig(depths=(2, 1), audio_window=(2, 2), video_window=(1, 2, 2))},
        BackboneName.HIP: {
            "hip": HipConfig(
                num_groups=(2, 1), num_latents=(4, 4), dims=(16, 32), depths=(1, 1), num_heads=(2, 2)
            )
        },
    }
    shapes = {"audio_shape": (64, 64), "video_shape": (2, 64, 64, 3), "embed_dim": 16, "num_heads": 2}
    trunk = ZorroModel(ZorroConfig(num_classes=2, backbone=backbone, **shapes, **parts[backbone])).trunk
    blocks = [module for module in trunk.modules() if isinstance(module, BLOCKS)]
    inside = {id(p) for block in blocks for p in block.parameters()}
    assert sum(len(list(block.parameters())) for block in blocks) == len(inside)  # no block within another
    outside = [name for name, p in trunk.named_parameters() if id(p) not in inside]
    assert all("norm" in name or "merge" in name for name in outside), outside


def test_a_state_is_of_the_unwrapped_model() -> None:
    model = make_zorro()
    wrapped = wrap(model, ParallelStrategy.NONE)
    assert zorro_of(wrapped) is model
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    assert_same(full_state(wrapped), model.state_dict())
    names = {
        name for group in full_optimizer_state(wrapped, optimizer)["param_groups"] for name in group["params"]
    }
    assert names == set(dict(model.named_parameters()))


def test_an_engine_needs_ranks() -> None:
    for engine in ENGINES:
        with pytest.raises(ValueError, match="with 0 ranks started.*torchrun"):
            wrap(make_zorro(), engine)


def test_without_ranks_nothing_is_averaged_or_held_back() -> None:
    wrapped, weight = wrap(make_zorro(), ParallelStrategy.NONE), nn.Parameter(torch.ones(1))
    with unsynced(wrapped):
        (weight * 3).backward()
    average_gradients([weight])
    assert weight.grad.tolist() == [3.0]


def test_shares_make_the_batch() -> None:
    device = torch.device("cpu")
    for world_size in (1, 2, 3, 6):
        parts = [
            share(range(12), Ranks(rank=r, world_size=world_size, device=device)) for r in range(world_size)
        ]
        assert sorted(i for part in parts for i in part) == list(range(12))
        assert [part[0] for part in parts] == list(range(world_size))
    with pytest.raises(ValueError, match="12 clips do not divide among 5 ranks"):
        share(range(12), Ranks(rank=0, world_size=5, device=device))


def test_ranks_are_read_from_torchruns_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert ranks_from_environment() == ALONE
    with started_ranks() as ranks:
        assert ranks == ALONE
        assert not torch.distributed.is_initialized()
    for name, value in (("RANK", "5"), ("WORLD_SIZE", "8"), ("LOCAL_RANK", "1")):
        monkeypatch.setenv(name, value)
    assert ranks_from_environment() == Ranks(rank=5, world_size=8, device=torch.device("cpu"))
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert ranks_from_environment().device == torch.device("cuda", 1)


@pytest.mark.parametrize("wrong", [{"RANK": "8"}, {"RANK": ""}, {"WORLD_SIZE": "two"}, {"LOCAL_RANK": "-1"}])
def test_torchruns_variables_that_make_no_sense_fail(
    monkeypatch: pytest.MonkeyPatch, wrong: dict[str, str]
) -> None:
    for name, value in ({"RANK": "0", "WORLD_SIZE": "8", "LOCAL_RANK": "0"} | wrong).items():
        monkeypatch.setenv(name, value)
    with pytest.raises(ValueError, match="wanted 0 <= RANK < WORLD_SIZE"):
        ranks_from_environment()
