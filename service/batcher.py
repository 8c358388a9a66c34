"""Batching by pull: a free session takes what waits. No window when idle, full batches when busy.

Each graph of each model is a lane. Lanes share the sessions, which are threads that take their work
themselves: the event loop only hands in and hands out. The lane whose oldest ticket came first is next. What
waits is spread over the sessions that are free; few windows that have the server to themselves get all cores
instead.

If a batch fails its windows run one by one, so that a poisoned one fails alone. Sessions survive everything.
"""

import asyncio
import functools
import math
import time
from collections.abc import Callable, Sequence
from threading import Condition, RLock, Thread, get_ident
from typing import Generic

from .errors import Overloaded
from .graph_queue import (
    Answered,
    Batch,
    BatcherStats,
    ItemT,
    Lane,
    Outputs,
    Run,
    Span,
    Ticket,
    hand_out,
    on_loop,
)

MIN_RETRY_SECONDS = 0.05


class Batcher(Generic[ItemT]):
    """Lanes over shared sessions; `submit` and `add_lane` are called on an event loop."""

    def __init__(
        self,
        *,
        num_sessions: int = 1,
        is_quiet: Callable[[], bool] = lambda: True,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.lanes: dict[str, Lane[ItemT]] = {}
        self.stats = BatcherStats()
        self._clock, self._num_sessions, self._is_quiet = clock, num_sessions, is_quiet
        self._sessions: list[Thread] = []
        self._is_closing = False
        self._running: dict[object, tuple[float, float]] = {}  # by thread: (started, expected seconds)
        lock = RLock()  # guards lanes and what runs
        self._work_waits, self._all_done = Condition(lock), Condition(lock)

    def add_lane(
        self,
        name: str,
        run: Run[ItemT],
        *,
        run_alone: Run[ItemT] | None = None,
        max_batch_size: int,
        max_queue_size: int,
    ) -> None:
        """Make a lane.

        Args:
            name: of the lane.
            run: called in a session's thread; others may run beside it.
            run_alone: called instead for fewer windows than there are sessions while nothing else goes on.
            max_batch_size: windows.
            max_queue_size: windows that may wait.
        """
        self.lanes[name] = Lane(
            run, run_alone=run_alone, max_batch_size=max_batch_size, max_queue_size=max_queue_size
        )

    def submit(
        self, name: str, items: Sequence[ItemT], *, deadline: float | None = None
    ) -> "asyncio.Future[Answered]":
        """The graph's outputs for `items`, in time; cancelled, what of them has not begun never runs.

        Args:
            name: of the lane.
            items: at least one; all are of one request.
            deadline: on the batcher's clock; later the answer is of no use.

        Raises:
            Overloaded: at once: the lane is full, or the deadline cannot be met; it says when to try again.
            DeadlineExceeded: when awaited, as all others: it passed while they waited.
            Exception: what the graph raised for one of these items.
        """
        assert items
        assert not self._is_closing
        lane, now = self.lanes[name], self._clock()
        with self._work_waits:
            self._admit(lane, len(items), deadline, now)
            ticket = Ticket(items, asyncio.get_running_loop().create_future(), deadline, entered=now)
            lane.put(ticket)
            self._work_waits.notify(len(items))
        if not self._sessions:
            self._start()
        return ticket.answer

    def wait_seconds(self) -> float:
        """Expected time until all that runs and waits now is done."""
        with self._work_waits:
            now = self._clock()
            running = sum(
                max(0.0, expected - (now - started)) for started, expected in self._running.values()
            )
            waiting = sum(lane.seconds(lane.num_waiting) for lane in self.lanes.values() if lane.num_waiting)
            return (running + waiting) / self._num_sessions

    @property
    def stuck_seconds(self) -> float:
        """How long the longest running batch has run, for ever if a session has died; liveness looks at it."""
        if not self._is_closing and not all(session.is_alive() for session in self._sessions):
            return math.inf
        with self._work_waits:
            now = self._clock()
            return max((now - started for started, _ in self._running.values()), default=0.0)

    async def close(self) -> None:
        """Finish what runs and waits, then end the sessions."""
        await asyncio.to_thread(self._finish)

    def _admit(self, lane: Lane[ItemT], count: int, deadline: float | None, now: float) -> None:
        is_full = lane.num_waiting + count > lane.max_queue_size
        if deadline is None and not is_full:
            return
        wait, own = self.wait_seconds(), lane.seconds(-(-count // self._num_sessions))
        if is_full:
            self.stats.num_refused += 1
            detail = f"{lane.num_waiting} windows wait, at most {lane.max_queue_size} may"
            raise Overloaded(
                f"{detail}; try again after Retry-After", retry_after_seconds=max(wait, MIN_RETRY_SECONDS)
            )
        if deadline is not None and now + wait + own > deadline:
            self.stats.num_refused += 1
            late = now + wait + own - deadline
            raise Overloaded(
                f"the answer would take {wait + own:.2f} s, and the deadline is in {max(0.0, deadline - now):.2f} s; "
                "try again after Retry-After, or allow more time",
                retry_after_seconds=max(late, MIN_RETRY_SECONDS),
            )

    def _start(self) -> None:
        for i in range(self._num_sessions):
            self._sessions.append(Thread(target=self._work, name=f"zorro-session-{i}", daemon=True))
            self._sessions[-1].start()

    def _finish(self) -> None:
        with self._all_done:
            while self._sessions and (self._running or any(lane.num_waiting for lane in self.lanes.values())):
                self._all_done.wait()
            self._is_closing = True
            self._work_waits.notify_all()
        for session in self._sessions:
            session.join()

    def _work(self) -> None:
        """A session: it takes what waits, again and again."""
        while (job := self._next()) is not None:
            self._serve(*job)

    def _next(self) -> tuple[Lane[ItemT], Batch[ItemT], bool] | None:
        """The lane, the batch, and whether it is alone; waits for one, and is None at the end."""
        with self._work_waits:
            self._running.pop(get_ident(), None)
            while (job := self._take()) is None:
                if self._is_closing:
                    return None
                self._all_done.notify_all()
                self._work_waits.wait()
            lane, batch, _ = job
            self._running[get_ident()] = (self._clock(), lane.seconds(len(batch)))
            return job

    def _take(self) -> tuple[Lane[ItemT], Batch[ItemT], bool] | None:
        """What has waited longest, as far as this session's share of it."""
        while waiting := [lane for lane in self.lanes.values() if lane.tickets]:
            lane = min(waiting, key=lambda lane: lane.tickets[0].entered)
            num_free = max(1, self._num_sessions - len(self._running))
            is_little = sum(lane.num_waiting for lane in waiting) < self._num_sessions
            is_begun = any(ticket.num_taken for ticket in lane.tickets)
            is_alone = is_little and not is_begun and not self._running and self._is_quiet()
            share = lane.num_waiting if is_alone else -(-lane.num_waiting // num_free)
            batch = lane.take(min(share, lane.max_batch_size), self._clock(), self.stats)
            if batch:
                return lane, batch, is_alone
        return None

    def _serve(self, lane: Lane[ItemT], batch: Batch[ItemT], is_alone: bool) -> None:
        """Run one batch and hand out its answers; a batch that fails is run again one by one."""
        run = lane.run_alone if is_alone else lane.run
        try:
            outputs, span = _timed(run, [ticket.items[i] for ticket, i in batch])
        except Exception as error:
            with self._work_waits:
                self.stats.count(len(batch))
                self.stats.num_failed_batches += 1
            if len(batch) == 1:
                batch[0][0].fail(error)
                return
            for entry in batch:
                if not entry[0].answer.done():
                    self._serve(lane, [entry], is_alone)
            return
        with self._work_waits:
            self.stats.count(len(batch))
            if not is_alone:
                lane.cost.observe(len(batch), span[1] - span[0])
        on_loop(batch[0][0].answer, functools.partial(hand_out, batch, outputs, span))


def _timed(run: Run[ItemT], items: list[ItemT]) -> tuple[Outputs, Span]:
    started = time.perf_counter()
    outputs = run(items)
    wrong = {name: len(value) for name, value in outputs.items() if len(value) != len(items)}
    assert not wrong, f"a batch of {len(items)} got {wrong} answers"
    return outputs, (started, time.perf_counter())
