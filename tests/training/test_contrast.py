"""Contrast: its numbers are those of arithmetic, who is missing is nobody's negative, and chunks change no
gradient."""

import copy
import math
from contextlib import nullcontext

import numpy as np
import pytest
import torch
from torch import Tensor

from models import ZorroModel, preset
from models.attention import Pairing
from tests.small_models import SMALL
from training.contrast import (
    LearnedTemperature,
    cached_backward,
    contrastive_losses,
    embedding_rows,
    gather_over_ranks,
)
from training.losses import info_nce

ALL = {"has_audio": torch.ones(6, dtype=torch.bool), "has_video": torch.ones(6, dtype=torch.bool)}


def unit_rows(seed: int, num_rows: int = 6, dim: int = 5) -> Tensor:
    x = torch.randn(num_rows, dim, generator=torch.Generator().manual_seed(seed))
    return (x / x.norm(dim=1, keepdim=True)).requires_grad_()


def values(losses: dict[str, Tensor]) -> dict[str, float]:
    return {name: float(loss.detach()) for name, loss in losses.items()}


def by_numpy(a: Tensor, b: Tensor, temperature: float) -> float:
    """-log of the softmax at the diagonal, over rows and over columns."""
    exp = np.exp(a.detach().double().numpy() @ b.detach().double().numpy().T / temperature)
    return float(-np.log(np.diag(exp) / exp.sum(0)).mean() - np.log(np.diag(exp) / exp.sum(1)).mean()) / 2


def test_losses_against_arithmetic() -> None:
    audio, video, fusion = (unit_rows(seed) for seed in (1, 2, 3))
    losses = values(contrastive_losses(audio, video, fusion, **ALL, temperature=0.08).losses)
    assert losses.keys() == {"audio_video", "fusion_audio", "fusion_video"}
    assert losses["audio_video"] == pytest.approx(by_numpy(audio, video, 0.08), rel=1e-5)
    assert losses["fusion_audio"] == pytest.approx(by_numpy(fusion, audio, 0.08), rel=1e-5)
    assert losses["fusion_video"] == pytest.approx(by_numpy(fusion, video, 0.08), rel=1e-5)


def test_a_missing_modality_is_in_no_row_and_no_column() -> None:
    audio, video, fusion = (unit_rows(seed) for seed in (1, 2, 3))
    has_audio, has_video = torch.tensor([1, 1, 0, 1, 1, 1]).bool(), torch.tensor([1, 1, 1, 0, 0, 1]).bool()
    holes = [audio.detach().clone(), video.detach().clone()]
    holes[0][2], holes[1][3:5] = torch.nan, torch.nan  # whatever is there must not matter
    holes = [x.requires_grad_() for x in holes]
    tensors = contrastive_losses(
        *holes, fusion, has_audio=has_audio, has_video=has_video, temperature=0.1
    ).losses
    losses = values(tensors)
    both, some, seen = [0, 1, 5], [0, 1, 3, 4, 5], [0, 1, 2, 5]
    assert losses["audio_video"] == pytest.approx(by_numpy(audio[both], video[both], 0.1), rel=1e-5)
    assert losses["fusion_audio"] == pytest.approx(by_numpy(fusion[some], audio[some], 0.1), rel=1e-5)
    assert losses["fusion_video"] == pytest.approx(by_numpy(fusion[seen], video[seen], 0.1), rel=1e-5)
    torch.stack(list(tensors.values())).sum().backward()
    assert holes[0].grad[2].tolist() == [0] * 5
    assert holes[1].grad[3:5].abs().sum() == 0
    assert all(bool(x.grad.isfinite().all()) for x in (*holes, fusion))
    assert bool((holes[0].grad[both].abs().sum(1) > 0).all())


