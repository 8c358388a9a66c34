"""Zorro-HiP: pure streams, groups that keep to themselves, equality with plain loops, and graphs that hold one stream."""

from dataclasses import replace
from math import prod
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
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
from models import HipConfig, Stream, ZorroConfig, ZorroModel, preset
from models.attention import Pairing
from models.hip import GroupBlock, HipTrunk, SquaredReLU
from tests.conftest import SMALL

BATCH = 4
HIP = HipConfig(num_groups=(4, 2), num_latents=(3, 4), dims=(16, 24), depths=(1, 2), num_heads=(2, 3))
CONFIG = {**SMALL, "tubelet_size": (2, 8, 8), "embed_dim": 20, "hip": HIP}  # 8 audio tokens, 16 video tokens
ANSWERS = ("features", "embedding", "logits")


def _config(**changes: object) -> ZorroConfig:
    return preset("hip-mini", num_classes=5, **CONFIG | changes)


@pytest.fixture(scope="module")
def model() -> ZorroModel:
    torch.manual_seed(0)
    model = ZorroModel(_config())
    for parameter in model.parameters():  # as if trained: no zero biases, no small weights
        nn.init.normal_(parameter, std=0.2)
    return model.eval()


@pytest.fixture
def audio() -> Tensor:
    return torch.randn(BATCH, 64, 32, generator=torch.Generator().manual_seed(1)) * 4 - 8


