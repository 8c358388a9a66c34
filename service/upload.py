"""Uploads: a multipart body, counted as it comes.

It is written to a temporary file that ends with its request.
"""

import asyncio
import errno
from collections.abc import AsyncIterator
from contextlib import ExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import NamedTemporaryFile
from typing import TYPE_CHECKING, BinaryIO, cast

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header
from starlette.requests import Request

from .errors import ServiceError
from .tracing import span

if TYPE_CHECKING:
    from python_multipart.multipart import MultipartCallbacks  # exists for type checkers only

MAX_FIELD_BYTES = 64_000
MAX_FIELDS = 50


@dataclass(frozen=True, slots=True)
class Upload:
    """The parts of a multipart body."""

    path: Path
    """The clip, in a temporary file."""
    num_bytes: int
    """Of the clip."""
    fields: dict[str, str]
    """All other parts, by name."""


@asynccontextmanager
async def receive_upload(request: Request, *, max_bytes: int, folder: Path | None) -> AsyncIterator[Upload]:
    """The request's clip as a temporary file in `folder`, and its fields.

    The file is removed when the context closes. If there was no error it is removed a little later, so that
    the response does not wait for it.

    Raises:
        ServiceError: the body is not multipart/form-data with one file, is too large, or the disk is full.
    """
    boundary = _boundary(request)
    try:
        with ExitStack() as leaving:
            file = leaving.enter_context(NamedTemporaryFile(dir=folder, prefix="zorro-upload-"))
            form = _Form(cast(BinaryIO, file))
            with span("upload"):
                await _parse_body(request, MultipartParser(boundary, form.callbacks()), max_bytes)
            if not form.is_complete:
                raise ServiceError(
                    "invalid_multipart", "the body ends before its last boundary; send all of it"
                )
            if form.num_files != 1:
                got = f"got {form.num_files} parts called file"
                raise ServiceError(
                    "missing_file", f"{got}; send the clip as one, e.g. curl -F file=@clip.mp4"
                )
            file.flush()
            yield Upload(Path(file.name), form.num_file_bytes, form.fields)
            asyncio.get_running_loop().call_soon(leaving.pop_all().close)
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        raise ServiceError("out_of_space", "there is no room for uploads now; try again later") from error


async def _parse_body(request: Request, parser: MultipartParser, max_bytes: int) -> None:
    try:
        async for chunk in body_chunks(request, max_bytes, hint="cut or compress the clip"):
            parser.write(chunk)
        parser.finalize()
    except FormParserError as error:
        raise ServiceError(
            "invalid_multipart", "the body is no valid multipart/form-data; is it whole?"
        ) from error


def _boundary(request: Request) -> bytes:
    content_type, options = parse_options_header(request.headers.get("content-type", ""))
    if content_type != b"multipart/form-data":
        got = content_type.decode("latin-1") or "no content type"
        raise ServiceError(
            "unsupported_content_type", f"got {got}; send multipart/form-data, e.g. curl -F file=@clip.mp4"
        )
    if not options.get(b"boundary"):
        raise ServiceError(
            "invalid_multipart", "multipart/form-data without a boundary; let your client set the header"
        )
    return options[b"boundary"]


async def body_chunks(request: Request, max_bytes: int, *, hint: str) -> AsyncIterator[bytes]:
    """The body, chunk by chunk as it comes; one announced to be over the limit is not read at all.

    Raises:
        ServiceError: the body is over the limit; `hint` says what to do.
    """
    too_large = ServiceError("body_too_large", f"the body is over the limit of {max_bytes} bytes; {hint}")
    announced, received = request.headers.get("content-length", "0"), 0
    if announced.isdecimal() and int(announced) > max_bytes:
        raise too_large
    async for chunk in request.stream():
        received += len(chunk)
        if received > max_bytes:
            raise too_large
        yield chunk


class _Form:
    """Receives the parser's events.

    It writes the part `file` to the temporary file, and keeps all others as fields.
    """

    def __init__(self, file: BinaryIO) -> None:
        self.file = file
        self.fields: dict[str, str] = {}
        self.num_files = self.num_file_bytes = 0
        self.is_complete = False
        self._header_name = self._header_value = b""
        self._name: str | None = None
        self._value = bytearray()

    def callbacks(self) -> "MultipartCallbacks":
        """The methods below, as `MultipartParser` expects them."""
        return {
            "on_part_begin": self._on_part_begin,
            "on_part_data": self._on_part_data,
            "on_part_end": self._on_part_end,
            "on_header_field": self._on_header_field,
            "on_header_value": self._on_header_value,
            "on_header_end": self._on_header_end,
            "on_end": self._on_end,
        }

    def _on_part_begin(self) -> None:
        self._name, self._value = None, bytearray()

    def _on_header_field(self, chunk: bytes, start: int, end: int) -> None:
        self._header_name += chunk[start:end]

    def _on_header_value(self, chunk: bytes, start: int, end: int) -> None:
        self._header_value += chunk[start:end]

    def _on_header_end(self) -> None:
        if self._header_name.lower() == b"content-disposition":
            name = parse_options_header(self._header_value)[1].get(b"name", b"")
            self._name = name.decode("utf-8", "replace")
            self.num_files += self._name == "file"
        self._header_name = self._header_value = b""

    def _on_part_data(self, chunk: bytes, start: int, end: int) -> None:
        if self._name == "file":
            self.file.write(memoryview(chunk)[start:end])
            self.num_file_bytes += end - start
            return
        self._value += chunk[start:end]
        if len(self._value) > MAX_FIELD_BYTES or len(self.fields) >= MAX_FIELDS:
            raise ServiceError(
                "invalid_option", f"more than {MAX_FIELDS} options, or one over {MAX_FIELD_BYTES} bytes"
            )

    def _on_part_end(self) -> None:
        if self._name is None:
            raise ServiceError("invalid_multipart", "a part has no name; name each, the clip file")
        if self._name == "file":
            return
        if self._name in self.fields:
            raise ServiceError(
                "invalid_option", f"{self._name} is given twice; give it once, lists with commas"
            )
        self.fields[self._name] = self._value.decode("utf-8", "replace")

    def _on_end(self) -> None:
        self.is_complete = True
