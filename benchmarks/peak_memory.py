"""python -m benchmarks.peak_memory FILM: read all windows of a film and print peak memory as JSON.

The peak is the kernel's high-water mark of resident memory, interpreter and libraries included. Sampling
could miss a peak between two samples.
"""

import json
import resource
import sys
import time
from pathlib import Path

from media import ClipSpec, read_clips


def resident_bytes(mark: str) -> int:
    """Resident memory of this process: `VmRSS` is that of now, `VmHWM` the peak since it began."""
    status = Path("/proc/self/status")
    if not status.exists():  # other systems tell only the peak
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return peak if sys.platform == "darwin" else peak * 1024
    line = next(line for line in status.read_text().splitlines() if line.startswith(mark))
    return int(line.split()[1]) * 1024


def main() -> None:
    before = resident_bytes("VmRSS")
    start = time.perf_counter()
    windows = sum(
        clip.audio is not None and clip.video is not None for clip in read_clips(sys.argv[1], ClipSpec())
    )
    seconds = time.perf_counter() - start
    peak = resident_bytes("VmHWM")
    print(json.dumps({"before_bytes": before, "peak_bytes": peak, "windows": windows, "seconds": seconds}))


if __name__ == "__main__":
    main()
