"""The model of zorro-pytorch 0.1.1: raw power spectrogram and video in, one vector per stream out.

It differs from our Zorro-ViT: no position embedding, patches between two layer norms, no biases, GEGLU, no
heads, and the learned query is added to what it has read.

Trap: in the package's pool mask `|` binds tighter than `==`. All keys of its audio and video queries are
therefore masked, and these outputs are the mean over the tokens of all streams. `Compat` says which mask to
use.
"""

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from typing import assert_never

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from models.attention import Tokens, attend, join_streams
from models.mask import POOL_READS, READS, Stream


class Compat(StrEnum):
    """Which tokens the output queries read."""

    FIXED = "fixed"  # as the package means it: `mask.POOL_READS`
    EXACT = "exact"  # as the package does it: equal to its outputs, of which audio and video read all streams


@dataclass(frozen=True, slots=True, kw_only=True)
class LucidrainsConfig:
    """What a state dict does not tell: the arguments of the package's constructor, with its defaults.

    Trap: shapes depend only on products, heads x width of a head and the product of the sides of a patch, so
    the factors cannot be checked. Nor can the order of the return tokens.

    Raises:
        ValueError: a number is below 1, or `return_streams` is empty or names a stream twice.
    """

    heads: int = 8
    dim_head: int = 64
    return_streams: tuple[Stream, ...] = (Stream.AUDIO, Stream.VIDEO, Stream.FUSION)  # its return_token_types
    audio_patch_size: tuple[int, int] = (16, 16)  # (frequency bins, spectrogram frames)
    video_patch_size: tuple[int, int, int] = (2, 16, 16)  # (video frames, height, width)
    video_channels: int = 3
    n_fft: int = 128  # samples; n_fft // 2 + 1 frequency bins
    win_length: int = 24  # samples
    hop_length: int = 12  # samples; where the package gets None, it takes half of win_length
    power: float = 2.0
    pad: int = 0  # zeros on both sides of the waveform, samples
    center: bool = True
    pad_mode: str = "reflect"

    def __post_init__(self) -> None:
        object.__setattr__(
            self, "return_streams", tuple(Stream(int(stream)) for stream in self.return_streams)
        )
        sizes = {
            "heads": self.heads,
            "dim_head": self.dim_head,
            "video_channels": self.video_channels,
            "n_fft": self.n_fft,
            "win_length": self.win_length,
            "hop_length": self.hop_length,
            "audio_patch_size": min(self.audio_patch_size),
            "video_patch_size": min(self.video_patch_size),
        }
        if small := [name for name, size in sizes.items() if size < 1]:
            raise ValueError(f"must be at least 1: {', '.join(small)}")
        if not self.return_streams or len(set(self.return_streams)) < len(self.return_streams):
            raise ValueError(
                f"return_streams must be one or more different streams, got {self.return_streams}"
            )


def power_spectrogram(
    waveform: Float[Tensor, "batch samples"], config: LucidrainsConfig
) -> Float[Tensor, "batch frequency frame"]:
    """|STFT|**power under a periodic Hann window, which the package makes of a waveform: no mel, no log."""
    spectrum = torch.stft(
        F.pad(waveform, (config.pad, config.pad)),
        n_fft=config.n_fft,
        hop_length=config.hop_length,
        win_length=config.win_length,
        window=torch.hann_window(config.win_length, device=waveform.device),
        center=config.center,
        pad_mode=config.pad_mode,
        return_complex=True,
    )
    return spectrum.abs() ** config.power


class LucidrainsZorro(nn.Module):
    """The package's architecture. Under `Compat.FIXED` its streams are as pure as those of `ZorroModel`."""

    def __init__(
        self,
        config: LucidrainsConfig,
        *,
        dim: int,
        depth: int,
        ff_hidden: int,
        num_fusion_tokens: int = 16,
        compat: Compat = Compat.FIXED,
    ) -> None:
        super().__init__()
        self.config, self.compat = config, Compat(compat)
        height, width = config.audio_patch_size
        frames, rows, columns = config.video_patch_size
        self.audio_tokens = _patch_embedding(height * width, dim)
        self.video_tokens = _patch_embedding(config.video_channels * frames * rows * columns, dim)
        self.fusion_tokens = nn.Parameter(torch.randn(num_fusion_tokens, dim))
        self.blocks = nn.ModuleList(_Block(config, dim, ff_hidden) for _ in range(depth))
        self.norm = nn.LayerNorm(dim, bias=False)
        self.return_tokens = nn.Parameter(torch.randn(len(config.return_streams), dim))
        self.pool = _Attention(config, dim)

    def forward(
        self,
        audio: Float[Tensor, "batch frequency frame"] | None = None,
        video: Float[Tensor, "batch channel video_frame height width"] | None = None,
    ) -> dict[Stream, Float[Tensor, "batch dim"]]:
        """One vector per stream of `config.return_streams`, in that order, as `output[:, i]` of the package.

        Args:
            audio: raw power spectrogram, see `power_spectrogram`. Bins and frames beyond the last whole patch
                are ignored, as in the package. None, only under `Compat.FIXED`: there is no audio output.
            video: in the range the model was trained on; the package does not normalise. None: as for audio.

        Raises:
            ValueError: shapes do not fit the patches, nothing is given, or one of the two is missing under
                `Compat.EXACT`.
        """
        num_given = sum(x is not None for x in (audio, video))
        if num_given == 0 or (self.compat == Compat.EXACT and num_given == 1):
            raise ValueError(
                "give audio, video or both; compat=exact needs both, since its outputs read all tokens"
            )
        tokens: Tokens = {}
        if audio is not None:
            tokens[Stream.AUDIO] = self.audio_tokens(_audio_patches(audio, self.config))
        if video is not None:
            tokens[Stream.VIDEO] = self.video_tokens(_video_patches(video, self.config))
        if len({len(x) for x in tokens.values()}) > 1:
            raise ValueError(
                f"audio and video must have one row per clip; got {[len(x) for x in tokens.values()]}"
            )
        batch = len(next(iter(tokens.values())))
        tokens[Stream.FUSION] = self.fusion_tokens.expand(batch, -1, -1)
        for block in self.blocks:
            tokens = block(tokens)
        tokens = {stream: self.norm(x) for stream, x in tokens.items()}
        wanted = self.config.return_streams
        return {s: self._output(s, tokens) for s in wanted if s in tokens or s == Stream.GLOBAL}

    def _output(self, stream: Stream, tokens: Tokens) -> Float[Tensor, "batch dim"]:
        token = self.return_tokens[self.config.return_streams.index(stream)]
        query = self.pool.q(self.pool.norm(token))[None, None]
        match self.compat:
            case Compat.FIXED:
                read = self.pool.read(query, _keys_values(tokens, POOL_READS[stream], self.pool))
            case Compat.EXACT if stream in (Stream.AUDIO, Stream.VIDEO):
                # Every key is masked, with a finite score: the softmax gives all of them the same weight.
                _, values = _keys_values(tokens, POOL_READS[Stream.GLOBAL], self.pool)
                read = self.pool.out(values.mean(dim=1, keepdim=True))
            case Compat.EXACT:
                read = self.pool.read(query, _keys_values(tokens, POOL_READS[stream], self.pool))
            case _:
                assert_never(self.compat)
        return read[:, 0] + token


