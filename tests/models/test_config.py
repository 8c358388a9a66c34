"""Configs: as a dict and back, and contradictions that are refused."""

import pytest

from models import ZorroConfig, preset
from models.registry import build_trunk
from models.tokens import ConvStem


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
