"""Zorro-Swin: windows equal to a dense mask, merging equal to a loop, and grids that fit the windows."""

from itertools import product
from math import prod

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from models import Stream, SwinConfig, ZorroModel, preset
from models.swin import (
    PatchMerging,
    SwinFusionBlock,
    SwinTrunk,
    WindowAttention,
    join_windows,
    plan_stages,
    relative_positions,
    roll,
    shift_mask,
    split_windows,
)
from tests.small_models import as_if_trained, random_audio, random_video, small_config


@pytest.fixture(scope="module")
def model() -> ZorroModel:
    return as_if_trained(ZorroModel(small_config("swin-tiny")))


def test_shapes_of_tokens(model: ZorroModel) -> None:
    assert (model.config.features_dim, model.config.fusion_dim) == (32, 32)
    come = {Stream.AUDIO: (2, 128, 16), Stream.VIDEO: (2, 256, 16), Stream.FUSION: (2, 3, 32)}
    leave = {Stream.AUDIO: (2, 32, 32), Stream.VIDEO: (2, 64, 32), Stream.FUSION: (2, 3, 32)}
    for streams in (
        (Stream.AUDIO,),
        (Stream.FUSION, Stream.VIDEO),
        (Stream.AUDIO, Stream.VIDEO),
        tuple(come),
    ):
        tokens = {stream: torch.randn(come[stream]) for stream in streams}
        assert {s: tuple(x.shape) for s, x in model.trunk(tokens, None).items()} == {
            s: leave[s] for s in streams
        }


def test_stochastic_depth_grows_over_all_blocks() -> None:
    swin = SwinConfig(depths=(2, 1, 1), audio_window=(4, 4), video_window=(2, 4, 4))
    trunk = SwinTrunk(small_config("swin-tiny", drop_path_rate=0.3, swin=swin))
    for stream in ("audio", "video"):
        rates = [block.drop_path.rate for stage in trunk.stages for block in getattr(stage, stream).blocks]
        assert rates == pytest.approx([0, 0.1, 0.2, 0.3])
    assert [stage.fusion.drop_path.rate for stage in trunk.stages] == pytest.approx([0.1, 0.2, 0.3])


def test_windows_of_a_grid_and_back() -> None:
    x = torch.arange(2 * 24.0).reshape(2, 24, 1)  # two items of 4x6
    windows = split_windows(x, (4, 6), (2, 3))
    assert windows[0, :, :, 0].tolist() == [
        [0, 1, 2, 6, 7, 8],
        [3, 4, 5, 9, 10, 11],
        [12, 13, 14, 18, 19, 20],
        [15, 16, 17, 21, 22, 23],
    ]
    assert torch.equal(windows[1], windows[0] + 24)
    assert torch.equal(join_windows(windows, (4, 6), (2, 3)), x)


def test_windows_of_a_video_and_back() -> None:
    x = torch.randn(2, 4 * 6 * 8, 5)
    windows = split_windows(x, (4, 6, 8), (2, 3, 4))
    frames = x.reshape(2, 4, 6, 8, 5)
    for number, (t, h, w) in enumerate(product(range(2), repeat=3)):
        part = frames[:, 2 * t : 2 * t + 2, 3 * h : 3 * h + 3, 4 * w : 4 * w + 4]
        assert torch.equal(windows[:, number], part.reshape(2, 24, 5))
    assert torch.equal(join_windows(windows, (4, 6, 8), (2, 3, 4)), x)


def test_roll_agrees_with_numpy() -> None:
    x = np.random.default_rng(0).normal(size=(2, 3, 4, 5))
    rolled = roll(torch.from_numpy(x).reshape(2, 12, 5), (3, 4), (0, -3))
    np.testing.assert_array_equal(rolled.reshape(2, 3, 4, 5), np.roll(x, -3, axis=2))


def test_relative_positions_are_those_of_swin() -> None:
    assert relative_positions((2, 2)).tolist() == [[4, 3, 1, 0], [5, 4, 2, 1], [7, 6, 4, 3], [8, 7, 5, 4]]
    assert len(relative_positions((4, 7, 7)).unique()) == 7 * 13 * 13


def test_shift_mask_of_a_line() -> None:
    """Of 8 tokens rolled by 2, the second window holds 6, 7, 0, 1: both ends of the line."""
    first, second = shift_mask((8,), (4,), (2,))[:, 0]
    assert not first.any()
    assert second.tolist() == [[0, 0, -100, -100], [0, 0, -100, -100], [-100, -100, 0, 0], [-100, -100, 0, 0]]


