"""Tell a lack of memory from a fault of the file, which FFmpeg itself does not always do.

The surprising fact: in a process with limited memory FFmpeg reports some failed allocations as invalid data
(its threaded H.264 decoder does so for frames), and a failed read of a Python file as missing permission.
Frames would then be missing from an answer, and the file would be blamed.
"""

import resource
from pathlib import Path

import av.error

STATM = Path("/proc/self/statm")
RESIDENT_FIELD, SHARED_FIELD, DATA_FIELD = 1, 2, 5  # pages: in memory, of files, data and stack; proc(5)
BYTES_PER_PIXEL = 8  # the most that a decoder's frame takes
MIN_SPARE_BYTES = 4 << 20  # for all that is no frame


def raise_if_starved(error: Exception | None = None, *, num_pixels: int = 0) -> None:
    """Raise MemoryError if FFmpeg failed for lack of memory or of threads, which is no fault of the file.

    Args:
        error: what FFmpeg raised, if it raised.
        num_pixels: of one frame. A process that has no room for another frame is taken to lack memory,
            whatever FFmpeg reports.
    """
    spare = spare_bytes()
    is_reported = isinstance(error, MemoryError | av.error.BlockingIOError)
    if is_reported or (spare is not None and spare < MIN_SPARE_BYTES + num_pixels * BYTES_PER_PIXEL):
        raise MemoryError("FFmpeg has too little memory to decode this") from error


def spare_bytes() -> int | None:
    """Memory in bytes that this process may still take; None if it is not limited."""
    bound = resource.getrlimit(resource.RLIMIT_DATA)[0]
    return None if bound == resource.RLIM_INFINITY else bound - data_bytes()


def data_bytes() -> int:
    """Bytes that this process has taken of `RLIMIT_DATA`, whether it has written to them or not."""
    return _num_pages()[DATA_FIELD] * resource.getpagesize()


def held_bytes() -> int:
    """Bytes in memory that belong to this process alone and to no file."""
    pages = _num_pages()
    return (pages[RESIDENT_FIELD] - pages[SHARED_FIELD]) * resource.getpagesize()


def _num_pages() -> list[int]:
    return [int(field) for field in STATM.read_text().split()]
