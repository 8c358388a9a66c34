"""The Zorro model: audio, video or both in; features, embedding and logits of each stream out.

Which stream reads which is decided in `mask.py`. Recasens et al. 2023, arXiv:2301.09595.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from .attention import Pairing, Tokens
from .config import ZorroConfig
from .heads import AttentionPool, StreamHead, StreamOutput
from .mask import Stream
from .registry import build_trunk
from .stems import StemClassifiers
from .tokens import AudioTokens, VideoTokens


@dataclass(frozen=True, slots=True)
class ZorroOutput:
    """Output of each stream; audio or video is None if the call had none."""

    audio: StreamOutput | None
    """Reads audio tokens only."""
    video: StreamOutput | None
    """Reads video tokens only."""
    fusion: StreamOutput
    """Reads the fusion tokens, which read whichever of audio and video is present."""
    overall: StreamOutput
    """The global output query: reads the tokens of all three streams."""


class ZorroModel(nn.Module):
    """A multimodal transformer: audio outputs do not depend on the video, nor video outputs on the audio."""

    __call__: Callable[..., ZorroOutput]

    def __init__(self, config: ZorroConfig) -> None:
        super().__init__()
        self.config = config
        self.audio_tokens, self.video_tokens = AudioTokens(config), VideoTokens(config)
        self.stem_classifiers = StemClassifiers(config) if config.has_stem_classifiers else None
        fusion = torch.empty(config.num_fusion_tokens, config.fusion_dim)
        self.fusion_tokens = nn.Parameter(nn.init.trunc_normal_(fusion, std=0.5))
        self.trunk = build_trunk(config)
        self.pool = AttentionPool(config)
        self.heads = nn.ModuleDict({stream.key: StreamHead(config) for stream in Stream})
        self.apply(_initialise)

    def forward(
        self,
        audio: Tensor | None = None,
        video: Tensor | None = None,
        *,
        has_audio: Tensor | None = None,
        has_video: Tensor | None = None,
    ) -> ZorroOutput:
        """Outputs for a batch whose row i holds audio i and video i.

        Args:
            audio: log-mel spectrograms as `media` makes them, [batch, mel_frames, mel_bins], or None.
            video: uint8 RGB, [batch, frames, height, width, 3], or None.
            has_audio: bool [batch]; a row that is False has no audio, whatever `audio` holds there. None:
                every row has audio if `audio` is given.
            has_video: the same for video.

        Raises:
            ValueError: nothing is given, shapes are not those of the config, or a row has neither modality.
        """
        batch = self._check_shapes(audio, video)
        if has_audio is None and has_video is None:
            return self.forward_pairs(audio, video, None)
        has_audio, has_video = _rows_with(audio, has_audio, batch), _rows_with(video, has_video, batch)
        if not (has_audio | has_video).all():
            raise ValueError("every row needs audio or video; drop the rows that have neither")
        pairing = Pairing.of_rows(has_audio, has_video)
        out = self.forward_pairs(_items(audio, has_audio), _items(video, has_video), pairing)
        return ZorroOutput(
            _to_rows(out.audio, has_audio), _to_rows(out.video, has_video), out.fusion, out.overall
        )

    def forward_pairs(
        self, audio: Tensor | None, video: Tensor | None, pairing: Pairing | None
    ) -> ZorroOutput:
        """Outputs for audio items, video items, and fusion rows that read them.

        Each item goes through its stream once, however many rows of `pairing` read it. Audio and video
        outputs have one row per item, fusion and overall outputs one per row of `pairing`. If `pairing` is
        None, row i reads item i of each modality that is given.

        Raises:
            ValueError: nothing is given, shapes are not those of the config, or `pairing` is given to a model
                whose masking lets streams read each other.
        """
        self._check_shapes(audio, video, same_batch=pairing is None)
        if pairing is not None and self.config.masking.leaks:
            raise ValueError(
                f"masking={self.config.masking} lets streams read each other: give whole pairs, no pairing"
            )
        given = {Stream.AUDIO: audio, Stream.VIDEO: video}
        tokens, stem_logits = self._embed({stream: x for stream, x in given.items() if x is not None})
        rows = next(iter(tokens.values())) if pairing is None else pairing.audio_index
        tokens[Stream.FUSION] = self.fusion_tokens.expand(rows.shape[0], -1, -1)
        tokens = self.trunk(tokens, pairing)
        out = {
            stream: self._output(stream, tokens, stem_logits, pairing) for stream in (*tokens, Stream.GLOBAL)
        }
        return ZorroOutput(
            out.get(Stream.AUDIO), out.get(Stream.VIDEO), out[Stream.FUSION], out[Stream.GLOBAL]
        )

    def forward_stream(self, stream: Stream, x: Tensor) -> StreamOutput:
        """Output of AUDIO or VIDEO for that modality alone, without work for fusion.

        This is what the graphs `audio.onnx` and `video.onnx` hold.
        """
        tokens, stem_logits = self._embed({stream: x})
        return self._output(stream, self.trunk(tokens, None), stem_logits, None)

    def _embed(self, given: dict[Stream, Tensor]) -> tuple[Tokens, Tokens]:
        """Tokens of each modality, and the logits of the stems that have a classifier of their own."""
        embed: dict[Stream, AudioTokens | VideoTokens]
        embed = {Stream.AUDIO: self.audio_tokens, Stream.VIDEO: self.video_tokens}
        tokens: Tokens = {}
        stem_logits: Tokens = {}
        for stream, x in given.items():
            tokens[stream], last_map = embed[stream](x, with_map=True)
            if self.stem_classifiers is not None and self.stem_classifiers.knows(stream):
                stem_logits[stream] = self.stem_classifiers(stream, last_map)
        return tokens, stem_logits

    def _output(
        self, stream: Stream, tokens: Tokens, stem_logits: Tokens, pairing: Pairing | None
    ) -> StreamOutput:
        features = self.pool(stream, tokens, pairing)
        classifiers = self.stem_classifiers
        base = None if classifiers is None else classifiers.base(stream, stem_logits, pairing)
        output: StreamOutput = self.heads[stream.key](features, base)
        return output

    def _check_shapes(self, audio: Tensor | None, video: Tensor | None, *, same_batch: bool = True) -> int:
        """The number of items; see `forward` for what it raises."""
        wanted = {"audio": (audio, self.config.audio_shape), "video": (video, self.config.video_shape)}
        given = {name: x for name, (x, _) in wanted.items() if x is not None}
        if not given:
            raise ValueError("give audio, video or both; got neither")
        for name, x in given.items():
            shape = wanted[name][1]
            if tuple(x.shape[1:]) != shape:
                raise ValueError(f"{name} has shape {tuple(x.shape)}, this model wants {('batch', *shape)}")
        sizes = [x.shape[0] for x in given.values()]  # len() would fix the batch of an exported graph
        if same_batch and sizes[0] != sizes[-1]:
            raise ValueError(f"audio and video must have one row per clip; got {sizes[0]} and {sizes[-1]}")
        return sizes[0]


def _rows_with(x: Tensor | None, has: Tensor | None, batch: int) -> Tensor:
    """Which rows have a modality, bool [batch]: none if `x` is None, else `has`, else all."""
    if x is None:
        return torch.zeros(batch, dtype=torch.bool)
    return torch.ones(batch, dtype=torch.bool) if has is None else has


def _items(x: Tensor | None, has: Tensor) -> Tensor | None:
    """The rows of `x` that have the modality; None if none has."""
    return None if x is None or not has.any() else x[has]


def _to_rows(out: StreamOutput | None, present: Tensor) -> StreamOutput | None:
    """Outputs by item to outputs by row; rows without an item are zeros."""
    if out is None:
        return None

    def scatter(x: Tensor) -> Tensor:
        return x.new_zeros(len(present), *x.shape[1:]).masked_scatter(present[:, None], x)

    return StreamOutput(scatter(out.features), scatter(out.embedding), scatter(out.logits), present)


def _initialise(module: nn.Module) -> None:
    """Xavier for linear maps, as in ViT, and Kaiming for convolutions; classifiers begin near zero.

    A classifier that adds to those of the stems begins at zero, so that the model begins with their answers.
    """
    if isinstance(module, nn.Linear):
        nn.init.xavier_uniform_(module.weight)
        if module.bias is not None:
            nn.init.zeros_(module.bias)
    elif isinstance(module, nn.Conv2d):
        nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
        if module.bias is not None:
            nn.init.zeros_(module.bias)
    elif isinstance(module, StreamHead):  # `apply` comes to its linear maps first
        if module.adds_to_stems:
            nn.init.zeros_(module.classify.weight)
        else:
            nn.init.trunc_normal_(module.classify.weight, std=0.02)
