"""Free memory goes back to the system once the server is idle."""

import asyncio
import subprocess
import sys

import pytest

from media.memory import held_bytes
from service.heap import IdleTimer, release_free_memory

pytestmark = pytest.mark.slow


def _free_in_the_middle(num_pieces: int = 2_000, size: int = 20_000) -> bytes:
    """Fill memory and free it below a piece that stays, so that the C library can give nothing back by
    itself."""
    pieces = [b"x" * size for _ in range(num_pieces)]
    return pieces[-1]


def test_what_is_free_goes_back() -> None:
    release_free_memory()
    before = held_bytes()
    kept = _free_in_the_middle()
    assert held_bytes() - before > 20_000_000
    release_free_memory()
    assert held_bytes() - before < 5_000_000
    assert kept


IN_A_THREAD = """
from threading import Thread
from media.memory import held_bytes
from service.heap import release_free_memory, share_one_heap

def work():
    for size in (30_000_000, 20_000_000):  # the first teaches glibc to keep the second
        b"x" * size

if {is_shared}:
    share_one_heap()
before = held_bytes()
threads = [Thread(target=work) for _ in range(2)]
for thread in threads: thread.start()
for thread in threads: thread.join()
release_free_memory()
print(held_bytes() - before)
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="glibc's heaps")
@pytest.mark.parametrize("is_shared", [True, False])
def test_what_threads_have_freed_goes_back_from_the_heap_that_they_share(is_shared: bool) -> None:
    code = IN_A_THREAD.format(is_shared=is_shared)
    held = int(
        subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    )
    assert (held < 5_000_000) == is_shared


def test_it_is_called_once_when_nobody_has_been_inside_for_a_while() -> None:
    async def talk() -> None:
        timer = IdleTimer(lambda: called.append(timer.num_active), seconds=0.05)
        with timer.active(), timer.active():
            assert timer.num_active == 2
        await asyncio.sleep(0.3)
        assert called == [0]

    called: list[int] = []
    asyncio.run(talk())


def test_it_is_not_called_while_somebody_is_inside_or_after_the_end() -> None:
    async def talk() -> None:
        timer = IdleTimer(lambda: called.append(0), seconds=0.05)
        with timer.active():
            with timer.active():
                pass
            await asyncio.sleep(0.2)
        with timer.active():
            pass
        timer.stop()
        await asyncio.sleep(0.2)
        assert called == []

    called: list[int] = []
    asyncio.run(talk())
