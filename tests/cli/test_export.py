"""`zorro export` shows its progress and nothing else on stderr, and ends with its parity table on stdout."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from cli.bundle_tables import parity_table
from cli.main import app
from runtime import read_bundle
from tests.known_graphs import known_graphs

ROOT = Path(__file__).parents[2]
STAGES = ("graphs", "fp32", "fp16", "self-test")
BAR = re.compile(rf"({'|'.join(STAGES)}) +━+ +(\d+)/(\d+) [-0-9:]+ *")


@pytest.mark.slow
def test_stderr_holds_the_progress_alone(checkpoint: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "cli.main", "export", str(checkpoint), str(tmp_path / "made" / "7")]
    environment = os.environ | {"COLUMNS": "80", "ORT_DISABLE_TELEMETRY": "1"}
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == 0, done.stderr
    bars = [BAR.fullmatch(line) for line in done.stderr.splitlines()]
    assert all(bars), done.stderr
    assert [(bar[1], bar[2] == bar[3]) for bar in bars if bar] == [(stage, True) for stage in STAGES]
    _assert_is_parity_table(done.stdout, ("fp16", "fp32"))


def test_it_ends_with_the_parity_table(checkpoint: Path, bundle: Path, tmp_path: Path) -> None:
    with known_graphs(bundle):
        done = CliRunner().invoke(
            app,
            ["export", str(checkpoint), str(tmp_path / "made" / "7"), "--variant", "fp32"],
            env={"COLUMNS": "80"},
        )
    assert done.exit_code == 0, done.output
    assert f"bundle: {tmp_path / 'made' / '7'}" in done.stdout
    _assert_is_parity_table(done.stdout, ("fp32",))


def _assert_is_parity_table(output: str, variants: tuple[str, ...]) -> None:
    """Its last lines are a row for each stream of each variant, within 80 columns."""
    lines = [line.rstrip() for line in output.splitlines()]
    assert all(len(line) <= 80 for line in lines[1:])
    rows = [line.split() for line in lines[-3 * len(variants) :]]
    assert [row[0] for row in rows[::3]] == list(variants)
    assert [stream for row in rows for stream in ("audio", "video", "fusion") if stream in row] == [
        "audio", "video", "fusion",
    ] * len(variants)  # fmt: skip
    for row in rows:
        error, cosine = row[row.index(next(x for x in row if x in ("audio", "video", "fusion"))) + 1 :][:2]
        assert float(error) < 0.05
        assert float(cosine) > 0.9999


def test_a_default_bundle_is_tabled_as_its_manifest_says() -> None:
    bundle = read_bundle(ROOT / "bundles" / "sights-sounds" / "1")
    parity = bundle.manifest["variants"]["int8-cpu"]["parity"]
    of_audio = [x for part in parity.values() for x in part if x["stream"] == "audio"]
    cells = {str(x.header): list(x.cells) for x in parity_table(bundle).columns}
    row = list(zip(cells["variant"], cells["stream"], strict=True)).index(("int8-cpu", "audio"))
    assert cells["max error"][row] == f"{max(x['max_abs_error'] for x in of_audio):.2g}"
    assert cells["cosine"][row] == f"{min(x['min_cosine'] for x in of_audio):.6f}"
    real = [x["top1_agreement"] for x in parity["real"] if x["stream"] == "audio"]
    assert cells["same top-1"][row] == f"{min(real):.1%}"
    files = (ROOT / "bundles" / "sights-sounds" / "1" / "int8-cpu").iterdir()
    assert cells["size"][row] == f"{sum(path.stat().st_size for path in files) / 1e6:.1f} MB"


@pytest.mark.parametrize(
    ("content", "message"), [("no json", "is not JSON"), ("[1]", "holds list, wanted a JSON object")]
)
def test_metrics_that_are_no_json_object_fail(
    content: str, message: str, checkpoint: Path, tmp_path: Path
) -> None:
    (tmp_path / "scores.json").write_text(content)
    done = CliRunner().invoke(
        app,
        ["export", str(checkpoint), str(tmp_path / "made" / "7"), "--metrics", str(tmp_path / "scores.json")],
    )
    assert done.exit_code == 1
    assert f"scores.json {message}" in done.stderr
    assert not (tmp_path / "made").exists()
