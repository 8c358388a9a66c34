"""The batcher: what waits is taken, everyone gets their own answer, and no failure is anybody else's."""

import asyncio
import math
import weakref
from collections.abc import Awaitable, Callable, Sequence
from threading import Barrier, Event, Thread

import numpy as np
import pytest

from service.batcher import Batcher
from service.errors import DeadlineExceeded, Overloaded
from service.graph_queue import GraphOutputs, GraphResult, covered_seconds


class Graph:
    """Doubles each item, and remembers the batches. Items of 666 are poison.

    It waits for `go` where that is given.
    """

    def __init__(self, go: Event | None = None) -> None:
        self.batches: list[list[int]] = []
        self.begun = Event()
        self._go = go

    def __call__(self, items: Sequence[int]) -> GraphOutputs:
        self.batches.append(list(items))
        self.begun.set()
        if self._go is not None:
            assert self._go.wait(10)
        if 666 in items:
            raise ArithmeticError("poison")
        return {"double": np.array(items) * 2}


@pytest.fixture
def go() -> Event:
    """Set, it lets the graph run."""
    return Event()


@pytest.fixture
def graph(go: Event) -> Graph:
    """A graph whose first batch waits for `go`."""
    return Graph(go)


def _batcher(run: Callable[[Sequence[int]], GraphOutputs], **limits: int) -> Batcher[int]:
    batcher: Batcher[int] = Batcher()
    batcher.add_queue("a", run, **{"max_batch_size": 4, "max_queue_size": 100} | limits)
    return batcher


def _run(talk: Callable[[], Awaitable[None]]) -> None:
    asyncio.run(asyncio.wait_for(talk(), 20))


async def _blocked(batcher: Batcher[int], graph: Graph, item: int = 0) -> "asyncio.Task[GraphResult]":
    """Submit one item and return when its batch is running."""
    task = asyncio.ensure_future(batcher.submit("a", [item]))
    assert await asyncio.to_thread(graph.begun.wait, 10)
    return task


def test_everyone_gets_their_own_answer() -> None:
    async def talk() -> None:
        batcher = _batcher(graph)
        requests = [list(range(i, i + i % 3 + 1)) for i in range(50)]
        answers = await asyncio.gather(*(batcher.submit("a", items) for items in requests))
        for items, answer in zip(requests, answers, strict=True):
            assert answer.outputs["double"].tolist() == [2 * x for x in items]
        await batcher.close()

    graph = Graph()
    _run(talk)
    assert max(map(len, graph.batches)) == 4
    assert sum(map(len, graph.batches)) == sum(i % 3 + 1 for i in range(50))


def test_idle_it_waits_for_nobody_and_busy_it_takes_what_waits(go: Event, graph: Graph) -> None:
    async def talk() -> None:
        batcher = _batcher(graph)
        first = await _blocked(batcher, graph)
        rest = [asyncio.ensure_future(batcher.submit("a", [i])) for i in (1, 2, 3)]
        await asyncio.sleep(0.01)
        go.set()
        await asyncio.gather(first, *rest)
        await batcher.close()

    _run(talk)
    assert graph.batches == [[0], [1, 2, 3]]


def test_a_long_film_shares_its_batches(go: Event, graph: Graph) -> None:
    async def talk() -> None:
        batcher = _batcher(graph)
        first = await _blocked(batcher, graph)
        film = asyncio.ensure_future(batcher.submit("a", list(range(100, 108))))
        await asyncio.sleep(0)
        short = [asyncio.ensure_future(batcher.submit("a", [i])) for i in (1, 2)]
        await asyncio.sleep(0)
        go.set()
        await asyncio.gather(first, film, *short)
        await batcher.close()

    _run(talk)
    assert graph.batches == [[0], [100, 101, 1, 2], [102, 103, 104, 105], [106, 107]]


