"""The machine and software of a run: processor, cores, load, versions, commit, date."""

import datetime
import importlib.metadata
import os
import platform
import subprocess
from pathlib import Path
from typing import Any

LIBRARIES = (
    "av",
    "decord",
    "librosa",
    "numpy",
    "onnx",
    "onnxruntime",
    "opencv-python-headless",
    "scipy",
    "torch",
)
ROOT = Path(__file__).parents[1]
SHIPPED_BUNDLE = ROOT / "bundles" / "everyday" / "1"
RESULTS_OF_RUNS = (":!benchmarks/results", ":!docs/benchmarks.md")  # what a run itself writes


def about() -> dict[str, Any]:
    """Date, commit, hardware and versions of this run, as JSON types."""
    return {
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "commit": _git("rev-parse", "HEAD"),
        "has_local_changes": bool(_git("status", "--porcelain", "--", ".", *RESULTS_OF_RUNS)),
        "hardware": {
            "cpu": cpu_name(),
            "cores": num_cores(),
            "machine": platform.machine(),
            "system": platform.system(),
            "load_average_1_minute": os.getloadavg()[0],
        },
        "versions": {"python": platform.python_version(), **_versions()},
    }


def cpu_name() -> str:
    """The processor's name, as the kernel gives it."""
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or "unknown"


def num_cores() -> int:
    """Number of cores that this run may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _versions() -> dict[str, str]:
    installed = {}
    for name in LIBRARIES:
        try:
            installed[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return installed


def _git(*words: str) -> str:
    """Output of a git command; empty where there is no git or no repository."""
    try:
        done = subprocess.run(["git", *words], cwd=ROOT, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return ""
    return done.stdout.strip()
