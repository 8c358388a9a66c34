"""The running server as one typed object, made whole when the server starts; every route reads it."""

import asyncio
from dataclasses import dataclass
from pathlib import Path

from fastapi import FastAPI, Request

from .admission import Admission
from .errors import ServiceError
from .inference import InferenceEngine
from .metrics import Metrics
from .model_repository import ModelRepository
from .settings import Settings


@dataclass(slots=True, kw_only=True)
class ServerState:
    """What requests share. Only `is_draining` changes while the server runs."""

    settings: Settings
    metrics: Metrics
    engine: InferenceEngine
    loading: "asyncio.Future[ModelRepository]"
    """Done once the models are loaded and the engine can run them."""
    clip_admission: Admission
    tensor_admission: Admission
    """Apart from that of clips: tensors do not wait for decoding."""
    upload_folder: Path
    is_draining: bool = False
    """Whether the server has been told to stop."""

    def ready_models(self) -> ModelRepository:
        """The models, once they are loaded.

        Raises:
            ServiceError: they are still being loaded.
            RuntimeError: they could not be loaded, and never will be.
        """
        if not self.loading.done():
            raise ServiceError(
                "not_ready", "the models are being loaded and tested; ask /readyz and try again"
            )
        if (error := self.loading.exception()) is not None:
            raise RuntimeError("the models could not be loaded") from error
        return self.loading.result()

    def check_ready(self) -> None:
        """Raise unless the models are loaded and the server is going to stay.

        Raises:
            ServiceError: the models are still being loaded, or the server is draining.
            RuntimeError: the models could not be loaded.
        """
        self.ready_models()
        if self.is_draining:
            raise ServiceError("draining", "the server is about to stop; ask another one")


def server_state(request: Request) -> ServerState:
    """The state of the server that handles `request`."""
    return state_of(request.app)


def state_of(app: FastAPI) -> ServerState:
    """The state of a server that has started."""
    state = started_state(app)
    assert state is not None, "the server has not started"
    return state


def started_state(app: FastAPI) -> ServerState | None:
    """The state of a server; None before it has started."""
    state: ServerState | None = getattr(app.state, "server", None)
    return state


def set_state(app: FastAPI, state: ServerState) -> None:
    """Make `state` that of the app, when it starts."""
    app.state.server = state
