"""python -m benchmarks.run NAME: one benchmark in this process. Exit status 1 if a limit is missed.

`python -m benchmarks` starts this, a fresh process per benchmark, with the threads of numpy and torch pinned
beforehand.
"""

import argparse
import importlib
import logging
import sys

from rich.console import Console

from .machine import about
from .report import print_result
from .result import Result

NAMES = (
    "presets",
    "attention",
    "graphs",
    "variants",
    "export",
    "readiness",
    "training",
    "decoding",
    "log_mel",
    "memory",
    "serving",
    "soak",
)


def run(name: str, *, rounds: int | None = None) -> Result:
    """Run the benchmark called `name`; `rounds` instead of its own number of measurements."""
    if name not in NAMES:
        raise ValueError(f"no benchmark {name!r}; there are {', '.join(NAMES)}")
    module = importlib.import_module(f"benchmarks.{name}")
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)  # it tells of operators that nobody asked for
    result: Result = module.run(**({} if rounds is None else {"rounds": rounds}))
    return result


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.run")
    parser.add_argument("name", choices=NAMES)
    parser.add_argument("--rounds", type=int)
    given = parser.parse_args()
    before = about()  # what was committed when the code was loaded
    result = run(given.name, rounds=given.rounds)
    result.write(before)
    print_result(result, Console())
    return 0 if result.is_met else 1


if __name__ == "__main__":
    sys.exit(main())
