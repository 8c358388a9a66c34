"""Decoding outside the server: a process that crashes, hangs or grows fails its own request only.

A chunk of windows is a task. A process whose task is cancelled ends itself, the pool (pebble) kills one whose
task takes too long, and starts another. No more tasks are handed over than there are processes, so one that
waits here can be dropped without a trace.
"""

import asyncio
import errno
import math
import mmap
import multiprocessing
import os
import signal
import uuid
from collections import Counter
from collections.abc import AsyncGenerator, Callable
from concurrent.futures import TimeoutError as TaskTimeout
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import cast

import numpy as np
from pebble import ProcessExpired, ProcessPool

from media import Clip, ClipSpec, Modality
from media.clip import ReadState
from media.errors import MediaError
from runtime.signature import GRAPH_INPUTS, input_tensors

from .decode_worker import (
    DecodedChunk,
    DecodeRequest,
    DecodeTask,
    Lifetime,
    TaskLimit,
    UnexpectedDecodeError,
    decode_chunk,
    limit_process,
    run_task,
)
from .errors import DecoderFailed, ServiceError

MAX_TASKS_PER_WORKER = 500  # at most, then a process is replaced, whatever it leaked goes with it
MAX_EXCEPTION_NAMES = 20
MAX_ATTEMPTS = 3  # at a task whose pool broke before it began; no fault of the task


@dataclass(slots=True)
class DecodePoolStats:
    """Counts since the start."""

    num_tasks: int = 0
    num_crashes: int = 0
    num_timeouts: int = 0
    num_cancelled: int = 0
    num_restarts: int = 0
    """Pools that were made anew after an idle process was killed."""
    exceptions: Counter[str] = field(default_factory=Counter)
    """By class name, those that no decode task should raise."""

    def count_exception(self, name: str) -> None:
        """Count one; from some number of names on, new ones are counted as "other"."""
        is_known = name in self.exceptions or len(self.exceptions) < MAX_EXCEPTION_NAMES
        self.exceptions[name if is_known else "other"] += 1


