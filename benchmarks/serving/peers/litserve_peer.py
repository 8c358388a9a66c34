"""LitServe: an API for clips and one for tensors, each with a worker for each core.

Tensors are batched. Both graphs share an API, because idle workers that batch look for work a thousand times
a second and take time from the others.
"""

import os
import signal
import sys
from collections.abc import Sequence
from typing import Annotated

import litserve
from fastapi import Body, Depends, Request, Response

from media import Modality

from .common import (
    BATCH_WAIT_SECONDS,
    GRAPHS,
    PEER_BATCH_SIZE,
    PeerInputs,
    answer_clip,
    open_model,
    run_batch,
    window_from_bytes,
)


class ClipApi(litserve.LitAPI):
    """Clips, one at a time."""

    def __init__(self, bundle: str) -> None:
        super().__init__(api_path="/clips")
        self.bundle = bundle

    def setup(self, device: str) -> None:  # noqa: ARG002
        self.model = open_model(self.bundle)

    def decode_request(self, request: Annotated[bytes, Body(media_type="application/octet-stream")]) -> bytes:
        return request

    def predict(self, x: bytes) -> bytes:
        return answer_clip(self.model, x)

    def encode_response(self, output: bytes) -> Response:
        return Response(output, media_type="application/json")


async def read_body(graph: Modality, request: Request) -> tuple[Modality, bytes]:
    """The last part of the path, and the raw body."""
    return graph, await request.body()


class TensorApi(litserve.LitAPI):
    """Windows, in batches; each graph runs once for its share of a batch."""

    def __init__(self, bundle: str) -> None:
        super().__init__(
            max_batch_size=PEER_BATCH_SIZE, batch_timeout=BATCH_WAIT_SECONDS, api_path="/tensors/{graph}"
        )
        self.bundle = bundle

    def setup(self, device: str) -> None:  # noqa: ARG002
        self.model = open_model(self.bundle)

    def decode_request(
        self, request: Annotated[tuple[Modality, bytes], Depends(read_body)]
    ) -> tuple[Modality, PeerInputs]:
        graph, body = request
        return graph, window_from_bytes(self.model, graph, body)

    def predict(self, x: Sequence[tuple[Modality, PeerInputs]]) -> list[bytes]:
        answers: dict[int, bytes] = {}
        for graph in GRAPHS:
            windows = {i: window for i, (other, window) in enumerate(x) if other == graph}
            if windows:
                answers |= zip(windows, run_batch(self.model, graph, list(windows.values())), strict=True)
        return [answers[i] for i in range(len(x))]

    def encode_response(self, output: bytes) -> Response:
        return Response(output, media_type="application/octet-stream")


def main() -> None:
    bundle, port, workers = sys.argv[1], int(sys.argv[2]), len(os.sched_getaffinity(0))
    apis = [ClipApi(bundle), TensorApi(bundle)]
    server = litserve.LitServer(
        apis, accelerator="cpu", workers_per_device=workers, healthcheck_path="/readyz"
    )
    server.uvicorn_graceful_timeout = 1  # seconds, for one HTTP server after another
    # LitServe ends its workers only on an interrupt.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    os.register_at_fork(after_in_child=lambda: signal.signal(signal.SIGTERM, signal.SIG_DFL))
    server.run("127.0.0.1", port, num_api_servers=workers, log_level="warning", generate_client_file=False)


if __name__ == "__main__":
    main()
