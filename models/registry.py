"""Backbones by name: what a trunk is, and which there are."""

from typing import ClassVar, Protocol, assert_never

from torch import Tensor, nn

from .attention import Pairing
from .config import BackboneName, ZorroConfig
from .hip import HipTrunk
from .mask import Stream
from .swin import SwinTrunk
from .vit import VitTrunk


class Backbone(Protocol):
    """Tokens in, tokens out, by the rule of `mask.READS`.

    Audio and video tokens come [items, tokens, embed_dim] in the order of `config.audio_grid` and
    `config.video_grid`, fusion tokens [rows, num_fusion_tokens, fusion_dim]; any of the three may be missing.
    All leave with the width `features_dim` and any number of tokens.
    """

    separable: ClassVar[bool]
    """Whether streams share no weights of the trunk, so that a unimodal graph carries only its own."""

    def __call__(self, tokens: dict[Stream, Tensor], pairing: Pairing | None) -> dict[Stream, Tensor]: ...


def build_trunk(config: ZorroConfig) -> nn.Module:
    """The trunk that `config.backbone` names; a `Backbone`."""
    match config.backbone:
        case BackboneName.VIT:
            return VitTrunk(config)
        case BackboneName.SWIN:
            return SwinTrunk(config)
        case BackboneName.HIP:
            return HipTrunk(config)
        case _:
            assert_never(config.backbone)
