"""Several readers of one file object, each with its own position; one reads at a time."""

import io
import os
from threading import Lock
from typing import BinaryIO


class SharedFile(io.RawIOBase):
    """One of several readers of a file. Closing it leaves the file open."""

    def __init__(self, file: BinaryIO, lock: Lock) -> None:
        super().__init__()
        self._file, self._lock, self._position = file, lock, 0

    def readable(self) -> bool:
        """Always."""
        return True

    def seekable(self) -> bool:
        """Always."""
        return True

    def tell(self) -> int:
        """Position of this reader."""
        return self._position

    def seek(self, offset: int, whence: int = os.SEEK_SET, /) -> int:
        """Move this reader alone."""
        with self._lock:
            if whence == os.SEEK_END:
                self._position = self._file.seek(offset, os.SEEK_END)
            else:
                self._position = offset + (self._position if whence == os.SEEK_CUR else 0)
        return self._position

    def read(self, size: int = -1, /) -> bytes:
        """Bytes at this reader's position."""
        with self._lock:
            self._file.seek(self._position)
            chunk = self._file.read(size)
        self._position += len(chunk)
        return chunk
