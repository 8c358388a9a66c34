"""Batching by pull: a free session takes what waits. No window when idle, full batches when busy.

Each graph of each model is a lane. What enters a lane is a ticket: the windows of one request that are ready. A batch
takes one window of each ticket in turn, so a long film shares a batch with short requests instead of blocking them.
Lanes share the sessions, and the lane whose oldest ticket came first is next. What waits is spread over the sessions that
are free; few windows that have the server to themselves get all cores instead.

Tickets of clients that left, or whose deadline has passed, are skipped before they cost anything. If a batch fails its
windows run one by one, so that a poisoned one fails alone. Sessions survive everything.
"""

import asyncio
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Generic, TypeVar

import numpy as np

from .cost import CostModel
from .errors import DeadlineExceeded, Overloaded

ItemT = TypeVar("ItemT")
Outputs = dict[str, np.ndarray]
Run = Callable[[Sequence[ItemT]], Outputs]
"""Outputs of one batch by name, each [items, ...]."""

Batch = list[tuple["_Ticket[ItemT]", int]]
"""Windows, as tickets and indices in them."""

MIN_RETRY_SECONDS = 0.05


@dataclass(frozen=True, slots=True)
class Answered:
    """What a request's windows got."""

    outputs: Outputs
    """By name, each [items, ...], in the items' order."""
    run_seconds: float
    """Of the batches that they were in; the rest of the time they waited."""


@dataclass(slots=True, eq=False)
class _Ticket(Generic[ItemT]):
    """Windows of one request in one lane, and the answer that waits for them."""

    items: Sequence[ItemT]
    answer: "asyncio.Future[Answered]"
    deadline: float | None
    entered: float
    num_taken: int = 0
    run_seconds: float = 0.0
    values: dict[int, Outputs] = field(default_factory=dict)

    @property
    def num_waiting(self) -> int:
        return len(self.items) - self.num_taken


@dataclass(slots=True)
class BatcherStats:
    """Counts since the start."""

    num_batches: int = 0
    num_items: int = 0
    num_failed_batches: int = 0
    num_skipped: int = 0
    """Windows that never ran, since nobody waited for them any more."""
    num_refused: int = 0
    batch_sizes: dict[int, int] = field(default_factory=dict)


class Lane(Generic[ItemT]):
    """One graph's queue."""

    def __init__(
        self, run: Run[ItemT], *, run_alone: Run[ItemT] | None, max_batch_size: int, max_queue_size: int
    ) -> None:
        self.run, self.run_alone = run, run_alone or run
        self.max_batch_size, self.max_queue_size = max_batch_size, max_queue_size
        self.cost = CostModel()
        self.tickets: deque[_Ticket[ItemT]] = deque()

    @property
    def num_waiting(self) -> int:
        """Windows that wait."""
        return sum(ticket.num_waiting for ticket in self.tickets)

    def seconds(self, count: int) -> float:
        """Expected time to run so many windows."""
        return self.cost.seconds(count, max_batch_size=self.max_batch_size)

    def take(self, most: int, now: float, stats: BatcherStats) -> "Batch[ItemT]":
        """The next batch, one window of each ticket in turn; tickets that nobody waits for are dropped."""
        batch: Batch[ItemT] = []
        while self.tickets and len(batch) < most:
            ticket = self.tickets.popleft()
            if ticket.deadline is not None and now >= ticket.deadline and not ticket.answer.done():
                ticket.answer.set_exception(DeadlineExceeded("the deadline passed while the request waited"))
            if ticket.answer.done():
                stats.num_skipped += ticket.num_waiting
                continue
            batch.append((ticket, ticket.num_taken))
            ticket.num_taken += 1
            if ticket.num_waiting:
                self.tickets.append(ticket)
        # Who came first goes on first, whatever the turn was.
        self.tickets = deque(sorted(self.tickets, key=lambda ticket: ticket.entered))
        return batch


