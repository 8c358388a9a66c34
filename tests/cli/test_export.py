"""What `zorro export` prints at its end, and files that it cannot use."""

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from cli.bundle_tables import parity_table
from cli.main import app
from runtime import read_bundle
from tests.known_graphs import known_graphs
from tests.parity_tables import assert_is_parity_table

ROOT = Path(__file__).parents[2]


def test_it_ends_with_the_parity_table(checkpoint: Path, bundle: Path, tmp_path: Path) -> None:
    with known_graphs(bundle):
        done = CliRunner().invoke(
            app,
            ["export", str(checkpoint), str(tmp_path / "made" / "7"), "--variant", "fp32"],
            env={"COLUMNS": "80"},
        )
    assert done.exit_code == 0, done.output
    assert f"bundle: {tmp_path / 'made' / '7'}" in done.stdout
    assert_is_parity_table(done.stdout, ("fp32",))


def test_a_shipped_bundle_is_tabled_as_its_manifest_says() -> None:
    bundle = read_bundle(ROOT / "bundles" / "grid-words" / "1")
    parity = bundle.manifest["variants"]["int8-cpu"]["parity"]
    of_audio = [x for part in parity.values() for x in part if x["stream"] == "audio"]
    cells = {str(x.header): list(x.cells) for x in parity_table(bundle).columns}
    row = list(zip(cells["variant"], cells["stream"], strict=True)).index(("int8-cpu", "audio"))
    assert cells["max error"][row] == f"{max(x['max_abs_error'] for x in of_audio):.2g}"
    assert cells["cosine"][row] == f"{min(x['min_cosine'] for x in of_audio):.6f}"
    real = [x["top1_agreement"] for x in parity["real"] if x["stream"] == "audio"]
    assert cells["same top-1"][row] == f"{min(real):.1%}"
    files = (ROOT / "bundles" / "grid-words" / "1" / "int8-cpu").iterdir()
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


@pytest.mark.slow
def test_a_decision_is_kept_when_its_bundle_is_exported_again(
    sigmoid_checkpoint: Path, bundle: Path, tmp_path: Path
) -> None:
    decision = {"known_labels_only": False, "threshold": {"audio": 0.5}}
    (tmp_path / "decision.json").write_text(json.dumps(decision))
    first, again = tmp_path / "made" / "1", tmp_path / "made" / "2"
    with known_graphs(bundle):
        for arguments in (
            [str(sigmoid_checkpoint), str(first), "--decision", str(tmp_path / "decision.json")],
            [str(first), str(again)],
        ):
            done = CliRunner().invoke(app, ["export", *arguments, "--variant", "fp32"])
            assert done.exit_code == 0, done.output
    assert read_bundle(first).manifest["decision"] == read_bundle(again).manifest["decision"] == decision
