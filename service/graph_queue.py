"""Queues in front of the graphs: tickets, which are the windows of one request, and how a batch is taken from them.

A batch takes one window of each ticket in turn, so a long film shares a batch with short requests instead of
blocking them. Tickets that nobody waits for any more are dropped before they cost anything. Whoever calls
holds the batcher's lock.
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
Outputs = dict[str, np.ndarray]
Run = Callable[[Sequence[ItemT]], Outputs]
"""Outputs of one batch by name, each [items, ...]."""

Span = tuple[float, float]
"""Start and end of a run."""


@dataclass(frozen=True, slots=True)
class Answered:
    """What a request's windows got."""

    outputs: Outputs
    """By name, each [items, ...], in the items' order."""
    run_seconds: float
    """During which a batch with one of them ran; the rest of the time they waited."""


@dataclass(slots=True, eq=False)
class Ticket(Generic[ItemT]):
    """Windows of one request in one lane, and the answer that waits for them."""

    items: Sequence[ItemT]
    answer: "asyncio.Future[Answered]"
    deadline: float | None
    entered: float
    num_taken: int = 0
    spans: list[Span] = field(default_factory=list)
    parts: list[tuple[int, Outputs]] = field(default_factory=list)
    """(first item, outputs of it and those after it), as they come."""
    num_answered: int = 0

    @property
    def num_waiting(self) -> int:
        """Windows that are in no batch yet."""
        return len(self.items) - self.num_taken

    def add(self, first: int, outputs: Outputs, span: Span) -> None:
        """Take in outputs of some items, on the event loop; the last ones make the answer."""
        self.parts.append((first, outputs))
        self.spans.append(span)
        self.num_answered += len(next(iter(outputs.values())))
        if self.num_answered < len(self.items) or self.answer.done():
            return
        parts = [part for _, part in sorted(self.parts, key=lambda part: part[0])]
        if len(parts) > 1:
            outputs = {name: np.concatenate([part[name] for part in parts]) for name in outputs}
        self.answer.set_result(Answered(outputs, covered_seconds(self.spans)))

    def fail(self, error: Exception) -> None:
        """Answer with an error, from any thread; nothing if the client has left."""

        def tell() -> None:
            if not self.answer.done():
                self.answer.set_exception(error)

        on_loop(self.answer, tell)


Batch = list[tuple[Ticket[ItemT], int]]
"""Windows, as tickets and indices in them; those of a ticket follow each other."""


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

    def count(self, size: int) -> None:
        """One more batch."""
        self.num_batches += 1
        self.num_items += size
        self.batch_sizes[size] = self.batch_sizes.get(size, 0) + 1


class Lane(Generic[ItemT]):
    """One graph's queue."""

    def __init__(
        self, run: Run[ItemT], *, run_alone: Run[ItemT] | None, max_batch_size: int, max_queue_size: int
    ) -> None:
        self.run, self.run_alone = run, run_alone or run
        self.max_batch_size, self.max_queue_size = max_batch_size, max_queue_size
        self.cost = CostModel()
        self.tickets: deque[Ticket[ItemT]] = deque()
        self.num_waiting = 0
        """Windows that wait."""

    def seconds(self, count: int) -> float:
        """Expected time to run so many windows."""
        return self.cost.seconds(count, max_batch_size=self.max_batch_size)

    def put(self, ticket: Ticket[ItemT]) -> None:
        """Let it wait."""
        self.tickets.append(ticket)
        self.num_waiting += ticket.num_waiting

    def take(self, most: int, now: float, stats: BatcherStats) -> Batch[ItemT]:
        """The next batch of at most `most` windows; empty if nobody waits for any."""
        batch: Batch[ItemT] = []
        while self.tickets and len(batch) < most:
            ticket = self.tickets.popleft()
            is_late = ticket.deadline is not None and now >= ticket.deadline
            if is_late:
                ticket.fail(DeadlineExceeded("the deadline passed while the request waited"))
            if is_late or ticket.answer.done():
                stats.num_skipped += ticket.num_waiting
                self.num_waiting -= ticket.num_waiting
                continue
            batch.append((ticket, ticket.num_taken))
            ticket.num_taken += 1
            self.num_waiting -= 1
            if ticket.num_waiting:
                self.tickets.append(ticket)
        # Who came first goes on first, whatever the turn was; a ticket's windows stay together and in order.
        self.tickets = deque(sorted(self.tickets, key=lambda ticket: ticket.entered))
        return sorted(batch, key=lambda entry: (entry[0].entered, id(entry[0]), entry[1]))


def hand_out(batch: Batch[ItemT], outputs: Outputs, span: Span) -> None:
    """Give each ticket its rows of a batch's outputs, on the event loop."""
    for ticket, rows, first in _by_ticket(batch):
        ticket.add(first, {name: value[rows] for name, value in outputs.items()}, span)


def on_loop(answer: "asyncio.Future[Answered]", do: Callable[[], None]) -> None:
    """Call `do` on the event loop of `answer`, from any thread; nothing if that has ended."""
    with contextlib.suppress(RuntimeError):
        answer.get_loop().call_soon_threadsafe(do)


def covered_seconds(spans: Sequence[Span]) -> float:
    """Time in at least one of the spans: batches of one request may run beside each other."""
    covered, until = 0.0, -math.inf
    for start, end in sorted(spans):
        covered += max(0.0, end - max(start, until))
        until = max(until, end)
    return covered


def _by_ticket(batch: Batch[ItemT]) -> Iterator[tuple[Ticket[ItemT], slice, int]]:
    """Each ticket with its rows of the batch, and the index of its first item."""
    row = 0
    for _, group in groupby(batch, key=lambda entry: id(entry[0])):
        entries = list(group)
        yield entries[0][0], slice(row, row + len(entries)), entries[0][1]
        row += len(entries)
