"""The server under load, compared with its peers: clips and tensors, closed loops and open loops.

Each server is alone on the machine. Machines are shared and change their speed within minutes, so the ceiling
is measured beside every load: the rate of a process per core that does the same work without a server.
Servers are compared by their share of that ceiling.
"""

import os
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from statistics import median
from typing import Any

import uvloop

from benchmarks.films import write_film
from benchmarks.machine import SHIPPED_BUNDLE
from benchmarks.measure import Measured
from benchmarks.result import Ratio, Result
from benchmarks.sessions import write_untrained_bundle

from .ceiling import Ceiling
from .clients import Reply, closed_loop, open_loop
from .servers import PEERS, RunningServer, Server, ours, peer, running

CLIP_SECONDS = 10
CLIENTS = (1, 2, 4, 8, 16)
PEER_CLIENTS = (1, 4, 16)
LOADS = (0.5, 0.8, 0.95, 1.2, 3.0)  # of the ceiling
OVERLOAD = LOADS[-1]
REQUEST_TIMEOUT_SECONDS = {"clips": 2.0, "fused": 1.0}
LOOP_SECONDS, CEILING_SECONDS, CAPACITY_SECONDS = 4.0, 2.0, 8.0
IDLE_SECONDS = 12.0  # of a single client's loop; the least of its 50 or so requests is what the server adds
OPEN_SECONDS, PEER_OPEN_SECONDS, FILLING_SECONDS = 15.0, 6.0, 2.0
NUM_OVERLOADS = {"clips": 3, "fused": 1}
"""Times that our server is overloaded in a round; a single time has few clips."""
STAGES = ("upload", "decode", "queue", "inference")
CLIPS, TENSORS, BASE_TENSORS = "clips", "fused", "audio"
MIN_SHARE, MIN_TENSOR_SHARE, MIN_BASE_SHARE = 0.9, 0.9, 0.97
MIN_AHEAD, MIN_TENSORS_AHEAD = 1.2, 1.3
MIN_GOODPUT, MIN_KEPT, MAX_REFUSAL_SECONDS, MAX_IDLE_SECONDS = 0.95, 0.8, 0.05, 0.005


def measure_servers(rounds: int) -> Result:
    """Measure all servers in turn, `rounds` times."""
    parameters = {
        "clip": f"{CLIP_SECONDS} s, 640x360, 30 frames per second, stereo; 2 windows of 2 pictures each",
        "tensors": "one window of the fused graph of everyday, raw bytes; "
        "of the audio graph of an untrained vit-base",
        "cores": len(os.sched_getaffinity(0)),
        "rounds": rounds,
        "loop_seconds": LOOP_SECONDS,
        "idle_seconds": IDLE_SECONDS,
        "capacity_seconds": CAPACITY_SECONDS,
        "open_seconds": OPEN_SECONDS,
        "open_seconds_of_peers": PEER_OPEN_SECONDS,
        "filling_seconds": FILLING_SECONDS,
        "timeout_seconds": REQUEST_TIMEOUT_SECONDS,
        "storms": NUM_OVERLOADS,
        "loads": list(LOADS),
    }
    result = Result(name="serving", parameters=parameters)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        film = write_film(folder / "film.mp4", width=640, height=360, seconds=CLIP_SECONDS)
        clip = film.read_bytes()
        servers = [ours(SHIPPED_BUNDLE, clip)]
        for peer_name in PEERS:
            found = peer(peer_name, SHIPPED_BUNDLE, clip)
            if found is None:
                print(f"{peer_name} is left out: its environment is not installed, see `make bench`")
            else:
                servers.append(found)
        parameters["servers"] = [server.name for server in servers]
        with Ceiling(SHIPPED_BUNDLE, film) as ceiling:
            bench = Bench(result, ceiling)
            for i in range(rounds):
                for server in servers:
                    bench.measure(server, is_first=i == 0)
            _measure_base_size(bench, folder, film, clip, rounds)
    add_ratios(bench)
    return result