class _Attention(nn.Module):
    """Weights of an attention. `norm` is for what gives the queries, and in a block for what is read too."""

    def __init__(self, config: LucidrainsConfig, dim: int) -> None:
        super().__init__()
        inner = config.heads * config.dim_head
        self.heads = config.heads
        self.norm = nn.LayerNorm(dim, bias=False)
        self.q, self.kv = nn.Linear(dim, inner, bias=False), nn.Linear(dim, 2 * inner, bias=False)
        self.out = nn.Linear(inner, dim, bias=False)

    def read(self, query: Tensor, keys_values: tuple[Tensor, Tensor]) -> Tensor:
        read: Tensor = self.out(attend(query, *keys_values, num_heads=self.heads))
        return read


class _Block(nn.Module):
    """Attention by `mask.READS`, one call per stream, then a GEGLU feed-forward."""

    __call__: Callable[..., Tokens]

    def __init__(self, config: LucidrainsConfig, dim: int, ff_hidden: int) -> None:
        super().__init__()
        self.attention = _Attention(config, dim)
        self.ff_norm = nn.LayerNorm(dim, bias=False)
        self.widen = nn.Linear(dim, 2 * ff_hidden, bias=False)
        self.narrow = nn.Linear(ff_hidden, dim, bias=False)

    def forward(self, tokens: Tokens) -> Tokens:
        attention = self.attention
        normed = {stream: attention.norm(x) for stream, x in tokens.items()}
        out: Tokens = {}
        for stream, x in tokens.items():
            query, keys_values = attention.q(normed[stream]), _keys_values(normed, READS[stream], attention)
            x = x + attention.read(query, keys_values)
            value, gate = self.widen(self.ff_norm(x)).chunk(2, dim=-1)
            out[stream] = x + self.narrow(F.gelu(gate) * value)
        return out


def _keys_values(tokens: Tokens, streams: tuple[Stream, ...], attention: _Attention) -> tuple[Tensor, Tensor]:
    read, _ = join_streams(tokens, streams, None)
    keys, values = attention.kv(read).chunk(2, dim=-1)
    return keys, values


def _patch_embedding(patch: int, dim: int) -> nn.Sequential:
    return nn.Sequential(nn.LayerNorm(patch), nn.Linear(patch, dim), nn.LayerNorm(dim))


def _audio_patches(spectrogram: Tensor, config: LucidrainsConfig) -> Float[Tensor, "batch token patch"]:
    """Tokens in the order (frequency, time), each (frequency, time) flattened."""
    height, width = config.audio_patch_size
    if spectrogram.ndim != 3 or spectrogram.shape[1] < height or spectrogram.shape[2] < width:
        raise ValueError(
            f"audio has shape {tuple(spectrogram.shape)}, wanted (batch, frequency, frame), "
            f"at least one patch of {config.audio_patch_size}"
        )
    B, num_rows, num_columns = len(spectrogram), spectrogram.shape[1] // height, spectrogram.shape[2] // width
    whole = spectrogram[:, : num_rows * height, : num_columns * width]
    patches = whole.reshape(B, num_rows, height, num_columns, width).transpose(2, 3)
    return patches.reshape(B, num_rows * num_columns, height * width)


def _video_patches(video: Tensor, config: LucidrainsConfig) -> Float[Tensor, "batch token patch"]:
    """Tokens in the order (time, height, width), each (channel, time, height, width) flattened."""
    steps, channels = config.video_patch_size, config.video_channels
    fits = video.ndim == 5 and video.shape[1] == channels
    if not fits or any(size < step or size % step for size, step in zip(video.shape[2:], steps, strict=True)):
        raise ValueError(
            f"video has shape {tuple(video.shape)}, wanted (batch, {channels}, frame, height, width), "
            f"multiples of {steps}"
        )
    t, h, w = (size // step for size, step in zip(video.shape[2:], steps, strict=True))
    patches = video.reshape(len(video), channels, t, steps[0], h, steps[1], w, steps[2]).permute(
        0, 2, 4, 6, 1, 3, 5, 7
    )
    return patches.reshape(len(video), t * h * w, -1)
