"""Runs that are too small to learn much: what their recipes have in common, runs that end before time, and
what they log."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.servers import until
from training.loop import train

NUMBERS = """
num_steps = 2
num_audio = 4
num_video = 4
num_pairs = 2
num_mixed_pairs = 2
num_clips = 4
num_workers = 0
bfloat16 = false
"""
"""Of a run of files apart or of pairs: two steps of a few clips."""
MODEL = """
[model]
patch_size = [16, 16]
tubelet_size = [2, 16, 16]
embed_dim = 32
depth = 1
num_heads = 2
projection_dim = 16
"""
CLIP_SPEC = """
[clip_spec]
num_mel_frames = 64
num_mel_bins = 32
frame_size = 32
"""


def logged(run: Path) -> list[dict[str, Any]]:
    """Lines of a run's log, without the seconds that they took."""
    lines = (run / "metrics.jsonl").read_text().splitlines()
    return [{k: v for k, v in json.loads(line).items() if k != "seconds"} for line in lines]


def train_interrupted(recipe: Path, run: Path, data: Path, *, at_step: int) -> Path:
    """A run that is interrupted at a step and goes on; returns its checkpoint."""

    def die(stage: str, done: int, total: int, figures: object = None) -> None:
        if (stage, done) == ("train", at_step):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(recipe, run, data_dir=data, on_progress=die)
    return train(recipe, run, data_dir=data)


def train_killed(recipe: Path, run: Path, data: Path, *, saved_within_seconds: float) -> None:
    """A run in a process of its own that is killed once it has saved, and goes on in this one."""
    arguments = ["train", str(recipe), "--data", str(data), "--run", str(run)]
    command = [sys.executable, "-m", "cli.main", *arguments]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        until(lambda: (run / "state.pt").exists(), seconds=saved_within_seconds)
    finally:
        process.kill()  # SIGKILL: nothing can be said goodbye to
        process.wait()
    assert not (run / "checkpoint").exists(), "it was killed before its end"
    train(recipe, run, data_dir=data)


def train_ranks(recipe: Path, run: Path, data: Path, num_ranks: int, engine: str) -> list[dict[str, float]]:
    """What several processes log that train one run."""
    command = [sys.executable, "-m", "cli.main", "train", str(recipe), "--data", str(data), "--run", str(run)]
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = str(probe.getsockname()[1])
    common = {
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": port,
        "WORLD_SIZE": str(num_ranks),
        "OMP_NUM_THREADS": "1",
    }
    processes = [
        subprocess.Popen(
            [*command, "--engine", engine],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env=os.environ
            | common
            | {"RANK": str(rank), "LOCAL_RANK": str(rank), "CUDA_VISIBLE_DEVICES": ""},
        )
        for rank in range(num_ranks)
    ]
    try:
        outputs = [process.communicate(timeout=240)[0] for process in processes]
    finally:
        for process in processes:
            process.kill()
    assert [process.returncode for process in processes] == [0] * num_ranks, outputs
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
