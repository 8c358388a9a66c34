"""A request's work ends when its client leaves, and only then."""

import asyncio
from collections.abc import Coroutine
from typing import Any

import pytest
from starlette.requests import ClientDisconnect, Request
from starlette.types import Message

from service.request_lifecycle import cancel_if_client_leaves


class _Work:
    """Waits for ever unless `seconds` are given, and knows whether it was cancelled."""

    def __init__(self, seconds: float | None = None) -> None:
        self._seconds, self.was_cancelled = seconds, False

    async def do(self) -> str:
        try:
            await (asyncio.Event().wait() if self._seconds is None else asyncio.sleep(self._seconds))
        except asyncio.CancelledError:
            self.was_cancelled = True
            raise
        return "done"


def _request(leaves_after: float | None) -> Request:
    async def receive() -> Message:
        if leaves_after is None:
            await asyncio.Event().wait()
        elif leaves_after:
            await asyncio.sleep(leaves_after)
        return {"type": "http.disconnect"}

    return Request({"type": "http", "headers": []}, receive)


def _run(talk: Coroutine[Any, Any, None]) -> None:
    async def whole() -> None:
        await talk
        task = asyncio.current_task()
        assert task is not None
        assert task.cancelling() == 0
        await asyncio.sleep(0)
        assert len(asyncio.all_tasks()) == 1, "nobody watches any more"

    asyncio.run(whole())


def test_work_is_done_for_a_client_that_stays() -> None:
    async def talk() -> None:
        assert await cancel_if_client_leaves(_request(None), _Work(0.01).do()) == "done"

    _run(talk())


def test_work_ends_when_the_client_leaves() -> None:
    async def talk() -> None:
        work = _Work()
        with pytest.raises(ClientDisconnect):
            await cancel_if_client_leaves(_request(0.01), work.do())
        assert work.was_cancelled

    _run(talk())


@pytest.mark.parametrize("leaves_after", [None, 0.0])
def test_time_that_is_up_is_no_client_that_left(leaves_after: float | None) -> None:
    """Not even if it leaves in the same moment."""

    async def talk() -> None:
        work = _Work()
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0):
                await cancel_if_client_leaves(_request(leaves_after), work.do())
        assert work.was_cancelled

    _run(talk())


def test_what_the_work_raises_is_raised() -> None:
    async def fail() -> None:
        raise KeyError("a")

    async def talk() -> None:
        with pytest.raises(KeyError):
            await cancel_if_client_leaves(_request(None), fail())

    _run(talk())
