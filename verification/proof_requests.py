"""Requests of a proof, and what each puts out.

The model, the graphs and the server are asked alike.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from datasets.manifests import Item
from datasets.recordings import window_start
from media import ClipSpec, Modality
from media.modality_check import available_modalities
from media.probe import MediaInfo
from runtime.signature import graphs_for


class RequestOutput(NamedTuple):
    """One stream's output for one request: in the first row for the whole clip, then for each window."""

    scores: Float[np.ndarray, "rows labels"]
    """Probabilities, in the order of the checkpoint's labels."""
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
