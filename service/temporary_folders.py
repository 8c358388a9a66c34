"""Folders of one server's own, gone when it ends, and cleaned by the next one if it crashed.

A folder is locked as long as its server lives; the lock goes with the process, however that ends.
"""

import atexit
import contextlib
import fcntl
import functools
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from tempfile import mkdtemp

PREFIX = "zorro-"
LOCK_FILE = ".lock"


@contextlib.contextmanager
def private_folder(parent: Path) -> Iterator[Path]:
    """A new folder below `parent` that nobody else can read, removed with all that is in it.

    Raises:
        OSError: it cannot be made.
    """
    folder = Path(mkdtemp(prefix=PREFIX, dir=parent))
    lock = os.open(folder / LOCK_FILE, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    fcntl.flock(lock, fcntl.LOCK_EX)
    remove = functools.partial(shutil.rmtree, folder, ignore_errors=True)
    atexit.register(remove)  # for an end in a hurry, in which nobody leaves the context
    try:
        yield folder
    finally:
        atexit.unregister(remove)
        remove()
        os.close(lock)


def clean_leftovers(parent: Path) -> list[Path]:
    """Remove what servers that crashed have left below `parent`; returns the folders."""
    removed = []
    for lock_file in parent.glob(f"{PREFIX}*/{LOCK_FILE}"):
        with contextlib.suppress(OSError):  # another user's, or another server cleans too
            lock = os.open(lock_file, os.O_RDWR | os.O_CLOEXEC)
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(lock_file.parent, ignore_errors=True)
                removed.append(lock_file.parent)
            finally:
                os.close(lock)
    return removed
