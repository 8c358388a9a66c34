"""Return freed memory to the system while the server is idle.

A surprising fact: glibc keeps what a thread has freed in a heap of that thread's own, up to 64 MB of it, and
even `malloc_trim` returns memory of the main heap only. After a batch of eight windows each session would
keep some 35 MB for ever, all of it free.
"""

import asyncio
import ctypes
from collections.abc import Callable, Iterator
from contextlib import contextmanager

M_ARENA_MAX = -8  # malloc.h
_libc = ctypes.CDLL(None)
_is_glibc = hasattr(_libc, "malloc_trim")
"""Other C libraries return memory by themselves."""


def share_one_heap() -> None:
    """Make all threads that start from now on share the main heap, for the life of the process."""
    if _is_glibc:
        _libc.mallopt(M_ARENA_MAX, 1)


def release_free_memory() -> None:
    """Return the main heap's free memory to the system.

    May be called from any thread. It takes milliseconds, in which threads that allocate have to wait.
    """
    if _is_glibc:
        _libc.malloc_trim(0)


class IdleTimer:
    """Calls `on_idle` once, in a thread, whenever nothing has been active for some time.

    Lives on one event loop.
    """

    def __init__(self, on_idle: Callable[[], None], *, seconds: float) -> None:
        self._on_idle, self._seconds = on_idle, seconds
        self._num_active = 0
        self._timer: asyncio.TimerHandle | None = None

    @property
    def num_active(self) -> int:
        """Number of `active` contexts that are open."""
        return self._num_active

    @contextmanager
    def active(self) -> Iterator[None]:
        """Stop the timer while the context is open; it starts again when the last one closes."""
        self.stop()
        self._num_active += 1
        try:
            yield
        finally:
            self._num_active -= 1
            if not self._num_active:
                self.start()

    def start(self) -> None:
        """Start the time after which `on_idle` is called."""
        loop = asyncio.get_running_loop()
        self._timer = loop.call_later(self._seconds, loop.run_in_executor, None, self._on_idle)

    def stop(self) -> None:
        """Do not call `on_idle`, until the timer is started again."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
