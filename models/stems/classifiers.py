"""The classifiers that mobile stems have of their own, and where they let the logits of a stream begin.

A class of the model is known to the audio stem, to the video stem or to neither (`MobileConfig`). The logits
of a stream are its base, plus what the stream's head adds. Its base is the logits of the stems that it reads,
at the classes they know, and `UNKNOWN_LOGIT` elsewhere.
"""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from models.attention import Pairing, Tokens
from models.config import ZorroConfig
from models.mask import POOL_READS, READS, Stream

from .efficientnet import efficientnet_classifier
from .mobilenet import mobilenet_classifier

UNKNOWN_LOGIT = -8.0
"""Where the logit of a class begins that no stem of the stream knows; its sigmoid is 0.0003.

It is finite, so that a trained head can raise it.
"""

_READS = READS | {Stream.GLOBAL: POOL_READS[Stream.GLOBAL]}


class StemClassifiers(nn.Module):
    """Logits of the audio stem and of the video stem, for classes of their own."""

    __call__: Callable[..., Tensor]
    known: Tensor

    def __init__(self, config: ZorroConfig) -> None:
        super().__init__()
        mobile = config.mobile
        assert mobile is not None
        self.num_classes, self.video_frames = config.num_classes, config.video_shape[0]
        self.ranges = {Stream.AUDIO: mobile.audio_classes, Stream.VIDEO: mobile.video_classes}
        num_audio, num_video = (end - first for first, end in self.ranges.values())
        self.audio = mobilenet_classifier(mobile.audio_width, num_audio) if num_audio else None
        self.video = efficientnet_classifier(num_video) if num_video else None
        known = torch.zeros(len(self.ranges), config.num_classes)
        for row, (first, end) in zip(known, self.ranges.values(), strict=True):
            row[first:end] = 1
        self.register_buffer("known", known, persistent=False)

    def knows(self, stream: Stream) -> bool:
        """Whether the stem of AUDIO or VIDEO has a classifier."""
        first, end = self.ranges[stream]
        return first < end

    def forward(self, stream: Stream, last_map: Tensor) -> Float[Tensor, "item stem_classes"]:
        """Logits of the stem of AUDIO or VIDEO, of its last map [batch, channel, height, width].

        The map of a video has an item for each frame; its logits are the means over frames.
        """
        classify = {Stream.AUDIO: self.audio, Stream.VIDEO: self.video}[stream]
        assert classify is not None
        logits: Tensor = classify(last_map.mean(dim=(2, 3)))
        if stream == Stream.VIDEO:
            logits = logits.reshape(-1, self.video_frames, logits.shape[1]).mean(dim=1)
        return logits

    def base(
        self, stream: Stream, logits: Tokens, pairing: Pairing | None
    ) -> Float[Tensor, "row classes"] | Float[Tensor, " classes"]:
        """Where the logits of `stream` begin.

        Args:
            stream: any of the four.
            logits: what `forward` gave for the modalities that there are, by item.
            pairing: which items fusion rows read, as in `ZorroModel.forward_pairs`.
        """
        read = [other for other in _READS[stream] if other in logits]
        knows = self.known[[int(other) for other in read]].sum(dim=0)
        base = UNKNOWN_LOGIT * (1 - knows)
        for other in read:
            first, end = self.ranges[other]
            said = logits[other] if stream == other else _of_rows(logits[other], other, pairing)
            # Zeros beside them, so that the sum is the stem's logits to the last bit.
            base = base + F.pad(said, (first, self.num_classes - end))
        return base


def _of_rows(logits: Tensor, stream: Stream, pairing: Pairing | None) -> Tensor:
    """Logits by item to logits by fusion row; a row that lacks the modality has `UNKNOWN_LOGIT`."""
    index = None if pairing is None else pairing.index(stream)
    if index is None:
        return logits
    rows = logits.index_select(0, index.clamp(min=0))
    return torch.where(index[:, None] >= 0, rows, UNKNOWN_LOGIT)
