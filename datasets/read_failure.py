"""Why a file of a collection cannot be read.

There is one short code for each kind of error, whichever library raised it.
"""

import logging
from collections.abc import Mapping, Sized
from pathlib import Path
from typing import NamedTuple

from media.errors import MediaError

logger = logging.getLogger(__name__)
MAX_LOGGED = 20  # files


class ReadFailure(NamedTuple):
    """Why a file cannot be read."""

    code: str
    """A `MediaError`'s code, "unreadable" for an error of the file system, else "decoder_failed"."""
    message: str

    def __str__(self) -> str:
        return f"{self.code}: {self.message}"


def read_failure(path: Path, error: Exception) -> ReadFailure:
    """What to say of a file that could not be read.

    Errors that nobody expects are logged with their traceback.
    """
    if isinstance(error, MediaError):
        return ReadFailure(error.code, str(error))
    if isinstance(error, OSError):
        return ReadFailure("unreadable", str(error))
    logger.warning("unexpected error while reading %s", path, exc_info=error)
    return ReadFailure("decoder_failed", f"{type(error).__name__}: {error}")


def log_failures(failures: Mapping[Path, ReadFailure]) -> None:
    """Name the files that were passed over in the log, and count those beyond the first twenty."""
    for path, failure in list(failures.items())[:MAX_LOGGED]:
        logger.warning("passed over %s: %s", path, failure)
    if len(failures) > MAX_LOGGED:
        logger.warning(
            "passed over %d files, of which %d are named; `zorro data check` names all",
            len(failures),
            MAX_LOGGED,
        )


def nothing_decodes(items: Sized, failures: Mapping[Path, ReadFailure]) -> str:
    """What to say where no file of a split is left."""
    if not len(items):
        return "there are no clips of this split"
    path, failure = next(iter(failures.items()))
    return (
        f"none of {len(items)} clips decodes; the first is {path}: {failure}. Run `zorro data check` on them"
    )
