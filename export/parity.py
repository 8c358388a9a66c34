"""Parity: the graphs answer as the model does, on clips and at several batch sizes."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import torch

from media import Clip, Modality
from models.zorro import Zorro

from .graphs import ANSWERS, INPUTS, STREAMS, build_graph, output_names

MAX_ABS_ERROR = 1e-4
BATCH_SIZES = (1, 2, 8)


class ParityError(ValueError):
    """A graph does not answer as its model; the message names the output and by how much."""


@dataclass(frozen=True, slots=True)
class StreamParity:
    """Agreement of one stream in one graph, over all clips and batch sizes."""

    graph: str
    stream: str
    clips: int
    max_abs_error: float
    """Over features, embedding and logits."""
    min_cosine: float
    """Of embeddings."""
    top1_agreement: float
    """Share of clips with the same best label."""


def check_parity(
    model: Zorro, folder: Path, clips: dict[Modality, Sequence[Clip]], *, tolerance: float = MAX_ABS_ERROR
) -> list[dict[str, Any]]:
    """Run model and graphs over the clips of each modality, at each batch size; returns `StreamParity` as dicts.

    Raises:
        ParityError: an error above the tolerance, or another best label.
    """
    found = []
    for modality, chosen in clips.items():
        session = onnxruntime.InferenceSession(folder / f"{modality}.onnx", providers=["CPUExecutionProvider"])
        module = build_graph(model.eval(), modality).eval()
        for stream, parity in _compare(session, module, modality, chosen).items():
            if parity.max_abs_error > tolerance or parity.top1_agreement < 1:
                raise ParityError(f"{modality}.onnx, {stream}: {parity}; the tolerance is {tolerance}")
            found.append(asdict(parity))
    return found


def stack(clips: Sequence[Clip], modality: Modality) -> dict[str, np.ndarray]:
    """Arrays of clips as a graph's inputs."""
    return {name: np.stack([getattr(clip, name) for clip in clips]) for name in INPUTS[modality]}


def _compare(
    session: onnxruntime.InferenceSession, module: torch.nn.Module, modality: Modality, clips: Sequence[Clip]
) -> dict[str, StreamParity]:
    names = output_names(modality)
    errors = dict.fromkeys(STREAMS[modality], 0.0)
    cosines, agreements = dict.fromkeys(errors, 1.0), {stream: [] for stream in errors}
    for size in BATCH_SIZES:
        for i in range(0, len(clips), size):
            inputs = stack(clips[i : i + size], modality)
            with torch.no_grad():
                expected = dict(zip(names, module(*map(torch.from_numpy, inputs.values())), strict=True))
            got = dict(zip(names, session.run(names, inputs), strict=True))
            for stream in errors:
                want = {answer: expected[f"{stream}_{answer}"].numpy() for answer in ANSWERS}
                have = {answer: got[f"{stream}_{answer}"] for answer in ANSWERS}
                errors[stream] = max(errors[stream], *(float(np.abs(have[a] - want[a]).max()) for a in ANSWERS))
                cosine = (have["embedding"] * want["embedding"]).sum(1)
                cosines[stream] = min(cosines[stream], float(cosine.min()))
                agreements[stream] += (have["logits"].argmax(1) == want["logits"].argmax(1)).tolist()
    return {
        stream: StreamParity(
            str(modality), stream, len(clips), errors[stream], cosines[stream], float(np.mean(agreements[stream]))
        )
        for stream in errors
    }