def test_queues_are_served_by_whose_first_request_came_first(go: Event, graph: Graph) -> None:
    async def talk() -> None:
        batcher = _batcher(graph)
        batcher.add_queue("b", graph, max_batch_size=4, max_queue_size=10)
        first = await _blocked(batcher, graph)
        rest = []
        for name, item in (("b", 1), ("a", 2), ("b", 3)):
            rest.append(asyncio.ensure_future(batcher.submit(name, [item])))
            await asyncio.sleep(0)
        go.set()
        await asyncio.gather(first, *rest)
        await batcher.close()

    _run(talk)
    assert graph.batches == [[0], [1, 3], [2]]


def test_a_poisoned_item_fails_alone_and_the_session_lives(go: Event, graph: Graph) -> None:
    async def talk() -> None:
        batcher = _batcher(graph)
        first = await _blocked(batcher, graph)
        rest = [asyncio.ensure_future(batcher.submit("a", [i])) for i in (1, 666, 3)]
        await asyncio.sleep(0.01)
        go.set()
        answers = await asyncio.gather(first, *rest, return_exceptions=True)
        assert isinstance(answers[2], ArithmeticError)
        assert [int(x.outputs["double"][0]) for i, x in enumerate(answers) if i != 2] == [0, 2, 6]  # type: ignore[union-attr]
        assert (await batcher.submit("a", [5])).outputs["double"].tolist() == [10]
        assert batcher.stats.num_failed_batches == 2
        await batcher.close()

    _run(talk)


def test_who_left_costs_nothing(go: Event, graph: Graph) -> None:
    async def talk() -> None:
        batcher = _batcher(graph)
        first = await _blocked(batcher, graph)
        gone = asyncio.ensure_future(batcher.submit("a", [7, 8, 9]))
        await asyncio.sleep(0.01)
        gone.cancel()
        go.set()
        await first
        await batcher.close()
        assert batcher.stats.num_skipped == 3

    _run(talk)
    assert graph.batches == [[0]]


def test_a_deadline_that_passes_in_the_queue_is_told_and_costs_nothing(go: Event, graph: Graph) -> None:
    async def talk() -> None:
        now = 0.0
        batcher: Batcher[int] = Batcher(clock=lambda: now)
        batcher.add_queue("a", graph, max_batch_size=4, max_queue_size=10)
        first = await _blocked(batcher, graph)
        late = asyncio.ensure_future(batcher.submit("a", [7], deadline=1.0))
        await asyncio.sleep(0.01)
        now = 2.0
        go.set()
        await first
        with pytest.raises(DeadlineExceeded):
            await late
        await batcher.close()

    _run(talk)
    assert graph.batches == [[0]]


def test_what_cannot_be_in_time_is_refused_at_once_with_a_time_to_come_back(go: Event, graph: Graph) -> None:
    async def talk() -> None:
        now = 0.0
        batcher: Batcher[int] = Batcher(clock=lambda: now)
        batcher.add_queue("a", graph, max_batch_size=1, max_queue_size=10)
        batcher.queues["a"].cost.observe(1, 2.0)
        first = await _blocked(batcher, graph)
        second = asyncio.ensure_future(batcher.submit("a", [1], deadline=5.0))
        await asyncio.sleep(0)
        with pytest.raises(Overloaded, match="deadline") as refused:
            await batcher.submit(
                "a", [2], deadline=5.0
            )  # 2 s run, 2 s wait, 2 s of its own: a second too late
        assert refused.value.retry_after_seconds == pytest.approx(1.0)
        go.set()
        await asyncio.gather(first, second)
        await batcher.close()

    _run(talk)


def test_a_full_queue_refuses_where_the_item_enters(go: Event, graph: Graph) -> None:
    async def talk() -> None:
        batcher = _batcher(graph, max_queue_size=3)
        first = await _blocked(batcher, graph)
        waiting = asyncio.ensure_future(batcher.submit("a", [1, 2]))
        await asyncio.sleep(0)
        with pytest.raises(Overloaded, match="2 windows wait, at most 3 may") as refused:
            await batcher.submit("a", [3, 4])
        assert refused.value.retry_after_seconds > 0
        assert batcher.stats.num_refused == 1
        go.set()
        await asyncio.gather(first, waiting)
        await batcher.close()

    _run(talk)


