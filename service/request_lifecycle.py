"""A request's turn: refused or admitted before its body is read, then answered by its deadline.

If its client goes away, whatever is being done for it ends.
"""

import asyncio
import math
import time
from collections.abc import Awaitable, Callable
from typing import TypeVar

from fastapi import Request
from starlette.requests import ClientDisconnect
from starlette.responses import Response

from .admission import Admission
from .errors import DeadlineExceeded, ServiceError
from .routes.health import ready_models
from .settings import Settings

T = TypeVar("T")
TIMEOUT_HEADER = "x-request-timeout-ms"


async def in_turn(
    request: Request, admission: Admission, answer: Callable[[float], Awaitable[Response]]
) -> Response:
    """What `answer` says, called with the deadline on `time.monotonic` once the request has a place.

    Raises:
        ServiceError: not ready, no place, or the deadline has passed.
    """
    ready_models(request)
    seconds = seconds_allowed(request, request.app.state.settings)
    with admission.place(request.state.id, seconds_allowed=seconds):
        try:
            async with asyncio.timeout(seconds):
                return await answer(time.monotonic() + seconds)
        except TimeoutError as error:
            raise DeadlineExceeded(
                f"there was no answer within {seconds:g} s; send less, or allow more"
            ) from error


def seconds_allowed(request: Request, settings: Settings) -> float:
    """What the client allows by `X-Request-Timeout-Ms`, but no more than the operator does.

    Raises:
        ServiceError: the header is no time.
    """
    given = request.headers.get(TIMEOUT_HEADER)
    if given is None:
        return settings.request_timeout_seconds
    try:
        milliseconds = float(given)
    except ValueError:
        milliseconds = math.nan
    if not (math.isfinite(milliseconds) and milliseconds > 0):
        raise ServiceError(
            "invalid_option", f"X-Request-Timeout-Ms={given[:40]!r}; give milliseconds above 0"
        )
    return min(milliseconds / 1000, settings.request_timeout_seconds)


async def unless_client_leaves(request: Request, work: Awaitable[T]) -> T:
    """The result of `work`, which is cancelled if the client goes away meanwhile.

    Raises:
        ClientDisconnect: it did.
    """
    task = asyncio.current_task()
    assert task is not None
    has_left, num_cancelled = False, task.cancelling()

    async def end_when_left() -> None:
        nonlocal has_left
        while (await request.receive())["type"] != "http.disconnect":
            pass
        has_left = True
        task.cancel()

    watching = asyncio.ensure_future(end_when_left())
    try:
        return await work
    except asyncio.CancelledError as error:
        if (
            not has_left or task.uncancel() > num_cancelled
        ):  # it was, or was also, somebody else who cancelled
            raise
        raise ClientDisconnect from error
    finally:
        watching.cancel()
