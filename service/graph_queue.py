"""The queue in front of one graph, and how a batch is taken from it.

A pending request is the windows of one request in one queue. A batch takes one window of each pending request
in rotation, so a long video shares its batches with short requests instead of blocking them. Requests that
nobody waits for any more are dropped before they cost anything. Whoever uses a queue holds the batcher's
lock.
"""

import asyncio
import contextlib
import math
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from typing import Generic, TypeVar

import numpy as np

from .cost_model import CostModel
from .errors import DeadlineExceeded

ItemT = TypeVar("ItemT")
GraphOutputs = dict[str, np.ndarray]
"""GraphOutputs of a graph by name, each [items, ...]."""

RunGraph = Callable[[Sequence[ItemT]], GraphOutputs]
RunInterval = tuple[float, float]
"""Start and end of a run, in seconds."""


@dataclass(frozen=True, slots=True)
class GraphResult:
    """A graph's outputs for the windows of one request."""

    outputs: GraphOutputs
    """In the order of the windows."""
    run_seconds: float
    """Time in which a batch with at least one of the windows ran; the rest of the time they waited."""


@dataclass(slots=True, eq=False)
class PendingRequest(Generic[ItemT]):
    """The windows of one request in one queue, and the future of their result."""

    items: Sequence[ItemT]
    result: "asyncio.Future[GraphResult]"
    deadline: float | None
    entered: float
    """When it entered the queue, on the batcher's clock."""
    num_taken: int = 0
    """Windows that have been taken into a batch; they are taken in order."""
    intervals: list[RunInterval] = field(default_factory=list)
    parts: list[tuple[int, GraphOutputs]] = field(default_factory=list)
    """(index of the first item, outputs from that item on), as batches finish."""
    num_done: int = 0

    @property
    def num_waiting(self) -> int:
        """Windows that are not in a batch yet."""
        return len(self.items) - self.num_taken

    def add_outputs(self, first: int, outputs: GraphOutputs, interval: RunInterval) -> None:
        """Add outputs of some items, on the event loop; the last ones complete the result."""
        self.parts.append((first, outputs))
        self.intervals.append(interval)
        self.num_done += len(next(iter(outputs.values())))
        if self.num_done < len(self.items) or self.result.done():
            return
        parts = [part for _, part in sorted(self.parts, key=lambda part: part[0])]
        if len(parts) > 1:
            outputs = {name: np.concatenate([part[name] for part in parts]) for name in outputs}
        self.result.set_result(GraphResult(outputs, covered_seconds(self.intervals)))

    def fail(self, error: Exception) -> None:
        """Make `error` the outcome, from any thread; nothing happens if the client has left."""

        def set_error() -> None:
            if not self.result.done():
                self.result.set_exception(error)

        call_on_loop(self.result, set_error)


@dataclass(slots=True)
class BatcherStats:
    """Counts since the start."""

    num_batches: int = 0
    num_items: int = 0
    num_failed_batches: int = 0
    num_skipped: int = 0
    """Windows that never ran because nobody waited for them any more."""
    num_refused: int = 0
    batch_sizes: dict[int, int] = field(default_factory=dict)
    """Number of batches by their size."""

    def count_batch(self, size: int) -> None:
        """Count one batch of `size` windows."""
        self.num_batches += 1
        self.num_items += size
        self.batch_sizes[size] = self.batch_sizes.get(size, 0) + 1


class GraphQueue(Generic[ItemT]):
    """The windows that wait for one graph."""

    def __init__(
        self,
        run: RunGraph[ItemT],
        *,
        run_alone: RunGraph[ItemT] | None,
        max_batch_size: int,
        max_queue_size: int,
    ) -> None:
        self.run, self.run_alone = run, run_alone or run
        self.max_batch_size, self.max_queue_size = max_batch_size, max_queue_size
        self.cost = CostModel()
        self.pending: deque[PendingRequest[ItemT]] = deque()
        self.num_waiting = 0
        """Windows that are not in a batch yet."""

    def expected_seconds(self, count: int) -> float:
        """Expected time to run `count` windows."""
        return self.cost.seconds(count, max_batch_size=self.max_batch_size)

    def put(self, request: PendingRequest[ItemT]) -> None:
        """Append a request."""
        self.pending.append(request)
        self.num_waiting += request.num_waiting

    def take(self, max_size: int, now: float, stats: BatcherStats) -> "list[BatchEntry[ItemT]]":
        """The windows of the next batch, at most `max_size`; empty if nobody waits for any."""
        entries: list[BatchEntry[ItemT]] = []
        while self.pending and len(entries) < max_size:
            request = self.pending.popleft()
            is_late = request.deadline is not None and now >= request.deadline
            if is_late:
                request.fail(DeadlineExceeded("the deadline passed while the request waited"))
            if is_late or request.result.done():
                stats.num_skipped += request.num_waiting
                self.num_waiting -= request.num_waiting
                continue
            entries.append((request, request.num_taken))
            request.num_taken += 1
            self.num_waiting -= 1
            if request.num_waiting:
                self.pending.append(request)
        # The rotation changed the order: back to first come, first served. A request's windows stay together.
        self.pending = deque(sorted(self.pending, key=lambda request: request.entered))
        return sorted(entries, key=lambda entry: (entry[0].entered, id(entry[0]), entry[1]))


BatchEntry = tuple[PendingRequest[ItemT], int]
"""One window of a batch: its request, and its index in that request."""


@dataclass(frozen=True, slots=True)
class GraphBatch(Generic[ItemT]):
    """Windows of one queue that run together; those of one request follow each other."""

    queue: GraphQueue[ItemT]
    entries: list[BatchEntry[ItemT]]
    is_alone: bool
    """Whether nothing else runs beside it, so that it may use all cores."""

    @property
    def items(self) -> list[ItemT]:
        """The windows."""
        return [request.items[i] for request, i in self.entries]

    def deliver(self, outputs: GraphOutputs, interval: RunInterval) -> None:
        """Give each request its rows of the outputs; called on the event loop."""
        for request, rows, first in self._by_request():
            request.add_outputs(first, {name: value[rows] for name, value in outputs.items()}, interval)

    def _by_request(self) -> Iterator[tuple[PendingRequest[ItemT], slice, int]]:
        """Each request, its rows of the batch, and the index of its first item here."""
        row = 0
        for _, group in groupby(self.entries, key=lambda entry: id(entry[0])):
            entries = list(group)
            yield entries[0][0], slice(row, row + len(entries)), entries[0][1]
            row += len(entries)


def call_on_loop(result: "asyncio.Future[GraphResult]", callback: Callable[[], None]) -> None:
    """Call `callback` on the event loop of `result`, from any thread; not at all if the loop has ended."""
    with contextlib.suppress(RuntimeError):
        result.get_loop().call_soon_threadsafe(callback)


def covered_seconds(intervals: Sequence[RunInterval]) -> float:
    """Time in at least one of the intervals: batches of one request may run beside each other."""
    covered, until = 0.0, -math.inf
    for start, end in sorted(intervals):
        covered += max(0.0, end - max(start, until))
        until = max(until, end)
    return covered
