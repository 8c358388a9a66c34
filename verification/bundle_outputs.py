"""A bundle on the requests of a proof: by the runtime in this process, and by a server over HTTP."""

import base64
import json
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from media import Modality, TimeRange
from runtime import ClipResult, StreamResult, Zorro

from .http_client import fetch, multipart_form
from .proof_requests import ComparedLabels, ProofRequest, RequestOutput, StreamOutputs


def run_graphs(model: Zorro, request: ProofRequest, compared: ComparedLabels) -> StreamOutputs:
    """Outputs of the runtime."""
    content = request.item.path.read_bytes()
    time_range = TimeRange(start_seconds=request.start_seconds, end_seconds=request.end_seconds)
    modalities = request.modalities
    labels = model.classify(
        content,
        modalities=modalities,
        top_k=len(compared.labels),
        threshold=0.0,
        time_range=time_range,
    )
    vectors = model.embed(content, modalities=modalities, time_range=time_range)
    found = {}
    for modality in request.modalities:
        scores = [{x.id: x.score for x in row.labels or ()} for row in _result_rows(labels, modality)]
        embeddings = [row.embedding for row in _result_rows(vectors, modality) if row.embedding is not None]
        found[request.stream_name(modality)] = RequestOutput(
            compared.in_order(scores, modality), np.stack(embeddings)
        )
    return found


def ask_server(port: int, request: ProofRequest, compared: ComparedLabels) -> StreamOutputs:
    """Outputs of a server on this machine.

    Raises:
        ServerFault: it does not answer, or refuses.
    """
    fields = {"modalities": ",".join(request.modalities), "start_sec": repr(request.start_seconds)}
    if request.end_seconds is not None:
        fields["end_sec"] = repr(request.end_seconds)
    every = {"top_k": str(len(compared.labels)), "threshold": "0"}
    labels = _served_rows(port, "classify", request.item.path, fields | every)
    vectors = _served_rows(port, "embed", request.item.path, fields | {"encoding_format": "base64"})
    found = {}
    for modality in request.modalities:
        scores = [{x["id"]: x["score"] for x in row["labels"]} for row in labels[modality]]
        embeddings = [np.frombuffer(base64.b64decode(row["embedding"]), "<f4") for row in vectors[modality]]
        found[request.stream_name(modality)] = RequestOutput(
            compared.in_order(scores, modality), np.stack(embeddings)
        )
    return found


def _result_rows(result: ClipResult, modality: Modality) -> list[StreamResult]:
    """The whole clip's, then each window's."""
    return [result.whole[modality], *(window.streams[modality] for window in result.windows)]


def _served_rows(
    port: int, task: str, path: Path, fields: Mapping[str, str]
) -> dict[str, list[dict[str, Any]]]:
    """By modality, the whole clip's, then each window's."""
    found: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for scope in ("asset", "clip"):
        content = fetch(port, f"/v1/{task}", multipart_form(path, {**fields, "scope": scope}))
        for row in json.loads(content)["data"]:
            found[row["modality"]].append(row)
    return found