class Bench:
    """Measures servers and keeps a record of each load in the result."""

    def __init__(self, result: Result, ceiling: Ceiling) -> None:
        self.result, self.ceiling = result, ceiling

    def measure(self, server: Server, *, is_first: bool) -> None:
        """Measure one server for one round; after the first, of open loops only our overload is repeated."""
        is_ours = server.name == "ours"
        open_seconds = OPEN_SECONDS if is_ours else PEER_OPEN_SECONDS
        with running(server) as process:
            for workload in (CLIPS, TENSORS):
                for num_clients in CLIENTS if is_ours else PEER_CLIENTS:
                    is_idle = is_ours and workload == CLIPS and num_clients == 1
                    self.closed(
                        process, workload, num_clients, seconds=IDLE_SECONDS if is_idle else LOOP_SECONDS
                    )
                loads = LOADS if is_first else ()
                for load in loads[:-1] if is_ours else loads:
                    self.open(process, workload, load, seconds=open_seconds)
                for _ in range(NUM_OVERLOADS[workload] if is_ours else 0):
                    self.overload(process, workload)
            self.record(server.name, "memory", private_bytes=process.private_bytes())

    def closed(
        self,
        process: RunningServer,
        workload: str,
        num_clients: int,
        *,
        seconds: float = LOOP_SECONDS,
        ceiling: Ceiling | None = None,
    ) -> None:
        """Run a closed loop between two measurements of the ceiling."""
        ceiling = ceiling or self.ceiling
        before = ceiling.rate(workload, seconds=CEILING_SECONDS)
        request = process.server.requests[workload]("")
        replies = uvloop.run(closed_loop(process.port, request, num_clients=num_clients, seconds=seconds))
        after = ceiling.rate(workload, seconds=CEILING_SECONDS)
        good = [reply for reply in replies if reply.status == 200]
        self.result.check(
            f"{process.server.name}, {workload}: answers that failed", len(replies) - len(good), at_most=0
        )
        self.record(
            process.server.name,
            "closed",
            workload=workload,
            clients=num_clients,
            per_second=len(good) / seconds,
            share=len(good) / seconds / ((before + after) / 2),
            ceiling=(before + after) / 2,
            **_percentiles(good),
            added_seconds=_added(good),
            stages=stage_seconds(good),
        )

    def open(self, process: RunningServer, workload: str, load: float, *, seconds: float) -> None:
        """Run an open loop with arrivals at a share of the ceiling, which is measured just before."""
        ceiling = self.ceiling.rate(workload, seconds=CEILING_SECONDS)
        timeout = REQUEST_TIMEOUT_SECONDS[workload]
        first, again = uvloop.run(
            open_loop(
                process.port,
                process.server.requests[workload],
                per_second=load * ceiling,
                seconds=seconds,
                timeout_seconds=timeout,
                retries=load == OVERLOAD,
            )
        )
        begin = min(reply.ended - reply.seconds for reply in first)
        answered = [reply for reply in first + again if reply.status == 200]
        steady = begin + FILLING_SECONDS, begin + seconds
        in_time = [
            reply for reply in answered if reply.seconds <= timeout and steady[0] < reply.ended <= steady[1]
        ]
        refused = [reply for reply in first if reply.status == 429]
        self.record(
            process.server.name,
            "open",
            workload=workload,
            load=load,
            arrivals=len(first),
            ceiling=ceiling,
            goodput=len(in_time) / (seconds - FILLING_SECONDS),
            **_percentiles(answered),
            refused=len(refused),
            refusals={f"p{q}": quantile([r.seconds for r in refused], q) for q in (50, 99)},
            late=sum(r.seconds > timeout for r in answered),
            past_deadline=_count_status(first + again, 504),
            lost=sum(r.status not in (200, 429, 504) for r in first + again),
            came_back=len(again),
            kept=sum(r.status == 200 for r in again),
        )

    def overload(self, process: RunningServer, workload: str) -> None:
        """Run an open loop at `OVERLOAD` between two measurements of the server's capacity."""
        before = self._capacity(process, workload)
        self.open(process, workload, OVERLOAD, seconds=OPEN_SECONDS)
        self.result.records[-1]["capacity"] = (before + self._capacity(process, workload)) / 2

    def _capacity(self, process: RunningServer, workload: str) -> float:
        """Answers per second to clients that wait for them."""
        request = process.server.requests[workload]("")
        replies = uvloop.run(
            closed_loop(process.port, request, num_clients=max(CLIENTS), seconds=CAPACITY_SECONDS)
        )
        return sum(reply.status == 200 for reply in replies) / CAPACITY_SECONDS

    def record(self, server: str, kind: str, **figures: Any) -> None:
        """Keep and print what was measured."""
        record = {"server": server, "kind": kind, **figures}
        print(record, flush=True)
        self.result.records.append(record)

    def find(self, **wanted: Any) -> list[dict[str, Any]]:
        """Records whose figures have the given values."""
        return [r for r in self.result.records if all(r.get(name) == value for name, value in wanted.items())]


def _measure_base_size(bench: Bench, folder: Path, film: Path, clip: bytes, rounds: int) -> None:
    """Measure tensors with a graph of the base size."""
    bundle = write_untrained_bundle("vit-base", folder / "bundles")
    server = ours(bundle, clip)
    with Ceiling(bundle, film) as ceiling, running(replace(server, name="ours, vit-base")) as process:
        for _ in range(rounds):
            bench.closed(process, BASE_TENSORS, 16, ceiling=ceiling)


def add_ratios(bench: Bench) -> None:
    """Add the entries and the ratios with limits that follow from all records."""
    _add_shares(bench)
    _add_throughput(bench)
    _add_idle_time(bench)
    _add_overload(bench)


def _add_shares(bench: Bench) -> None:
    """Each server's share of the ceiling with 16 clients."""
    for server in bench.result.parameters["servers"]:
        for workload in (CLIPS, TENSORS):
            records = bench.find(server=server, kind="closed", workload=workload, clients=16)
            shares = Measured(tuple(r["share"] for r in records), unit="share")
            bench.result.entries[f"{server}, {workload}, share of the ceiling"] = shares


