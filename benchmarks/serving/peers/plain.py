"""The plain peer, an hour's work: FastAPI, ONNX Runtime and a thread pool.

Each request is a run of the graph. It has no batching, no worker processes and no refusals.
"""

import os
import sys

import uvicorn
from anyio.to_thread import run_sync
from fastapi import FastAPI, Request, Response

from media import Modality
from runtime import Zorro

from .common import answer_clip, open_model, run_batch, window_from_bytes


def create_plain_app(model: Zorro) -> FastAPI:
    """The routes; work runs in Starlette's thread pool."""
    app = FastAPI()

    @app.get("/readyz")
    async def readyz() -> Response:
        return Response()

    @app.post("/clips")
    async def clips(request: Request) -> Response:
        body = await request.body()
        return Response(await run_sync(answer_clip, model, body), media_type="application/json")

    @app.post("/tensors/{graph}")
    async def tensors(request: Request, graph: Modality) -> Response:
        window = window_from_bytes(model, graph, await request.body())
        (answer,) = await run_sync(run_batch, model, graph, [window])
        return Response(answer, media_type="application/octet-stream")

    return app


def main() -> None:
    os.environ["OMP_NUM_THREADS"] = "1"
    uvicorn.run(create_plain_app(open_model(sys.argv[1])), port=int(sys.argv[2]), log_level="warning")


if __name__ == "__main__":
    main()
