"""What a decode process does, seen from inside: its limits as they are asked of the kernel, its chunk, its
end."""

import gc
import multiprocessing
import os
import resource
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from threading import Thread
from typing import Any, cast
from unittest.mock import Mock

import numpy as np
import psutil
import pytest

import service.decode_worker as worker
from media import ClipSpec, Modality, read_clips
from media.clip import ReadState
from media.errors import MissingVideo
from service.decode_pool import read_arrays
from service.decode_worker import (
    NUM_FIRST_TASKS,
    DecodeTask,
    Lifetime,
    TaskLimit,
    decode_chunk,
    limit_cpu,
    limit_process,
)
from tests.service.decode_requests import decode_request


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> dict[int, int]:
    """Limits that are asked of the kernel; none is really set, for this process is the tests'.

    Nor does its watch start, which would end this process, or read what a later test makes of `os.getppid`.
    """
    asked: dict[int, int] = {}
    monkeypatch.setattr(worker, "Thread", Mock(spec=Thread))
    monkeypatch.setattr(worker.resource, "setrlimit", lambda kind, bounds: asked.update({kind: bounds[0]}))
    monkeypatch.setattr(worker.os, "nice", lambda step: step)
    monkeypatch.setattr(worker.gc, "freeze", lambda: None)
    return asked


def _task(
    path: Path,
    spec: ClipSpec,
    tmp_path: Path,
    *,
    state: ReadState | None = None,
    max_threads: int = 4,
    **changes: Any,
) -> DecodeTask:
    out = tmp_path / f"windows-{state.first_window if state else 0}"
    out.touch()
    return DecodeTask(
        request=decode_request(path, spec, **changes),
        state=state,
        out=out,
        max_threads=max_threads,
        max_cpu_seconds=30.0,
    )


@pytest.mark.usefixtures("asked")
def test_a_chunk_says_what_there_was_and_whether_it_is_the_last(
    film: Path, spec: ClipSpec, tmp_path: Path
) -> None:
    first = decode_chunk(_task(film, spec, tmp_path, max_windows=2))
    assert (len(first.windows), first.is_last) == (2, False)
    task = _task(film, spec, tmp_path, max_windows=2, state=ReadState(info=first.info, first_window=2))
    last = decode_chunk(task)
    assert (len(last.windows), last.is_last) == (1, True)
    assert last.available == tuple(Modality)
    assert last.info.has_audio
    assert last.windows[0].audio is None
    (clip,) = read_arrays(task.out, last, spec)
    wanted = list(read_clips(film, spec))[2]
    np.testing.assert_array_equal(clip.audio, wanted.audio)
    np.testing.assert_array_equal(clip.video, wanted.video)


@pytest.mark.usefixtures("asked")
def test_what_the_media_must_have_and_has_not_fails(song: Path, spec: ClipSpec, tmp_path: Path) -> None:
    with pytest.raises(MissingVideo):
        decode_chunk(_task(song, spec, tmp_path, requested=(Modality.VIDEO,), require_all=True))
    assert decode_chunk(_task(song, spec, tmp_path)).available == (Modality.AUDIO,)


@pytest.mark.usefixtures("asked")
def test_a_chunk_that_nobody_waits_for_any_more_leaves_no_file(
    film: Path, spec: ClipSpec, tmp_path: Path
) -> None:
    task = _task(film, spec, tmp_path)
    task.out.unlink()
    with pytest.raises(FileNotFoundError):
        decode_chunk(task)
    assert not task.out.exists()


@pytest.mark.slow
def test_limits_are_asked_for(asked: dict[int, int]) -> None:
    limit_process(50_000_000)
    cast(Mock, worker.Thread).assert_called_once_with(
        target=worker._end_in_time, args=(os.getppid(),), daemon=True
    )
    cast(Mock, worker.Thread).return_value.start.assert_called_once_with()
    assert asked[resource.RLIMIT_DATA] > 50_000_000
    assert asked[resource.RLIMIT_NOFILE] == worker.MAX_OPEN_FILES
    assert asked[resource.RLIMIT_CORE] == 0
    limit_cpu(3.0)
    used = resource.getrusage(resource.RUSAGE_SELF)
    assert 3 <= asked[resource.RLIMIT_CPU] - (used.ru_utime + used.ru_stime) <= 5


def _num_served(held: Sequence[int], monkeypatch: pytest.MonkeyPatch, *, share: int = 0) -> tuple[int, int]:
    """Tasks that a process does which holds so much before each, and how often it said that it had grown.

    `share` of what may be taken from its number is: 0 or 1.
    """
    readings = iter(held)
    monkeypatch.setattr(worker, "randint", lambda _, most: share * most)
    monkeypatch.setattr(worker, "held_bytes", lambda: next(readings))
    monkeypatch.setattr(worker.gc, "collect", lambda: 0)  # slow among all tests, and nothing is left behind
    num_grown = multiprocessing.get_context("spawn").Semaphore(0)
    limit = TaskLimit(Lifetime(max_tasks=30, max_growth_bytes=100, num_grown=num_grown))
    num_done = 0
    while num_done < limit:  # as pebble compares
        num_done += 1
    return num_done, num_grown.get_value()