class Batcher(Generic[ItemT]):
    """Lanes over shared sessions. Lives on one event loop; `submit` and `add_lane` are called there."""

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
        self._sessions: Executor = ThreadPoolExecutor(num_sessions, thread_name_prefix="zorro-session")
        self._running: dict[asyncio.Task[None], tuple[float, float]] = {}  # (started, expected seconds)

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

    async def submit(self, name: str, items: Sequence[ItemT], *, deadline: float | None = None) -> Answered:
        """The graph's outputs for `items`.

        Args:
            name: of the lane.
            items: at least one; all are of one request.
            deadline: on the batcher's clock; later the answer is of no use.

        Raises:
            Overloaded: the lane is full, or the deadline cannot be met; it says when to try again.
            DeadlineExceeded: it passed while they waited.
            Exception: what the graph raised for one of these items.
        """
        assert items
        lane, now = self.lanes[name], self._clock()
        self._admit(lane, len(items), deadline, now)
        ticket = _Ticket(items, asyncio.get_running_loop().create_future(), deadline, entered=now)
        lane.tickets.append(ticket)
        self._start()
        return await ticket.answer

    def wait_seconds(self) -> float:
        """Expected time until all that runs and waits now is done."""
        now = self._clock()
        running = sum(max(0.0, expected - (now - started)) for started, expected in self._running.values())
        return (running + sum(lane.seconds(lane.num_waiting) for lane in self.lanes.values())) / self._num_sessions

    @property
    def stuck_seconds(self) -> float:
        """How long the longest running batch has run; liveness looks at it."""
        now = self._clock()
        return max((now - started for started, _ in self._running.values()), default=0.0)

    async def close(self) -> None:
        """Finish what runs and waits, then end the sessions."""
        while self._running:
            await asyncio.wait(list(self._running))
        self._sessions.shutdown()

    def _admit(self, lane: Lane[ItemT], count: int, deadline: float | None, now: float) -> None:
        wait = self.wait_seconds()
        if lane.num_waiting + count > lane.max_queue_size:
            self.stats.num_refused += 1
            detail = f"{lane.num_waiting} windows wait, at most {lane.max_queue_size} may"
            raise Overloaded(f"{detail}; try again after Retry-After", retry_after_seconds=max(wait, MIN_RETRY_SECONDS))
        own = lane.seconds(-(-count // self._num_sessions))
        if deadline is not None and now + wait + own > deadline:
            self.stats.num_refused += 1
            late = now + wait + own - deadline
            raise Overloaded(
                f"the answer would take {wait + own:.2f} s, and the deadline is in {max(0.0, deadline - now):.2f} s; "
                "try again after Retry-After, or allow more time",
                retry_after_seconds=max(late, MIN_RETRY_SECONDS),
            )

    def _start(self) -> None:
        """Give every free session the batch that has waited longest."""
        while len(self._running) < self._num_sessions:
            waiting = [lane for lane in self.lanes.values() if lane.tickets]
            if not waiting:
                return
            lane = min(waiting, key=lambda lane: lane.tickets[0].entered)
            is_alone = self._is_alone(waiting)
            share = lane.num_waiting if is_alone else -(-lane.num_waiting // (self._num_sessions - len(self._running)))
            batch = lane.take(min(share, lane.max_batch_size), self._clock(), self.stats)
            if not batch:
                continue
            task = asyncio.ensure_future(self._run(lane, batch, is_alone=is_alone))
            self._running[task] = (self._clock(), lane.seconds(len(batch)))
            task.add_done_callback(self._ended)

    def _is_alone(self, waiting: Sequence[Lane[ItemT]]) -> bool:
        """Whether what waits leaves sessions idle, and nothing else goes on."""
        is_little = sum(lane.num_waiting for lane in waiting) < self._num_sessions
        return is_little and not self._running and self._is_quiet()

    def _ended(self, task: "asyncio.Task[None]") -> None:
        del self._running[task]
        self._start()

    async def _run(self, lane: Lane[ItemT], batch: "Batch[ItemT]", *, is_alone: bool) -> None:
        """Run one batch and hand out its answers; a batch that fails is run one by one."""
        self.stats.num_batches += 1
        self.stats.num_items += len(batch)
        self.stats.batch_sizes[len(batch)] = self.stats.batch_sizes.get(len(batch), 0) + 1
        try:
            run = lane.run_alone if is_alone else lane.run
            outputs, seconds = await self._call(run, [ticket.items[i] for ticket, i in batch])
        except Exception as error:
            self.stats.num_failed_batches += 1
            if len(batch) == 1:
                _fail(batch[0][0], error)
                return
            for entry in batch:
                if not entry[0].answer.done():
                    await self._run(lane, [entry], is_alone=is_alone)
            return
        if not is_alone:
            lane.cost.observe(len(batch), seconds)
        for ticket in {id(ticket): ticket for ticket, _ in batch}.values():
            ticket.run_seconds += seconds
        for row, (ticket, i) in enumerate(batch):
            ticket.values[i] = {name: value[row] for name, value in outputs.items()}
            _answer_if_complete(ticket)

    async def _call(self, run: Run[ItemT], items: list[ItemT]) -> tuple[Outputs, float]:
        def timed() -> tuple[Outputs, float]:
            started = time.perf_counter()
            outputs = run(items)
            wrong = {name: len(value) for name, value in outputs.items() if len(value) != len(items)}
            assert not wrong, f"a batch of {len(items)} got {wrong} answers"
            return outputs, time.perf_counter() - started

        return await asyncio.get_running_loop().run_in_executor(self._sessions, timed)


def _answer_if_complete(ticket: _Ticket[ItemT]) -> None:
    if len(ticket.values) < len(ticket.items) or ticket.answer.done():
        return
    values = [ticket.values[i] for i in range(len(ticket.items))]
    outputs = {name: np.stack([value[name] for value in values]) for name in values[0]}
    ticket.answer.set_result(Answered(outputs, ticket.run_seconds))


def _fail(ticket: _Ticket[ItemT], error: Exception) -> None:
    if not ticket.answer.done():  # the client may have left
        ticket.answer.set_exception(error)
