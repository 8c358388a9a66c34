"""Why a file of a collection cannot be read: one short code for each kind of error, whichever library raised it."""

import logging
from pathlib import Path
from typing import NamedTuple

from media.errors import MediaError

logger = logging.getLogger(__name__)


class ReadFailure(NamedTuple):
    """Why a file cannot be read."""

    code: str
    """A `MediaError`'s code, "unreadable" for an error of the file system, else "decoder_failed"."""
    message: str

    def __str__(self) -> str:
        return f"{self.code}: {self.message}"


def read_failure(path: Path, error: Exception) -> ReadFailure:
    """What to say of a file that could not be read; errors that nobody expects are logged with their traceback."""
    if isinstance(error, MediaError):
        return ReadFailure(error.code, str(error))
    if isinstance(error, OSError):
        return ReadFailure("unreadable", str(error))
    logger.warning("unexpected error while reading %s", path, exc_info=error)
    return ReadFailure("decoder_failed", f"{type(error).__name__}: {error}")