@pytest.mark.parametrize("first", [0, 1000])
def test_a_process_serves_its_tasks_as_long_as_it_does_not_grow(
    first: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    settling = [first * i for i in range(NUM_FIRST_TASKS + 1)]
    assert _num_served(settling + [settling[-1] + 100] * 30, monkeypatch) == (30, 0)
    assert _num_served(settling + [settling[-1] + 100] * 30, monkeypatch, share=1) == (15, 0)


def test_a_process_that_has_grown_serves_no_more(monkeypatch: pytest.MonkeyPatch) -> None:
    assert _num_served([1000] * 20 + [1101] * 20, monkeypatch) == (20, 1)


@pytest.mark.slow
def test_processes_that_begin_together_do_not_end_together() -> None:
    num_grown = multiprocessing.get_context("spawn").Semaphore(0)
    lifetimes = [Lifetime(max_tasks=500, max_growth_bytes=10**9, num_grown=num_grown) for _ in range(4)]
    assert all(lifetime.continues_after(0) for lifetime in lifetimes)
    assert len({lifetime.max_tasks for lifetime in lifetimes}) > 1
    assert all(250 <= lifetime.max_tasks <= 500 for lifetime in lifetimes)


@pytest.mark.slow
@pytest.mark.usefixtures("asked")
def test_threads_that_tasks_leave_behind_end_before_the_next(
    film: Path, spec: ClipSpec, tmp_path: Path
) -> None:
    """Each keeps memory for its stack, which counts as the process's."""
    lifetime = Lifetime(
        max_tasks=30, max_growth_bytes=10**9, num_grown=multiprocessing.get_context("spawn").Semaphore(0)
    )
    counts = []
    gc.disable()
    try:
        for num_done in range(4):
            decode_chunk(_task(film, spec, tmp_path, max_threads=2))
            assert lifetime.continues_after(num_done)
            counts.append(psutil.Process().num_threads())
    finally:
        gc.enable()
    assert max(counts) == counts[0]


def test_a_process_ends_in_the_task_that_nobody_waits_for_and_in_no_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ended: list[int] = []
    monkeypatch.setattr(worker.os, "_exit", ended.append)
    running = worker.Running()
    first, second = tmp_path / "first", tmp_path / "second"
    for out in (first, second):
        out.touch()
    running.end_if_abandoned()  # idle
    with running.task(first):
        running.end_if_abandoned()
        assert ended == []
        first.unlink()
        running.end_if_abandoned()
        assert ended == [worker.ABANDONED_STATUS]
    with running.task(second):  # the first is over, and gone
        running.end_if_abandoned()
    second.unlink()
    running.end_if_abandoned()
    assert ended == [worker.ABANDONED_STATUS]


def test_a_task_that_nobody_waits_for_any_more_does_not_begin(
    film: Path, spec: ClipSpec, tmp_path: Path
) -> None:
    task = _task(film, spec, tmp_path)
    task.out.unlink()
    with pytest.raises(FileNotFoundError):
        worker.run_task(pytest.fail, task)


HOLD_AND_LET_GO = """
from media.memory import held_bytes
before = held_bytes()
kept = b"x" * 50_000_000
holding = held_bytes()
del kept
print(holding - before, held_bytes() - before)
"""


@pytest.mark.slow
def test_held_memory_is_what_was_written_to() -> None:
    """In a process of its own: this one has a history, by which its allocator may keep what is free."""
    printed = subprocess.run(
        [sys.executable, "-c", HOLD_AND_LET_GO], capture_output=True, text=True, check=True
    ).stdout
    held, left = map(int, printed.split())
    assert abs(held - 50_000_000) < 5_000_000
    assert left < 5_000_000


def test_a_process_ends_when_its_parent_is_another(monkeypatch: pytest.MonkeyPatch) -> None:
    parents = iter([7, 7, 1])
    ended: list[int] = []
    monkeypatch.setattr(worker.os, "getppid", lambda: next(parents))
    monkeypatch.setattr(worker.os, "_exit", ended.append)
    monkeypatch.setattr(worker, "CHECK_SECONDS", 0.0)
    worker._end_in_time(7)
    assert ended == [1]


def test_a_process_short_of_memory_goes_on_looking(monkeypatch: pytest.MonkeyPatch) -> None:
    parents, ended, looks = iter([7, 7, 1]), [], []

    def starve() -> None:
        looks.append(1)
        raise MemoryError

    monkeypatch.setattr(worker.os, "getppid", lambda: next(parents))
    monkeypatch.setattr(worker.os, "_exit", ended.append)
    monkeypatch.setattr(worker, "CHECK_SECONDS", 0.0)
    monkeypatch.setattr(worker._running, "end_if_abandoned", starve)
    worker._end_in_time(7)
    assert (len(looks), ended) == (2, [1])
