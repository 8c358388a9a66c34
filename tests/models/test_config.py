"""Configs: as a dict and back, and contradictions that are refused."""

import pytest

from models import PRESETS, MobileConfig, Stem, ZorroConfig, preset
from models.registry import build_trunk
from models.stems import ConvStem


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"patch_size": (30, 16)}, "audio_shape"),
        ({"video_shape": (3, 128, 128, 3)}, "video_shape"),
        ({"num_heads": 5}, "num_heads"),
        ({"num_fusion_tokens": 0}, "num_fusion_tokens"),
        ({"drop_path_rate": 1.0}, "drop_path_rate"),
        ({"stem": "magic"}, "magic"),
    ],
)
def test_contradictions_fail(changes: dict[str, object], match: str) -> None:
    with pytest.raises(ValueError, match=match):
        preset("vit-tiny", num_classes=3, **changes)


def test_unknown_names_fail() -> None:
    with pytest.raises(ValueError, match="no preset 'vit-huge'"):
        preset("vit-huge", num_classes=3)
    with pytest.raises(ValueError, match="'cnn' is not a valid BackboneName"):
        build_trunk(preset("vit-tiny", num_classes=3, backbone="cnn"))
    with pytest.raises(ValueError, match="powers of two"):
        ConvStem(1, 32, (12, 16))
    with pytest.raises(ValueError, match="missing=\\['depth'\\]"):
        ZorroConfig.from_dict(
            {k: v for k, v in preset("vit-tiny", num_classes=3).to_dict().items() if k != "depth"}
        )


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"patch_size": (16, 32)}, r"the strides patch_size=\(32, 32\)"),
        ({"tubelet_size": (2, 32, 32)}, r"tubelet_size=\(1, 32, 32\), got"),
        ({"audio_shape": (500, 128)}, "audio_shape"),
        (
            {"masking": "bottleneck"},
            "needs backbone=vit and masking=zorro, got backbone=vit, masking=bottleneck",
        ),
        ({"masking": "independent"}, "masking=zorro"),
        ({"backbone": "hip", "hip": {}}, "needs backbone=vit and masking=zorro, got backbone=hip"),
        ({"backbone": "swin", "swin": {}}, "got backbone=swin"),
        ({"mobile": {"audio_classes": (0, 4)}}, "classes up to 4, the model has num_classes=3"),
        ({"mobile": {"audio_classes": (0, 2), "video_classes": (1, 3)}}, "must not be known to both stems"),
        ({"mobile": {"video_classes": (2, 1)}}, r"the one after the last, got \(2, 1\)"),
        ({"mobile": {"audio_width": 0}}, "must be above 0"),
        ({"mobile": None}, "mobile=None does not go with stem=mobile"),
        ({"stem": "patch"}, "does not go with stem=patch"),
    ],
)
def test_contradictions_of_mobile_stems_fail(changes: dict[str, object], match: str) -> None:
    with pytest.raises(ValueError, match=match):
        preset("mobile", num_classes=3, **changes)


def test_configs_from_before_mobile_stems_load_and_are_written_as_they_were() -> None:
    for name in PRESETS:
        plain = preset(name, num_classes=3).to_dict()
        assert ("mobile" in plain) == (plain["stem"] == Stem.MOBILE)
        assert ZorroConfig.from_dict(plain).to_dict() == plain


def test_stem_classifiers_are_left_out_for_other_classes() -> None:
    mobile = MobileConfig(audio_width=0.5, audio_classes=(0, 1), video_classes=(1, 3))
    config = preset("mobile", num_classes=3, mobile=mobile)
    assert config.has_stem_classifiers
    other = config.without_stem_classifiers()
    assert not other.has_stem_classifiers
    assert other.mobile == MobileConfig(audio_width=0.5)
    plain = preset("vit-tiny", num_classes=3)
    assert plain.without_stem_classifiers() == plain
