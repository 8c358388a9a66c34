"""The setting memory = fast | low: private memory of a process with all graphs, and time of a window.

`python -m benchmarks.memory BUNDLE MODE` is such a process.
"""

import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import psutil

from media import Modality
from runtime import WeightMemory, Zorro
from runtime.signature import input_tensors

from .machine import ROOT, SHIPPED_BUNDLE
from .measure import NUM_THREADS, REST_SECONDS, Measured
from .result import Result

TINY, BASE = "everyday", "vit-base, untrained"
MAX_TIME, MAX_MEMORY = 1.15, 0.35


def run(rounds: int = 5) -> Result:
    """Measure both modes in turn, with the default bundle and with one of the base size."""
    from .sessions import write_untrained_bundle

    result = Result(name="memory", parameters={"threads": NUM_THREADS, "rounds": rounds, "windows": 1})
    with tempfile.TemporaryDirectory() as folder:
        bundles = {
            TINY: SHIPPED_BUNDLE,
            BASE: write_untrained_bundle("vit-base", Path(folder)),
        }
        for name, bundle in bundles.items():
            found: dict[WeightMemory, list[tuple[float, float]]] = {mode: [] for mode in WeightMemory}
            for _ in range(rounds):
                for mode in WeightMemory:
                    found[mode].append(_measure_process(bundle, mode))
            for mode, values in found.items():
                result.entries[f"{name}, {mode}, private memory"] = Measured(
                    tuple(x for x, _ in values), unit="B"
                )
                result.entries[f"{name}, {mode}, a window by both"] = Measured(tuple(x for _, x in values))
            result.compare(
                f"{name}, low, a window by both", f"{name}, fast, a window by both", at_most=MAX_TIME
            )
            memory = MAX_MEMORY if name == BASE else None  # most of the small one's is ONNX Runtime's own
            result.compare(f"{name}, low, private memory", f"{name}, fast, private memory", at_most=memory)
    return result


def _measure_process(bundle: Path, mode: WeightMemory) -> tuple[float, float]:
    """Private bytes after opening, and seconds of a window, of a process of its own."""
    command = [sys.executable, "-m", "benchmarks.memory", str(bundle), mode]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    private, seconds = json.loads(done.stdout)
    return private, seconds


def main() -> None:
    process = psutil.Process()
    before = process.memory_full_info().uss
    model = Zorro.open(sys.argv[1], memory=sys.argv[2], num_threads=NUM_THREADS)
    sessions = {modality: model.session(modality) for modality in Modality}
    random = np.random.default_rng(0)
    inputs = {
        name: random.integers(0, 200, (1, *shape)).astype(dtype)
        for name, dtype, shape in input_tensors(Modality.FUSED, model.bundle.clip_spec)
    }
    for session in sessions.values():
        session.run({name: inputs[name] for name in session.input_names})
    private, seconds = process.memory_full_info().uss - before, []
    for _ in range(4):
        time.sleep(REST_SECONDS)
        started = time.perf_counter()
        sessions[Modality.FUSED].run(inputs)
        seconds.append(time.perf_counter() - started)
    print(json.dumps([private, min(seconds)]))


if __name__ == "__main__":
    main()
