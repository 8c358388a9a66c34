"""Trunks by the name of their backbone."""

from typing import assert_never

from .config import BackboneName, ZorroConfig
from .hip import HipTrunk
from .layers import Trunk
from .swin import SwinTrunk
from .vit import VitTrunk


def build_trunk(config: ZorroConfig) -> Trunk:
    """The trunk that `config.backbone` names, with new weights."""
    match config.backbone:
        case BackboneName.VIT:
            return VitTrunk(config)
        case BackboneName.SWIN:
            return SwinTrunk(config)
        case BackboneName.HIP:
            return HipTrunk(config)
        case _:
            assert_never(config.backbone)
