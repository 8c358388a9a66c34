"""Zorro-Swin: pure streams, windows equal to a dense mask, merging equal to a loop, and graphs that hold one stream."""

from itertools import product
from math import prod
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from torch import Tensor, nn

from export.audit import audit_graph
from export.golden import golden_inputs
from export.parity import ParityCheck
from export.purity import prove_purity
from export.to_onnx import export_graphs
from export.variants import TOLERANCES
from media import Clip, ClipSpec, Modality
from models import Stream, SwinConfig, ZorroConfig, ZorroModel, preset
from models.attention import Pairing
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
from tests.tiny_bundle import graphs_in

BATCH = 4
SWIN = SwinConfig(depths=(2, 2), audio_window=(4, 4), video_window=(2, 4, 4))
SMALL = {
    "audio_shape": (64, 32), "video_shape": (8, 32, 32, 3), "embed_dim": 16, "num_heads": 2, "num_fusion_tokens": 3,
    "projection_dim": 16, "swin": SWIN,
}  # fmt: skip
"""Grids of 16x8 and 4x8x8 tokens, then 8x4 and 4x4x4; features of width 32."""
ANSWERS = ("features", "embedding", "logits")


def _config(**changes: object) -> ZorroConfig:
    return preset("swin-tiny", num_classes=5, **SMALL | changes)


def _as_if_trained(module: nn.Module) -> nn.Module:
    """No zero biases, no small weights."""
    torch.manual_seed(0)
    for parameter in module.parameters():
        nn.init.normal_(parameter, std=0.2)
    return module.eval()


@pytest.fixture(scope="module")
def model() -> ZorroModel:
    return _as_if_trained(ZorroModel(_config()))


@pytest.fixture
def audio() -> Tensor:
    return torch.randn(BATCH, 64, 32, generator=torch.Generator().manual_seed(1)) * 4 - 8


