"""ZorroConfig: every number of a model, checked, with the presets."""

import json
from dataclasses import asdict, dataclass, fields
from enum import StrEnum
from typing import Any, Self


class Stem(StrEnum):
    """How pixels and mel bins become tokens."""

    PATCH = "patch"  # one linear map per patch, as in ViT
    CONV = "conv"  # strided 3x3 convolutions, for small data (Xiao et al. 2021, arXiv:2106.14881)


@dataclass(frozen=True, slots=True, kw_only=True)
class ZorroConfig:
    """Shapes and sizes of a Zorro. Defaults are Zorro-ViT at the base preset; docs/adr says which are our own.

    Raises:
        ValueError: the numbers contradict each other.
    """

    num_classes: int
    backbone: str = "vit"
    audio_shape: tuple[int, int] = (256, 128)  # (mel frames, mel bins)
    video_shape: tuple[int, int, int, int] = (8, 224, 224, 3)  # (video frames, height, width, RGB)
    patch_size: tuple[int, int] = (16, 16)  # (mel frames, mel bins)
    tubelet_size: tuple[int, int, int] = (2, 16, 16)  # (video frames, height, width)
    stem: Stem = Stem.PATCH
    embed_dim: int = 768
    depth: int = 12
    num_heads: int = 12
    mlp_ratio: float = 4.0
    num_fusion_tokens: int = 8
    projection_dim: int = 512
    drop_path_rate: float = 0.0  # of the deepest layer; shallower ones get linearly less
    audio_mean: float = -8.0
    audio_std: float = 4.0
    video_mean: tuple[float, float, float] = (127.5, 127.5, 127.5)
    video_std: tuple[float, float, float] = (63.75, 63.75, 63.75)

    def __post_init__(self) -> None:
        object.__setattr__(self, "stem", Stem(self.stem))
        for name, shape, patch in (
            ("audio_shape", self.audio_shape, self.patch_size),
            ("video_shape", self.video_shape[:3], self.tubelet_size),
        ):
            if any(size % step for size, step in zip(shape, patch, strict=True)):
                raise ValueError(f"{name}={shape} must be a multiple of its patch {patch} along every axis")
        if self.embed_dim % self.num_heads:
            raise ValueError(f"{self.num_heads=} must divide {self.embed_dim=}")
        if self.num_fusion_tokens < 1 or self.num_classes < 1 or self.depth < 1:
            raise ValueError("num_fusion_tokens, num_classes and depth must be at least 1")
        if not 0 <= self.drop_path_rate < 1:
            raise ValueError(f"{self.drop_path_rate=} must lie in [0, 1)")

    @property
    def audio_grid(self) -> tuple[int, int]:
        """Audio tokens along (time, frequency)."""
        return (self.audio_shape[0] // self.patch_size[0], self.audio_shape[1] // self.patch_size[1])

    @property
    def video_grid(self) -> tuple[int, int, int]:
        """Video tokens along (time, height, width)."""
        frames, height, width = self.video_shape[:3]
        t, h, w = self.tubelet_size
        return (frames // t, height // h, width // w)

    def to_dict(self) -> dict[str, Any]:
        """Numbers as JSON types; `from_dict` is its inverse."""
        return json.loads(json.dumps(asdict(self)))

    @classmethod
    def from_dict(cls, numbers: dict[str, Any]) -> Self:
        """Inverse of `to_dict`.

        Raises:
            ValueError: a number is missing or unknown.
        """
        names = {field.name for field in fields(cls)}
        if names != numbers.keys():
            missing, unknown = sorted(names - numbers.keys()), sorted(numbers.keys() - names)
            raise ValueError(f"not a ZorroConfig: {missing=}, {unknown=}")
        return cls(**{k: tuple(v) if isinstance(v, list) else v for k, v in numbers.items()})


PRESETS: dict[str, dict[str, Any]] = {
    "vit-tiny": {
        "audio_shape": (512, 80), "patch_size": (32, 16), "video_shape": (2, 128, 128, 3), "stem": Stem.CONV,
        "embed_dim": 192, "depth": 6, "num_heads": 3, "projection_dim": 256,
    },
    "vit-small": {"embed_dim": 384, "depth": 12, "num_heads": 6},
    "vit-base": {"embed_dim": 768, "depth": 12, "num_heads": 12},
    "vit-large": {"embed_dim": 1024, "depth": 24, "num_heads": 16},
}  # fmt: skip


def preset(name: str, *, num_classes: int, **changes: Any) -> ZorroConfig:
    """The preset called `name`, with changes.

    Raises:
        ValueError: there is no such preset.
        TypeError: a change names no field.
    """
    if name not in PRESETS:
        raise ValueError(f"no preset {name!r}; there are {', '.join(PRESETS)}")
    return ZorroConfig(**{**PRESETS[name], "num_classes": num_classes, **changes})