@pytest.mark.parametrize("num_common", [0, 1])
def test_fewer_than_two_common_rows_teach_nothing_but_keep_the_path(num_common: int) -> None:
    audio, video, fusion = (unit_rows(seed) for seed in (1, 2, 3))
    has_video = torch.arange(6) < num_common
    flags = {"has_audio": ALL["has_audio"], "has_video": has_video}
    contrast = contrastive_losses(audio, video, fusion, **flags, temperature=0.08)
    losses = values(contrast.losses)
    assert losses["audio_video"] == losses["fusion_video"] == 0
    assert losses["fusion_audio"] > 0
    assert contrast.accuracies.keys() == {"fusion_to_audio", "audio_to_fusion"}
    contrast.losses["audio_video"].backward()
    assert audio.grad.tolist() == video.grad.tolist() == [[0.0] * 5] * 6


def test_accuracies_count_the_rows_that_find_their_own() -> None:
    audio = torch.eye(6, requires_grad=True)
    video, fusion = torch.eye(6)[[1, 0, 2, 3, 4, 5]], torch.eye(6)
    accuracies = contrastive_losses(audio, video, fusion, **ALL, temperature=1.0).accuracies
    assert float(accuracies["audio_to_video"]) == float(accuracies["video_to_audio"]) == pytest.approx(4 / 6)
    assert float(accuracies["fusion_to_audio"]) == float(accuracies["audio_to_fusion"]) == 1
    assert not accuracies["audio_to_video"].requires_grad
    group = torch.tensor(
        [7, 7, 2, 3, 4, 5]
    )  # the two that were mistaken for each other are as good as each other
    contrast = contrastive_losses(audio, video, fusion, **ALL, temperature=1.0, group=group)
    assert float(contrast.accuracies["audio_to_video"]) == 1
    expected = info_nce(audio, video, temperature=1.0, group=group)
    assert torch.equal(contrast.losses["audio_video"], expected)


def test_autocast_does_not_reach_the_losses() -> None:
    audio, video, fusion = (unit_rows(seed) for seed in (1, 2, 3))
    outside = contrastive_losses(audio, video, fusion, **ALL, temperature=0.01).losses
    with torch.autocast("cpu", torch.bfloat16):
        inside = contrastive_losses(audio, video, fusion, **ALL, temperature=0.01).losses
    assert values(inside) == values(outside)


def test_losses_of_unlike_shapes_fail() -> None:
    audio, video = unit_rows(1), unit_rows(2)
    with pytest.raises(ValueError, match=r"\(5, 5\).*one row per clip"):
        contrastive_losses(audio, video, unit_rows(3, num_rows=5), **ALL, temperature=0.1)
    with pytest.raises(ValueError, match="one row per clip"):
        contrastive_losses(
            audio, video, audio, has_audio=ALL["has_audio"][:5], has_video=ALL["has_video"], temperature=0.1
        )
    with pytest.raises(ValueError, match="temperature=0.0 must be positive"):
        contrastive_losses(audio, video, audio, **ALL, temperature=0.0)


def test_a_learned_temperature_starts_as_told_and_has_the_gradient_of_arithmetic() -> None:
    audio, video, fusion = (unit_rows(seed) for seed in (1, 2, 3))
    temperature = LearnedTemperature()
    assert float(temperature().detach()) == pytest.approx(0.08)
    contrastive_losses(audio, video, fusion, **ALL, temperature=temperature()).losses[
        "audio_video"
    ].backward()
    up, down = (by_numpy(audio, video, 0.08 * math.exp(step)) for step in (1e-5, -1e-5))
    assert float(temperature.log_scale.grad) == pytest.approx((up - down) / 2e-5, rel=1e-3)


@pytest.mark.parametrize(("gone_to", "bound"), [(-50.0, 0.01), (3.0, 1.0)])
def test_a_learned_temperature_stays_in_bounds_and_comes_back(gone_to: float, bound: float) -> None:
    temperature = LearnedTemperature()
    with torch.no_grad():
        temperature.log_scale.fill_(gone_to)
    assert float(temperature().detach()) == pytest.approx(bound)
    temperature().backward()
    assert float(temperature.log_scale.grad) == pytest.approx(bound)  # d exp(x) / dx, not 0 as beyond a clamp
    torch.optim.SGD([temperature.log_scale], lr=1.0, maximize=bound < 1).step()
    assert 0.01 < float(temperature().detach()) < 1


