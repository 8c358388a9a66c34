"""The config of a model: every size and choice, checked. Configs with a name are in `presets`."""

import json
from dataclasses import asdict, dataclass, fields, replace
from enum import StrEnum
from itertools import pairwise
from typing import Any, Self

from .mask import Masking

MOBILE_PATCH, MOBILE_TUBELET = (32, 32), (1, 32, 32)
"""What one position of the last maps of `Stem.MOBILE` covers: mel frames and bins; frames and pixels."""


class BackboneName(StrEnum):
    """The trunk that processes the tokens."""

    VIT = "vit"
    SWIN = "swin"
    HIP = "hip"


class Stem(StrEnum):
    """The layers that turn pixels and mel bins into tokens."""

    PATCH = "patch"  # one linear map per patch, as in ViT
    CONV = "conv"  # strided 3x3 convolutions, for small data (Xiao et al. 2021, arXiv:2106.14881)
    MOBILE = "mobile"  # whole networks, MobileNetV3 and EfficientNet-Lite, which may classify by themselves


class Centre(StrEnum):
    """What is subtracted from pixels before they become tokens."""

    COLOUR = "colour"  # the mean colour of the training data
    PICTURE = (
        "picture"  # the mean picture of the training data, stored with the weights: for one camera position
    )
    MOTION = "motion"  # the mean of each pixel over the window, so that the model reads only what moves


