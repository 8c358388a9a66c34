"""A film of ten minutes against one of ten seconds: time to the first window, memory for all windows."""

import json
import subprocess
import sys
from pathlib import Path

from media import ClipSpec, read_clips

from .films import repeat, write_film
from .measure import Measured, interleave
from .result import Ratio, Result

NUM_REPEATS = 60
MAX_FIRST_WINDOW_RATIO = 1.5
MAX_PEAK_BYTES = 500e6
NUM_MEMORY_RUNS = 2
KEYFRAME_GAP = 60  # frames; x264's fast preset does not look for scene cuts


def measure_long_film(result: Result, folder: Path, *, rounds: int) -> None:
    """Add entries and ratios for a 720p film with audio."""
    short = write_film(
        folder / "short.mp4", width=1280, height=720, preset="ultrafast", gap_frames=KEYFRAME_GAP
    )
    long = repeat(short, folder / "long.mp4", times=NUM_REPEATS)
    result.parameters |= {"long_film_repeats": NUM_REPEATS, "long_film_bytes": long.stat().st_size}
    names = {"first window of 10 minutes": long, "first window of 10 seconds": short}
    sides = {name: lambda path=path: next(iter(read_clips(path, ClipSpec()))) for name, path in names.items()}
    result.entries |= interleave(sides, rounds=rounds)
    result.compare(*names, at_most=MAX_FIRST_WINDOW_RATIO)
    _measure_memory(result, long)


def _measure_memory(result: Result, path: Path) -> None:
    """Measure each run in a process of its own, so that only its own memory counts."""
    runs = [_read_all(path) for _ in range(NUM_MEMORY_RUNS)]
    windows = {run["windows"] for run in runs}
    assert len(windows) == 1, f"runs read different numbers of windows: {windows}"
    result.counts["windows of 10 minutes"] = windows.pop()
    result.entries |= {
        "all windows of 10 minutes": Measured(tuple(run["seconds"] for run in runs)),
        "peak memory of the process": Measured(tuple(run["peak_bytes"] for run in runs), unit="B"),
        "memory before reading": Measured(tuple(run["before_bytes"] for run in runs), unit="B"),
    }
    peak = max(run["peak_bytes"] for run in runs)  # the limit holds for the worst run
    result.ratios.append(
        Ratio(
            what=f"peak memory while reading 10 minutes at 720p, {peak / 1e6:.0f} MB",
            against=f"{MAX_PEAK_BYTES / 1e6:.0f} MB",
            value=peak / MAX_PEAK_BYTES,
            at_most=1.0,
        )
    )


def _read_all(path: Path) -> dict[str, float]:
    command = [sys.executable, "-m", "benchmarks.peak_memory", str(path)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    answer: dict[str, float] = json.loads(done.stdout)
    return answer
