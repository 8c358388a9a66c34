"""The command line: tables, JSON, exit statuses."""

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from cli.main import app

run = CliRunner().invoke


def test_classify_as_table_and_json(bundle: Path, film: Path) -> None:
    table = run(app, ["classify", str(film), "--bundle", str(bundle)])
    assert table.exit_code == 0
    assert "fused" in table.stdout
    answer = json.loads(run(app, ["classify", str(film), "--bundle", str(bundle), "--json", "-m", "audio"]).stdout)
    assert list(answer["whole"]) == ["audio"]


def test_embed_as_table_and_json(bundle: Path, song: Path) -> None:
    assert "16" in run(app, ["embed", str(song), "--bundle", str(bundle)]).stdout
    answer = json.loads(run(app, ["embed", str(song), "--bundle", str(bundle), "--json"]).stdout)
    assert len(answer["whole"]["audio"]["embedding"]) == 16


def test_verify(bundle: Path) -> None:
    assert run(app, ["bundle", "verify", str(bundle)]).exit_code == 0
    report = json.loads(run(app, ["bundle", "verify", str(bundle), "--json"]).stdout)
    assert max(report["max_abs_error"].values()) < 1e-5


@pytest.mark.parametrize(
    ("arguments", "status", "word"),
    [
        (["classify", "gone.mp4"], 1, "error"),
        (["bundle", "verify", "nowhere"], 1, "bundle.json"),
        (["classify"], 2, "Missing argument"),
        (["serve", "--bundles", "nowhere"], 1, "model repository"),
        (["evaluate", "nowhere", "--data", "nowhere"], 1, "neither"),
        (["colour"], 2, "No such command"),
    ],
)
def test_faults_have_their_status(arguments: list[str], status: int, word: str) -> None:
    result = run(app, arguments)
    assert result.exit_code == status
    assert word in " ".join(result.output.split())


def test_options_that_mean_nothing_fail(bundle: Path, song: Path) -> None:
    result = run(app, ["classify", str(song), "--bundle", str(bundle), "--top-k", "0"])
    assert result.exit_code == 1
    assert "at least 1 label" in result.output
