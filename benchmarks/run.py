"""python -m benchmarks.run NAME: run one benchmark in this process.

The exit status is 1 if a limit is missed. `python -m benchmarks` starts such a process for each benchmark,
with the threads of numpy and torch pinned by environment variables.
"""

import argparse
import importlib
import logging
import sys

from rich.console import Console

from .machine import about
from .report import print_result
from .result import Result

BENCHMARKS = (
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
    """Run the benchmark called `name`, with `rounds` measurements or its own default number.

    Raises:
        ValueError: there is no such benchmark.
    """
    if name not in BENCHMARKS:
        raise ValueError(f"no benchmark {name!r}; there are {', '.join(BENCHMARKS)}")
    module = importlib.import_module(f"benchmarks.{name}")
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)  # it warns of operators that are not used
    result: Result = module.run(**({} if rounds is None else {"rounds": rounds}))
    return result


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.run")
    parser.add_argument("name", choices=BENCHMARKS)
    parser.add_argument("--rounds", type=int)
    given = parser.parse_args()
    before = about()  # the commit that the code was loaded from
    result = run(given.name, rounds=given.rounds)
    result.write(before)
    print_result(result, Console())
    return 0 if result.is_met else 1


if __name__ == "__main__":
    sys.exit(main())
