"""Export of the base preset to fp32 and fp16: seconds, peak memory, and equality of two exports.

`python -m benchmarks.export FOLDER` runs one export, in a process of its own.
"""

import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from .machine import ROOT
from .measure import Measured
from .peak_memory import resident_bytes
from .result import Ratio, Result

BASE, VARIANTS = "vit-base", ("fp32", "fp16")
MAX_SECONDS, MAX_BYTES = 180, 4e9


def run(rounds: int = 2) -> Result:
    """Export `rounds` times, at least twice."""
    result = Result(name="export", parameters={"preset": BASE, "variants": list(VARIANTS), "rounds": rounds})
    found = []
    for _ in range(max(2, rounds)):
        with tempfile.TemporaryDirectory() as folder:
            command = [sys.executable, "-m", "benchmarks.export", folder]
            done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
            found.append(json.loads(done.stdout.splitlines()[-1]))
    result.entries["export"] = Measured(tuple(x["seconds"] for x in found))
    result.entries["export, peak memory"] = Measured(tuple(x["peak_bytes"] for x in found), unit="B")
    result.check("different bundles out of one checkpoint", len({x["sha256"] for x in found}) - 1, at_most=0)
    seconds, peak = (max(result.entries[name].raw) for name in ("export", "export, peak memory"))
    result.ratios += [
        Ratio(
            what=f"export of {BASE}, {seconds:.0f} s",
            against=f"{MAX_SECONDS} s",
            value=seconds / MAX_SECONDS,
            at_most=1,
        ),
        Ratio(
            what=f"export of {BASE}, {peak / 1e9:.1f} GB", against="4 GB", value=peak / MAX_BYTES, at_most=1
        ),
    ]
    return result


def main() -> None:
    """Export once and print seconds, peak memory and hash as JSON."""
    from runtime import read_bundle

    from .sessions import write_untrained_bundle

    start = time.perf_counter()
    bundle = read_bundle(write_untrained_bundle(BASE, Path(sys.argv[1]), variants=VARIANTS))
    seconds = time.perf_counter() - start
    print(json.dumps({"seconds": seconds, "peak_bytes": resident_bytes("VmHWM"), "sha256": bundle.sha256}))


if __name__ == "__main__":
    main()