def _add_throughput(bench: Bench) -> None:
    """Our share of the ceiling, and that share against the best peer's."""
    others = [name for name in bench.result.parameters["servers"] if name != "ours"]
    for workload, least, ahead in (
        (CLIPS, MIN_SHARE, MIN_AHEAD),
        (TENSORS, MIN_TENSOR_SHARE, MIN_TENSORS_AHEAD),
    ):
        share = _share(bench, "ours", workload)
        peers = {name: _share(bench, name, workload) for name in others}
        best = max(peers, key=lambda name: peers[name])
        what = f"{'clips' if workload == CLIPS else 'tensors'}, 16 clients"
        bench.result.ratios += [
            Ratio(what=what, against="ceiling of decoding and inference", value=share, at_least=least),
            Ratio(what=what, against=f"best peer ({best})", value=share / peers[best], at_least=ahead),
        ]
    bench.result.ratios.append(
        Ratio(
            what="tensors, 16 clients, base size",
            against="ceiling of inference",
            value=_share(bench, "ours, vit-base", BASE_TENSORS),
            at_least=MIN_BASE_SHARE,
        )
    )


def _add_idle_time(bench: Bench) -> None:
    """The time that an idle server adds to decoding and inference."""
    records = bench.find(server="ours", kind="closed", workload=CLIPS, clients=1)
    added = min(r["added_seconds"]["min"] for r in records)
    bench.result.ratios.append(
        Ratio(
            what="added to decoding and inference when idle",
            against="5 ms",
            value=added / MAX_IDLE_SECONDS,
            at_most=1.0,
        )
    )


def _add_overload(bench: Bench) -> None:
    """Answers in time, repeated requests and refusals when arrivals are three times the ceiling."""
    ours = bench.find(server="ours", kind="open", workload=CLIPS, load=OVERLOAD)
    peers = {r["server"]: _goodput([r]) for r in bench.find(kind="open", workload=CLIPS, load=OVERLOAD)}
    del peers["ours"]
    best = max(peers, key=lambda name: peers[name])
    bench.result.ratios += [
        Ratio(
            what="clips in time at 300 %",
            against="capacity",
            value=_sum(ours, "goodput") / _sum(ours, "capacity"),
            at_least=MIN_GOODPUT,
        ),
        Ratio(
            what="clips in time at 300 %",
            against=f"best peer ({best})",
            value=_goodput(ours) / peers[best],
            at_least=MIN_AHEAD,
        ),
        Ratio(
            what="clients that came back when told and got in",
            against="all who did",
            value=_sum(ours, "kept") / max(1, _sum(ours, "came_back")),
            at_least=MIN_KEPT,
        ),
        Ratio(
            what="99th percentile of a refusal",
            against="50 ms",
            value=max(record["refusals"]["p99"] for record in ours) / MAX_REFUSAL_SECONDS,
            at_most=1.0,
        ),
    ]
    for workload, name in ((CLIPS, "clips"), (TENSORS, "tensors")):
        records = bench.find(server="ours", kind="open", workload=workload, load=OVERLOAD)
        late = _sum(records, "late") + _sum(records, "past_deadline")
        what = f"{name} accepted at 300 % and past the deadline"
        bench.result.ratios.append(Ratio(what=what, against="none", value=late, at_most=0.0))


def _goodput(loads: Sequence[dict[str, Any]]) -> float:
    """Answers in time as a share of the ceiling."""
    return _sum(loads, "goodput") / _sum(loads, "ceiling")


def _sum(records: Sequence[dict[str, Any]], name: str) -> float:
    return float(sum(record[name] for record in records))


def _share(bench: Bench, server: str, workload: str) -> float:
    """Median share of the ceiling with 16 clients."""
    records = bench.find(server=server, kind="closed", workload=workload, clients=16)
    return float(median(r["share"] for r in records))


def _added(replies: Sequence[Reply]) -> dict[str, float]:
    """Seconds of an answer that are neither decoding nor inference, where `Server-Timing` tells."""
    added = [
        r.seconds - r.timings.get("decode", 0.0) - r.timings["inference"]
        for r in replies
        if "inference" in r.timings
    ]
    return {"min": min(added), "median": median(added)} if added else {}


def stage_seconds(replies: Sequence[Reply]) -> dict[str, float]:
    """Median seconds of the stages that all answers have; empty without answers."""
    common = set.intersection(*(set(r.timings) for r in replies)) if replies else set()
    return {name: median(r.timings[name] for r in replies) for name in STAGES if name in common}


def _percentiles(replies: Sequence[Reply]) -> dict[str, float]:
    return {f"p{q}": quantile([reply.seconds for reply in replies], q) for q in (50, 95, 99)}


def quantile(values: Sequence[float], percent: int) -> float:
    """The least value that `percent` of the values do not exceed; 0 without values."""
    ordered = sorted(values)
    return ordered[-(-len(ordered) * percent // 100) - 1] if ordered else 0.0


def _count_status(replies: Sequence[Reply], status: int) -> int:
    return sum(reply.status == status for reply in replies)
