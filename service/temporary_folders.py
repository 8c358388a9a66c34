"""Private folders of one server: removed when it ends, or by the next server if it crashed.

A folder is locked while its server lives; the lock ends with the process, however that ends.
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
    """A new folder below `parent` that other users cannot read.

    Removed with its content when the context closes.

    Raises:
        OSError: it cannot be created.
    """
    folder = Path(mkdtemp(prefix=PREFIX, dir=parent))
    lock = os.open(folder / LOCK_FILE, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    fcntl.flock(lock, fcntl.LOCK_EX)
    remove = functools.partial(shutil.rmtree, folder, ignore_errors=True)
    atexit.register(remove)  # for an exit that does not close the context
    try:
        yield folder
    finally:
        atexit.unregister(remove)
        remove()
        os.close(lock)


def clean_leftovers(parent: Path) -> list[Path]:
    """Remove the folders that crashed servers have left below `parent`, and return their paths."""
    removed = []
    for lock_file in parent.glob(f"{PREFIX}*/{LOCK_FILE}"):
        with contextlib.suppress(OSError):  # it belongs to another user, or another server removes it now
            lock = os.open(lock_file, os.O_RDWR | os.O_CLOEXEC)
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(lock_file.parent, ignore_errors=True)
                removed.append(lock_file.parent)
            finally:
                os.close(lock)
    return removed
