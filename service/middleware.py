"""Around every request: its id, its line in the log, its place in the metrics, and an answer even when all else fails."""

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

log = logging.getLogger("zorro.access")
CLIENT_LEFT = 499  # nginx's word for it; nobody sees the answer
MAX_DISCARDED_BYTES, MAX_DISCARD_SECONDS = 32_000_000, 0.5


class RequestMiddleware:
    """Gives each request an id, the client's if it sent a sane one, and reports how it ended."""

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
                if status >= 400 and _is_closed_after(scope):
                    await body.discard()
                message.setdefault("headers", []).append((b"x-request-id", request_id.encode()))
            await send(message)

        try:
            await self._app(scope, body.receive, send_with_id)
        except ClientDisconnect:
            status = CLIENT_LEFT
            self._metrics.abandoned.inc()
        except Exception as error:
            if status:  # an answer has begun; there is no taking it back
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
        log.info("request", extra={"fields": line})


class _Body:
    """Knows whether a request's body has been read, and reads what is left of one that is refused and must be closed.

    A connection that is closed on a client which is still sending is reset, and takes the refusal with it.
    One that stays
    open is answered at once: uvicorn's parser passes over the rest, which costs this event loop next to
        nothing.
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
        """Read the rest, as far as it comes soon and is not too much."""
        num_bytes = 0
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(MAX_DISCARD_SECONDS):
                while not self._is_read and num_bytes < MAX_DISCARDED_BYTES:
                    num_bytes += len((await self.receive()).get("body", b""))


def _is_closed_after(scope: Scope) -> bool:
    """Whether the connection ends with the answer, as HTTP/1.0 does and a client can ask."""
    return scope["http_version"] == "1.0" or "close" in Headers(scope=scope).get("connection", "").lower()


def _request_id(scope: Scope) -> str:
    given = Headers(scope=scope).get("x-request-id", "")
    return given if 0 < len(given) <= 128 and given.isascii() and given.isprintable() else uuid.uuid4().hex
