"""python -m benchmarks.plain_server BUNDLE PORT: what a good engineer writes in an hour.

FastAPI, ONNX Runtime, our own decoding in a pool of threads, one request per run of the graph. No batching, no processes, no
refusal. The page of comparison for `benchmarks.serving`.
"""

import sys
from typing import Annotated

import uvicorn
from fastapi import FastAPI, File
from fastapi.responses import ORJSONResponse

from runtime import Zorro


def create_app(zorro: Zorro) -> FastAPI:
    """One route, run in Starlette's pool of threads."""
    app = FastAPI(default_response_class=ORJSONResponse)

    @app.get("/readyz")
    def readyz() -> dict[str, str]:
        return {"status": "ready"}

    @app.post("/v1/classify")
    def classify(file: Annotated[bytes, File()]) -> dict[str, list[str]]:
        whole = zorro.classify(file).whole
        return {name: [label.id for label in stream.labels or ()] for name, stream in whole.items()}

    return app


def main() -> None:
    zorro = Zorro.open(sys.argv[1])
    zorro.self_test()
    uvicorn.run(create_app(zorro), port=int(sys.argv[2]), log_level="warning")


if __name__ == "__main__":
    main()
