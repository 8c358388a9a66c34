"""Batching by pull: a free session takes what waits. Idle, nothing waits; busy, batches fill up.

Each graph of each model has a queue. All queues share the sessions, which are threads that take their batches
themselves; the event loop only submits windows and receives results. The queue whose oldest request came
first is served next. What waits is spread over the free sessions; a few windows that have the server to
themselves get all cores instead.

If a batch fails, its windows run again one by one, so that only the one at fault fails. A session survives
every error of a graph.
"""

import asyncio
import functools
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from threading import Condition, RLock, Thread, get_ident
from typing import Generic

from .errors import Overloaded
from .graph_queue import (
    BatcherStats,
    GraphBatch,
    GraphOutputs,
    GraphQueue,
    GraphResult,
    ItemT,
    PendingRequest,
    RunGraph,
    RunInterval,
    call_on_loop,
)

MIN_QUEUE_RETRY_SECONDS = 0.05


class Batcher(Generic[ItemT]):
    """Queues over shared sessions; `submit` and `add_queue` are called on an event loop."""

    def __init__(
        self,
        *,
        num_sessions: int = 1,
        is_idle: Callable[[], bool] = lambda: True,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Make a batcher without queues.

        Args:
            num_sessions: batches that may run at the same time.
            is_idle: whether the server works on one request at most.
            clock: seconds.
        """
        self.queues: dict[str, GraphQueue[ItemT]] = {}
        self.stats = BatcherStats()
        self._clock, self._num_sessions, self._is_idle = clock, num_sessions, is_idle
        self._sessions: list[Thread] = []
        self._is_closing = False
        self._running: dict[object, tuple[float, float]] = {}  # by thread: (started, expected seconds)
        lock = RLock()  # guards the queues and what runs
        self._work_waits, self._all_done = Condition(lock), Condition(lock)

    def add_queue(
        self,
        name: str,
        run: RunGraph[ItemT],
        *,
        run_alone: RunGraph[ItemT] | None = None,
        max_batch_size: int,
        max_queue_size: int,
    ) -> None:
        """Add the queue of a graph.

        Args:
            name: of the queue.
            run: runs a batch; called in a session's thread, others may run beside it.
            run_alone: called instead for fewer windows than there are sessions while nothing else runs.
            max_batch_size: windows.
            max_queue_size: windows that may wait.
        """
        self.queues[name] = GraphQueue(
            run, run_alone=run_alone, max_batch_size=max_batch_size, max_queue_size=max_queue_size
        )

    def submit(
        self, name: str, items: Sequence[ItemT], *, deadline: float | None = None
    ) -> "asyncio.Future[GraphResult]":
        """The graph's outputs for `items`.

        If the future is cancelled, items that are in no batch yet never run.

        Args:
            name: of the queue.
            items: at least one; all are of one request.
            deadline: on the batcher's clock; a later result is of no use.

        Raises:
            Overloaded: at once: the queue is full, or the deadline cannot be met; it says when to try again.
            DeadlineExceeded: when awaited, as all others: it passed while they waited.
            Exception: what the graph raised for one of these items.
        """
        assert items
        assert not self._is_closing
        queue, now = self.queues[name], self._clock()
        with self._work_waits:
            self._check_room(queue, len(items), deadline, now)
            request = PendingRequest(items, asyncio.get_running_loop().create_future(), deadline, entered=now)
            queue.put(request)
            self._work_waits.notify(len(items))
        if not self._sessions:
            self._start()
        return request.result

    def wait_seconds(self) -> float:
        """Expected time until everything that runs or waits now is done."""
        with self._work_waits:
            now = self._clock()
            running = sum(
                max(0.0, expected - (now - started)) for started, expected in self._running.values()
            )
            waiting = sum(
                queue.expected_seconds(queue.num_waiting)
                for queue in self.queues.values()
                if queue.num_waiting
            )
            return (running + waiting) / self._num_sessions

    @property
    def stuck_seconds(self) -> float:
        """How long the longest running batch has run; infinite if a session has died.

        Liveness depends on it.
        """
        if not self._is_closing and not all(session.is_alive() for session in self._sessions):
            return math.inf
        with self._work_waits:
            now = self._clock()
            return max((now - started for started, _ in self._running.values()), default=0.0)

    async def close(self) -> None:
        """Finish what runs and waits, then end the sessions."""
        await asyncio.to_thread(self._finish)

    def _check_room(self, queue: GraphQueue[ItemT], count: int, deadline: float | None, now: float) -> None:
        is_full = queue.num_waiting + count > queue.max_queue_size
        if deadline is None and not is_full:
            return
        wait, own = self.wait_seconds(), queue.expected_seconds(-(-count // self._num_sessions))
        if is_full:
            self.stats.num_refused += 1
            raise Overloaded(
                f"{queue.num_waiting} windows wait, at most {queue.max_queue_size} may; "
                "try again after Retry-After",
                retry_after_seconds=max(wait, MIN_QUEUE_RETRY_SECONDS),
            )
        if deadline is not None and now + wait + own > deadline:
            self.stats.num_refused += 1
            late = now + wait + own - deadline
            raise Overloaded(
                f"the answer would take {wait + own:.2f} s, and the deadline is in "
                f"{max(0.0, deadline - now):.2f} s; try again after Retry-After, or allow more time",
                retry_after_seconds=max(late, MIN_QUEUE_RETRY_SECONDS),
            )

    def _start(self) -> None:
        for i in range(self._num_sessions):
            self._sessions.append(Thread(target=self._run_session, name=f"zorro-session-{i}", daemon=True))
            self._sessions[-1].start()

    def _finish(self) -> None:
        with self._all_done:
            while self._sessions and (
                self._running or any(queue.num_waiting for queue in self.queues.values())
            ):
                self._all_done.wait()
            self._is_closing = True
            self._work_waits.notify_all()
        for session in self._sessions:
            session.join()

    def _run_session(self) -> None:
        """Take batches and run them until the batcher closes."""
        while (batch := self._next_batch()) is not None:
            self._run_batch(batch)
            del batch  # the memory of its windows: the next may be long in coming

    def _next_batch(self) -> GraphBatch[ItemT] | None:
        """Wait for a batch; None at the end."""
        with self._work_waits:
            self._running.pop(get_ident(), None)
            while (batch := self._take_batch()) is None:
                if self._is_closing:
                    return None
                self._all_done.notify_all()
                self._work_waits.wait()
            self._running[get_ident()] = (self._clock(), batch.queue.expected_seconds(len(batch.entries)))
            return batch

    def _take_batch(self) -> GraphBatch[ItemT] | None:
        """This session's share of the queue whose first request has waited longest."""
        while waiting := [queue for queue in self.queues.values() if queue.pending]:
            queue = min(waiting, key=lambda queue: queue.pending[0].entered)
            num_free = max(1, self._num_sessions - len(self._running))
            is_little = sum(queue.num_waiting for queue in waiting) < self._num_sessions
            is_begun = any(request.num_taken for request in queue.pending)
            is_alone = is_little and not is_begun and not self._running and self._is_idle()
            share = queue.num_waiting if is_alone else -(-queue.num_waiting // num_free)
            entries = queue.take(min(share, queue.max_batch_size), self._clock(), self.stats)
            if entries:
                return GraphBatch(queue, entries, is_alone)
        return None

    def _run_batch(self, batch: GraphBatch[ItemT]) -> None:
        """Run one batch and deliver its outputs; a batch that fails is run again one window at a time."""
        queue, entries = batch.queue, batch.entries
        run = queue.run_alone if batch.is_alone else queue.run
        try:
            outputs, interval = _run_timed(run, batch.items)
        except Exception as error:
            with self._work_waits:
                self.stats.count_batch(len(entries))
                self.stats.num_failed_batches += 1
            if len(entries) == 1:
                entries[0][0].fail(error)
                return
            for entry in entries:
                if not entry[0].result.done():
                    self._run_batch(replace(batch, entries=[entry]))
            return
        with self._work_waits:
            self.stats.count_batch(len(entries))
            if not batch.is_alone:
                queue.cost.observe(len(entries), interval[1] - interval[0])
        call_on_loop(entries[0][0].result, functools.partial(batch.deliver, outputs, interval))


def _run_timed(run: RunGraph[ItemT], items: list[ItemT]) -> tuple[GraphOutputs, RunInterval]:
    started = time.perf_counter()
    outputs = run(items)
    wrong = {name: len(value) for name, value in outputs.items() if len(value) != len(items)}
    assert not wrong, f"a batch of {len(items)} windows got outputs of other lengths: {wrong}"
    return outputs, (started, time.perf_counter())