@pytest.fixture
def video() -> Tensor:
    return torch.randint(
        0, 256, (BATCH, 2, 32, 32, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(2)
    )


def test_shapes(model: ZorroModel, audio: Tensor, video: Tensor) -> None:
    out = model(audio, video)
    for answer in (out.audio, out.video, out.fusion, out.overall):
        assert (answer.features.shape, answer.embedding.shape, answer.logits.shape) == (
            (4, 24),
            (4, 16),
            (4, 5),
        )
    sizes = {Stream.AUDIO: (2, 8, 20), Stream.VIDEO: (2, 16, 20), Stream.FUSION: (2, 3, 16)}
    tokens = {stream: torch.randn(size) for stream, size in sizes.items()}
    assert {s: tuple(x.shape) for s, x in model.trunk(tokens, None).items()} == {
        Stream.AUDIO: (2, 2 * 4, 24),
        Stream.VIDEO: (2, 2 * 4, 24),
        Stream.FUSION: (2, 3, 24),
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
    assert used == {name for name, _ in model.trunk.named_parameters() if f".{stream.key}." in f".{name}"}


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


def test_groups_of_a_block_do_not_interact(model: ZorroModel) -> None:
    block = model.trunk.blocks[0].video  # 16 tokens in 4 groups, 3 latents each
    x = torch.randn(2, 16, 20)
    before = block(x)
    for group in range(4):
        other = x.clone()
        other[:, 4 * group : 4 * group + 4] += 1 + torch.randn(2, 4, 20)
        after = block(other)
        same = [torch.equal(before[:, 3 * g : 3 * g + 3], after[:, 3 * g : 3 * g + 3]) for g in range(4)]
        assert same == [g != group for g in range(4)]


def test_the_next_block_joins_neighbouring_groups(model: ZorroModel) -> None:
    """Of 4 groups of 4 tokens, the first two become the first of 2 groups, with 4 latents."""
    x = torch.randn(2, 16, 20)
    before = model.trunk({Stream.VIDEO: x}, None)[Stream.VIDEO]
    other = x.clone()
    other[:, 7] += torch.randn(2, 20)  # of the second group
    after = model.trunk({Stream.VIDEO: other}, None)[Stream.VIDEO]
    assert torch.equal(before[:, 4:], after[:, 4:])
    assert (before[:, :4] != after[:, :4]).any(dim=-1).all()


def test_latents_of_a_group_can_be_told_apart() -> None:
    """At the start of training they differ by a good part of their size, or later layers would see one token many times."""
    torch.manual_seed(0)
    model = ZorroModel(preset("hip-mini", num_classes=5))
    tokens = torch.randn(1, 784, 128)
    for block in model.trunk.blocks:
        tokens = block.video(tokens)
        latents = tokens.reshape(*block.video.latents.shape)
        assert latents.std(dim=1).mean() > 0.3 * latents.std()


def test_equals_plain_loops(model: ZorroModel, audio: Tensor, video: Tensor) -> None:
    double = ZorroModel(_config()).double().eval()
    double.load_state_dict(model.state_dict())
    tokens = {
        Stream.AUDIO: double.audio_tokens(audio.double()),
        Stream.VIDEO: double.video_tokens(video),
        Stream.FUSION: double.fusion_tokens.expand(BATCH, -1, -1),
    }
    out = double.trunk(tokens, None)
    for i in range(BATCH):
        expected = _slow_trunk(double.trunk, {stream: x[i] for stream, x in tokens.items()})
        for stream, x in expected.items():
            torch.testing.assert_close(out[stream][i], x, atol=1e-10, rtol=1e-10)


def _slow_trunk(trunk: HipTrunk, tokens: dict[Stream, Tensor]) -> dict[Stream, Tensor]:
    """One item, [tokens, width] per stream: a query, a head, a group at a time."""
    for k, block in enumerate(trunk.blocks):
        heads = HIP.num_heads[k]
        audio, video = (
            torch.cat(
                [
                    _slow_group(getattr(block, s.key), group, latents, heads)
                    for group, latents in zip(
                        tokens[s].chunk(HIP.num_groups[k]), getattr(block, s.key).latents, strict=True
                    )
                ]
            )
            for s in (Stream.AUDIO, Stream.VIDEO)
        )
        b, x = block.fusion, tokens[Stream.FUSION]
        x = _linear(b.widen, x) if k else x
        read = _linear(b.kv, _norm(b.norm_read, torch.cat([x, video, audio])))  # in an order of its own
        query, key, value = _linear(b.query, _norm(b.norm_query, x)), *read.split(HIP.dims[k], dim=1)
        x = x + _linear(b.proj, _attention(query, key, value, heads))
        tokens = {Stream.AUDIO: audio, Stream.VIDEO: video, Stream.FUSION: _slow_layers(b, x, heads)}
    return {stream: _norm(trunk.norms[stream.key], x) for stream, x in tokens.items()}


def _slow_group(block: GroupBlock, tokens: Tensor, latents: Tensor, heads: int) -> Tensor:
    tokens = _norm(block.norm_tokens, tokens)
    query = _linear(block.query, _norm(block.norm_latents, latents))
    read = _attention(query, _linear(block.key, tokens), _linear(block.value, tokens), 1)
    return _slow_layers(block, latents + _linear(block.proj, read), heads)


def _slow_layers(block: nn.Module, x: Tensor, heads: int) -> Tensor:
    x = x + _slow_mlp(block.mlp, x)
    for layer in block.layers:
        q, k, v = _linear(layer.qkv, _norm(layer.norm, x)).split(x.shape[1], dim=1)
        x = x + _linear(layer.proj, _attention(q, k, v, heads))
        x = x + _slow_mlp(layer.mlp, x)
    return x


def _slow_mlp(mlp: nn.Sequential, x: Tensor) -> Tensor:
    norm, widen, _, narrow = mlp
    assert widen.out_features == 4 * x.shape[1]
    return _linear(narrow, _linear(widen, _norm(norm, x)).clamp(min=0) ** 2)


def _attention(q: Tensor, k: Tensor, v: Tensor, heads: int) -> Tensor:
    size = q.shape[1] // heads
    out = torch.zeros_like(q)
    for i in range(len(q)):
        for part in (slice(h * size, (h + 1) * size) for h in range(heads)):
            weights = torch.exp((k[:, part] * q[i, part]).sum(1) / size**0.5)
            out[i, part] = sum(w * x for w, x in zip(weights / weights.sum(), v[:, part], strict=True))
    return out


def _norm(norm: nn.LayerNorm, x: Tensor) -> Tensor:
    centred = x - x.mean(1, keepdim=True)
    return centred / ((centred**2).mean(1, keepdim=True) + 1e-5).sqrt() * norm.weight + norm.bias


def _linear(linear: nn.Linear, x: Tensor) -> Tensor:
    out = (x[:, None] * linear.weight[None]).sum(2)
    return out if linear.bias is None else out + linear.bias


def test_squared_relu() -> None:
    assert SquaredReLU()(torch.tensor([-2.0, 0.0, 0.5, 3.0])).tolist() == [0, 0, 0.25, 9]


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


def test_stochastic_depth_grows_over_the_layers_of_a_stream() -> None:
    trunk = HipTrunk(_config(drop_path_rate=0.3))
    for stream in ("audio", "video", "fusion"):
        rates = [layer.drop_path.rate for block in trunk.blocks for layer in getattr(block, stream).layers]
        assert rates == pytest.approx([0, 0.15, 0.3])


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"dims": (16, 24, 32)}, r"one entry of at least 1 in each of .*'dims': \(16, 24, 32\)"),
        ({"num_latents": (3, 0)}, r"at least 1 in each of .*'num_latents': \(3, 0\)"),
        ({"num_heads": (2, 5)}, r"num_heads must divide dims block by block, got self.num_heads=\(2, 5\)"),
        ({"num_groups": (4, 3)}, r"must divide the one before, got self.num_groups=\(4, 3\)"),
        (
            dict.fromkeys(("num_groups", "num_latents", "dims", "depths", "num_heads"), ()),
            "every block needs",
        ),
    ],
)
def test_contradictions_fail(changes: dict[str, tuple[int, ...]], match: str) -> None:
    blocks = {
        "num_groups": (4, 2),
        "num_latents": (3, 4),
        "dims": (16, 24),
        "depths": (1, 2),
        "num_heads": (2, 3),
    }
    assert HipConfig(**blocks) == HIP
    with pytest.raises(ValueError, match=match):
        HipConfig(**blocks | changes)


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        (
            {"tubelet_size": (2, 32, 32)},
            r"got 1 video tokens, wanted a multiple of num_groups\[0\]=4; change num_groups",
        ),
        ({"audio_shape": (80, 32)}, r"got 10 audio tokens, wanted a multiple of num_groups\[0\]=4"),
    ],
)
def test_tokens_that_groups_do_not_divide_fail(changes: dict[str, object], match: str) -> None:
    with pytest.raises(ValueError, match=match):
        HipTrunk(_config(**changes))


