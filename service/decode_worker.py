"""What runs in a decode process: an uploaded file becomes windows, under limits, in a shared-memory file.

It imports `media` alone: no web framework, no engine, nothing worth stealing. Arrays go through a file in a
folder that lies in memory, so nothing large is pickled, and a full memory is an error where it is written,
not a crash where it is read.
"""

import contextlib
import errno
import gc
import os
import resource
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from multiprocessing.synchronize import Semaphore
from pathlib import Path
from random import randint
from threading import Lock, Thread

import numpy as np

from media import Clip, ClipSpec, MediaInfo, MediaLimits, Modality, TimeRange
from media.clip import ReadState
from media.errors import MediaError
from media.memory import data_bytes, held_bytes
from media.modality_check import read_modalities

MAX_OPEN_FILES = 64
CHECK_SECONDS = 0.05  # between looks at whether anybody waits for the task that runs
ABANDONED_STATUS = 3  # of a process that ended with its task
NUM_FIRST_TASKS = 10  # after which a process has done some of everything, and should grow no more


@dataclass(frozen=True, slots=True, kw_only=True)
class DecodeRequest:
    """What a request needs of its clip; its windows are decoded chunk by chunk, each as a `DecodeTask`."""

    path: Path
    """The uploaded file."""
    spec: ClipSpec
    requested: Sequence[Modality]
    require_all: bool
    """Whether the file must have what each requested modality needs."""
    time_range: TimeRange
    max_windows: int
    """Of one chunk."""
    limits: MediaLimits


@dataclass(frozen=True, slots=True, kw_only=True)
class DecodeTask:
    """One chunk of a clip's windows, as it is sent to a decode process."""

    request: DecodeRequest
    state: ReadState | None
    """What the chunk before found, and the window to go on with; None for the first chunk."""
    out: Path
    """Where the arrays go: an empty file, which is removed once nobody waits for them any more."""
    max_threads: int
    """Of a stream's decoder."""
    max_cpu_seconds: float


@dataclass(frozen=True, slots=True)
class DecodedChunk:
    """Windows of a clip, without their arrays, which lie in `DecodeTask.out`: all audio, then all video."""

    info: MediaInfo
    available: tuple[Modality, ...]
    """The requested modalities that the file can answer."""
    windows: tuple[Clip, ...]
    is_last: bool
    warnings: tuple[str, ...]
    seconds: float
    """That decoding took."""


class UnexpectedDecodeError(Exception):
    """An exception that a decode task should not raise, as text.

    The surprising fact: exceptions of libraries may not survive pickling, and pebble sends even SystemExit,
    which would end the server. Text always arrives.
    """

    def __init__(self, exception: str, traceback: str) -> None:
        super().__init__(exception, traceback)
        self.exception, self.traceback = exception, traceback

    def __str__(self) -> str:
        return self.traceback


def limit_process(max_memory_bytes: int) -> None:
    """Limit this process for good: additional memory, open files, core dumps; the server has priority.

    It ends when its server does, however that ends, and with a task that nobody waits for any more; see
    `run_task`.
    """
    Thread(target=_end_in_time, args=(os.getppid(),), daemon=True).start()
    # Not RLIMIT_AS: address space that threads reserve and never touch would count too.
    bound = data_bytes() + max_memory_bytes
    for kind, most in (
        (resource.RLIMIT_DATA, bound),
        (resource.RLIMIT_NOFILE, MAX_OPEN_FILES),
        (resource.RLIMIT_CORE, 0),
    ):
        resource.setrlimit(kind, (most, most))
    with contextlib.suppress(OSError):
        os.nice(1)
    gc.collect()
    gc.freeze()  # what is here stays, and need not be looked through between tasks


