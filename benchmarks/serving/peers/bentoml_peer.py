"""BentoML: a process for each core that runs one method at a time, and adaptive batching for tensors.

A batch is a list of raw bodies, one for each request. BentoML's dispatcher decides how long batches wait. Its
latency limit stays at the default, because requests that would take longer are refused.
"""

import os
import sys
import tempfile
from pathlib import Path
from typing import Annotated

import bentoml
from _bentoml_impl.server import serve_http  # what `bentoml serve` calls
from bentoml.validators import ContentType
from pydantic import BeforeValidator, PlainSerializer, WithJsonSchema

from media import Modality

from .common import PEER_BATCH_SIZE, answer_clip, open_model, run_batch, window_from_bytes

NUM_WORKERS = len(os.sched_getaffinity(0))
RAW = WithJsonSchema({"type": "string", "format": "binary"})
Bodies = Annotated[list[bytes], BeforeValidator(lambda body: [body]), RAW]
PeerOutputs = Annotated[
    list[bytes], PlainSerializer(lambda answers: answers[0]), RAW, ContentType("application/octet-stream")
]
BUNDLE_VARIABLE, LOADED_VARIABLE = "PEER_BUNDLE", "PEER_LOADED"


@bentoml.service(name="peer", workers=NUM_WORKERS, threads=1, logging={"access": {"enabled": False}})
class Peer:
    """A worker."""

    def __init__(self) -> None:
        self.model = open_model(os.environ[BUNDLE_VARIABLE])
        Path(os.environ[LOADED_VARIABLE], str(os.getpid())).touch()

    async def __is_ready__(self) -> bool:
        return len(os.listdir(os.environ[LOADED_VARIABLE])) >= NUM_WORKERS

    @bentoml.api(route="/clips")
    def clips(self, body: bytes, /) -> Annotated[bytes, ContentType("application/json")]:
        return answer_clip(self.model, body)

    @bentoml.api(route="/tensors/audio", batchable=True, max_batch_size=PEER_BATCH_SIZE)
    def audio(self, bodies: Bodies, /) -> PeerOutputs:
        return self._run(Modality.AUDIO, bodies)

    @bentoml.api(route="/tensors/fused", batchable=True, max_batch_size=PEER_BATCH_SIZE)
    def fused(self, bodies: Bodies, /) -> PeerOutputs:
        return self._run(Modality.FUSED, bodies)

    def _run(self, graph: Modality, bodies: list[bytes]) -> list[bytes]:
        return run_batch(self.model, graph, [window_from_bytes(self.model, graph, body) for body in bodies])


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        loaded = Path(folder, "loaded")
        loaded.mkdir()
        os.environ |= {"BENTOML_HOME": folder, "BENTOML_DO_NOT_TRACK": "True", "BENTOML_QUIET": "True"}
        os.environ |= {BUNDLE_VARIABLE: sys.argv[1], LOADED_VARIABLE: str(loaded)}
        Peer.inject_config()
        serve_http(Peer, host="127.0.0.1", port=int(sys.argv[2]), timeout_graceful_shutdown=5)


if __name__ == "__main__":
    main()
