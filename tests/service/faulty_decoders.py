"""Decoders that break in every way a decoder can, for `service.decode_pool`; the file's bytes say how."""

import builtins
import errno
import os
import signal
import time
from pathlib import Path

from service.decode_worker import DecodedChunk, DecodeTask, decode_chunk, limit_cpu


def break_as_told(task: DecodeTask) -> DecodedChunk:
    """Do what the file says: hang, crash, burn or die; any other file is decoded."""
    match task.request.path.read_bytes()[:5]:
        case b"hang!":
            hangs_marker(task.request.path).touch()
            time.sleep(60)
        case b"crash":
            os.kill(os.getpid(), signal.SIGSEGV)
        case b"kill!":
            os.kill(os.getpid(), signal.SIGKILL)
        case b"burn!":
            limit_cpu(task.max_cpu_seconds)
            while True:
                pass
        case b"raise":
            return _raise(task.request.path.read_bytes().decode().split()[1])
    return decode_chunk(task)


def hangs_marker(path: Path) -> Path:
    """The file that is there once the decoder hangs over `path`."""
    return path.with_suffix(".hangs")


class UnpicklableError(Exception):
    """An exception as some libraries have them: it can be pickled, but not be made again."""

    def __init__(self, code: int, *, place: str) -> None:
        super().__init__(f"{code} at {place}")


def _raise(name: str) -> DecodedChunk:
    """Raise the exception of this name from inside a function, for a traceback that is worth reading."""
    if name == "UnpicklableError":
        raise UnpicklableError(31, place="frame")
    raise getattr(builtins, name)("31 is not a valid Type")


_leaked: list[bytes] = []
LEAK_BYTES = 4_000_000


def with_a_leak(task: DecodeTask) -> DecodedChunk:
    """Decode, and keep some memory of every task for ever."""
    _leaked.append(os.urandom(LEAK_BYTES))
    return decode_chunk(task)


def with_full_memory(task: DecodeTask) -> DecodedChunk:
    """Decode, but write no more than 10,000 bytes before the memory is full."""
    write = os.write

    def write_until_full(descriptor: int, content: memoryview) -> int:
        if os.fstat(descriptor).st_size >= 10_000:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return write(descriptor, content[:10_000])

    os.write = write_until_full  # type: ignore[assignment]
    return decode_chunk(task)
