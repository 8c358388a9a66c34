"""Backbones by name: what a trunk is, and which there are."""

from typing import Protocol

from torch import Tensor, nn

from .attention import Pairing
from .config import ZorroConfig
from .mask import Stream
from .vit import VitTrunk


class Backbone(Protocol):
    """Tokens in, tokens out, by the rule of `mask.READS`."""

    def __call__(self, tokens: dict[Stream, Tensor], pairing: Pairing | None) -> dict[Stream, Tensor]: ...


BACKBONES: dict[str, type[nn.Module]] = {"vit": VitTrunk}


def build_trunk(config: ZorroConfig) -> nn.Module:
    """The trunk that `config.backbone` names.

    Raises:
        ValueError: there is no such backbone.
    """
    if config.backbone not in BACKBONES:
        raise ValueError(f"no backbone {config.backbone!r}; there are {', '.join(BACKBONES)}")
    return BACKBONES[config.backbone](config)
