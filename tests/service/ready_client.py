"""A client of an application that is ready, and of none that never gets so."""

from collections.abc import Iterator
from contextlib import contextmanager

from fastapi import FastAPI
from fastapi.testclient import TestClient

NUM_TRIES = 1000


@contextmanager
def ready_client(app: FastAPI) -> Iterator[TestClient]:
    with TestClient(app) as client:
        assert any(client.get("/readyz").status_code == 200 for _ in range(NUM_TRIES)), "the server never got ready"
        yield client