@pytest.mark.parametrize(
    ("grid", "window", "shift"),
    [
        ((8, 12), (4, 4), (2, 2)),
        ((8, 4), (4, 4), (2, 0)),
        ((8, 12), (4, 3), (0, 0)),
        ((4, 6, 8), (2, 3, 4), (1, 1, 2)),
        ((2, 6, 6), (2, 3, 2), (0, 1, 1)),
    ],
)
def test_windowed_attention_equals_attention_under_a_dense_mask(
    grid: tuple[int, ...], window: tuple[int, ...], shift: tuple[int, ...]
) -> None:
    attention = as_if_trained(WindowAttention(12, 3, grid, window, shift)).double()
    x = torch.randn(2, prod(grid), 12).double()
    torch.testing.assert_close(attention(x), _dense_attention(attention, x), atol=1e-12, rtol=1e-9)


def _dense_attention(attention: WindowAttention, x: Tensor) -> Tensor:
    """All tokens at once, nothing rolled: shifted windows are cells whose borders are moved by `shift`."""
    window, shift = torch.tensor(attention.window), torch.tensor(attention.shift)
    places = torch.tensor(list(product(*map(range, attention.grid))))
    cells = (places - shift).div(window, rounding_mode="floor")
    share_a_cell = (cells[:, None] == cells[None]).all(-1)
    offsets = (places[:, None] - places[None]).clamp(1 - window, window - 1) + window - 1
    heads = attention.num_heads
    bias = attention.pos_bias.reshape(heads, *(2 * window - 1).tolist())[:, *offsets.unbind(-1)]
    q, k, v = (y.reshape(*y.shape[:2], heads, -1).transpose(1, 2) for y in attention.qkv(x).chunk(3, -1))
    scores = (q @ k.mT / q.shape[-1] ** 0.5 + bias).masked_fill(~share_a_cell, -torch.inf)
    return attention.proj((scores.softmax(-1) @ v).transpose(1, 2).reshape(x.shape))


@pytest.mark.parametrize("grid", [(2, 3), (3, 2, 4)])
def test_merging_equals_a_loop(grid: tuple[int, ...]) -> None:
    merge = as_if_trained(PatchMerging(grid, 10))
    x = torch.randn(2, prod(grid) * 4, 5)
    torch.testing.assert_close(merge(x), _merge_by_loop(merge, x))


def _merge_by_loop(merge: PatchMerging, x: Tensor) -> Tensor:
    """Of every two rows and two columns the tokens at top left, top right, bottom left, bottom right."""
    height, width = merge.grid[-2:]
    merged = [
        torch.cat([x[:, start + r * width + c] for r in (row, row + 1) for c in (column, column + 1)], dim=-1)
        for start in range(0, prod(merge.grid), height * width)
        for row in range(0, height, 2)
        for column in range(0, width, 2)
    ]
    return merge.norm(torch.stack(merged, dim=1)) @ merge.reduction.weight.T


def test_trunk_equals_its_slow_twin(model: ZorroModel) -> None:
    audio, video = random_audio(model.config), random_video(model.config)
    double = ZorroModel(small_config("swin-tiny")).double().eval()
    double.load_state_dict(model.state_dict())
    tokens = {
        Stream.AUDIO: double.audio_tokens(audio.double()),
        Stream.VIDEO: double.video_tokens(video),
        Stream.FUSION: double.fusion_tokens.expand(len(audio), -1, -1),
    }
    out, expected = double.trunk(tokens, None), _slow_trunk(double.trunk, tokens)
    for stream, x in expected.items():
        torch.testing.assert_close(out[stream], x, atol=1e-10, rtol=1e-9)


def _slow_trunk(trunk: SwinTrunk, tokens: dict[Stream, Tensor]) -> dict[Stream, Tensor]:
    audio, video, fusion = (tokens[stream] for stream in (Stream.AUDIO, Stream.VIDEO, Stream.FUSION))
    for i, stage in enumerate(trunk.stages):
        audio, video = (
            _slow_blocks(
                getattr(stage, name).blocks, _merge_by_loop(getattr(stage, name).merge, x) if i else x
            )
            for name, x in (("audio", audio), ("video", video))
        )
        fusion = _slow_fusion(stage.fusion, fusion, {"video": video, "audio": audio})
    out = {Stream.AUDIO: audio, Stream.VIDEO: video, Stream.FUSION: fusion}
    return {stream: trunk.norms[stream.key](x) for stream, x in out.items()}


def _slow_blocks(blocks: nn.ModuleList, x: Tensor) -> Tensor:
    in_place, shifted = (block.attention for block in blocks)
    assert not any(in_place.shift)
    assert shifted.shift == tuple(
        w // 2 if w < g else 0 for g, w in zip(shifted.grid, shifted.window, strict=True)
    )
    for block in blocks:
        x = x + _dense_attention(block.attention, block.norm1(x))
        x = x + block.mlp(block.norm2(x))
    return x


