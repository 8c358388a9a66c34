"""What a client wants to know of its clip: checked values, whatever form they came in."""

from dataclasses import dataclass
from enum import StrEnum
from typing import assert_never

from media import Modality
from media.time_range import WHOLE_MEDIA, TimeRange
from runtime import Space, Zorro
from runtime.options import check_threshold, check_top_k
from runtime.result_assembly import OutputRequest


class ClipTask(StrEnum):
    """What a route does with a clip."""

    CLASSIFY = "classify"
    EMBED = "embed"


class Scope(StrEnum):
    """Whether `data` has an entry for each segment, or one for the whole clip."""

    CLIP = "clip"
    ASSET = "asset"


class Encoding(StrEnum):
    """How an embedding is written."""

    FLOAT = "float"
    BASE64 = "base64"  # of little-endian float32


@dataclass(frozen=True, slots=True, kw_only=True)
class LabelOptions:
    """Which labels are returned.

    Raises:
        InvalidOption: `top_k` is below 1, or `threshold` is no probability.
    """

    top_k: int = 5
    threshold: float | None = None
    """Least probability of a label; None for the model's own."""

    def __post_init__(self) -> None:
        check_top_k(self.top_k)
        check_threshold(self.threshold)


@dataclass(frozen=True, slots=True, kw_only=True)
class EmbeddingOptions:
    """Which vector is returned, and how it is written."""

    space: Space = Space.SHARED
    normalize: bool = True
    encoding: Encoding = Encoding.FLOAT


@dataclass(frozen=True, slots=True, kw_only=True)
class ClipRequest:
    """A question about one clip: what to return, for which modalities, and for which part of it."""

    output: LabelOptions | EmbeddingOptions
    modalities: tuple[Modality, ...] = tuple(Modality)
    """At least one, in the order of `Modality`, each once."""
    require_all: bool = False
    """Whether the clip must have what each of the modalities needs; otherwise those it lacks are left out."""
    time_range: TimeRange = WHOLE_MEDIA
    scope: Scope = Scope.CLIP

    def __post_init__(self) -> None:
        in_order = tuple(modality for modality in Modality if modality in self.modalities)
        assert self.modalities, "no modality"
        assert self.modalities == in_order, f"{self.modalities} are not in order, each once"

    def output_request(self, model: Zorro) -> OutputRequest:
        """The output of `model` that answers this request."""
        match self.output:
            case LabelOptions(top_k=top_k, threshold=threshold):
                return model.label_request(top_k=top_k, threshold=threshold)
            case EmbeddingOptions(space=space, normalize=normalize):
                return model.embedding_request(space=space, normalize=normalize)
            case _:
                assert_never(self.output)
