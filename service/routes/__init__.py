"""The routes of the API, one file for each kind, and the list of them all."""

from fastapi import FastAPI

from .clips import add_clip_routes
from .health import add_health_routes
from .metrics import add_metrics_route
from .models import add_model_routes
from .page import add_page
from .tensors import add_tensor_routes

# Routes are tried in this order: the shortest requests come first.
ADD_ROUTES = (
    add_tensor_routes,
    add_clip_routes,
    add_page,
    add_health_routes,
    add_metrics_route,
    add_model_routes,
)


def add_routes(app: FastAPI) -> None:
    """Add all routes of the API."""
    for add in ADD_ROUTES:
        add(app)
