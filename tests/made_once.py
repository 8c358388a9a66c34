"""What is slow to make is made once: for all processes of a run of the tests, and for later runs of the same
code."""

import fcntl
import hashlib
import os
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.measured_tests import unmeasured

ROOT = Path(__file__).parents[1]
INPUTS = (
    *("media/**/*.py", "models/**/*.py", "runtime/**/*.py", "export/**/*.py", "constraints.txt"),
    *("tests/conftest.py", "tests/small_models.py", "tests/made_once.py"),
)
"""What the bundles of the tests depend on."""
NUM_KEPT = 4


class MadeOnce:
    """Folders that are made by whoever needs them first; nobody may change them."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._used: dict[Path, str] = {}
        folder.mkdir(parents=True, exist_ok=True)

    def __call__(self, name: str, make: Callable[[Path], object]) -> Path:
        """Return the folder of this name, which `make` fills if it is not there."""
        folder, seal = self._folder / name, self._folder / f"{name}.sha256"
        with (self._folder / f"{name}.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not (folder.is_dir() and seal.exists() and seal.read_text() == _digest(folder.rglob("*"))):
                shutil.rmtree(folder, ignore_errors=True)
                folder.mkdir()
                with unmeasured():
                    make(folder)
                seal.write_text(_digest(folder.rglob("*")))
            self._used[folder] = seal.read_text()
        return folder

    def check(self) -> None:
        """Fail if a test has changed one of the folders."""
        changed = [
            folder.name for folder, digest in self._used.items() if _digest(folder.rglob("*")) != digest
        ]
        assert not changed, f"tests have changed {changed}, which they share; copy before you change"


def _digest(paths: Iterator[Path]) -> str:
    """Digest of the names and contents of these files."""
    digest = hashlib.sha256()
    for path in sorted(paths):
        if path.is_file() and "__pycache__" not in path.parts:
            digest.update(f"{path.name} {path.stat().st_size}\n".encode() + path.read_bytes())
    return digest.hexdigest()


@pytest.fixture(scope="session")
def made_once(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[MadeOnce]:
    """Keep in pytest's cache what depends on the code alone; without the cache, in this run's folder."""
    if (cache := getattr(request.config, "cache", None)) is None:
        base = tmp_path_factory.getbasetemp()
        made = MadeOnce((base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "made")
    else:
        code = _digest(path for pattern in INPUTS for path in ROOT.glob(pattern)) + sys.version
        kept = Path(cache.mkdir("made"))
        made = MadeOnce(kept / hashlib.sha256(code.encode()).hexdigest()[:16])
        for old in sorted(kept.iterdir(), key=lambda path: path.stat().st_mtime)[:-NUM_KEPT]:
            shutil.rmtree(old, ignore_errors=True)
    yield made
    made.check()
