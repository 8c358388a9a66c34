"""What trunks share: their interface, stages of audio, video and fusion, an MLP, and stochastic depth."""

from collections.abc import Callable, Iterable
from typing import ClassVar

import torch
from torch import Tensor, nn

from .attention import Pairing, Tokens
from .mask import Stream

# B items, N tokens, C width


class Trunk(nn.Module):
    """A backbone: called with tokens and a pairing or None, it returns tokens.

    What a stream reads is decided by `mask.READS`.
    Audio and video tokens come as [items, tokens, embed_dim], in the order of `config.audio_grid` and
    `config.video_grid`, and fusion tokens as [rows, num_fusion_tokens, fusion_dim]. Any stream may be
    missing. All leave with the width `config.features_dim`; the number of audio and video tokens may change.
    """

    separable: ClassVar[bool]
    """Whether streams share no weights of the trunk, so that the graph of one modality holds only its own."""

    __call__: Callable[..., Tokens]


class FusionStep(nn.Module):
    """Fusion tokens read themselves and the audio and video tokens of their stage.

    Called with fusion tokens, the stage's audio and video tokens, and the pairing; returns fusion tokens.
    """

    __call__: Callable[..., Tensor]


class TrunkStage(nn.Module):
    """One stage of audio, one of video, then fusion tokens that read both."""

    def __init__(self, *, audio: nn.Module, video: nn.Module, fusion: FusionStep) -> None:
        super().__init__()
        self.audio, self.video, self.fusion = audio, video, fusion

    def forward(self, tokens: Tokens, pairing: Pairing | None) -> Tokens:
        towers = {Stream.AUDIO: self.audio, Stream.VIDEO: self.video}
        out: Tokens = {stream: towers[stream](x) for stream, x in tokens.items() if stream in towers}
        if Stream.FUSION in tokens:
            out[Stream.FUSION] = self.fusion(tokens[Stream.FUSION], out, pairing)
        return out


def run_stages(
    stages: Iterable[nn.Module], norms: nn.ModuleDict, tokens: Tokens, pairing: Pairing | None
) -> Tokens:
    """Run tokens through `TrunkStage`s and the last norm of each stream."""
    for stage in stages:
        tokens = stage(tokens, pairing)
    return {stream: norms[stream.key](x) for stream, x in tokens.items()}


class DropPath(nn.Module):
    """Stochastic depth in training: drop the branch of an item, or scale it to keep the mean.

    Huang et al. 2016, arXiv:1603.09382.
    """

    __call__: Callable[..., Tensor]

    def __init__(self, rate: float) -> None:
        super().__init__()
        self.rate = rate

    def forward(self, branch_BNC: Tensor) -> Tensor:
        if not self.training or self.rate == 0:
            return branch_BNC
        keep = torch.rand(len(branch_BNC), 1, 1, device=branch_BNC.device) >= self.rate
        return branch_BNC * keep / (1 - self.rate)


def gelu_mlp(dim: int, ratio: float) -> nn.Sequential:
    """The MLP of ViT and Swin, `ratio` times as wide inside."""
    hidden = int(dim * ratio)
    return nn.Sequential(nn.Linear(dim, hidden), nn.GELU(), nn.Linear(hidden, dim))