@dataclass(slots=True, kw_only=True)
class Lifetime:
    """How long a decode process serves: for a number of tasks, or fewer at random or because it grows.

    Processes begin together; with a number of their own they do not all end at once under load.
    """

    max_tasks: int
    max_growth_bytes: int
    """Over the most memory that it held between its first tasks."""
    num_grown: Semaphore
    """Counts processes that ended because they had grown: the one counter that cannot be left locked."""
    settled_bytes: int = 0

    def continues_after(self, num_done: int) -> bool:
        """Clear away what tasks left behind, and tell whether the process takes another after `num_done`.

        To be asked before each task; a process that ends because it has grown is counted.
        """
        if not num_done:
            self.max_tasks -= randint(0, self.max_tasks // 2)  # noqa: S311 - no secret
        # PyAV leaves frames and decoders in cycles, and a decoder's threads take memory for their stacks.
        gc.collect()
        held = held_bytes()
        if num_done <= NUM_FIRST_TASKS:
            self.settled_bytes = max(self.settled_bytes, held)
        if held > self.settled_bytes + self.max_growth_bytes:
            self.num_grown.release()
            return False
        return num_done < self.max_tasks


@dataclass(frozen=True, slots=True, eq=False)
class TaskLimit:
    """A `Lifetime` as pebble's `max_tasks`.

    pebble has no hook between two tasks, but before a process fetches a task it compares the number of those
    it has done with `max_tasks`, and ends the process unless it is less. No task is lost then. So the
    comparison is the hook, and it does nothing but call `Lifetime.continues_after`.
    """

    lifetime: Lifetime

    def __gt__(self, num_done: int) -> bool:
        return self.lifetime.continues_after(num_done)


class Running:
    """The task that runs in this process, if any."""

    def __init__(self) -> None:
        self._out: Path | None = None
        self._lock = Lock()

    @contextlib.contextmanager
    def task(self, out: Path) -> Iterator[None]:
        """A task runs as long as the context lasts, and somebody waits for it as long as `out` is there."""
        with self._lock:
            self._out = out
        try:
            yield
        finally:
            with self._lock:
                self._out = None

    def end_if_abandoned(self) -> None:
        """End this process if a task runs that nobody waits for."""
        with self._lock:
            if self._out is not None and not self._out.exists():
                os._exit(ABANDONED_STATUS)


_running = Running()


def run_task(decode: Callable[[DecodeTask], DecodedChunk], task: DecodeTask) -> DecodedChunk:
    """Decode, as long as somebody waits: if `task.out` goes, this process ends, in this task and in no other.

    The surprising fact: if two tasks are cancelled at once, pebble may kill the second one's process when it
    has gone on to the next task already, and nobody hears of that one again. So pebble is never told; whoever
    cancels removes `task.out`.

    Raises:
        FileNotFoundError: nobody waited when it began, or nobody waits any more.
        MediaError, MemoryError: see `decode_chunk`.
        OSError: the shared memory is full.
        UnexpectedDecodeError: `decode` raised anything else.
    """
    with _running.task(task.out):
        task.out.stat()
        try:
            return decode(task)
        except (MediaError, MemoryError):
            raise
        except BaseException as error:
            is_full = isinstance(error, OSError) and error.errno == errno.ENOSPC
            if is_full or not task.out.exists():
                raise
            raise UnexpectedDecodeError(type(error).__name__, traceback.format_exc()) from None


def _end_in_time(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(CHECK_SECONDS)
        with contextlib.suppress(
            MemoryError
        ):  # a decoder may have taken all there is; the next look may have room
            _running.end_if_abandoned()
    os._exit(1)


def decode_chunk(task: DecodeTask) -> DecodedChunk:
    """Decode one chunk and write its arrays.

    Raises:
        MediaError: see `media.errors`.
        MemoryError: over the limit of `limit_process`.
        OSError: the shared memory is full.
    """
    started = time.perf_counter()
    limit_cpu(task.max_cpu_seconds)
    request = task.request
    available, reader = read_modalities(
        request.path,
        request.spec,
        request.requested,
        require_all=request.require_all,
        time_range=request.time_range,
        limits=replace(request.limits, max_threads=task.max_threads),
        state=task.state,
    )
    clips = list(islice(iter(reader), request.max_windows))
    _write(task.out, clips)
    return DecodedChunk(
        info=reader.info,
        available=tuple(available),
        windows=tuple(replace(clip, audio=None, video=None) for clip in clips),
        is_last=len(clips) < request.max_windows,
        warnings=tuple(reader.warnings),
        seconds=time.perf_counter() - started,
    )


def limit_cpu(seconds: float) -> None:
    """So many seconds of processor time from now on; then the kernel ends this process."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    bound = int(used.ru_utime + used.ru_stime + seconds) + 1
    resource.setrlimit(resource.RLIMIT_CPU, (bound, resource.getrlimit(resource.RLIMIT_CPU)[1]))


def _write(path: Path, clips: Sequence[Clip]) -> None:
    descriptor = os.open(path, os.O_WRONLY)  # not created: if nobody waits any more it is gone, and stays so
    with open(descriptor, "wb", buffering=0) as file:
        for name in ("audio", "video"):
            for clip in clips:
                array: np.ndarray | None = getattr(clip, name)
                if array is not None:
                    _write_all(file.fileno(), np.ascontiguousarray(array).data.cast("B"))


def _write_all(descriptor: int, content: memoryview) -> None:
    while content:
        content = content[os.write(descriptor, content) :]
