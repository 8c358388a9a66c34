"""Weights in timm's layout, made in code, as initialisation of a Zorro-ViT."""

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from models import Stream, ZorroConfig
from models.importers import import_timm_vit
from models.weights import CheckpointError
from tests.models.importers.layout_weights import block_shapes, copied_weights, new_model, random_weights

DIM, DEPTH, HEADS = 24, 2, 3
CONFIG = ZorroConfig(
    num_classes=4,
    audio_shape=(32, 32),
    video_shape=(4, 48, 48, 3),
    embed_dim=DIM,
    depth=DEPTH,
    num_heads=HEADS,
    num_fusion_tokens=2,
    projection_dim=8,
)
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # ImageNet's


def vit_weights(
    *, dim: int = DIM, depth: int = DEPTH, num_positions: int = 10, channels: int = 3
) -> dict[str, Tensor]:
    """Random numbers under the keys and in the shapes of a timm ViT with patches of 16 x 16."""
    shapes = {
        "cls_token": (1, 1, dim),
        "pos_embed": (1, num_positions, dim),
        "patch_embed.proj.weight": (dim, channels, 16, 16),
        "patch_embed.proj.bias": (dim,),
        "head.weight": (7, dim),
        "head.bias": (7,),
        **block_shapes(dim=dim, depth=depth),
    }
    return random_weights(shapes)


def textbook_block(weights: dict[str, Tensor], i: int, x: Tensor, num_heads: int) -> Tensor:
    """Dosovitskiy et al. 2021, equations 2 and 3, head by head."""

    def linear(name: str, y: Tensor) -> Tensor:
        return y @ weights[f"blocks.{i}.{name}.weight"].T + weights[f"blocks.{i}.{name}.bias"]

    def norm(name: str, y: Tensor) -> Tensor:
        centred = y - y.mean(-1, keepdim=True)
        scaled = centred / (centred.square().mean(-1, keepdim=True) + 1e-6).sqrt()
        return scaled * weights[f"blocks.{i}.{name}.weight"] + weights[f"blocks.{i}.{name}.bias"]

    width = x.shape[-1] // num_heads
    # timm reshapes to [3, heads, width]: all queries, then all keys, then all values
    q, k, v = linear("attn.qkv", norm("norm1", x)).unflatten(-1, (3, num_heads, width)).unbind(-3)
    heads = []
    for h in range(num_heads):
        scores = q[:, :, h] @ k[:, :, h].transpose(1, 2) / width**0.5
        heads.append(scores.softmax(-1) @ v[:, :, h])
    x = x + linear("attn.proj", torch.cat(heads, -1))
    hidden = linear("mlp.fc1", norm("norm2", x))
    gelu = hidden * 0.5 * (1 + torch.erf(hidden / 2**0.5))
    return x + linear("mlp.fc2", gelu)


def test_blocks_compute_what_the_vit_s_do() -> None:
    weights, model = vit_weights(), new_model(CONFIG)
    import_timm_vit(model, weights)
    x = torch.randn(2, 5, DIM, generator=torch.Generator().manual_seed(1))
    for i, block in enumerate(model.trunk.blocks):
        for stream in (Stream.AUDIO, Stream.VIDEO):
            with torch.no_grad():
                got = block({stream: x}, None)[stream]
            torch.testing.assert_close(
                got, textbook_block(weights, i, x, HEADS), rtol=1e-3, atol=1e-3
            )  # epsilons of norms
    assert torch.equal(model.trunk.norm.weight, weights["norm.weight"])


