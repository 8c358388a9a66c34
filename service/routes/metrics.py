"""GET /metrics."""

from fastapi import FastAPI, Request
from starlette.responses import Response

from service.state import server_state

PROMETHEUS_TEXT = "text/plain; version=0.0.4; charset=utf-8"


def add_metrics_route(app: FastAPI) -> None:
    """Add GET /metrics."""

    @app.get("/metrics", summary="Counts and times, as Prometheus reads them", response_class=Response)
    async def metrics(request: Request) -> Response:
        state = server_state(request)
        state.metrics.in_flight.set(state.clip_admission.num_inside + state.tensor_admission.num_inside)
        return Response(state.metrics.text(), media_type=PROMETHEUS_TEXT)