@dataclass(frozen=True, slots=True, kw_only=True)
class SwinConfig:
    """Stages of a Swin tower (Liu et al. 2021, arXiv:2103.14030).

    Each stage after the first halves the last two axes of the grid. Width and number of heads of stage i are
    2**i times those of the first. A window larger than its grid is cut to it.

    Raises:
        ValueError: a depth below 1, or a window with another number of axes than its grid.
    """

    depths: tuple[int, ...] = (2, 2, 6, 2)
    audio_window: tuple[int, int] = (8, 8)  # tokens (time, frequency)
    video_window: tuple[int, int, int] = (4, 7, 7)  # tokens (time, height, width)

    def __post_init__(self) -> None:
        if (
            not self.depths
            or min(self.depths) < 1
            or (len(self.audio_window), len(self.video_window)) != (2, 3)
        ):
            raise ValueError(
                f"wanted depths of at least 1, a window of 2 sizes for audio and of 3 for video, got {self}"
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class HipConfig:
    """Blocks of a Hierarchical Perceiver (Carreira et al. 2022, arXiv:2202.10890), one entry per block.

    Raises:
        ValueError: the numbers contradict each other.
    """

    num_groups: tuple[int, ...] = (16, 4, 1)
    num_latents: tuple[int, ...] = (64, 128, 256)  # per group
    dims: tuple[int, ...] = (128, 256, 512)
    depths: tuple[int, ...] = (2, 4, 6)  # self-attention layers after the cross-attention
    num_heads: tuple[int, ...] = (4, 8, 8)

    def __post_init__(self) -> None:
        entries = asdict(self)
        if len(set(map(len, entries.values()))) != 1 or not all(
            min(x, default=0) >= 1 for x in entries.values()
        ):
            raise ValueError(f"every block needs one entry of at least 1 in each of {entries}")
        for dim, num_heads in zip(self.dims, self.num_heads, strict=True):
            if dim % num_heads:
                raise ValueError(
                    "num_heads must divide dims block by block, "
                    f"got num_heads={self.num_heads}, dims={self.dims}"
                )
        for before, after in pairwise(self.num_groups):
            if before % after:
                raise ValueError(
                    f"each of num_groups must divide the one before it, got num_groups={self.num_groups}"
                )


@dataclass(frozen=True, slots=True, kw_only=True)
class MobileConfig:
    """The networks of `Stem.MOBILE`, and which classes of the model they know by themselves.

    `audio_classes` are the first class that the audio stem knows and the one after its last, in the order of
    the logits; `video_classes` likewise. (0, 0): the stem has no classifier. Classes of neither belong to the
    trunk alone. If neither stem has a classifier, the trunk classifies as under any other stem.

    Raises:
        ValueError: a multiplier is not above 0, a range is none, or the two overlap.
    """

    audio_width: float = 0.4  # times the channels of MobileNetV3-large
    video_width: float = 1.0  # times the channels of EfficientNet-Lite0; 1.1 for Lite2
    video_depth: float = 1.0  # times its blocks; 1.2 for Lite2
    audio_classes: tuple[int, int] = (0, 0)
    video_classes: tuple[int, int] = (0, 0)

    def __post_init__(self) -> None:
        if min(self.audio_width, self.video_width, self.video_depth) <= 0:
            raise ValueError(f"audio_width, video_width and video_depth must be above 0, got {self}")
        for classes in (self.audio_classes, self.video_classes):
            if len(classes) != 2 or not 0 <= classes[0] <= classes[1]:
                raise ValueError(f"wanted the first class and the one after the last, got {classes}")
        ranges = [range(*classes) for classes in (self.audio_classes, self.video_classes)]
        if set(ranges[0]) & set(ranges[1]):
            raise ValueError(
                "a class must not be known to both stems, "
                f"got audio_classes={self.audio_classes}, video_classes={self.video_classes}"
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class ZorroConfig:
    """Shapes and sizes of a model. The defaults are Zorro-ViT at the base preset.

    Raises:
        ValueError: the numbers contradict each other.
    """

    num_classes: int
    backbone: BackboneName = BackboneName.VIT
    masking: Masking = Masking.ZORRO
    audio_shape: tuple[int, int] = (256, 128)  # (mel frames, mel bins)
    video_shape: tuple[int, int, int, int] = (8, 224, 224, 3)  # (video frames, height, width, RGB)
    patch_size: tuple[int, int] = (16, 16)  # (mel frames, mel bins)
    tubelet_size: tuple[int, int, int] = (2, 16, 16)  # (video frames, height, width)
    stem: Stem = Stem.PATCH
    centre: Centre = Centre.COLOUR
    embed_dim: int = 768  # of tokens; a Swin widens it from stage to stage
    depth: int = 12  # of a ViT
    num_heads: int = 12  # of a ViT, and of a Swin's first stage
    mlp_ratio: float = 4.0
    num_fusion_tokens: int = 8
    projection_dim: int = 512
    drop_path_rate: float = 0.0  # of the deepest layer; it falls linearly to 0 at the first
    audio_mean: float = -8.0
    audio_std: float = 4.0
    video_mean: tuple[float, float, float] = (127.5, 127.5, 127.5)
    video_std: tuple[float, float, float] = (63.75, 63.75, 63.75)
    swin: SwinConfig | None = None
    hip: HipConfig | None = None
    mobile: MobileConfig | None = None

    def __post_init__(self) -> None:
        for name, kind in (
            ("backbone", BackboneName),
            ("masking", Masking),
            ("stem", Stem),
            ("centre", Centre),
        ):
            object.__setattr__(self, name, kind(getattr(self, name)))
        self._check_parts()
        if self.masking != Masking.ZORRO and self.backbone != BackboneName.VIT:
            raise ValueError(f"masking={self.masking} needs backbone=vit, got backbone={self.backbone}")
        for name, shape, patch in (
            ("audio_shape", self.audio_shape, self.patch_size),
            ("video_shape", self.video_shape[:3], self.tubelet_size),
        ):
            if any(size % step for size, step in zip(shape, patch, strict=True)):
                raise ValueError(f"{name}={shape} must be a multiple of its patch {patch} along every axis")
        if self.embed_dim % self.num_heads:
            raise ValueError(f"num_heads={self.num_heads} must divide embed_dim={self.embed_dim}")
        if self.num_fusion_tokens < 1 or self.num_classes < 1 or self.depth < 1:
            given = f"{self.num_fusion_tokens}, {self.num_classes} and {self.depth}"
            raise ValueError(f"num_fusion_tokens, num_classes and depth must be at least 1, got {given}")
        if not 0 <= self.drop_path_rate < 1:
            raise ValueError(f"drop_path_rate={self.drop_path_rate} must lie in [0, 1)")

    def _check_parts(self) -> None:
        for part, backbone in ((self.swin, BackboneName.SWIN), (self.hip, BackboneName.HIP)):
            if (part is not None) != (self.backbone == backbone):
                raise ValueError(f"{backbone}={part} does not go with backbone={self.backbone}")
        if (self.mobile is not None) != (self.stem == Stem.MOBILE):
            raise ValueError(f"mobile={self.mobile} does not go with stem={self.stem}")
        if self.mobile is not None:
            self._check_mobile(self.mobile)

    def _check_mobile(self, mobile: MobileConfig) -> None:
        if (self.backbone, self.masking) != (BackboneName.VIT, Masking.ZORRO):
            raise ValueError(
                "stem=mobile needs backbone=vit and masking=zorro, "
                f"got backbone={self.backbone}, masking={self.masking}"
            )
        if (tuple(self.patch_size), tuple(self.tubelet_size)) != (MOBILE_PATCH, MOBILE_TUBELET):
            raise ValueError(
                f"stem=mobile has the strides patch_size={MOBILE_PATCH} and tubelet_size={MOBILE_TUBELET}, "
                f"got patch_size={self.patch_size}, tubelet_size={self.tubelet_size}"
            )
        if max(mobile.audio_classes[1], mobile.video_classes[1]) > self.num_classes:
            raise ValueError(
                f"the stems know classes up to {max(mobile.audio_classes[1], mobile.video_classes[1])}, "
                f"the model has num_classes={self.num_classes}; change mobile.audio_classes and video_classes"
            )

    @property
    def has_stem_classifiers(self) -> bool:
        """Whether a stem classifies by itself."""
        mobile = self.mobile
        ranges = () if mobile is None else (mobile.audio_classes, mobile.video_classes)
        return any(first < end for first, end in ranges)

    @property
    def features_dim(self) -> int:
        """Width of the tokens that leave the trunk, and of the features."""
        if self.swin is not None:
            return self.embed_dim << (len(self.swin.depths) - 1)
        return self.embed_dim if self.hip is None else self.hip.dims[-1]

    @property
    def fusion_dim(self) -> int:
        """Width of the fusion tokens that enter the trunk; a Swin's have the width of its last stage."""
        return self.features_dim if self.hip is None else self.hip.dims[0]

    @property
    def num_pool_heads(self) -> int:
        """Attention heads of the output queries."""
        if self.swin is not None:
            return self.num_heads << (len(self.swin.depths) - 1)
        return self.num_heads if self.hip is None else self.hip.num_heads[-1]

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

    def without_stem_classifiers(self) -> Self:
        """The same config with stems that do not classify by themselves, for other classes."""
        if self.mobile is None:
            return self
        return replace(self, mobile=replace(self.mobile, audio_classes=(0, 0), video_classes=(0, 0)))

    def to_dict(self) -> dict[str, Any]:
        """The fields as JSON types; `from_dict` is the inverse.

        `mobile` is left out where it is None, so that models without it are written as they were before it.
        """
        plain: dict[str, Any] = json.loads(json.dumps(asdict(self)))
        return {name: value for name, value in plain.items() if name not in _ADDED or value is not None}

    @classmethod
    def from_dict(cls, plain: dict[str, Any]) -> Self:
        """The config of what `to_dict` gave.

        A field that was added later, which is `mobile`, may be missing and has its default then.

        Raises:
            ValueError: another field is missing, one is unknown, or the fields contradict each other.
        """
        names = {field.name for field in fields(cls)}
        missing, unknown = sorted(names - _ADDED - plain.keys()), sorted(plain.keys() - names)
        if missing or unknown:
            raise ValueError(f"not a ZorroConfig: {missing=}, {unknown=}")
        return cls(**from_plain(plain))


_ADDED = {"mobile"}
"""Fields that checkpoints from before them do not have; their default is None."""


def from_plain(plain: dict[str, Any]) -> dict[str, Any]:
    """Fields as JSON and TOML hold them, to what configs take.

    Lists become tuples, and the tables `swin`, `hip` and `mobile` their configs.
    """
    kinds = {"swin": SwinConfig, "hip": HipConfig, "mobile": MobileConfig}
    tuples = {k: tuple(v) if isinstance(v, list) else v for k, v in plain.items()}
    return {
        k: kinds[k](**from_plain(v)) if k in kinds and isinstance(v, dict) else v for k, v in tuples.items()
    }