def test_closing_finishes_what_waits() -> None:
    async def talk() -> None:
        batcher = _batcher(graph)
        tasks = [asyncio.ensure_future(batcher.submit("a", [i])) for i in range(20)]
        await asyncio.sleep(0)
        await batcher.close()
        assert [int((await task).outputs["double"][0]) for task in tasks] == [2 * i for i in range(20)]

    graph = Graph()
    _run(talk)


def test_a_batch_that_hangs_is_seen(go: Event, graph: Graph) -> None:
    async def talk() -> None:
        now = 0.0
        batcher: Batcher[int] = Batcher(clock=lambda: now)
        batcher.add_queue("a", graph, max_batch_size=4, max_queue_size=10)
        assert batcher.stuck_seconds < 1
        first = await _blocked(batcher, graph)
        now = 30.0
        assert batcher.stuck_seconds == 30
        go.set()
        await first
        await batcher.close()

    _run(talk)


def test_a_session_that_has_died_is_seen() -> None:
    async def talk() -> None:
        batcher = _batcher(Graph())
        await batcher.submit("a", [1])
        assert batcher.stuck_seconds < math.inf
        dead = Thread(target=lambda: None)
        dead.start()
        dead.join()
        batcher._sessions.append(dead)
        assert batcher.stuck_seconds == math.inf
        await batcher.close()

    _run(talk)


def test_answers_of_another_number_are_a_fault_of_the_graph() -> None:
    async def talk() -> None:
        batcher = _batcher(lambda items: {"double": np.zeros(len(items) + 1)})
        with pytest.raises(AssertionError, match="got"):
            await batcher.submit("a", [1])
        await batcher.close()

    _run(talk)


def _counting(
    sizes: list[tuple[str, int]], name: str, others: Barrier
) -> Callable[[Sequence[int]], GraphOutputs]:
    def run(items: Sequence[int]) -> GraphOutputs:
        sizes.append((name, len(items)))
        others.wait(10)
        return {"double": np.array(items) * 2}

    return run


@pytest.mark.parametrize(
    ("is_idle", "count", "batches"),
    [
        (True, 1, [("alone", 1)]),  # fewer windows than sessions: all cores for them
        (True, 3, [("beside", 1), ("beside", 1), ("beside", 1)]),
        (True, 7, [("beside", 2), ("beside", 2), ("beside", 3)]),  # spread over free sessions
        (False, 1, [("beside", 1)]),
    ],
)
def test_what_waits_is_spread_over_the_sessions(
    is_idle: bool, count: int, batches: list[tuple[str, int]]
) -> None:
    sizes: list[tuple[str, int]] = []

    async def talk() -> None:
        batcher: Batcher[int] = Batcher(num_sessions=3, is_idle=lambda: is_idle)
        beside, alone = (_counting(sizes, name, Barrier(len(batches))) for name in ("beside", "alone"))
        batcher.add_queue("a", beside, run_alone=alone, max_batch_size=8, max_queue_size=99)
        answer = await batcher.submit("a", list(range(count)))
        assert answer.outputs["double"].tolist() == [2 * i for i in range(count)]
        await batcher.close()

    _run(talk)
    assert sorted(sizes) == batches


def test_time_is_counted_once_where_batches_run_beside_each_other() -> None:
    assert covered_seconds([(5.0, 6.0), (0.0, 2.0), (1.0, 3.0), (1.5, 2.5)]) == pytest.approx(4.0)


class Arrays:
    """What a window holds."""


def test_an_idle_session_keeps_nothing_of_its_last_batch() -> None:
    async def talk() -> None:
        batcher: Batcher[Arrays] = Batcher()
        batcher.add_queue(
            "a", lambda items: {"y": np.zeros(len(items))}, max_batch_size=4, max_queue_size=100
        )
        window, gone = Arrays(), asyncio.Event()
        weakref.finalize(window, asyncio.get_running_loop().call_soon_threadsafe, gone.set)
        await batcher.submit("a", [window])
        del window
        await gone.wait()
        await batcher.close()

    _run(talk)
