"""What every request for inference goes through.

That is admission before its body is read, a deadline, and cancellation.

If the client goes away, whatever is being done for it ends.
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
from .settings import Settings
from .state import server_state

ResultT = TypeVar("ResultT")
TIMEOUT_HEADER = "x-request-timeout-ms"


async def answer_admitted(
    request: Request, admission: Admission, answer: Callable[[float], Awaitable[Response]]
) -> Response:
    """Admit the request and answer it before its deadline.

    Args:
        request: whose body has not been read yet.
        admission: which has to have a place for it.
        answer: makes the response; called with the deadline, in seconds on `time.monotonic`.

    Raises:
        ServiceError: the server is not ready, has no place, or the deadline has passed.
    """
    state = server_state(request)
    state.ready_models()
    seconds = seconds_allowed(request, state.settings)
    with admission.place(request.state.id, seconds_allowed=seconds):
        try:
            async with asyncio.timeout(seconds):
                return await answer(time.monotonic() + seconds)
        except TimeoutError as error:
            raise DeadlineExceeded(
                f"there was no answer within {seconds:g} s; send less, or allow more"
            ) from error


def seconds_allowed(request: Request, settings: Settings) -> float:
    """Time the client allows by `X-Request-Timeout-Ms`, but no more than the operator allows.

    Raises:
        ServiceError: the header is no time above 0.
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


async def cancel_if_client_leaves(request: Request, work: Awaitable[ResultT]) -> ResultT:
    """The result of `work`, which is cancelled if the client disconnects meanwhile.

    Raises:
        ClientDisconnect: the client disconnected.
    """
    task = asyncio.current_task()
    assert task is not None
    has_left, num_cancelled = False, task.cancelling()

    async def wait_for_disconnect() -> None:
        nonlocal has_left
        while (await request.receive())["type"] != "http.disconnect":
            pass
        has_left = True
        task.cancel()

    watching = asyncio.ensure_future(wait_for_disconnect())
    try:
        return await work
    except asyncio.CancelledError as error:
        # The cancellation may be, or be also, that of somebody else: of the deadline, or of the server's end.
        if not has_left or task.uncancel() > num_cancelled:
            raise
        raise ClientDisconnect from error
    finally:
        watching.cancel()