@pytest.mark.parametrize(("mean", "std"), [(MEAN, STD), ((0.5,) * 3, (0.5,) * 3)])
@pytest.mark.parametrize("video_mean", [(127.5, 127.5, 127.5), (100.0, 110.0, 120.0)])
def test_a_still_video_gives_the_picture_s_tokens(
    mean: tuple[float, ...], std: tuple[float, ...], video_mean: tuple[float, ...]
) -> None:
    weights, model = vit_weights(), new_model(replace(CONFIG, video_mean=video_mean))
    import_timm_vit(model, weights, mean=mean, std=std)
    picture = torch.randint(
        0, 256, (1, 48, 48, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(2)
    )
    normalised = ((picture / 255 - torch.tensor(mean)) / torch.tensor(std)).permute(0, 3, 1, 2)
    patches = F.conv2d(
        normalised, weights["patch_embed.proj.weight"], weights["patch_embed.proj.bias"], stride=16
    )
    want = patches.flatten(2).transpose(1, 2) + weights["pos_embed"][:, 1:]
    got = model.video_tokens(picture[:, None].expand(-1, 4, -1, -1, -1)).detach()
    for step in got.unflatten(1, (2, 9)).unbind(1):
        torch.testing.assert_close(step, want, rtol=1e-4, atol=1e-4)


def test_a_mean_picture_is_taken_at_its_average() -> None:
    weights, model = vit_weights(), new_model(replace(CONFIG, centre="picture"))
    with torch.no_grad():
        model.video_tokens.mean.copy_(torch.tensor([100.0, 110, 120]).expand(48, 48, 3))
        import_timm_vit(model, weights)
    flat = new_model(replace(CONFIG, video_mean=(100.0, 110.0, 120.0)))
    import_timm_vit(flat, weights)
    torch.testing.assert_close(model.video_tokens.embed.bias, flat.video_tokens.embed.bias)


def test_positions_are_resized_bicubically() -> None:
    weights = vit_weights(num_positions=17)  # cls and 4 x 4, to 3 x 3
    model = new_model(CONFIG)
    import_timm_vit(model, weights)
    square = weights["pos_embed"][0, 1:].reshape(4, 4, DIM).double()

    def cubic(d: float) -> float:
        d, a = abs(d), -0.75
        return (
            (a + 2) * d**3 - (a + 3) * d**2 + 1
            if d <= 1
            else a * (d**3 - 5 * d**2 + 8 * d - 4)
            if d < 2
            else 0
        )

    # Keys' cubic at sources 1/6, 3/2 and 17/6 of a line of four, ends repeated.
    line = torch.zeros(3, 4, dtype=torch.float64)
    for row in range(3):
        source = (row + 0.5) * 4 / 3 - 0.5
        for tap in range(-2, 7):
            line[row, min(max(tap, 0), 3)] += cubic(source - tap)
    want = torch.einsum("ry,cx,yxd->rcd", line, line, square).flatten(0, 1)
    torch.testing.assert_close(model.video_tokens.pos_space[0].detach().double(), want, rtol=1e-4, atol=1e-5)


def test_report_says_where_every_weight_comes_from() -> None:
    model = new_model(CONFIG)
    before = copied_weights(model)
    report = import_timm_vit(model, vit_weights())
    after = copied_weights(model)
    assert {*report.loaded, *report.zeroed, *report.kept} == after.keys()
    assert len(report.loaded) + len(report.zeroed) + len(report.kept) == len(after)
    assert all(torch.equal(before[name], after[name]) for name in report.kept)
    assert not any(torch.equal(before[name], after[name]) for name in (*report.loaded, *report.zeroed))
    assert report.zeroed == ("video_tokens.pos_time",)
    assert not after["video_tokens.pos_time"].any()
    assert report.unused == ("cls_token", "head.bias", "head.weight")
    parts = {name.split(".")[0] for name in report.kept}
    assert parts == {"audio_tokens", "fusion_tokens", "pool", "heads"}
    assert len([name for name in report.loaded if name.startswith("trunk.")]) == 12 * DEPTH + 2


def test_a_distilled_vit_has_two_tokens_before_its_patches() -> None:
    weights = vit_weights(num_positions=11) | {
        "dist_token": torch.zeros(1, 1, DIM),
        "head_dist.weight": torch.zeros(7, DIM),
        "head_dist.bias": torch.zeros(7),
    }
    model = new_model(CONFIG)
    report = import_timm_vit(model, weights)
    torch.testing.assert_close(model.video_tokens.pos_space.detach(), weights["pos_embed"][:, 2:])
    assert report.unused == (
        "cls_token",
        "dist_token",
        "head.bias",
        "head.weight",
        "head_dist.bias",
        "head_dist.weight",
    )


def test_an_imported_model_learns() -> None:
    model = new_model(CONFIG)
    import_timm_vit(model, {name: tensor.half() for name, tensor in vit_weights().items()})
    model.train()(torch.randn(1, 32, 32), torch.zeros(1, 4, 48, 48, 3)).fusion.logits.sum().backward()
    for name in ("trunk.blocks.0.qkv.weight", "video_tokens.embed.weight", "video_tokens.pos_time"):
        parameter = model.get_parameter(name)
        assert parameter.dtype == torch.float32
        assert parameter.grad.any()


def _without(name: str) -> dict[str, Tensor]:
    return {key: tensor for key, tensor in vit_weights().items() if key != name}


@pytest.mark.parametrize(
    ("weights", "match"),
    [
        (vit_weights(depth=3), "weights have depth 3 and width 24, the model has depth 2 and width 24"),
        (vit_weights(dim=48), "weights have depth 2 and width 48, the model has depth 2 and width 24"),
        (vit_weights(num_positions=9), "8 patches, which are no square"),
        (_without("pos_embed"), "pos_embed: got nothing"),
        (vit_weights() | {"pos_embed": torch.zeros(1, 1, DIM)}, r"pos_embed: got \(1, 1, 24\)"),
        (_without("blocks.1.attn.qkv.bias"), "missing=.'blocks.1.attn.qkv.bias'"),
        (_without("norm.weight"), "missing=.'norm.weight'"),
        (vit_weights() | {"blocks.0.ls1.gamma": torch.ones(DIM)}, "unknown=.'blocks.0.ls1.gamma'"),
        (vit_weights() | {"norm_pre.weight": torch.ones(DIM)}, "unknown=.'norm_pre.weight'"),
        (
            vit_weights(channels=1),
            r"patch_embed.proj.weight: got \(24, 1, 16, 16\), wanted \(24, 3, 16, 16\)",
        ),
        (
            vit_weights() | {"blocks.0.mlp.fc1.weight": torch.zeros(DIM, DIM)},
            r"fc1.w\w+: got \(24, 24\), wanted \(96, 24\)",
        ),
    ],
)
def test_weights_that_do_not_fit_fail_and_change_nothing(weights: dict[str, Tensor], match: str) -> None:
    model = new_model(CONFIG)
    before = copied_weights(model)
    with pytest.raises(CheckpointError, match=match):
        import_timm_vit(model, weights)
    after = copied_weights(model)
    assert all(torch.equal(before[name], after[name]) for name in before)


@pytest.mark.parametrize("changes", [{"stem": "conv"}, {"backbone": "swin"}])
def test_a_model_without_a_place_for_them_fails(changes: dict[str, object]) -> None:
    from models import SwinConfig

    swin = SwinConfig(depths=(1,)) if "backbone" in changes else None
    with pytest.raises(
        ValueError, match=r"need backbone=vit and stem=patch, the model has backbone=\w+, stem=\w+"
    ):
        import_timm_vit(new_model(replace(CONFIG, swin=swin, **changes)), vit_weights())
