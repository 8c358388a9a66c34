"""Photographs with EXIF are answered over HTTP as if they had been stored upright."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from fastapi.testclient import TestClient

from service.app import create_app
from service.settings import Settings
from tests.made_exif import UPRIGHT, corners, exif, jpeg, photograph, png, stored_for, tiff, webp
from tests.service.ready_client import ready_client

WIDTH, HEIGHT = 128, 64


@pytest.fixture(scope="module")
def client(bundle: Path) -> Iterator[TestClient]:
    with ready_client(create_app(Settings(bundles=bundle.parents[1]))) as client:
        yield client


def _embedding(client: TestClient, content: bytes) -> np.ndarray:
    """The features of a picture, whose displayed size and streams must be right."""
    options = {"space": "features", "normalize": "false", "scope": "asset"}
    answer = client.post("/v1/embed/video", files={"file": ("photo", content)}, data=options)
    assert answer.status_code == 200, answer.text
    media = answer.json()["media"]
    assert (media["width"], media["height"], media["is_still"]) == (WIDTH, HEIGHT, True)
    return np.array(answer.json()["data"][0]["embedding"])


@pytest.fixture(scope="module")
def stored_upright(client: TestClient) -> np.ndarray:
    """Features of the picture stored upright, and before them of those that a wrong turn would show."""
    wrong = [2, 3, 4]  # as wide as the upright one; the others would have another size
    pictures = [UPRIGHT[number](corners(HEIGHT, WIDTH)) for number in (*wrong, 1)]
    return np.stack([_embedding(client, jpeg(np.ascontiguousarray(rgb))) for rgb in pictures])


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("number", UPRIGHT)
def test_a_photograph_is_answered_upright(
    number: int, order: str, client: TestClient, stored_upright: np.ndarray
) -> None:
    content = photograph(stored_for(number, corners(HEIGHT, WIDTH)), number, order=order)
    distances = np.linalg.norm(stored_upright - _embedding(client, content), axis=1)
    assert distances[-1] < 0.25 * distances[:-1].min()


@pytest.mark.parametrize("number", UPRIGHT)
def test_a_lossless_picture_is_answered_as_if_it_were_stored_upright(number: int, client: TestClient) -> None:
    upright = corners(HEIGHT, WIDTH)
    stored, expected = stored_for(number, upright), _embedding(client, png(upright))
    for content in (png(stored, exif(number)), webp(stored, exif(number)), tiff(stored, number)):
        np.testing.assert_array_equal(_embedding(client, content), expected)


def test_classify_answers_a_photograph(client: TestClient) -> None:
    answer = client.post("/v1/classify", files={"file": ("photo", photograph(corners(), 6))})
    assert answer.status_code == 200
    assert answer.json()["streams"] == {"audio": "absent", "video": "answered", "fused": "absent"}
