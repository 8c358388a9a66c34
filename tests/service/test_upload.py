"""How long an upload lasts: until its answer is on its way, and no longer where there is none."""

import asyncio
from pathlib import Path

import pytest
from starlette.requests import Request
from starlette.types import Message

from service.upload import receive_upload

BODY = b'--b\r\nContent-Disposition: form-data; name="file"; filename="a"\r\n\r\nclip\r\n--b--\r\n'


def _request() -> Request:
    async def body() -> Message:
        return {"type": "http.request", "body": BODY, "more_body": False}

    return Request({"type": "http", "headers": [(b"content-type", b"multipart/form-data; boundary=b")]}, body)


def test_the_file_goes_once_the_answer_is_on_its_way(tmp_path: Path) -> None:
    async def talk() -> None:
        async with receive_upload(_request(), max_bytes=1000, folder=tmp_path) as upload:
            assert upload.path.read_bytes() == b"clip"
        assert len(list(tmp_path.iterdir())) == 1  # as long as the event loop is at the answer
        await asyncio.sleep(0)
        assert list(tmp_path.iterdir()) == []

    asyncio.run(talk())


def test_the_file_of_a_request_that_fails_goes_at_once(tmp_path: Path) -> None:
    async def talk() -> None:
        with pytest.raises(ValueError, match="no clip"):
            async with receive_upload(_request(), max_bytes=1000, folder=tmp_path):
                raise ValueError("no clip")
        assert list(tmp_path.iterdir()) == []

    asyncio.run(talk())
