"""Cores are those of the affinity mask and of the quota, whichever is less."""

import os
from pathlib import Path

import pytest

from service.cores import available_cores

MINE = len(os.sched_getaffinity(0))


@pytest.mark.parametrize(
    ("content", "cores"),
    [
        ("max 100000", MINE),
        ("50000 100000", 1),
        ("100000 100000", 1),
        (f"{MINE * 400000} 100000", MINE),
        ("odd", MINE),
    ],
)
def test_a_quota_bounds_the_cores(content: str, cores: int, tmp_path: Path) -> None:
    (tmp_path / "cpu.max").write_text(content)
    assert available_cores(tmp_path / "cpu.max") == cores


def test_without_a_quota_all_are_there(tmp_path: Path) -> None:
    assert available_cores(tmp_path / "none") == MINE
