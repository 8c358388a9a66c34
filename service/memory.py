"""Memory that has been freed goes back to the system.

The surprising fact: glibc keeps what a thread has freed in a heap of that thread's own, up to 64 MB of it,
    and even `malloc_trim` takes it back from the main heap alone. After a batch of eight windows each session
    would keep some 35 MB for ever, all of it free.
"""

import asyncio
import ctypes
from collections.abc import Callable, Iterator
from contextlib import contextmanager

M_ARENA_MAX = -8  # malloc.h
_libc = ctypes.CDLL(None)
_is_glibc = hasattr(_libc, "malloc_trim")
"""Other C libraries give back by themselves."""


def share_one_heap() -> None:
    """Let all threads that start from now on share the main heap, for the life of the process."""
    if _is_glibc:
        _libc.mallopt(M_ARENA_MAX, 1)


def give_back() -> None:
    """Give the main heap's free memory back, from any thread; milliseconds, in which others wait if they allocate."""
    if _is_glibc:
        _libc.malloc_trim(0)


class Quiet:
    """Calls `do` once whenever nobody has been inside for some time. Lives on one event loop."""

    def __init__(self, do: Callable[[], None], *, seconds: float) -> None:
        self._do, self._seconds = do, seconds
        self._num_inside = 0
        self._timer: asyncio.TimerHandle | None = None

    @property
    def num_inside(self) -> int:
        """Who are inside now."""
        return self._num_inside

    @contextmanager
    def disturbed(self) -> Iterator[None]:
        """Somebody is inside as long as the context lasts."""
        self.close()
        self._num_inside += 1
        try:
            yield
        finally:
            self._num_inside -= 1
            if not self._num_inside:
                self.begin()

    def begin(self) -> None:
        """From now on nobody is inside."""
        loop = asyncio.get_running_loop()
        self._timer = loop.call_later(self._seconds, loop.run_in_executor, None, self._do)

    def close(self) -> None:
        """Call nothing any more, unless somebody comes and goes."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
