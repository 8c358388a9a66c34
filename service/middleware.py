"""What stands around every request: its id, its line in the log, and its metrics.

It also gives a response to unexpected errors.
"""

import asyncio
import contextlib
import logging
import time
import uuid
from collections.abc import Callable
from typing import Any

from starlette.datastructures import Headers
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from .metrics import Metrics
from .tracing import trace_id

access_log = logging.getLogger("zorro.access")
CLIENT_LEFT = 499  # as nginx logs it; no client sees this status
MAX_DISCARDED_BYTES, MAX_DISCARD_SECONDS = 32_000_000, 0.5


class RequestMiddleware:
    """Gives each request an id, the client's if it sent a valid one, and logs and counts how it ended."""

    def __init__(
        self, app: ASGIApp, *, metrics: Metrics, on_error: Callable[[str, Exception], ASGIApp]
    ) -> None:
        self._app, self._metrics, self._on_error = app, metrics, on_error

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """See ASGI."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        request_id = _request_id(scope)
        scope.setdefault("state", {})["id"] = request_id
        started, status = time.perf_counter(), 0
        body = _Body(receive)

        async def send_with_id(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                if status >= 400 and _closes_after_response(scope):
                    await body.discard()
                message.setdefault("headers", []).append((b"x-request-id", request_id.encode()))
            await send(message)

        try:
            await self._app(scope, body.receive, send_with_id)
        except ClientDisconnect:
            status = CLIENT_LEFT
            self._metrics.abandoned.inc()
        except Exception as error:
            if status:  # the response has begun; no other can be sent
                raise
            await self._on_error(request_id, error)(scope, body.receive, send_with_id)
        finally:
            self._report(scope, request_id, status, time.perf_counter() - started)

    def _report(self, scope: Scope, request_id: str, status: int, seconds: float) -> None:
        route = getattr(
            scope.get("route"), "path", "none"
        )  # never what the client wrote: it could be anything
        self._metrics.requests.labels(route, str(status)).inc()
        line: dict[str, Any] = {
            "request_id": request_id,
            "method": scope["method"],
            "route": route,
            "status": status,
            "ms": round(1000 * seconds, 1),
        }
        if (trace := trace_id()) is not None:
            line["trace_id"] = trace
        access_log.info("request", extra={"fields": line})


class _Body:
    """A request's body: whether it has been read, and a way to discard the rest of it.

    If a connection is closed while the client still sends, it is reset and the client never sees the
    response. So before such a connection is closed, the rest is read. A connection that stays open needs no
    care: uvicorn's parser skips the rest, which costs this event loop next to nothing.
    """

    def __init__(self, receive: Receive) -> None:
        self._receive, self._is_read = receive, False

    async def receive(self) -> Message:
        message = await self._receive()
        self._is_read = (
            self._is_read or message["type"] != "http.request" or not message.get("more_body", False)
        )
        return message

    async def discard(self) -> None:
        """Read the rest, but no more than `MAX_DISCARDED_BYTES` and no longer than `MAX_DISCARD_SECONDS`."""
        num_bytes = 0
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(MAX_DISCARD_SECONDS):
                while not self._is_read and num_bytes < MAX_DISCARDED_BYTES:
                    num_bytes += len((await self.receive()).get("body", b""))


def _closes_after_response(scope: Scope) -> bool:
    """Whether the connection is closed after the response.

    It is in HTTP/1.0, and where the client asks for it.
    """
    return scope["http_version"] == "1.0" or "close" in Headers(scope=scope).get("connection", "").lower()


def _request_id(scope: Scope) -> str:
    given = Headers(scope=scope).get("x-request-id", "")
    return given if 0 < len(given) <= 128 and given.isascii() and given.isprintable() else uuid.uuid4().hex
