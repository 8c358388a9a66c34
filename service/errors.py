"""Errors as `application/problem+json` (RFC 9457): one table of codes feeds the answers, the docs and their test."""

from math import ceil
from typing import Any, NamedTuple

import orjson
from starlette.responses import Response

from media.errors import MediaError
from runtime.errors import InvalidOption


class Problem(NamedTuple):
    """A kind of error."""

    status: int
    title: str


PROBLEMS: dict[str, Problem] = {
    "invalid_option": Problem(400, "An option means nothing"),
    "invalid_span": Problem(400, "Start, end or stride are no times inside the media"),
    "missing_file": Problem(400, "There is no part called file, or more than one"),
    "invalid_multipart": Problem(400, "The body is not multipart/form-data as announced"),
    "invalid_tensors": Problem(400, "Tensors are not as the model takes them"),
    "unknown_model": Problem(404, "There is no such model"),
    "not_found": Problem(404, "There is no such route"),
    "method_not_allowed": Problem(405, "The route does not take this method"),
    "body_too_large": Problem(413, "The body is over the limit"),
    "too_many_bytes": Problem(413, "The file is over the limit"),
    "too_long": Problem(413, "The media is longer than the limit"),
    "too_many_pixels": Problem(413, "The picture is over the limit"),
    "too_many_streams": Problem(413, "The file has more streams than the limit"),
    "too_many_frames": Problem(413, "The film has more pictures per second than the limit"),
    "too_many_windows": Problem(413, "The media makes more windows than the limit"),
    "unsupported_content_type": Problem(415, "The body is not multipart/form-data"),
    "unsupported_media": Problem(415, "No container, codec or stream that can be read"),
    "empty_media": Problem(422, "The file has no bytes"),
    "corrupt_media": Problem(422, "Nothing of the media decodes"),
    "missing_audio": Problem(422, "The file has no sound"),
    "missing_video": Problem(422, "The file has no picture"),
    "decode_timeout": Problem(413, "The media takes too long to decode"),
    "decoder_out_of_memory": Problem(413, "The media takes too much memory to decode"),
    "decoder_crashed": Problem(422, "The decoder broke down over the media"),
    "overloaded": Problem(429, "There is no room, or no time, for the request now"),
    "internal_error": Problem(500, "The server failed; the fault is in its log under the request's id"),
    "not_ready": Problem(503, "The models are not loaded yet"),
    "draining": Problem(503, "The server is about to stop"),
    "out_of_space": Problem(503, "There is no room for uploads or decoded windows now"),
    "stuck": Problem(503, "A batch hangs"),
    "deadline_exceeded": Problem(504, "The time that was allowed has passed"),
}
DEFAULT_RETRY_SECONDS = {"not_ready": 1.0, "draining": 1.0, "out_of_space": 1.0}
"""When to try again, for codes that do not say."""


class ServiceError(Exception):
    """An error with a code of `PROBLEMS` and a sentence that helps."""

    def __init__(self, code: str, detail: str) -> None:
        super().__init__(detail)
        self.code = code


def problem_response(
    code: str, detail: str, request_id: str, *, retry_after_seconds: float | None = None
) -> Response:
    """The answer to a request that failed; `Retry-After` in whole seconds, where it is known when to try again."""
    problem = PROBLEMS[code]
    body: dict[str, Any] = {
        "type": f"/docs/errors#{code}",
        "title": problem.title,
        "status": problem.status,
        "detail": detail,
        "code": code,
        "request_id": request_id,
    }
    seconds = DEFAULT_RETRY_SECONDS.get(code) if retry_after_seconds is None else retry_after_seconds
    headers = None if seconds is None else {"Retry-After": str(ceil(seconds))}
    return Response(orjson.dumps(body), problem.status, headers, media_type="application/problem+json")


def code_of(error: Exception) -> str | None:
    """The code for an expected error; None for a fault of ours."""
    if isinstance(error, ServiceError | MediaError | InvalidOption):
        return error.code if error.code in PROBLEMS else None
    return None


class Overloaded(ServiceError):
    """Refused before any work; `retry_after_seconds` says when there will be room."""

    def __init__(self, detail: str, *, retry_after_seconds: float) -> None:
        super().__init__("overloaded", detail)
        self.retry_after_seconds = retry_after_seconds


class DeadlineExceeded(ServiceError):
    """The time that the client, or the operator, allows has passed."""

    def __init__(self, detail: str) -> None:
        super().__init__("deadline_exceeded", detail)