def test_a_temperature_out_of_bounds_fails() -> None:
    with pytest.raises(ValueError, match="temperature of 2.0 lies outside"):
        LearnedTemperature(2.0)


def test_without_ranks_nothing_is_gathered() -> None:
    rows = {"audio": unit_rows(1), **ALL}
    assert gather_over_ranks(rows) is rows


def small_zorro(**changes: object) -> ZorroModel:
    torch.manual_seed(0)
    plain = {"stem": "patch", "drop_path_rate": 0.0}
    return ZorroModel(preset("vit-tiny", num_classes=4, **SMALL | plain | changes)).train()


def clips(num_clips: int) -> tuple[Tensor, Tensor]:
    draw = torch.Generator().manual_seed(5)
    audio = torch.randn(num_clips, 64, 32, generator=draw) * 4 - 8
    return audio, torch.randint(0, 256, (num_clips, 2, 32, 32, 3), dtype=torch.uint8, generator=draw)


def test_items_are_brought_to_the_rows_that_read_them() -> None:
    model = small_zorro().eval()
    audio, video = clips(3)
    has_audio, has_video = torch.tensor([True, False, True]), torch.tensor([True, True, False])
    by_rows = model(audio, video, has_audio=has_audio, has_video=has_video)
    pairing = Pairing.of_rows(has_audio, has_video)
    rows = embedding_rows(model.forward_pairs(audio[has_audio], video[has_video], pairing), pairing)
    assert rows["has_audio"].tolist() == [True, False, True]
    assert rows["has_video"].tolist() == [True, True, False]
    assert torch.equal(rows["audio"][has_audio], by_rows.audio.embedding[has_audio])
    assert torch.equal(rows["video"][has_video], by_rows.video.embedding[has_video])
    assert torch.equal(rows["fusion"], by_rows.fusion.embedding)


def test_a_modality_that_nobody_has_is_flagged() -> None:
    model = small_zorro().eval()
    out = model.forward_pairs(clips(3)[0], None, None)
    rows = embedding_rows(out, None)
    assert rows["has_audio"].tolist() == [True] * 3
    assert rows["has_video"].tolist() == [False] * 3
    assert torch.equal(rows["audio"], out.audio.embedding)
    losses = values(contrastive_losses(**rows, temperature=0.08).losses)
    assert losses["audio_video"] == 0
    assert losses["fusion_audio"] > 0


# --- gradient caching


def losses_by(
    model: ZorroModel, temperature: LearnedTemperature, sizes: list[int], *, cached: bool
) -> dict[str, Tensor]:
    """Backward of the contrast of all clips, encoded in parts of `sizes`."""
    audio, video = clips(sum(sizes))
    parts = list(zip(audio.split(sizes), video.split(sizes), strict=True))

    def encode(part: tuple[Tensor, Tensor]) -> dict[str, Tensor]:
        return embedding_rows(model.forward_pairs(*part, None), None)

    def losses_of(rows: dict[str, Tensor]) -> dict[str, Tensor]:
        torch.rand(3)  # a loss may draw, too
        return contrastive_losses(**rows, temperature=temperature()).losses

    torch.manual_seed(1)
    if cached:
        return cached_backward(encode, parts, losses_of)
    rows = [encode(part) for part in parts]
    losses = losses_of({name: torch.cat([row[name] for row in rows]) for name in rows[0]})
    torch.stack(list(losses.values())).sum().backward()
    return losses


def assert_same_backward(
    model: ZorroModel, sizes: list[int], plain_sizes: list[int], *, atol: float = 1e-5
) -> None:
    """Losses, gradients and the random numbers that follow, cached in `sizes` and plain in `plain_sizes`."""
    found = []
    for part_sizes, cached in ((sizes, True), (plain_sizes, False)):
        twin, temperature = copy.deepcopy(model), LearnedTemperature()
        losses = losses_by(twin, temperature, part_sizes, cached=cached)
        named = {**dict(twin.named_parameters()), "temperature": temperature.log_scale}
        found.append((losses, {k: p.grad for k, p in named.items() if p.grad is not None}, torch.rand(4)))
    (losses, gradients, drawn), (plain_losses, plain_gradients, plain_drawn) = found
    for name, loss in plain_losses.items():
        torch.testing.assert_close(losses[name], loss.detach(), rtol=1e-5, atol=1e-5)
    assert gradients.keys() == plain_gradients.keys() >= {"temperature", "trunk.blocks.0.qkv.weight"}
    for name, gradient in plain_gradients.items():
        torch.testing.assert_close(
            gradients[name], gradient, rtol=1e-4, atol=atol, msg=lambda m, n=name: f"{n}: {m}"
        )
    assert torch.equal(drawn, plain_drawn) or sizes != plain_sizes


