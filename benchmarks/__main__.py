"""python -m benchmarks [NAME ...] [--rounds N]: run benchmarks and write their results.

Writes results/NAME.json, the tables of docs/benchmarks.md and the report of the serving benchmark. Without a
name all benchmarks run. `report` runs none and only rewrites tables and report. The exit status is 1 if a
stated limit is missed.
"""

import argparse
import os
import subprocess
import sys

from .machine import ROOT
from .measure import NUM_THREADS
from .report import read_results, write_tables
from .result import RESULTS_FOLDER
from .run import BENCHMARKS
from .serving.report import write_serving_report

REPORT = "report"
THREAD_VARIABLES = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS")


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__.split("\n\n")[1])
    parser.add_argument(
        "names", nargs="*", metavar="NAME", help=f"{', '.join(BENCHMARKS)} or {REPORT}; default: all"
    )
    parser.add_argument(
        "--rounds", type=int, help="measurements of each side, instead of each benchmark's own number"
    )
    given = parser.parse_args()
    unknown = set(given.names) - {*BENCHMARKS, REPORT}
    if unknown:
        parser.error(
            f"no benchmark {', '.join(sorted(unknown))}; there are {', '.join(BENCHMARKS)} and {REPORT}"
        )
    chosen = [name for name in BENCHMARKS if name in given.names or not given.names]
    failed = [name for name in chosen if not _run(name, given.rounds)]
    results = read_results()
    write_tables(results)
    for serving in (result for result in results if result["name"] == "serving"):
        write_serving_report(serving, RESULTS_FOLDER)
    if failed:
        print(f"missed a limit or broke off: {', '.join(failed)}", file=sys.stderr)
    return 1 if failed else 0


def _run(name: str, rounds: int | None) -> bool:
    """Run one benchmark in a process of its own; returns whether all its limits were met."""
    given = [] if rounds is None else ["--rounds", str(rounds)]
    command = [sys.executable, "-m", "benchmarks.run", name, *given]
    pinned = {variable: str(NUM_THREADS) for variable in THREAD_VARIABLES} | {
        "PYTHONWARNINGS": "ignore",
        "ORT_DISABLE_TELEMETRY": "1",
    }
    return subprocess.run(command, cwd=ROOT, env={**os.environ, **pinned}, check=False).returncode == 0


if __name__ == "__main__":
    sys.exit(main())
