"""Zorro-HiP: groups that do not read one another, equality with plain loops, and contradicting configs."""

import pytest
import torch
from torch import Tensor, nn

from models import HipConfig, Stream, ZorroModel, preset
from models.hip import GroupBlock, HipTrunk, SquaredReLU
from tests.small_models import SMALL_HIP, as_if_trained, random_audio, random_video, small_config

HIP = HipConfig(**SMALL_HIP["hip"])


@pytest.fixture(scope="module")
def model() -> ZorroModel:
    return as_if_trained(ZorroModel(small_config("hip-mini")))


def test_shapes_of_tokens(model: ZorroModel) -> None:
    assert (model.config.features_dim, model.config.fusion_dim) == (24, 16)
    sizes = {Stream.AUDIO: (2, 8, 20), Stream.VIDEO: (2, 16, 20), Stream.FUSION: (2, 3, 16)}
    tokens = {stream: torch.randn(size) for stream, size in sizes.items()}
    assert {s: tuple(x.shape) for s, x in model.trunk(tokens, None).items()} == {
        Stream.AUDIO: (2, 2 * 4, 24),
        Stream.VIDEO: (2, 2 * 4, 24),
        Stream.FUSION: (2, 3, 24),
    }


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
    """Before training they differ by a good part of their size, or later layers read one token many times."""
    torch.manual_seed(0)
    model = ZorroModel(preset("hip-mini", num_classes=5))
    tokens = torch.randn(1, 784, 128)
    for block in model.trunk.blocks:
        tokens = block.video(tokens)
        latents = tokens.reshape(*block.video.latents.shape)
        assert latents.std(dim=1).mean() > 0.3 * latents.std()


def test_equals_plain_loops(model: ZorroModel) -> None:
    audio, video = random_audio(model.config), random_video(model.config)
    double = ZorroModel(small_config("hip-mini")).double().eval()
    double.load_state_dict(model.state_dict())
    tokens = {
        Stream.AUDIO: double.audio_tokens(audio.double()),
        Stream.VIDEO: double.video_tokens(video),
        Stream.FUSION: double.fusion_tokens.expand(len(audio), -1, -1),
    }
    out = double.trunk(tokens, None)
    for i in range(len(audio)):
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


def test_stochastic_depth_grows_over_the_layers_of_a_stream() -> None:
    trunk = HipTrunk(small_config("hip-mini", drop_path_rate=0.3))
    for stream in ("audio", "video", "fusion"):
        rates = [layer.drop_path.rate for block in trunk.blocks for layer in getattr(block, stream).layers]
        assert rates == pytest.approx([0, 0.15, 0.3])


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"dims": (16, 24, 32)}, r"one entry of at least 1 in each of .*'dims': \(16, 24, 32\)"),
        ({"num_latents": (3, 0)}, r"at least 1 in each of .*'num_latents': \(3, 0\)"),
        ({"num_heads": (2, 5)}, r"num_heads must divide dims block by block, got num_heads=\(2, 5\)"),
        ({"num_groups": (4, 3)}, r"must divide the one before it, got num_groups=\(4, 3\)"),
        (
            dict.fromkeys(("num_groups", "num_latents", "dims", "depths", "num_heads"), ()),
            "every block needs",
        ),
    ],
)
def test_contradictions_fail(changes: dict[str, tuple[int, ...]], match: str) -> None:
    with pytest.raises(ValueError, match=match):
        HipConfig(**SMALL_HIP["hip"] | changes)


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
        HipTrunk(small_config("hip-mini", **changes))
