"""Parity: the graphs answer as the model does, on clips and at several batch sizes."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import torch

from media import Clip, Modality
from models.zorro import Zorro
from runtime.signature import ANSWERS, INPUTS, STREAMS, output_names

from .graphs import build_graph

MAX_ABS_ERROR = 1e-4
BATCH_SIZES = (1, 2, 8)


class ParityError(ValueError):
    """A graph does not answer as its model; the message names the output and by how much."""


@dataclass(frozen=True, slots=True)
class ParityReport:
    """Agreement of one stream in one graph, over all clips and batch sizes."""

    graph: str
    stream: str
    clips: int
    batch_sizes: tuple[int, ...]
    max_abs_error: float
    """Over features, embedding and logits; infinite where an answer is not finite."""
    min_cosine: float
    """Of embeddings."""
    top1_agreement: float
    """Share of clips with the same best label."""


def check_parity(
    model: Zorro, folder: Path, clips: Mapping[Modality, Sequence[Clip]], *, tolerance: float = MAX_ABS_ERROR
) -> list[dict[str, Any]]:
    """Run model and graphs over the clips of each modality, at each batch size; returns `ParityReport`s as dicts.

    Raises:
        ParityError: no clips, an error above the tolerance, or another best label.
    """
    found = []
    for modality, chosen in clips.items():
        if not chosen:
            raise ParityError(f"{modality}.onnx: got 0 clips, which prove nothing; give some, or leave {modality} out")
        session = onnxruntime.InferenceSession(folder / f"{modality}.onnx", providers=["CPUExecutionProvider"])
        module = build_graph(model.eval(), modality).eval()
        for report in _compare(session, module, modality, chosen):
            if not report.max_abs_error <= tolerance or report.top1_agreement < 1:
                raise ParityError(f"{modality}.onnx, {report.stream}: {report}; the tolerance is {tolerance}")
            found.append(asdict(report) | {"batch_sizes": list(BATCH_SIZES)})
    return found


def stack(clips: Sequence[Clip], modality: Modality) -> dict[str, np.ndarray]:
    """Arrays of clips as a graph's inputs."""
    return {name: np.stack([getattr(clip, name) for clip in clips]) for name in INPUTS[modality]}


@dataclass(slots=True)
class _Tally:
    """Of one stream, over the batches so far."""

    max_abs_error: float = 0.0
    min_cosine: float = 1.0
    agreements: list[bool] = field(default_factory=list)

    def add(self, got: dict[str, np.ndarray], wanted: dict[str, np.ndarray]) -> None:
        for answer in ANSWERS:
            # A NaN would lose every comparison, and so pass.
            error = float(np.nan_to_num(np.abs(got[answer] - wanted[answer]), nan=np.inf).max())
            self.max_abs_error = max(self.max_abs_error, error)
        self.min_cosine = min(self.min_cosine, float((got["embedding"] * wanted["embedding"]).sum(1).min()))
        self.agreements += (got["logits"].argmax(1) == wanted["logits"].argmax(1)).tolist()


def _compare(
    session: onnxruntime.InferenceSession, module: torch.nn.Module, modality: Modality, clips: Sequence[Clip]
) -> Iterator[ParityReport]:
    names = output_names(modality)
    tallies = {stream: _Tally() for stream in STREAMS[modality]}
    for batch in _batches(clips):
        inputs = stack(batch, modality)
        with torch.no_grad():
            values = module(*map(torch.from_numpy, inputs.values()))
        expected = {name: value.numpy() for name, value in zip(names, values, strict=True)}
        got = dict(zip(names, session.run(names, inputs), strict=True))
        for stream, tally in tallies.items():
            tally.add(*({answer: x[f"{stream}_{answer}"] for answer in ANSWERS} for x in (got, expected)))
    for stream, tally in tallies.items():
        agreement = float(np.mean(tally.agreements))
        yield ParityReport(
            str(modality), stream, len(clips), BATCH_SIZES, tally.max_abs_error, tally.min_cosine, agreement
        )


def _batches(clips: Sequence[Clip]) -> Iterator[list[Clip]]:
    """All clips at each size; the first of them again where the last batch would be short."""
    for size in BATCH_SIZES:
        filled = [clips[i % len(clips)] for i in range(-(-len(clips) // size) * size)]
        for i in range(0, len(filled), size):
            yield filled[i : i + size]
