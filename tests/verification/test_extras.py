"""Commands on the bundle that tests share, in a process that cannot import what their extra lacks."""

import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
ONLY_EXPORT = ("onnx", "onnxscript")
"""What `train` does not install."""

WITHOUT = """
import sys
for name in {names}:
    sys.modules[name] = None  # from here on, importing it raises ModuleNotFoundError
"""
ZORRO = """
from cli.main import app
app({arguments})
"""


def _python(code: str, *, without: tuple[str, ...]) -> str:
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT.format(names=without) + code],
        cwd=ROOT, capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def collection(film: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A film of each of two labels, in each split."""
    folder = tmp_path_factory.mktemp("collection")
    for split in ("train", "val", "test"):
        for label in "ab":
            (folder / split / label).mkdir(parents=True)
            (folder / split / label / "film.mp4").symlink_to(film)
    return folder


def test_a_report_needs_nothing_of_export(bundle: Path, collection: Path, tmp_path: Path) -> None:
    arguments = ["evaluate", str(bundle), "--data", str(collection), "--report", str(tmp_path / "report")]
    assert "report.md" in _python(ZORRO.format(arguments=arguments), without=ONLY_EXPORT).replace("\n", "")
