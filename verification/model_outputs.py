"""The checkpoint's model on the requests of a proof, by `media` and torch.

It is the reference that bundles must meet.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from scipy.special import expit, softmax

from datasets.manifests import Item
from evaluation.predictors import Predictor
from media import ClipSpec, TimeRange
from media.errors import MediaError
from media.modality_check import read_modalities
from media.pooling import pool, window_weights
from media.probe import probe
from media.progress import OnProgress
from runtime import Scores

from .proof_requests import ComparedLabels, ProofRequest, RequestOutput, StreamOutputs, make_requests


@dataclass(frozen=True, slots=True)
class ModelReference:
    """Requests, and the model's outputs for each."""

    requests: list[ProofRequest]
    """Those of one graph follow each other, so that they meet in a server's batches."""
    outputs: list[StreamOutputs]
    """For each request."""
    unreadable: dict[str, int]
    """How many items `media` refuses, by error code."""


def run_model(
    predictor: Predictor,
    items: Sequence[Item],
    spec: ClipSpec,
    scores: Scores,
    compared: ComparedLabels,
    on_progress: OnProgress,
) -> ModelReference:
    """Run the model on all requests that the items give, each stream by itself."""
    found: list[tuple[ProofRequest, StreamOutputs]] = []
    unreadable: Counter[str] = Counter()
    for number, item in enumerate(items, 1):
        try:
            requests = make_requests(item, probe(item.path), spec)
            found += [
                (request, _run_request(predictor, request, spec, scores, compared)) for request in requests
            ]
        except MediaError as error:
            unreadable[error.code] += 1
        on_progress("model", number, len(items))
    found.sort(key=lambda pair: pair[0].modalities)
    return ModelReference(
        [request for request, _ in found], [outputs for _, outputs in found], dict(unreadable)
    )


def _run_request(
    predictor: Predictor, request: ProofRequest, spec: ClipSpec, scores: Scores, compared: ComparedLabels
) -> StreamOutputs:
    _, reader = read_modalities(
        request.item.path.read_bytes(),
        spec,
        request.modalities,
        require_all=True,
        time_range=TimeRange(start_seconds=request.start_seconds, end_seconds=request.end_seconds),
    )
    windows = list(reader)
    found = {}
    for modality in request.modalities:
        values, weights = predictor.outputs(modality, windows), window_weights(windows, modality)
        vectors = _whole_and_windows(values["embedding"], weights)
        unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
        probabilities = _probabilities(values["logits"], weights, scores)
        found[request.stream_name(modality)] = RequestOutput(compared.masked(probabilities, modality), unit)
    return found


def _probabilities(
    logits: Float[np.ndarray, "windows labels"], weights: Float[np.ndarray, " windows"], scores: Scores
) -> Float[np.ndarray, "rows labels"]:
    """Written with scipy, not with what the runtime uses, so that a fault there shows."""
    if scores == Scores.SIGMOID:
        return _whole_and_windows(expit(logits.astype(np.float64)), weights)
    return np.asarray(softmax(_whole_and_windows(logits, weights).astype(np.float64), axis=1))


def _whole_and_windows(
    values: Float[np.ndarray, "windows dim"], weights: Float[np.ndarray, " windows"]
) -> Float[np.ndarray, "rows dim"]:
    """A first row for the whole clip, then those of its windows."""
    return np.vstack([pool(values, weights), values])
