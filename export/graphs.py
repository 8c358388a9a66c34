"""The three graphs of a bundle as modules: audio in, video in, or both in."""

from torch import Tensor, nn

from media import Modality
from models.heads import StreamOutput
from models.mask import Stream
from models.zorro import ZorroModel


class UnimodalGraph(nn.Module):
    """One stream alone: nothing of the other modality or of fusion is in it."""

    def __init__(self, model: ZorroModel, stream: Stream) -> None:
        super().__init__()
        self.model, self.stream = model, stream

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        return _answers(self.model.forward_stream(self.stream, x))


class FusedGraph(nn.Module):
    """All three streams."""

    def __init__(self, model: ZorroModel) -> None:
        super().__init__()
        self.model = model

    def forward(self, audio: Tensor, video: Tensor) -> tuple[Tensor, ...]:
        out = self.model(audio, video)
        assert out.audio is not None
        assert out.video is not None
        return (*_answers(out.audio), *_answers(out.video), *_answers(out.fusion))


def build_graph(model: ZorroModel, modality: Modality) -> nn.Module:
    """The module that `modality`'s graph is exported from."""
    if modality == Modality.FUSED:
        return FusedGraph(model)
    return UnimodalGraph(model, Stream.AUDIO if modality == Modality.AUDIO else Stream.VIDEO)


def _answers(out: StreamOutput) -> tuple[Tensor, ...]:
    return out.features, out.embedding, out.logits
