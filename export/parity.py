"""Parity: the graphs answer as the model does, on clips and at several batch sizes."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import torch

from media import Clip, Modality
from models.zorro import ZorroModel
from runtime.agreement import Agreement
from runtime.bundle import Tolerance
from runtime.providers import CPU
from runtime.signature import GRAPH_INPUTS, GRAPH_STREAMS, OUTPUT_KINDS, output_names

from .graphs import build_graph

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

    def exceeds(self, tolerance: Tolerance) -> bool:
        """Whether it differs by more than allowed; NaN does."""
        return not (
            self.max_abs_error <= tolerance.max_abs_error
            and self.min_cosine >= tolerance.min_cosine
            and self.top1_agreement >= tolerance.min_top1_agreement
        )


class ParityCheck:
    """A model's answers to clips of each modality, against which the graphs of any variant are held."""

    def __init__(self, model: ZorroModel, clips: Mapping[Modality, Sequence[Clip]]) -> None:
        for modality, chosen in clips.items():
            if not chosen:
                raise ParityError(
                    f"{modality}.onnx: got 0 clips, which prove nothing; give some, or leave {modality} out"
                )
        self._model, self._clips = model.eval(), clips
        self._expected: dict[Modality, dict[str, np.ndarray]] = {}

    def run(self, graphs: Mapping[Modality, Path], tolerance: Tolerance) -> list[dict[str, Any]]:
        """Run graphs over the clips at each batch size; returns `ParityReport`s as dicts.

        Raises:
            ParityError: more than the tolerance.
        """
        found = []
        for modality, clips in self._clips.items():
            session = onnxruntime.InferenceSession(graphs[modality], providers=[CPU])
            for report in _compare(session, self._answers(modality), modality, clips):
                if report.exceeds(tolerance):
                    raise ParityError(
                        f"{graphs[modality].name}, {report.stream}: {report}; allowed is {tolerance}"
                    )
                found.append(asdict(report) | {"batch_sizes": list(BATCH_SIZES)})
        return found

    def _answers(self, modality: Modality) -> dict[str, np.ndarray]:
        """The model's outputs for every clip, by name."""
        if modality not in self._expected:
            module, clips = build_graph(self._model, modality).eval(), self._clips[modality]
            parts = []
            for start in range(0, len(clips), BATCH_SIZES[-1]):
                batch = stack(clips[start : start + BATCH_SIZES[-1]], modality)
                with torch.no_grad():
                    parts.append(module(*map(torch.from_numpy, batch.values())))
            values = [np.concatenate([part[i].numpy() for part in parts]) for i in range(len(parts[0]))]
            self._expected[modality] = dict(zip(output_names(modality), values, strict=True))
        return self._expected[modality]


def stack(clips: Sequence[Clip], modality: Modality) -> dict[str, np.ndarray]:
    """Arrays of clips as a graph's inputs."""
    return {name: np.stack([getattr(clip, name) for clip in clips]) for name in GRAPH_INPUTS[modality]}


def _compare(
    session: onnxruntime.InferenceSession,
    expected: dict[str, np.ndarray],
    modality: Modality,
    clips: Sequence[Clip],
) -> Iterator[ParityReport]:
    """As many batches of each size as let the largest size see every clip."""
    names = output_names(modality)
    agreements = {stream: Agreement() for stream in GRAPH_STREAMS[modality]}
    for size in BATCH_SIZES:
        for number in range(-(-len(clips) // BATCH_SIZES[-1])):
            rows = [(number * size + i) % len(clips) for i in range(size)]
            outputs = session.run(names, stack([clips[row] for row in rows], modality))
            got = dict(zip(names, outputs, strict=True))
            wanted = {name: expected[name][rows] for name in names}
            for stream, agreement in agreements.items():
                for kind in OUTPUT_KINDS:
                    agreement.add_values(got[f"{stream}_{kind}"], wanted[f"{stream}_{kind}"])
                agreement.add_cosines(got[f"{stream}_embedding"], wanted[f"{stream}_embedding"])
                agreement.add_top1(got[f"{stream}_logits"], wanted[f"{stream}_logits"])
    for stream, agreement in agreements.items():
        yield ParityReport(
            str(modality),
            stream,
            len(clips),
            BATCH_SIZES,
            agreement.max_abs_error,
            agreement.min_cosine,
            agreement.top1_agreement,
        )