@pytest.fixture
def video() -> Tensor:
    return torch.randint(
        0, 256, (BATCH, 8, 32, 32, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(2)
    )


def test_shapes(model: ZorroModel, audio: Tensor, video: Tensor) -> None:
    out = model(audio, video)
    for answer in (out.audio, out.video, out.fusion, out.overall):
        assert (answer.features.shape, answer.embedding.shape, answer.logits.shape) == (
            (4, 32),
            (4, 16),
            (4, 5),
        )
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


def test_audio_cannot_have_seen_the_picture(model: ZorroModel, audio: Tensor, video: Tensor) -> None:
    before = model(audio, video)
    for other in (255 - video, None, torch.full(video.shape, torch.nan), video.flip(0)):
        after = model(audio, other)
        for answer in ANSWERS:
            assert torch.equal(getattr(before.audio, answer), getattr(after.audio, answer))
        assert not torch.equal(before.fusion.logits, after.fusion.logits)


def test_video_cannot_have_heard_the_sound(model: ZorroModel, audio: Tensor, video: Tensor) -> None:
    before = model(audio, video)
    for other in (None, torch.full_like(audio, torch.nan), audio * 2):
        after = model(other, video)
        for answer in ANSWERS:
            assert torch.equal(getattr(before.video, answer), getattr(after.video, answer))
        assert not torch.equal(before.fusion.logits, after.fusion.logits)


def test_a_stream_alone_gives_the_same_bits(model: ZorroModel, audio: Tensor, video: Tensor) -> None:
    whole = model(audio, video)
    for answer in ANSWERS:
        assert torch.equal(
            getattr(model.forward_stream(Stream.AUDIO, audio), answer), getattr(whole.audio, answer)
        )
        assert torch.equal(
            getattr(model.forward_stream(Stream.VIDEO, video), answer), getattr(whole.video, answer)
        )


@pytest.mark.parametrize("stream", [Stream.AUDIO, Stream.VIDEO])
def test_a_stream_alone_touches_its_own_weights_only(stream: Stream, audio: Tensor, video: Tensor) -> None:
    model = ZorroModel(_config())
    assert model.trunk.separable
    model.forward_stream(stream, {Stream.AUDIO: audio, Stream.VIDEO: video}[stream]).logits.sum().backward()
    used = {name for name, p in model.trunk.named_parameters() if p.grad is not None}
    own = (f"stages.0.{stream.key}.", f"stages.1.{stream.key}.", f"norms.{stream.key}.")
    assert used == {name for name, _ in model.trunk.named_parameters() if name.startswith(own)}


def test_fusion_reads_both_and_cross_gradients_are_zero(
    model: ZorroModel, audio: Tensor, video: Tensor
) -> None:
    sound, sight = audio.requires_grad_(), video.float().requires_grad_()
    out = model(sound, sight)
    for answer, own, other in ((out.audio, sound, sight), (out.video, sight, sound)):
        gradients = torch.autograd.grad(
            answer.logits.sum(), (own, other), retain_graph=True, allow_unused=True
        )
        assert gradients[0].abs().max() > 0
        assert gradients[1] is None
    for gradient in torch.autograd.grad(out.fusion.logits.sum(), (sound, sight)):
        assert gradient.abs().max() > 0


def test_a_mixed_batch_equals_its_samples(model: ZorroModel, audio: Tensor, video: Tensor) -> None:
    has_audio = torch.tensor([True, False, True, True])
    has_video = torch.tensor([True, True, False, True])
    audio[1], filled = torch.nan, video.float()
    filled[2] = torch.nan  # what an absent row holds does not matter
    out = model(audio, filled, has_audio=has_audio, has_video=has_video)
    assert out.video.present.tolist() == has_video.tolist()
    for i in range(BATCH):
        alone = model(audio[i : i + 1] if has_audio[i] else None, filled[i : i + 1] if has_video[i] else None)
        for name in ("audio", "video", "fusion", "overall"):
            if (single := getattr(alone, name)) is None:
                assert not getattr(out, name).logits[i].any()
            else:
                torch.testing.assert_close(
                    getattr(out, name).logits[i], single.logits[0], atol=2e-5, rtol=1e-4
                )


def test_one_item_serves_many_fusion_rows(model: ZorroModel, audio: Tensor, video: Tensor) -> None:
    pairing = Pairing(torch.tensor([0, 0, -1]), torch.tensor([1, -1, 1]))
    out = model.forward_pairs(audio[:1], video[:2], pairing)
    expected = (model(audio[:1], video[1:2]), model(audio[:1]), model(None, video[1:2]))
    for row, single in zip(out.fusion.logits, expected, strict=True):
        torch.testing.assert_close(row, single.fusion.logits[0], atol=2e-5, rtol=1e-4)


def test_every_parameter_gets_a_gradient(audio: Tensor, video: Tensor) -> None:
    torch.manual_seed(3)
    model = ZorroModel(_config(drop_path_rate=0.1)).train()
    out = model(audio, video)
    answers = (out.audio, out.video, out.fusion, out.overall)
    sum((a.logits**2).sum() + a.embedding[:, 0].sum() for a in answers).backward()
    assert [name for name, p in model.named_parameters() if p.grad is None or not p.grad.any()] == []


def test_stochastic_depth_grows_over_all_blocks() -> None:
    swin = SwinConfig(depths=(2, 1, 1), audio_window=(4, 4), video_window=(2, 4, 4))
    trunk = SwinTrunk(_config(drop_path_rate=0.3, swin=swin))
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


def test_windows_of_a_film_and_back() -> None:
    x = torch.randn(2, 4 * 6 * 8, 5)
    windows = split_windows(x, (4, 6, 8), (2, 3, 4))
    film = x.reshape(2, 4, 6, 8, 5)
    for number, (t, h, w) in enumerate(product(range(2), repeat=3)):
        part = film[:, 2 * t : 2 * t + 2, 3 * h : 3 * h + 3, 4 * w : 4 * w + 4]
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
    attention = _as_if_trained(WindowAttention(12, 3, grid, window, shift)).double()
    x = torch.randn(2, prod(grid), 12).double()
    torch.testing.assert_close(attention(x), _dense_attention(attention, x), atol=1e-12, rtol=1e-9)


def _dense_attention(attention: WindowAttention, x: Tensor) -> Tensor:
    """All tokens at once. Shifted windows are cells whose walls stand `shift` further on; nothing is rolled."""
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
    merge = _as_if_trained(PatchMerging(grid, 10))
    x = torch.randn(2, prod(grid) * 4, 5)
    torch.testing.assert_close(merge(x), _merge_by_loop(merge, x))


def _merge_by_loop(merge: PatchMerging, x: Tensor) -> Tensor:
    """Left above, right above, left below, right below: side by side, for every picture of two rows and two columns."""
    height, width = merge.grid[-2:]
    merged = [
        torch.cat([x[:, start + r * width + c] for r in (row, row + 1) for c in (column, column + 1)], dim=-1)
        for start in range(0, prod(merge.grid), height * width)
        for row in range(0, height, 2)
        for column in range(0, width, 2)
    ]
    return merge.norm(torch.stack(merged, dim=1)) @ merge.reduction.weight.T


def test_trunk_equals_its_slow_twin(model: ZorroModel, audio: Tensor, video: Tensor) -> None:
    double = ZorroModel(_config()).double().eval()
    double.load_state_dict(model.state_dict())
    tokens = {
        Stream.AUDIO: double.audio_tokens(audio.double()),
        Stream.VIDEO: double.video_tokens(video),
        Stream.FUSION: double.fusion_tokens.expand(BATCH, -1, -1),
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


@pytest.mark.parametrize(("stream", "num_tokens"), [(Stream.AUDIO, 128), (Stream.VIDEO, 256)])
def test_items_of_a_batch_do_not_mix(model: ZorroModel, stream: Stream, num_tokens: int) -> None:
    x = torch.randn(3, num_tokens, 16)
    before = model.trunk({stream: x}, None)[stream]
    other = x.clone()
    other[1] = torch.nan
    after = model.trunk({stream: other}, None)[stream]
    assert torch.equal(before[[0, 2]], after[[0, 2]])
    assert after[1].isnan().all()


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
            r"got \(16, 8\) audio tokens in stage 0, wanted multiples of the window \(5, 4\); change swin.audio_window",
        ),
        (
            {"swin": SwinConfig(depths=(1, 1), audio_window=(4, 4), video_window=(3, 4, 4))},
            r"got \(4, 8, 8\) video tokens in stage 0, wanted multiples of the window \(3, 4, 4\); change swin.video_window",
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
            r"got \(4, 3, 3\) video tokens to merge before stage 2, wanted even last two sides; change .*video_shape",
        ),
    ],
)
def test_grids_that_do_not_fit_fail(changes: dict[str, object], match: str) -> None:
    with pytest.raises(ValueError, match=match):
        SwinTrunk(_config(**changes))


