"""Errors as `application/problem+json` (RFC 9457): one table of codes for responses, docs and their test."""

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
    "invalid_option": Problem(400, "An option is unknown, given twice, or has a value that is not allowed"),
    "invalid_span": Problem(400, "Start, end or stride do not fit the media"),
    "missing_file": Problem(400, "The request has no part named file, or more than one"),
    "invalid_multipart": Problem(400, "The body is not well-formed multipart/form-data"),
    "invalid_tensors": Problem(400, "The tensors do not match the model's inputs"),
    "unknown_model": Problem(404, "No model has this id"),
    "not_found": Problem(404, "There is no such route"),
    "method_not_allowed": Problem(405, "The route does not allow this method"),
    "body_too_large": Problem(413, "The request body is larger than the limit"),
    "too_many_bytes": Problem(413, "The file is larger than the limit"),
    "too_long": Problem(413, "The media is longer than the limit"),
    "too_many_pixels": Problem(413, "The picture has more pixels than the limit"),
    "too_many_streams": Problem(413, "The file has more streams than the limit"),
    "too_many_frames": Problem(413, "The video has more frames per second than the limit"),
    "too_many_windows": Problem(413, "The media has more windows than the limit"),
    "unsupported_content_type": Problem(415, "The body is not multipart/form-data"),
    "unsupported_media": Problem(415, "The file's container, codecs or streams cannot be read"),
    "empty_media": Problem(422, "The file is empty"),
    "corrupt_media": Problem(422, "Nothing in the file can be decoded"),
    "missing_audio": Problem(422, "The file has no sound"),
    "missing_video": Problem(422, "The file has no picture"),
    "decode_timeout": Problem(413, "The file takes too long to decode"),
    "decoder_out_of_memory": Problem(413, "The file takes too much memory to decode"),
    "decoder_crashed": Problem(422, "The decoder crashed on the file"),
    "decoder_failed": Problem(422, "The decoder failed on the file; the server's log has the error"),
    "overloaded": Problem(429, "The server has no room or no time for the request now"),
    "internal_error": Problem(500, "The server failed; its log has the error under the request's id"),
    "not_ready": Problem(503, "The models are still loading"),
    "draining": Problem(503, "The server is shutting down"),
    "out_of_space": Problem(503, "The server has no space for uploads or decoded windows now"),
    "stuck": Problem(503, "A batch has been running for too long"),
    "deadline_exceeded": Problem(504, "The allowed time passed before the answer was ready"),
}
DEFAULT_RETRY_SECONDS = {"not_ready": 1.0, "draining": 1.0, "out_of_space": 1.0}
"""Retry-After of codes whose errors do not say when to try again."""


class ServiceError(Exception):
    """An error with a code of `PROBLEMS` and a sentence that helps."""

    def __init__(self, code: str, detail: str) -> None:
        super().__init__(detail)
        self.code = code


class DecoderFailed(ServiceError):
    """A decode task raised an exception that it should not raise.

    The cause holds the traceback for the log.
    """

    def __init__(self, exception: str) -> None:
        super().__init__(
            "decoder_failed",
            f"the decoder failed on this file ({exception}); convert it to another format, "
            "or report it to the server's operator with the request_id",
        )


def problem_response(
    code: str, detail: str, request_id: str, *, retry_after_seconds: float | None = None
) -> Response:
    """The response to a request that failed; `Retry-After`, in whole seconds, says when to try again."""
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
    """The code of an expected error; None for a fault of the server."""
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
