"""What a bundle's manifest and files tell of a variant.

That is its size, and how near it came to the model at export.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from media import Modality

from .bundle import Bundle
from .signature import GRAPH_STREAMS

MEASURED_TOP1 = "real"
"""Source of the clips whose best labels count: which label of a golden clip comes first may be a toss-up."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamParity:
    """Agreement of one stream with the model.

    It is the worst of all graphs, clips and batch sizes that the stream was checked on.
    """

    stream: str
    """audio, video or fusion."""
    max_abs_error: float
    """Of features, embeddings and logits."""
    min_cosine: float
    """Of embeddings."""
    top1_agreement: float | None
    """Share of real clips with the same best label; None if it was exported without real clips."""


@dataclass(frozen=True, slots=True, kw_only=True)
class VariantFacts:
    """One variant of a bundle."""

    name: str
    file_bytes: int
    """Of its graphs and their weights."""
    parity: tuple[StreamParity, ...]
    """In the order of the fused graph's streams; empty if the manifest has none."""


def variant_facts(bundle: Bundle, name: str) -> VariantFacts:
    """The facts of the variant called `name`, which the bundle must have."""
    folders = {graph.parent for graph in bundle.variants[name].graphs.values()}
    by_source: Mapping[str, list[dict[str, Any]]] = bundle.manifest["variants"][name].get("parity", {})
    return VariantFacts(
        name=name,
        file_bytes=sum(
            path.stat().st_size for folder in folders for path in folder.iterdir() if path.is_file()
        ),
        parity=tuple(_worst_by_stream(by_source)),
    )


def _worst_by_stream(by_source: Mapping[str, list[dict[str, Any]]]) -> Iterable[StreamParity]:
    for stream in GRAPH_STREAMS[Modality.FUSED]:
        reports = [(source, x) for source, part in by_source.items() for x in part if x["stream"] == stream]
        if reports:
            yield StreamParity(
                stream=stream,
                max_abs_error=max(x["max_abs_error"] for _, x in reports),
                min_cosine=min(x["min_cosine"] for _, x in reports),
                top1_agreement=min(
                    (x["top1_agreement"] for source, x in reports if source == MEASURED_TOP1), default=None
                ),
            )