@pytest.mark.parametrize(
    ("name", "parameters_of_swin", "dim", "more_biases"),
    [
        ("swin-tiny", 28_288_354, 96, 56 * (2 * 3 + 2 * 6 + 6 * 12) - 64 * 2 * 24),
        ("swin-small", 49_606_258, 96, 56 * (2 * 3 + 2 * 6 + 18 * 12) - 64 * 2 * 24),
        ("swin-base", 87_768_224, 128, 56 * (2 * 4 + 2 * 8 + 18 * 16) - 64 * 2 * 32),
    ],
)
def test_presets_build(name: str, parameters_of_swin: int, dim: int, more_biases: int) -> None:
    """The audio tower is a Swin of the paper's size, less its patches and classifier; video has longer bias tables."""
    config = preset(name, num_classes=30)
    assert ZorroConfig.from_dict(config.to_dict()) == config
    with torch.device("meta"):
        model = ZorroModel(config)
    numbers = dict.fromkeys(("audio", "video", "fusion"), 0)
    for key, parameter in model.trunk.named_parameters():
        numbers[next(part for part in key.split(".") if part in numbers)] += parameter.numel()
    patches, classifier = 3 * 4 * 4 * dim + dim + 2 * dim, 8 * dim * 1000 + 1000
    # A window of 8x8 has 225 relative positions, of 7x7 169, of 8x4 in the last stage 105.
    assert numbers["audio"] == parameters_of_swin - patches - classifier + more_biases
    assert 1 < numbers["video"] / numbers["audio"] < 1.01
    assert (
        4 * 12 < numbers["fusion"] / (8 * dim) ** 2 < 5 * 12
    )  # four transformer blocks and their maps of the towers
    assert sum(numbers.values()) < sum(p.numel() for p in model.parameters()) < 1.05 * sum(numbers.values())


def test_graphs_are_pure_equal_the_model_and_hold_one_stream(tmp_path: Path) -> None:
    spec = ClipSpec(num_mel_frames=64, num_mel_bins=32, num_video_frames=8, frame_size=32)
    swin = SwinConfig(depths=(2, 1), audio_window=(4, 4), video_window=(2, 4, 4))
    model = _as_if_trained(ZorroModel(_config(swin=swin)))
    paths = export_graphs(model, spec, tmp_path)
    for modality, path in paths.items():
        audit_graph(path)
        prove_purity(path, modality)
    arrays = golden_inputs(spec)
    clips = [
        Clip(0, 1, a, v, 1, 1, False, False) for a, v in zip(arrays["audio"], arrays["video"], strict=True)
    ][:3]
    assert (
        len(ParityCheck(model, dict.fromkeys(Modality, clips)).run(graphs_in(tmp_path), TOLERANCES["fp32"]))
        == 5
    )
    for own, other in ((Modality.AUDIO, "video"), (Modality.VIDEO, "audio")):
        weights = onnx.load(paths[own], load_external_data=False).graph.initializer
        assert any(f"trunk.stages.1.{own}." in w.name for w in weights)
        assert not any(other in w.name or "fusion" in w.name for w in weights)
        parts = (f"{own}_tokens.", f".{own}.", "pool.")
        numbers = sum(
            p.numel() for name, p in model.named_parameters() if any(part in f".{name}" for part in parts)
        )
        attentions = [block.attention for stage in model.trunk.stages for block in getattr(stage, own).blocks]
        tables = sum(
            a.num_heads * prod(a.window) ** 2 for a in attentions
        )  # biases of pairs, made ready by the exporter
        masks = sum(a.mask_W1TT.numel() for a in attentions if any(a.shift))
        assert sum(prod(w.dims) for w in weights) < 1.01 * (
            numbers + tables + masks
        )  # nor under a name that says nothing
