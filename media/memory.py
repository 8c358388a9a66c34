"""Telling a lack of memory from a fault of the file, which FFmpeg itself does not always do.

The surprising fact: where a process's memory is bounded, FFmpeg calls some of its own failed allocations
    invalid data (its H.264 decoder in threads does, at pictures), and a read of a Python file that failed so
    a lack of permission. Pictures would then be missing from an answer, and the file be blamed for it.
"""

import resource
from pathlib import Path

import av.error

STATM = Path("/proc/self/statm")
RESIDENT_FIELD, SHARED_FIELD, DATA_FIELD = (
    1,
    2,
    5,
)  # pages in memory, those of files among them, data and stack; proc(5)
BYTES_PER_PIXEL = 8  # the most that a decoder's picture takes
MIN_SPARE_BYTES = 4 << 20  # for all that is no picture


def raise_if_starved(error: Exception | None = None, *, num_pixels: int = 0) -> None:
    """Raise MemoryError if what failed in FFmpeg failed for lack of memory, or for threads: no fault of the file.

    Args:
        error: what it raised, if it did.
        num_pixels: of the pictures that are decoded. A process that has no room for another of them is
            believed to be starved, whatever FFmpeg says.
    """
    spare = spare_bytes()
    is_told = isinstance(error, MemoryError | av.error.BlockingIOError)
    if is_told or (spare is not None and spare < MIN_SPARE_BYTES + num_pixels * BYTES_PER_PIXEL):
        raise MemoryError("FFmpeg has too little memory to decode this") from error


def spare_bytes() -> int | None:
    """Memory that this process may still take; None if it may take all there is."""
    bound = resource.getrlimit(resource.RLIMIT_DATA)[0]
    return None if bound == resource.RLIM_INFINITY else bound - data_bytes()


def data_bytes() -> int:
    """What this process has taken of `RLIMIT_DATA`, written to or not."""
    return _num_pages()[DATA_FIELD] * resource.getpagesize()


def held_bytes() -> int:
    """Memory of this process that is nobody else's and no file's."""
    pages = _num_pages()
    return (pages[RESIDENT_FIELD] - pages[SHARED_FIELD]) * resource.getpagesize()


def _num_pages() -> list[int]:
    return [int(field) for field in STATM.read_text().split()]
