"""GET /v1/models: the models that answer, and what a client may know of them."""

from fastapi import FastAPI, Request
from starlette.responses import Response

from service.responses import json_response, model_description
from service.schemas import ModelDescription, ModelDescriptions
from service.state import server_state


def add_model_routes(app: FastAPI) -> None:
    """Add GET /v1/models and GET /v1/models/{model_id}."""

    @app.get("/v1/models", summary="The models that answer", responses={200: {"model": ModelDescriptions}})
    async def models(request: Request) -> Response:
        models = server_state(request).ready_models().all()
        descriptions = [model_description(model, whole_labels=False) for model in models]
        return json_response({"object": "list", "data": descriptions})

    @app.get("/v1/models/{model_id:path}", summary="One model", responses={200: {"model": ModelDescription}})
    async def model(request: Request, model_id: str) -> Response:
        chosen = server_state(request).ready_models().get(model_id)
        return json_response(model_description(chosen, whole_labels=True))
