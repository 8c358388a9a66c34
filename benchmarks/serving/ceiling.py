"""The ceiling: the rate of a process per core that decodes and infers on one thread, without a server.

`python -m benchmarks.serving.ceiling BUNDLE CLIP` is one of the processes. It reads on its standard input
what to do, a workload and seconds as JSON on each line.
"""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from benchmarks.machine import ROOT
from media import MediaLimits, Modality, read_clips
from runtime import Zorro
from runtime.signature import input_tensors

from .peers.common import PEER_BATCH_SIZE, open_model


class Ceiling:
    """The processes; leaving the context ends them."""

    def __init__(self, bundle: Path, clip: Path) -> None:
        command = [sys.executable, "-m", "benchmarks.serving.ceiling", str(bundle), str(clip)]
        self._processes = [
            subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
            for _ in os.sched_getaffinity(0)
        ]
        self.cpu_seconds: dict[str, list[float]] = {}
        """Processor time per item in each measurement, by workload."""

    def __enter__(self) -> "Ceiling":
        for process in self._processes:
            self._read_answer(process)
        return self

    def __exit__(self, *_: object) -> None:
        for process in self._processes:
            process.kill()
            process.wait()

    def rate(self, workload: str, *, seconds: float) -> float:
        """Measure the items per second of all cores together: clips, or windows of a graph."""
        for process in self._processes:
            assert process.stdin is not None
            process.stdin.write(json.dumps([workload, seconds]) + "\n")
            process.stdin.flush()
        done = [self._read_answer(process) for process in self._processes]
        self.cpu_seconds.setdefault(workload, []).extend(cpu / count for count, _, cpu in done)
        return sum(count / elapsed for count, elapsed, _ in done)

    def _read_answer(self, process: "subprocess.Popen[str]") -> list[float]:
        assert process.stdout is not None
        line = process.stdout.readline()
        if not line:
            raise RuntimeError("a process that measures the ceiling has ended; its error is above")
        answer: list[float] = json.loads(line)
        return answer


def work(model: Zorro, clip: bytes, workload: str) -> Callable[[], int]:
    """A function that does a step of the workload and returns the number of items it has done."""
    if workload == "clips":
        return lambda: _do_clip(model, clip)
    modality, random = Modality(workload), np.random.default_rng(0)
    inputs = {}
    for name, dtype, shape in input_tensors(modality, model.bundle.clip_spec):
        inputs[name] = random.integers(0, 200, (PEER_BATCH_SIZE, *shape)).astype(dtype)
    session = model.session(modality)

    def batch() -> int:
        session.run(inputs)
        return PEER_BATCH_SIZE

    return batch


def _do_clip(model: Zorro, clip: bytes) -> int:
    windows = list(read_clips(clip, model.bundle.clip_spec, limits=MediaLimits(max_threads=1)))
    model.run(Modality.FUSED, windows)
    return 1


def main() -> None:
    model, clip = open_model(sys.argv[1]), Path(sys.argv[2]).read_bytes()
    print(json.dumps([0, 0, 0]), flush=True)
    for line in sys.stdin:
        workload, seconds = json.loads(line)
        step = work(model, clip, workload)
        count, started, used = 0, time.perf_counter(), time.process_time()
        while time.perf_counter() - started < seconds:
            count += step()
        print(json.dumps([count, time.perf_counter() - started, time.process_time() - used]), flush=True)


if __name__ == "__main__":
    main()
