"""MLServer: a worker for each core; clips and tensors are custom endpoints with raw bodies.

Tensors are not batched: MLServer batches only its own protocol, which over HTTP takes tensors as JSON and not
as raw bytes.
"""

import asyncio
import os
import sys
import tempfile
from pathlib import Path
from typing import Annotated

from fastapi import Body, Response
from mlserver import MLModel, MLServer, ModelSettings, Settings
from mlserver.handlers import custom_handler
from mlserver.settings import ModelParameters
from mlserver.utils import install_uvloop_event_loop

from media import Modality

from .common import answer_clip, open_model, run_batch, window_from_bytes

RawBody = Annotated[bytes, Body(media_type="application/octet-stream")]


class Peer(MLModel):
    """Runs in each worker."""

    async def load(self) -> bool:
        self.model = open_model(self.settings.parameters.uri)
        return True

    @custom_handler(rest_path="/clips")
    async def clips(self, body: RawBody) -> Response:
        return Response(answer_clip(self.model, body), media_type="application/json")

    @custom_handler(rest_path="/tensors/{graph}")
    async def tensors(self, graph: Modality, body: RawBody) -> Response:
        (answer,) = run_batch(self.model, graph, [window_from_bytes(self.model, graph, body)])
        return Response(answer, media_type="application/octet-stream")


async def serve_until_signal(bundle: str, port: int, folder: Path) -> None:
    """Serve as `mlserver start` does, until a signal comes."""
    settings = Settings(
        debug=False,
        host="127.0.0.1",
        http_port=port,
        grpc_port=0,
        metrics_endpoint=None,
        parallel_workers=len(os.sched_getaffinity(0)),
        parallel_workers_timeout=1,
        environments_dir=str(folder),
        metrics_dir=str(folder),
        logging_settings={
            "version": 1,
            "disable_existing_loggers": False,
            "loggers": {name: {"level": "WARNING"} for name in ("mlserver", "uvicorn")},
        },
    )
    # Without a timeout it waits for requests in flight for ever.
    settings._custom_rest_server_settings = {"timeout_graceful_shutdown": 5}
    model = ModelSettings(
        name="peer",
        implementation="benchmarks.serving.peers.mlserver_peer.Peer",
        parameters=ModelParameters(uri=bundle),
    )
    await MLServer(settings).start([model])


def main() -> None:
    install_uvloop_event_loop()
    with tempfile.TemporaryDirectory() as folder:
        asyncio.run(serve_until_signal(sys.argv[1], int(sys.argv[2]), Path(folder)))
    os._exit(0)  # the queues of workers that have ended would block a normal exit


if __name__ == "__main__":
    main()
elif __name__ == "__mp_main__":  # a worker
    # MLServer 1.7 needs a current event loop, which uvloop 0.22 no longer makes.
    install_uvloop_event_loop()
    asyncio.set_event_loop(asyncio.new_event_loop())