def _slow_fusion(block: SwinFusionBlock, fusion: Tensor, towers: dict[str, Tensor]) -> Tensor:
    """Four heads of width 8 read all tokens, in an order of their own."""
    read = [block.kv[name](block.norms[name](x)) for name, x in {"fusion": fusion, **towers}.items()]
    key, value = torch.cat(read, dim=1).chunk(2, dim=-1)
    query = block.query(block.norms["fusion"](fusion))
    parts = [
        (query[..., i : i + 8] @ key[..., i : i + 8].mT / 8**0.5).softmax(-1) @ value[..., i : i + 8]
        for i in range(0, 32, 8)
    ]
    x = fusion + block.proj(torch.cat(parts, dim=-1))
    return x + block.mlp(block.norm_mlp(x))


def test_windows_fit_the_presets_at_every_stage() -> None:
    config = preset("swin-base", num_classes=5)
    assert plan_stages("audio", config.audio_grid, (8, 8), 4) == [
        ((64, 32), (8, 8)),
        ((32, 16), (8, 8)),
        ((16, 8), (8, 8)),
        ((8, 4), (8, 4)),
    ]
    assert plan_stages("video", config.video_grid, (4, 7, 7), 4) == [
        ((4, 56, 56), (4, 7, 7)),
        ((4, 28, 28), (4, 7, 7)),
        ((4, 14, 14), (4, 7, 7)),
        ((4, 7, 7), (4, 7, 7)),
    ]


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        (
            {"swin": SwinConfig(audio_window=(5, 4))},
            r"got \(16, 8\) audio tokens in stage 0, wanted multiples of the window \(5, 4\); "
            "change swin.audio_window",
        ),
        (
            {"swin": SwinConfig(depths=(1, 1), audio_window=(4, 4), video_window=(3, 4, 4))},
            r"got \(4, 8, 8\) video tokens in stage 0, wanted multiples of the window \(3, 4, 4\); "
            "change swin.video_window",
        ),
        (
            {"swin": SwinConfig(depths=(1, 1), audio_window=(4, 0))},
            r"wanted multiples of the window \(4, 0\)",
        ),
        (
            {
                "video_shape": (8, 48, 48, 3),
                "swin": SwinConfig(depths=(1, 1), audio_window=(4, 4), video_window=(4, 4, 4)),
            },
            r"got \(4, 6, 6\) video tokens in stage 1, wanted multiples of the window \(4, 4, 4\)",
        ),
        (
            {
                "video_shape": (8, 24, 24, 3),
                "swin": SwinConfig(depths=(1, 1, 1), audio_window=(4, 4), video_window=(4, 3, 3)),
            },
            r"got \(4, 3, 3\) video tokens to merge before stage 2, wanted even last two sides; "
            "change .*video_shape",
        ),
    ],
)
def test_grids_that_do_not_fit_fail(changes: dict[str, object], match: str) -> None:
    with pytest.raises(ValueError, match=match):
        SwinTrunk(small_config("swin-tiny", **changes))


@pytest.mark.parametrize(
    ("name", "parameters_of_swin", "dim", "more_biases"),
    [
        ("swin-tiny", 28_288_354, 96, 56 * (2 * 3 + 2 * 6 + 6 * 12) - 64 * 2 * 24),
        ("swin-small", 49_606_258, 96, 56 * (2 * 3 + 2 * 6 + 18 * 12) - 64 * 2 * 24),
        ("swin-base", 87_768_224, 128, 56 * (2 * 4 + 2 * 8 + 18 * 16) - 64 * 2 * 32),
    ],
)
def test_presets_have_the_paper_s_size(
    name: str, parameters_of_swin: int, dim: int, more_biases: int
) -> None:
    """The audio tower is a Swin without patches and classifier; the video tower has larger bias tables."""
    with torch.device("meta"):
        model = ZorroModel(preset(name, num_classes=30))
    numbers = dict.fromkeys(("audio", "video", "fusion"), 0)
    for key, parameter in model.trunk.named_parameters():
        numbers[next(part for part in key.split(".") if part in numbers)] += parameter.numel()
    patches, classifier = 3 * 4 * 4 * dim + dim + 2 * dim, 8 * dim * 1000 + 1000
    # A window of 8x8 has 225 relative positions, of 7x7 169, of 8x4 in the last stage 105.
    assert numbers["audio"] == parameters_of_swin - patches - classifier + more_biases
    assert 1 < numbers["video"] / numbers["audio"] < 1.01
    # Four transformer blocks and their keys and values of the towers.
    assert 4 * 12 < numbers["fusion"] / (8 * dim) ** 2 < 5 * 12
    assert sum(numbers.values()) < sum(p.numel() for p in model.parameters()) < 1.05 * sum(numbers.values())