def test_cached_gradients_are_those_of_the_whole_batch() -> None:
    assert_same_backward(small_zorro(), sizes=[3, 2, 1], plain_sizes=[6])


def test_cached_gradients_under_stochastic_depth_draw_the_same_twice() -> None:
    assert_same_backward(small_zorro(drop_path_rate=0.6), sizes=[3, 3], plain_sizes=[3, 3])
    with pytest.raises(AssertionError):  # the drops matter: another order of draws gives other gradients
        assert_same_backward(small_zorro(drop_path_rate=0.6), sizes=[3, 3], plain_sizes=[6])


def test_cached_gradients_with_batch_norm_are_those_of_chunks() -> None:
    assert_same_backward(small_zorro(stem="conv"), sizes=[3, 3], plain_sizes=[3, 3])
    with pytest.raises(AssertionError):
        assert_same_backward(small_zorro(stem="conv"), sizes=[3, 3], plain_sizes=[6])


def test_one_chunks_graph_lives_at_a_time() -> None:
    weight = torch.ones(2, 2, requires_grad=True)
    calls, alive = [], set()

    def keep(saved: Tensor) -> tuple[int, Tensor]:
        alive.add(len(alive))
        return len(alive) - 1, saved

    def give(kept: tuple[int, Tensor]) -> Tensor:
        alive.discard(kept[0])
        return kept[1]

    def encode(x: Tensor) -> dict[str, Tensor]:
        assert not alive
        calls.append(torch.is_grad_enabled())
        with torch.autograd.graph.saved_tensors_hooks(keep, give):
            return {"x": (x @ weight).exp()}

    def losses_of(rows: dict[str, Tensor]) -> dict[str, Tensor]:
        assert not alive
        return {"sum": rows["x"].sum() ** 2}

    cached_backward(encode, [torch.ones(1, 2)] * 3, losses_of)
    assert calls == [False] * 3 + [True] * 3
    assert not alive
    e = math.exp(2)
    # d (6 e^2)^2 / dw = 2 * 6 e^2 * 3 e^2 for each of the four weights
    assert weight.grad.tolist() == [[pytest.approx(36 * e * e)] * 2] * 2


def test_cached_gradients_inside_an_autocast() -> None:
    """A cast that was made without gradient, or for a chunk whose graph is gone, must not be used again."""
    found = []
    for around, inside in ((True, False), (False, True)):
        weight = torch.full((4, 4), 0.5, requires_grad=True)

        def encode(x: Tensor, weight: Tensor = weight, inside: bool = inside) -> dict[str, Tensor]:
            with torch.autocast("cpu", torch.bfloat16) if inside else nullcontext():
                return {"x": torch.nn.functional.linear(x, weight).float()}

        with torch.autocast("cpu", torch.bfloat16) if around else nullcontext():
            cached_backward(
                encode, [torch.ones(2, 4), torch.ones(2, 4)], lambda rows: {"sum": rows["x"].sum()}
            )
        found.append(weight.grad)
    assert found[0].tolist() == found[1].tolist() == [[4.0] * 4] * 4


def test_chunks_that_cannot_be_joined_fail() -> None:
    with pytest.raises(ValueError, match="got no chunks"):
        cached_backward(lambda chunk: {}, [], lambda rows: rows)
    with pytest.raises(ValueError, match=r"\['audio'\], \['video'\].*same names"):
        cached_backward(lambda name: {name: torch.ones(1, 2)}, ["audio", "video"], lambda rows: rows)
