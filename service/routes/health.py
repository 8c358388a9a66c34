"""Liveness and readiness: whether the process should be replaced, and whether it should get requests."""

from fastapi import FastAPI, Request
from starlette.responses import Response

from service.errors import ServiceError
from service.responses import json_response
from service.state import server_state


def add_health_routes(app: FastAPI) -> None:
    """Add GET /livez and GET /readyz."""

    @app.get("/livez", summary="The process runs, and no batch hangs")
    async def livez(request: Request) -> dict[str, str]:
        state = server_state(request)
        stuck = state.engine.batcher.stuck_seconds
        if stuck > state.settings.stuck_seconds:
            raise ServiceError("stuck", f"a batch has run for {stuck:.0f} s; the process should be replaced")
        return {"status": "alive"}

    @app.get(
        "/readyz", summary="All models are loaded and have passed their self-test, and the server is to stay"
    )
    async def readyz(request: Request) -> Response:
        server_state(request).check_ready()
        return json_response({"status": "ready"})
