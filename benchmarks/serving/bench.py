"""The server under load beside its peers: clips and tensors, closed loops and open ones, each server alone on the machine.

Machines are shared and change their speed within minutes. So next to every load that is judged the ceiling is
measured: what a process per core does that serves nobody. A server is its share of that ceiling, and servers
are compared by their shares.
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
from benchmarks.machine import ROOT
from benchmarks.measure import Measured
from benchmarks.result import Ratio, Result
from benchmarks.sessions import write_untrained_bundle

from .ceiling import Ceiling
from .clients import Reply, closed_loop, open_loop
from .servers import PEERS, Running, Server, ours, peer, running

BUNDLE = ROOT / "bundles" / "sights-sounds" / "1"
CLIP_SECONDS = 10
CLIENTS = (1, 2, 4, 8, 16)
PEER_CLIENTS = (1, 4, 16)
LOADS = (0.5, 0.8, 0.95, 1.2, 3.0)  # of the ceiling
OVERLOAD = LOADS[-1]
TIMEOUT_SECONDS = {"clips": 2.0, "fused": 1.0}
LOOP_SECONDS, CEILING_SECONDS, CAPACITY_SECONDS = 4.0, 2.0, 8.0
IDLE_SECONDS = 12.0  # of one client's loop: the least of some 50 requests in a row is what is added
OPEN_SECONDS, PEER_OPEN_SECONDS, FILLING_SECONDS = 15.0, 6.0, 2.0
NUM_STORMS = {
    "clips": 3,
    "fused": 1,
}  # of ours in a round, at `OVERLOAD`; one of some hundred clips says little
STAGES = ("upload", "decode", "queue", "inference")
CLIPS, TENSORS, BASE_TENSORS = "clips", "fused", "audio"
MIN_SHARE, MIN_TENSOR_SHARE, MIN_BASE_SHARE = 0.9, 0.9, 0.97
MIN_AHEAD, MIN_TENSORS_AHEAD = 1.2, 1.3
MIN_GOODPUT, MIN_KEPT, MAX_REFUSAL_SECONDS, MAX_IDLE_SECONDS = 0.95, 0.8, 0.05, 0.005


def measure_servers(rounds: int) -> Result:
    """Measure all servers in turn, `rounds` times."""
    parameters = {
        "clip": f"{CLIP_SECONDS} s, 640x360, 30 frames per second, stereo; 2 windows of 2 pictures each",
        "tensors": "one window of the fused graph of sights-sounds, raw bytes; of the audio graph of an untrained vit-base",
        "cores": len(os.sched_getaffinity(0)),
        "rounds": rounds,
        "loop_seconds": LOOP_SECONDS,
        "idle_seconds": IDLE_SECONDS,
        "capacity_seconds": CAPACITY_SECONDS,
        "open_seconds": OPEN_SECONDS,
        "open_seconds_of_peers": PEER_OPEN_SECONDS,
        "filling_seconds": FILLING_SECONDS,
        "timeout_seconds": TIMEOUT_SECONDS,
        "storms": NUM_STORMS,
        "loads": list(LOADS),
    }
    result = Result(name="serving", parameters=parameters)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        film = write_film(folder / "film.mp4", width=640, height=360, seconds=CLIP_SECONDS)
        clip = film.read_bytes()
        servers = [ours(BUNDLE, clip)]
        for peer_name in PEERS:
            found = peer(peer_name, BUNDLE, clip)
            if found is None:
                print(f"{peer_name} is left out: there is no environment for it, see `make bench`")
            else:
                servers.append(found)
        parameters["servers"] = [server.name for server in servers]
        with Ceiling(BUNDLE, film) as ceiling:
            bench = Bench(result, ceiling)
            for i in range(rounds):
                for server in servers:
                    bench.measure(server, is_first=i == 0)
            _base(bench, folder, film, clip, rounds)
            _judge(bench)
    return result


class Bench:
    """What has been measured so far, as records: one per load."""

    def __init__(self, result: Result, ceiling: Ceiling) -> None:
        self.result, self.ceiling = result, ceiling

    def measure(self, server: Server, *, is_first: bool) -> None:
        """One turn of a server, which is alone on the machine; after the first only our storms are repeated."""
        is_ours = server.name == "ours"
        with running(server) as process:
            for workload in (CLIPS, TENSORS):
                for num_clients in CLIENTS if is_ours else PEER_CLIENTS:
                    is_idle = is_ours and workload == CLIPS and num_clients == 1
                    self.closed(
                        process, workload, num_clients, seconds=IDLE_SECONDS if is_idle else LOOP_SECONDS
                    )
                loads = LOADS if is_first else ()
                for load in loads[:-1] if is_ours else loads:
                    self.open(process, workload, load, seconds=OPEN_SECONDS if is_ours else PEER_OPEN_SECONDS)
                for _ in range(NUM_STORMS[workload] if is_ours else 0):
                    self.storm(process, workload)
            self.record(server.name, "memory", private_bytes=process.private_bytes())

    def closed(
        self,
        process: Running,
        workload: str,
        num_clients: int,
        *,
        seconds: float = LOOP_SECONDS,
        ceiling: Ceiling | None = None,
    ) -> None:
        """A closed loop between two measurements of the ceiling."""
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

    def open(self, process: Running, workload: str, load: float, *, seconds: float) -> None:
        """Arrivals at a share of the ceiling, measured just before."""
        ceiling = self.ceiling.rate(workload, seconds=CEILING_SECONDS)
        timeout = TIMEOUT_SECONDS[workload]
        first, again = uvloop.run(
            open_loop(
                process.port,
                process.server.requests[workload],
                per_second=load * ceiling,
                seconds=seconds,
                timeout_seconds=timeout,
                come_back=load == OVERLOAD,
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
            past_deadline=_count(first + again, 504),
            lost=sum(r.status not in (200, 429, 504) for r in first + again),
            came_back=len(again),
            kept=sum(r.status == 200 for r in again),
        )

    def storm(self, process: Running, workload: str) -> None:
        """Arrivals at `OVERLOAD`, between two measurements of what the server does for clients that wait."""
        before = self._capacity(process, workload)
        self.open(process, workload, OVERLOAD, seconds=OPEN_SECONDS)
        self.result.records[-1]["capacity"] = (before + self._capacity(process, workload)) / 2

    def _capacity(self, process: Running, workload: str) -> float:
        """Answers per second to clients that wait for them."""
        request = process.server.requests[workload]("")
        replies = uvloop.run(
            closed_loop(process.port, request, num_clients=max(CLIENTS), seconds=CAPACITY_SECONDS)
        )
        return sum(reply.status == 200 for reply in replies) / CAPACITY_SECONDS

    def record(self, server: str, kind: str, **figures: Any) -> None:
        """Keep what was measured."""
        record = {"server": server, "kind": kind, **figures}
        print(record, flush=True)
        self.result.records.append(record)

    def find(self, **wanted: Any) -> list[dict[str, Any]]:
        """Records with these figures."""
        return [r for r in self.result.records if all(r.get(name) == value for name, value in wanted.items())]


def _base(bench: Bench, folder: Path, film: Path, clip: bytes, rounds: int) -> None:
    """Tensors to a graph of the base size."""
    bundle = write_untrained_bundle("vit-base", folder / "bundles")
    server = ours(bundle, clip)
    with Ceiling(bundle, film) as ceiling, running(replace(server, name="ours, vit-base")) as process:
        for _ in range(rounds):
            bench.closed(process, BASE_TENSORS, 16, ceiling=ceiling)


def _judge(bench: Bench) -> None:
    result = bench.result
    for server in result.parameters["servers"]:
        for workload in (CLIPS, TENSORS):
            shares = [
                r["share"] for r in bench.find(server=server, kind="closed", workload=workload, clients=16)
            ]
            result.entries[f"{server}, {workload}, share of the ceiling"] = Measured(
                tuple(shares), unit="share"
            )
    for workload, least, ahead in (
        (CLIPS, MIN_SHARE, MIN_AHEAD),
        (TENSORS, MIN_TENSOR_SHARE, MIN_TENSORS_AHEAD),
    ):
        share = _share(bench, "ours", workload)
        peers = {
            name: _share(bench, name, workload) for name in result.parameters["servers"] if name != "ours"
        }
        best = max(peers, key=lambda name: peers[name])
        what = f"{'clips' if workload == CLIPS else 'tensors'}, 16 clients"
        result.ratios += [
            Ratio(what=what, against="ceiling of decoding and inference", value=share, at_least=least),
            Ratio(what=what, against=f"best peer ({best})", value=share / peers[best], at_least=ahead),
        ]
    result.ratios.append(
        Ratio(
            what="tensors, 16 clients, base size",
            against="ceiling of inference",
            value=_share(bench, "ours, vit-base", BASE_TENSORS),
            at_least=MIN_BASE_SHARE,
        )
    )
    added = min(
        r["added_seconds"]["min"] for r in bench.find(server="ours", kind="closed", workload=CLIPS, clients=1)
    )
    result.ratios.append(
        Ratio(
            what="added to decoding and inference when idle",
            against="5 ms",
            value=added / MAX_IDLE_SECONDS,
            at_most=1.0,
        )
    )
    storms = bench.find(server="ours", kind="open", workload=CLIPS, load=OVERLOAD)
    peers = {r["server"]: _goodput([r]) for r in bench.find(kind="open", workload=CLIPS, load=OVERLOAD)}
    del peers["ours"]
    best = max(peers, key=lambda name: peers[name])
    result.ratios += [
        Ratio(
            what="clips in time at 300 %",
            against="capacity",
            value=_sum(storms, "goodput") / _sum(storms, "capacity"),
            at_least=MIN_GOODPUT,
        ),
        Ratio(
            what="clips in time at 300 %",
            against=f"best peer ({best})",
            value=_goodput(storms) / peers[best],
            at_least=MIN_AHEAD,
        ),
        Ratio(
            what="clients that came back when told and got in",
            against="all who did",
            value=_sum(storms, "kept") / max(1, _sum(storms, "came_back")),
            at_least=MIN_KEPT,
        ),
        Ratio(
            what="99th percentile of a refusal",
            against="50 ms",
            value=max(storm["refusals"]["p99"] for storm in storms) / MAX_REFUSAL_SECONDS,
            at_most=1.0,
        ),
    ]
    for workload, name in ((CLIPS, "clips"), (TENSORS, "tensors")):
        storms = bench.find(server="ours", kind="open", workload=workload, load=OVERLOAD)
        late = _sum(storms, "late") + _sum(storms, "past_deadline")
        what = f"{name} accepted at 300 % and past the deadline"
        result.ratios.append(Ratio(what=what, against="none", value=late, at_most=0.0))


def _goodput(loads: Sequence[dict[str, Any]]) -> float:
    """Answers in time, of the ceiling."""
    return _sum(loads, "goodput") / _sum(loads, "ceiling")


def _sum(records: Sequence[dict[str, Any]], name: str) -> float:
    return float(sum(record[name] for record in records))


def _share(bench: Bench, server: str, workload: str) -> float:
    return median(r["share"] for r in bench.find(server=server, kind="closed", workload=workload, clients=16))


def _added(replies: Sequence[Reply]) -> dict[str, float]:
    """Seconds of an answer that are neither decoding nor inference, where the server tells."""
    added = [
        r.seconds - r.timings.get("decode", 0.0) - r.timings["inference"]
        for r in replies
        if "inference" in r.timings
    ]
    return {"min": min(added), "median": median(added)} if added else {}


def stage_seconds(replies: Sequence[Reply]) -> dict[str, float]:
    """Medians of the stages that every answer tells; none for no answers."""
    told = set.intersection(*(set(r.timings) for r in replies)) if replies else set()
    return {name: median(r.timings[name] for r in replies) for name in STAGES if name in told}


def _percentiles(replies: Sequence[Reply]) -> dict[str, float]:
    return {f"p{q}": quantile([reply.seconds for reply in replies], q) for q in (50, 95, 99)}


def quantile(values: Sequence[float], percent: int) -> float:
    """The value that `percent` of them do not exceed; 0 for none."""
    ordered = sorted(values)
    return ordered[-(-len(ordered) * percent // 100) - 1] if ordered else 0.0


def _count(replies: Sequence[Reply], status: int) -> int:
    return sum(reply.status == status for reply in replies)
