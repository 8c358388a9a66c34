"""A client of an application that is ready, and of none that never gets so."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import cast

from fastapi import FastAPI
from fastapi.testclient import TestClient

from service.state import ServerState, state_of

MAX_SECONDS = 60


@contextmanager
def ready_client(app: FastAPI) -> Iterator[TestClient]:
    with TestClient(app) as client:
        until = time.monotonic() + MAX_SECONDS
        while client.get("/readyz").status_code != 200:
            assert time.monotonic() < until, "the server never got ready"
            time.sleep(0.002)
        yield client


def state_behind(client: TestClient) -> ServerState:
    """The state of the server that `client` talks to."""
    return state_of(cast(FastAPI, client.app))