class DecodePool:
    """A fixed number of decode processes. Lives on one event loop."""

    def __init__(
        self,
        folder: Path,
        *,
        num_workers: int,
        max_memory_bytes: int,
        max_growth_bytes: int,
        max_cpu_seconds: float,
        timeout_seconds: float,
        decode: Callable[[DecodeTask], DecodedChunk] = decode_chunk,
    ) -> None:
        self.stats = DecodePoolStats()
        self._decode_task = decode
        self._folder, self._num_workers, self._max_memory_bytes = folder, num_workers, max_memory_bytes
        self._max_growth_bytes = max_growth_bytes
        self._max_cpu_seconds, self._timeout_seconds = max_cpu_seconds, timeout_seconds
        self._context = multiprocessing.get_context("spawn")
        self._num_grown = self._context.Semaphore(0)
        self._free = asyncio.Semaphore(num_workers)
        self._num_busy = 0
        self._endings: set[asyncio.Future[None]] = set()
        self._pool = self._start()

    def _start(self) -> ProcessPool:
        lifetime = Lifetime(
            max_tasks=MAX_TASKS_PER_WORKER, max_growth_bytes=self._max_growth_bytes, num_grown=self._num_grown
        )
        return ProcessPool(
            max_workers=self._num_workers,
            max_tasks=cast(int, TaskLimit(lifetime)),
            initializer=limit_process,
            initargs=(self._max_memory_bytes,),
            context=self._context,
        )

    @property
    def num_grown(self) -> int:
        """Processes that were replaced since they had grown."""
        return self._num_grown.get_value()

    async def warm_up(self) -> None:
        """Start the processes, which would otherwise start with the first request."""
        await asyncio.wrap_future(self._pool.schedule(os.getpid))

    async def chunks(self, request: DecodeRequest) -> AsyncGenerator[tuple[DecodedChunk, list[Clip]], None]:
        """The clip's windows, chunk by chunk, with their arrays; while one is looked at, the next is decoded.

        Whoever does not read to the end closes the generator, which ends the decoding.

        Raises:
            MediaError: see `media.errors`.
            ServiceError: `decoder_crashed`, `decoder_failed`, `decode_timeout`, `decoder_out_of_memory` or
                `out_of_space`.
        """
        num_windows = 0
        decoding = asyncio.ensure_future(self._decode(request, None))
        try:
            while True:
                chunk, clips = await decoding
                is_first, num_windows = not num_windows, num_windows + len(chunk.windows)
                if not chunk.is_last:
                    state = ReadState(info=chunk.info, first_window=num_windows)
                    decoding = asyncio.ensure_future(self._decode(request, state))
                if chunk.windows or is_first:
                    yield chunk, clips
                if chunk.is_last:
                    return
        finally:
            decoding.cancel()
            await asyncio.gather(decoding, return_exceptions=True)

    async def _decode(
        self, request: DecodeRequest, state: ReadState | None
    ) -> tuple[DecodedChunk, list[Clip]]:
        for _ in range(MAX_ATTEMPTS):
            async with self._free:
                self._num_busy += 1
                out = self._folder / f"windows-{uuid.uuid4().hex}"
                pool = self._pool
                self.stats.num_tasks += 1
                task = DecodeTask(
                    request=request,
                    state=state,
                    out=out,
                    # If the pool is idle, one clip has all cores; if it is busy, each has its own.
                    max_threads=max(1, self._num_workers // self._num_busy),
                    max_cpu_seconds=self._max_cpu_seconds,
                )
                try:
                    os.close(os.open(out, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600))
                    chunk = await self._run(pool, task)
                    return chunk, read_arrays(out, chunk, request.spec)
                except BrokenProcessPool:
                    self._replace(pool)
                except (MediaError, ServiceError):
                    raise
                except Exception as error:
                    raise self._counted(error) from error
                finally:
                    self._num_busy -= 1
                    out.unlink(missing_ok=True)
        raise ServiceError("decoder_crashed", "decode processes end as soon as they start; try again later")

    async def _run(self, pool: ProcessPool, task: DecodeTask) -> DecodedChunk:
        try:
            job = pool.schedule(run_task, args=(self._decode_task, task), timeout=self._timeout_seconds)
        except RuntimeError as error:  # pebble's word for a pool that has broken
            raise BrokenProcessPool from error
        decoding = asyncio.wrap_future(job)
        decoding.add_done_callback(_consume_result)
        try:
            # Shielded, so that pebble does not hear if it is cancelled: the task's process ends itself, see
            # `run_task`.
            return await asyncio.shield(decoding)
        except asyncio.CancelledError:
            self.stats.num_cancelled += 1
            raise

    def _counted(self, error: Exception) -> ServiceError:
        """Count a task's failure, and tell what its client is answered."""
        match error:
            case TaskTimeout():
                self.stats.num_timeouts += 1
                limit = f"{self._timeout_seconds:g} s"
                return ServiceError(
                    "decode_timeout", f"the file does not decode within {limit}; send less of it"
                )
            case ProcessExpired():
                self.stats.num_crashes += 1
                return self._expired(error)
            case MemoryError():
                message = "decoding this file takes more memory than is allowed; scale it down"
                return ServiceError("decoder_out_of_memory", message)
            case OSError(errno=errno.ENOSPC):
                return ServiceError("out_of_space", "there is no room for decoded windows; try again later")
        name = error.exception if isinstance(error, UnexpectedDecodeError) else type(error).__name__
        self.stats.count_exception(name)
        return DecoderFailed(name)

    def _expired(self, error: ProcessExpired) -> ServiceError:
        if error.exitcode == -signal.SIGXCPU:
            limit = f"{self._max_cpu_seconds:g} s"
            return ServiceError(
                "decode_timeout", f"the file takes over {limit} of processor time; send less of it"
            )
        return ServiceError("decoder_crashed", "the decoder crashed on this file; the server goes on")

    def _replace(self, broken: ProcessPool) -> None:
        if self._pool is broken:
            self.stats.num_restarts += 1
            self._pool = self._start()
            ending = asyncio.ensure_future(asyncio.to_thread(_end, broken))
            self._endings.add(ending)
            ending.add_done_callback(self._endings.discard)

    async def close(self) -> None:
        """End the processes, whatever they are at."""
        await asyncio.gather(asyncio.to_thread(_end, self._pool), *self._endings)


def _consume_result(decoding: "asyncio.Future[DecodedChunk]") -> None:
    """Keep asyncio from reporting how a task failed that nobody waits for any more."""
    if not decoding.cancelled():
        decoding.exception()


def _end(pool: ProcessPool) -> None:
    pool.stop()
    pool.join()


def read_arrays(path: Path, chunk: DecodedChunk, spec: ClipSpec) -> list[Clip]:
    """The chunk's windows with their arrays, mapped from `path`, whose name may go at once."""
    if not chunk.windows:
        return []
    descriptor = os.open(path, os.O_RDONLY)
    try:
        memory = mmap.mmap(descriptor, 0, access=mmap.ACCESS_READ)
    finally:
        os.close(descriptor)
    needed = {name for modality in chunk.available for name in GRAPH_INPUTS[modality]}
    count, offset = len(chunk.windows), 0
    arrays: dict[str, np.ndarray] = {}
    for name, dtype, shape in input_tensors(Modality.FUSED, spec):
        if name in needed:
            values = np.frombuffer(memory, dtype, count * math.prod(shape), offset)
            arrays[name] = values.reshape(count, *shape)
            offset += values.nbytes
    assert offset == len(memory), f"{len(memory)} bytes of windows, {offset} were expected"
    return [
        replace(window, **{name: array[i] for name, array in arrays.items()})
        for i, window in enumerate(chunk.windows)
    ]
