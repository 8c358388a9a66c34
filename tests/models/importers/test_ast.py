"""Weights in AST's layout, made in code, as initialisation of the audio side."""

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from models import Stream, ZorroConfig
from models.importers import import_ast
from models.weights import CheckpointError
from tests.models.importers.layout_weights import block_shapes, copied_weights, new_model, random_weights

DIM, DEPTH = 12, 2
CONFIG = ZorroConfig(
    num_classes=4,
    audio_shape=(256, 128),
    video_shape=(2, 32, 32, 3),
    embed_dim=DIM,
    depth=DEPTH,
    num_heads=2,
    num_fusion_tokens=2,
    projection_dim=8,
)
AUDIO_POSITIONS = ("audio_tokens.pos_time", "audio_tokens.pos_frequency")


def ast_weights(
    *, dim: int = DIM, depth: int = DEPTH, grid: tuple[int, int] = (12, 101)
) -> dict[str, Tensor]:
    """Random numbers under the keys and in the shapes of AST's files; `grid` is (frequency, time)."""
    shapes = {
        "cls_token": (1, 1, dim),
        "dist_token": (1, 1, dim),
        "pos_embed": (1, 2 + grid[0] * grid[1], dim),
        "patch_embed.proj.weight": (dim, 1, 16, 16),
        "patch_embed.proj.bias": (dim,),
        "head.weight": (9, dim),
        "head_dist.weight": (9, dim),
        **block_shapes(dim=dim, depth=depth),
    }
    classifier = {"module.mlp_head.0.weight": (dim,), "module.mlp_head.1.weight": (9, dim)}
    return random_weights({f"module.v.{name}": shape for name, shape in shapes.items()} | classifier)


def with_positions(frequency: Tensor, time: Tensor) -> dict[str, Tensor]:
    """AST's weights whose positions are a sum of both lines."""
    weights = ast_weights(grid=(len(frequency), len(time)))
    weights["module.v.pos_embed"][0, 2:] = (frequency[:, None] + time).reshape(-1, DIM)
    return weights


def test_patches_are_embedded_as_ast_does() -> None:
    weights, model = ast_weights(), new_model(replace(CONFIG, audio_mean=-7.0, audio_std=3.0))
    import_ast(model, weights)
    normalised = torch.randn(1, 256, 128, generator=torch.Generator().manual_seed(1))  # (log-mel + 7) in nats
    # AST: minus its mean, by twice its std, axes (frequency, time); at a stride of 16 its patches are ours.
    to_ast = (normalised / (2 * 4.5689974)).transpose(1, 2)[:, None]
    patches = F.conv2d(
        to_ast, weights["module.v.patch_embed.proj.weight"], weights["module.v.patch_embed.proj.bias"], 16
    )
    want = patches.permute(0, 3, 2, 1).reshape(1, 16 * 8, DIM)  # [batch, dim, frequency, time] to ours
    tokens = model.audio_tokens
    got = tokens(normalised - 7) - (tokens.pos_time + tokens.pos_frequency).reshape(1, -1, DIM)
    torch.testing.assert_close(got.detach(), want, rtol=1e-4, atol=1e-4)


def test_the_normalisation_is_an_argument() -> None:
    one, other = new_model(CONFIG), new_model(CONFIG)
    import_ast(one, ast_weights())
    import_ast(other, ast_weights(), std=2 * 4.5689974)
    torch.testing.assert_close(one.audio_tokens.embed.weight, 2 * other.audio_tokens.embed.weight)
    assert torch.equal(one.audio_tokens.embed.bias, other.audio_tokens.embed.bias)


def test_positions_that_are_sums_come_back_whole() -> None:
    """Where grids are equal: patches side by side, 128 bins and 128 frames."""
    frequency, time = torch.randn(8, DIM), torch.randn(8, DIM)
    model = new_model(replace(CONFIG, audio_shape=(128, 128)))
    import_ast(model, with_positions(frequency, time), stride=16)
    ours = model.audio_tokens.pos_time + model.audio_tokens.pos_frequency
    torch.testing.assert_close(ours.detach(), time[:, None] + frequency)
    # Frequencies are what is beside the mean, so that it is not added twice.
    torch.testing.assert_close(
        model.audio_tokens.pos_frequency.mean(1).detach(), torch.zeros(1, DIM), rtol=0, atol=1e-6
    )


def test_positions_are_the_nearest_sum() -> None:
    weights = ast_weights(grid=(8, 8))
    model = new_model(replace(CONFIG, audio_shape=(128, 128)))
    import_ast(model, weights, stride=16)
    theirs = weights["module.v.pos_embed"][0, 2:].reshape(8, 8, DIM).transpose(0, 1)
    rest = theirs - (model.audio_tokens.pos_time + model.audio_tokens.pos_frequency).detach()
    # Least squares: the rest has no mean along either axis.
    for axis in (0, 1):
        torch.testing.assert_close(rest.mean(axis), torch.zeros(8, DIM), rtol=0, atol=1e-6)
    assert rest.abs().max() > 0.1


