"""A plain HTTP client for a server on this machine.

It sends requests and forms, and reads the server's count of its batches.
"""

import http.client
import re
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

HOST = "127.0.0.1"
REQUEST_SECONDS = 600.0


class ServerFault(Exception):
    """The server ended, was not ready in time, serves something else, or did not answer a request."""


class MultipartForm(NamedTuple):
    """A body of multipart/form-data."""

    content_type: str
    body: bytes


def multipart_form(path: Path, fields: Mapping[str, str]) -> MultipartForm:
    """A form of plain fields and one file."""
    boundary = uuid.uuid4().hex
    parts = [
        f'--{boundary}\r\nContent-Disposition: form-data; name="{k}"\r\n\r\n{v}\r\n'
        for k, v in fields.items()
    ]
    parts.append(f'--{boundary}\r\nContent-Disposition: form-data; name="file"; filename="clip"\r\n\r\n')
    body = "".join(parts).encode() + path.read_bytes() + f"\r\n--{boundary}--\r\n".encode()
    return MultipartForm(f"multipart/form-data; boundary={boundary}", body)


def fetch(port: int, route: str, form: MultipartForm | None = None) -> bytes:
    """Content of the answer to GET, or to POST of a form.

    Raises:
        ServerFault: there is no answer, or one with another status than 200.
    """
    status, content = exchange(port, route, form)
    if status != 200:
        raise ServerFault(
            f"{route} was answered with status {status}: {content[:300].decode(errors='replace')}"
        )
    return content


def exchange(port: int, route: str, form: MultipartForm | None = None) -> tuple[int, bytes]:
    """Status and content of the answer to GET, or to POST of a form.

    Raises:
        ServerFault: there is no answer.
    """
    connection = http.client.HTTPConnection(HOST, port, timeout=REQUEST_SECONDS)
    try:
        if form is None:
            connection.request("GET", route)
        else:
            connection.request("POST", route, form.body, {"Content-Type": form.content_type})
        response = connection.getresponse()
        return response.status, response.read()
    except (OSError, http.client.HTTPException) as error:
        raise ServerFault(f"{route} was not answered: {error!r}") from error
    finally:
        connection.close()


def batch_sizes(port: int) -> dict[str, int]:
    """How many batches the server has run, by their largest number of windows.

    Raises:
        ServerFault: it does not answer.
    """
    text = fetch(port, "/metrics").decode()
    totals = re.findall(r'^zorro_batch_size_bucket{le="([0-9.]+)"} ([0-9.]+)$', text, flags=re.MULTILINE)
    found, before = {}, 0
    for size, total in totals:
        found[str(int(float(size)))] = int(float(total)) - before
        before = int(float(total))
    return found
