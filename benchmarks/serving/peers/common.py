"""What all peers share: decoding, running the graphs, and one thread for each worker."""

import math
from collections.abc import Sequence

import numpy as np
import orjson

from media import MediaLimits, Modality
from runtime import Zorro
from runtime.signature import input_tensors

PEER_BATCH_SIZE = 8
BATCH_WAIT_SECONDS = 0.002  # that a request waits for others to form a batch, where the peer lets us choose
GRAPHS = (Modality.AUDIO, Modality.FUSED)

PeerInputs = dict[str, np.ndarray]
"""Inputs of a graph for one window."""


def open_model(path: str) -> Zorro:
    """The bundle at `path` on one thread, with a self-test to warm it up."""
    model = Zorro.open(path, num_threads=1)
    model.self_test()
    return model


def answer_clip(model: Zorro, content: bytes) -> bytes:
    """The labels of a clip by stream, as JSON."""
    whole = model.classify(content, limits=MediaLimits(max_threads=1)).whole
    return orjson.dumps({name: [label.id for label in stream.labels or ()] for name, stream in whole.items()})


def window_from_bytes(model: Zorro, modality: Modality, body: bytes) -> PeerInputs:
    """The inputs of a graph for one window, from raw bytes."""
    window, offset = {}, 0
    for name, dtype, shape in input_tensors(modality, model.bundle.clip_spec):
        tensor = np.frombuffer(body, dtype, math.prod(shape), offset).reshape(shape)
        window[name], offset = tensor, offset + tensor.nbytes
    return window


def run_batch(model: Zorro, modality: Modality, windows: Sequence[PeerInputs]) -> list[bytes]:
    """Outputs of each window as raw bytes."""
    inputs = {name: np.stack([window[name] for window in windows]) for name in windows[0]}
    outputs = model.session(modality).run(inputs)
    return [b"".join(value[i].tobytes() for value in outputs.values()) for i in range(len(windows))]