def test_a_shorter_clip_gets_the_middle_of_the_positions_in_time() -> None:
    channels = torch.linspace(1, 2, DIM)
    model = new_model(CONFIG)  # 16 x 8 of 16; AST has 101 x 12 at stride 10
    import_ast(model, with_positions(torch.zeros(12, DIM), torch.arange(101.0)[:, None] * channels))
    # 16 patches of 16 frames span 256 frames, 26 of AST's; the middle of 101 begins at 37.
    want = 37 + (torch.arange(16) + 0.5) * 26 / 16 - 0.5
    torch.testing.assert_close(model.audio_tokens.pos_time[:, 0].detach(), want[:, None] * channels)


def test_a_longer_clip_gets_all_of_them_stretched() -> None:
    channels = torch.linspace(1, 2, DIM)
    model = new_model(replace(CONFIG, audio_shape=(2048, 128)))
    import_ast(
        model, with_positions(torch.arange(12.0)[:, None] * channels, torch.arange(101.0)[:, None] * channels)
    )
    time = ((torch.arange(128) + 0.5) * 101 / 128 - 0.5).clamp(
        min=0, max=100
    ) + 5.5  # the mean of frequencies
    torch.testing.assert_close(model.audio_tokens.pos_time[:, 0].detach(), time[:, None] * channels)
    frequency = (torch.arange(8) + 0.5) * 12 / 8 - 0.5 - 5.5
    torch.testing.assert_close(
        model.audio_tokens.pos_frequency[0].detach(), frequency[:, None] * channels, rtol=1e-4, atol=1e-4
    )


def test_the_trunk_is_left_alone_unless_asked() -> None:
    model = new_model(CONFIG)
    before = copied_weights(model)
    report = import_ast(model, ast_weights(depth=5))  # any depth
    after = copied_weights(model)
    assert set(report.loaded) == {"audio_tokens.embed.weight", "audio_tokens.embed.bias", *AUDIO_POSITIONS}
    assert report.zeroed == ()
    assert {*report.loaded, *report.kept} == after.keys()
    assert {name for name in after if not torch.equal(before[name], after[name])} == set(report.loaded)
    assert {"module.mlp_head.1.weight", "module.v.cls_token", "module.v.blocks.4.norm1.bias"} <= set(
        report.unused
    )
    assert "module.v.pos_embed" not in report.unused


def test_the_trunk_if_asked_computes_what_ast_s_does() -> None:
    weights, model = ast_weights(), new_model(CONFIG)
    report = import_ast(model, weights, trunk=True)
    assert len([name for name in report.loaded if name.startswith("trunk.")]) == 12 * DEPTH + 2
    assert not any("blocks" in name for name in report.unused)
    layer = torch.nn.TransformerEncoderLayer(
        DIM, 2, 4 * DIM, dropout=0, activation="gelu", batch_first=True, norm_first=True, layer_norm_eps=1e-6
    )
    names = {
        "norm1.": "norm1",
        "norm2.": "norm2",
        "self_attn.in_proj_": "attn.qkv",
        "self_attn.out_proj.": "attn.proj",
        "linear1.": "mlp.fc1",
        "linear2.": "mlp.fc2",
    }
    layer.load_state_dict(
        {
            torchs + part: weights[f"module.v.blocks.1.{asts}.{part}"]
            for torchs, asts in names.items()
            for part in ("weight", "bias")
        }
    )
    x = torch.randn(2, 5, DIM, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        got = model.trunk.blocks[1]({Stream.AUDIO: x}, None)[Stream.AUDIO]
        torch.testing.assert_close(got, layer(x), rtol=1e-3, atol=1e-3)  # epsilons of norms
    assert torch.equal(model.trunk.norm.bias, weights["module.v.norm.bias"])


def test_the_trunk_of_another_depth_fails() -> None:
    with pytest.raises(
        CheckpointError, match="weights have depth 5 and width 12, the model has depth 2 and width 12"
    ):
        import_ast(new_model(CONFIG), ast_weights(depth=5), trunk=True)


@pytest.mark.parametrize(
    ("weights", "match"),
    [
        (ast_weights(dim=24), "weights have width 24, the model has width 12"),
        (
            ast_weights(grid=(11, 101)),
            "1111 patches, wanted a multiple of the 12 along frequency at stride=10",
        ),
        ({"v.pos_embed": torch.zeros(1, 1214, DIM)}, "no key starts with 'module.v.'.*got .'v.pos_embed'"),
        (
            {k: v for k, v in ast_weights().items() if "proj.bias" not in k},
            "missing=.'patch_embed.proj.bias'",
        ),
        (ast_weights() | {"module.v.gate": torch.zeros(1)}, "unknown=.'gate'"),
    ],
)
def test_weights_that_do_not_fit_fail_and_change_nothing(weights: dict[str, Tensor], match: str) -> None:
    model = new_model(CONFIG)
    before = copied_weights(model)
    with pytest.raises(CheckpointError, match=match):
        import_ast(model, weights)
    after = copied_weights(model)
    assert all(torch.equal(before[name], after[name]) for name in before)


def test_models_without_a_place_for_them_fail() -> None:
    with pytest.raises(ValueError, match="the model has backbone=vit, stem=conv"):
        import_ast(new_model(replace(CONFIG, stem="conv")), ast_weights())
    with pytest.raises(
        CheckpointError, match=r"patch_embed.proj.weight: got \(12, 1, 16, 16\), wanted \(12, 1, 16, 32\)"
    ):
        import_ast(new_model(replace(CONFIG, patch_size=(32, 16))), ast_weights())