@pytest.mark.parametrize(("name", "low", "high"), [("hip-mini", 10, 25), ("hip-16", 90, 110)])
def test_presets_build(name: str, low: float, high: float) -> None:
    config = preset(name, num_classes=30)
    assert ZorroConfig.from_dict(config.to_dict()) == config
    with torch.device("meta"):
        model = ZorroModel(config)
    assert low < sum(p.numel() for p in model.parameters()) / 1e6 < high


@pytest.fixture(scope="module")
def graphs(
    spec: ClipSpec, tmp_path_factory: pytest.TempPathFactory
) -> tuple[ZorroModel, dict[Modality, Path]]:
    torch.manual_seed(0)
    model = ZorroModel(_config(hip=replace(HIP, depths=(1, 1))))
    return model, export_graphs(model, spec, tmp_path_factory.mktemp("hip"))


def test_graphs_are_pure_and_equal_the_model(
    spec: ClipSpec, graphs: tuple[ZorroModel, dict[Modality, Path]]
) -> None:
    model, paths = graphs
    for modality, path in paths.items():
        audit_graph(path)
        prove_purity(path, modality)
    inputs = golden_inputs(spec)
    clips = [
        Clip(0, 1, a, v, 1, 1, False, False) for a, v in zip(inputs["audio"], inputs["video"], strict=True)
    ][:3]
    assert len(ParityCheck(model, dict.fromkeys(Modality, clips)).run(paths, TOLERANCES["fp32"])) == 5
    fused, alone = (onnxruntime.InferenceSession(paths[m]) for m in (Modality.FUSED, Modality.AUDIO))
    before, after = (
        fused.run(["audio_logits"], inputs | {"video": v})[0]
        for v in (inputs["video"], 255 - inputs["video"])
    )
    np.testing.assert_array_equal(before, after)
    np.testing.assert_array_equal(before, alone.run(["audio_logits"], {"audio": inputs["audio"]})[0])


@pytest.mark.parametrize(("own", "other"), [(Modality.AUDIO, "video"), (Modality.VIDEO, "audio")])
def test_a_unimodal_graph_holds_one_stream(
    own: Modality, other: str, graphs: tuple[ZorroModel, dict[Modality, Path]]
) -> None:
    model, paths = graphs
    weights = onnx.load(paths[own], load_external_data=False).graph.initializer
    assert any(f"trunk.blocks.1.{own}." in w.name for w in weights)
    assert not any(other in w.name or "fusion" in w.name for w in weights)
    parts = (f"{own}_tokens.", f".{own}.", "pool.")
    numbers = sum(
        p.numel() for name, p in model.named_parameters() if any(part in f".{name}" for part in parts)
    )
    assert sum(prod(w.dims) for w in weights) < 1.01 * numbers  # nor under a name that says nothing
