"""Requests of a proof, and what each puts out.

The model, the graphs and the server are asked alike.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float

from datasets.manifests import Item
from datasets.recordings import window_start
from media import ClipSpec, Modality
from media.modality_check import available_modalities
from media.probe import MediaInfo
from runtime.signature import graphs_for


@dataclass(frozen=True, slots=True)
class ComparedLabels:
    """The labels of a proof in the order of the logits, and which of them each stream answers with."""

    labels: Sequence[Mapping[str, Any]]
    """Of the checkpoint."""
    known_labels_only: bool
    """Whether the bundle says that audio and video answer only with labels they know."""

    @property
    def ids(self) -> list[str]:
        """Ids of all labels."""
        return [str(label["id"]) for label in self.labels]

    def answers(self, modality: Modality) -> list[bool]:
        """Whether a stream answers with each label."""
        every = not self.known_labels_only or modality == Modality.FUSED
        return [every or modality in label["modalities"] for label in self.labels]

    def masked(
        self, scores: Float[np.ndarray, "rows labels"], modality: Modality
    ) -> Float[np.ndarray, "rows labels"]:
        """Scores of all labels; 0 for one that the stream does not answer with."""
        return np.where(self.answers(modality), scores, 0.0)

    def in_order(
        self, rows: Sequence[Mapping[str, float]], modality: Modality
    ) -> Float[np.ndarray, "rows labels"]:
        """Scores of an answer, by id, as an array of all labels.

        NaN for a label that should have a score and has none; 0 for one that should not have one.
        """
        absent = [np.nan if answers else 0.0 for answers in self.answers(modality)]
        pairs = list(zip(self.ids, absent, strict=True))
        return np.array([[row.get(name, value) for name, value in pairs] for row in rows], np.float64)


class RequestOutput(NamedTuple):
    """One stream's output for one request: in the first row for the whole clip, then for each window."""

    scores: Float[np.ndarray, "rows labels"]
    """Probabilities, in the order of the checkpoint's labels; 0 for one that the stream does not answer
    with."""
    embeddings: Float[np.ndarray, "rows projection_dim"]
    """Of unit length."""


StreamOutputs = dict[str, RequestOutput]
"""Outputs for one request, by `ProofRequest.stream_name`."""


@dataclass(frozen=True, slots=True)
class ProofRequest:
    """A file or a span of one, and the modalities that are asked of it together."""

    item: Item
    modalities: tuple[Modality, ...]
    start_seconds: float
    end_seconds: float | None
    seconds: float | None
    """How long the clip is; None for a still picture."""

    def stream_name(self, modality: Modality) -> str:
        """Name of a modality's output; after a dot where the fused graph gives it beside its own."""
        graph = graphs_for(self.modalities)[0]
        return str(modality) if modality == graph else f"{graph}.{modality}"


def make_requests(item: Item, info: MediaInfo, spec: ClipSpec) -> Iterator[ProofRequest]:
    """Requests for all that an item has, so that every graph runs.

    First all modalities at once, then audio and video alone.

    A span shorter than a window becomes a request of one window around it, as such spans are learned.

    Raises:
        MediaError: the item has nothing of what its modality names.
    """
    named = [modality for modality in Modality if item.modality in ("both", modality)]
    present = available_modalities(named, info, require_all=False)
    start, end = item.start_seconds, item.end_seconds
    stop = info.duration_seconds if end is None else end
    seconds = None if stop is None else stop - start
    if end is not None and end - start < spec.window_seconds:
        start = window_start(item, spec, info.duration_seconds or 0.0)
        end = start + spec.window_seconds
    alone = [(modality,) for modality in present if len(present) > 1 and modality != Modality.FUSED]
    for modalities in (tuple(present), *alone):
        yield ProofRequest(item, modalities, start, end, seconds)
